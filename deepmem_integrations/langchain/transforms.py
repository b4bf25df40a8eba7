"""The query transform as a step of a chain."""

from collections.abc import Sequence
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import run_in_executor

from deepmem_integrations.serving import MemoryLike, OnBroken, Untrained
from deepmem_integrations.transforms import QueryTransform


class DeepMemoryQueryTransform(QueryTransform, Runnable[str | Sequence[float], list[float]]):
    """Turn a query into its transformed vector: ``transform | RunnableLambda(vectorstore.similarity_search_by_vector)``.

    A query is a text or a vector. A text is embedded and transformed, and a vector is transformed. A vector that any part of
    this package has transformed before passes unchanged. ``fit`` trains the model that the transform uses. To transform one
    query, call ``invoke``: the method ``transform``, which every Runnable has, takes a stream of queries.

    Args:
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        embeddings: The embedding model for texts; by default the embedding model of the `DeepMemory`.
        untrained: What to do where there is no model yet. By default, a `DeepMemory` and a folder, also one that is not there
            yet, serve queries as they are (``"plain"``), and a missing adapter file is an error (``"error"``).
        on_broken: What to do where the model is damaged or belongs to another embedding model: ``"error"``, or ``"plain"``, which
            serves queries as they are and logs an error once for each state of the model's file.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from deepmem_integrations import QueryAdapter
        >>> transform = DeepMemoryQueryTransform(memory=QueryAdapter(8), embeddings=DeterministicFakeEmbedding(size=8))
        >>> len(transform.invoke("how do I undo a commit?"))
        8
    """

    def __init__(
        self,
        memory: MemoryLike,
        embeddings: Embeddings | None = None,
        *,
        untrained: Untrained | None = None,
        on_broken: OnBroken = "error",
    ) -> None:
        super().__init__(memory, embeddings, untrained=untrained, on_broken=on_broken)

    def invoke(self, input: str | Sequence[float], config: RunnableConfig | None = None, **kwargs: Any) -> list[float]:
        """Transform one query.

        Args:
            input: A text, or a (d,) vector of any length but 0.
            config: The config of the call, as for every Runnable.
            kwargs: No further arguments are known.

        Returns:
            (d,) of length 1; the vector as it is where queries are served plain.

        Raises:
            StoreError: The query is a text, and there is no embedding model.
            NotTrainedError: There is no model yet, and ``untrained="error"``.
            EmbeddingMismatchError: The adapter was trained with another embedding model, or for another dimension.
        """
        return self._call_with_config(self._transformed, input, config, **kwargs)

    async def ainvoke(self, input: str | Sequence[float], config: RunnableConfig | None = None, **kwargs: Any) -> list[float]:
        """Do the same as `invoke` with the embedding model's async methods."""
        return await self._acall_with_config(self._atransformed, input, config, **kwargs)

    def _transformed(self, query: str | Sequence[float]) -> list[float]:
        if isinstance(query, str):
            embedder = self._for_texts("embeddings")
            return self._served.transform(embedder.embed_query(query), embedder.model)
        return self._served.transform(query)

    async def _atransformed(self, query: str | Sequence[float]) -> list[float]:
        if isinstance(query, str) and hasattr(model := self._for_texts("embeddings").model, "aembed_query"):
            return await run_in_executor(None, self._served.transform, await model.aembed_query(query), model)
        return await run_in_executor(None, self._transformed, query)
