"""An embedding model whose queries are transformed: Deep Memory inside any vector index, with every search of the index."""

import asyncio
from collections.abc import Callable
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import PrivateAttr, SerializeAsAny

from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import EmbeddingError
from deepmem_integrations.llama_index.queries import mean_of_transformed
from deepmem_integrations.serving import MemoryLike, OnBroken, ServedAdapter, TransformedVector, Untrained

_NO_CACHE = (
    "A cache finds a vector by its text alone, so it would return the query vectors of an earlier Deep Memory model. "
    "Set embeddings_cache on the embedding model itself, whose vectors do not change."
)


_OF_THE_MODEL = {"callback_manager", "embed_batch_size", "num_workers", "rate_limiter"}
"""The attributes that are set on the embedding model inside when they are set on the wrapper."""


class DeepMemoryEmbedding(BaseEmbedding):
    """Embed queries with Deep Memory, and documents as before.

    Give this object to an index, a pipeline or ``Settings.embed_model`` in place of the embedding model. All searches of the
    index then use transformed queries. A model that is put in use later serves the next query. Training and
    `DeepMemoryRetriever` use the embedding model inside, so that no query is transformed twice. The callbacks, batches and
    limits are those of the embedding model inside: when they are set on this object, they are set on that model.

    Args:
        base: The embedding model. A model that is wrapped already is unwrapped first.
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        embeddings_cache: Must be None. A cache can be set on ``base`` instead.
        untrained: What to do where there is no model yet. By default, a `DeepMemory` and a folder, also one that is not there
            yet, serve queries as they are (``"plain"``), and a missing adapter file is an error (``"error"``).
        on_broken: What to do where the model is damaged or belongs to another embedding model: ``"error"``, or ``"plain"``, which
            serves queries as they are and logs an error once for each state of the model's file.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
        EmbeddingError: ``base`` is no LlamaIndex embedding model, ``base`` is another wrapper that holds a
            `DeepMemoryEmbedding` inside, or an ``embeddings_cache`` is given.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> from deepmem_integrations import QueryAdapter
        >>> embed_model = DeepMemoryEmbedding(MockEmbedding(embed_dim=8), memory=QueryAdapter(8))
        >>> index = VectorStoreIndex([TextNode(id_="doc-1", text="Run git revert.")], embed_model=embed_model)
        >>> [node.node_id for node in index.as_retriever().retrieve("undo a commit")]
        ['doc-1']
    """

    base: SerializeAsAny[BaseEmbedding]
    _served: ServedAdapter = PrivateAttr()

    def __init__(
        self,
        base: BaseEmbedding,
        memory: MemoryLike,
        *,
        embeddings_cache: None = None,
        untrained: Untrained | None = None,
        on_broken: OnBroken = "error",
    ) -> None:
        base = untransformed(base)
        if not isinstance(base, BaseEmbedding):
            raise EmbeddingError(f"DeepMemoryEmbedding wraps a LlamaIndex embedding model; got {type(base).__name__}.")
        if embeddings_cache is not None:
            raise EmbeddingError(_NO_CACHE)
        kept = {name: getattr(base, name) for name in ("model_name", *_OF_THE_MODEL) if hasattr(base, name)}
        super().__init__(base=base, **kept)  # type: ignore[call-arg]
        self._served = ServedAdapter(memory, untrained=untrained, on_broken=on_broken)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes for the class."""
        return "DeepMemoryEmbedding"

    @property
    def untransformed(self) -> BaseEmbedding:
        """The embedding model inside, whose queries are not transformed."""
        return self.base

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the embedding model inside and its options, which are the cache key of an ``IngestionPipeline``.

        The memory is no part of the key, because the vectors of documents do not depend on it.
        """
        data: dict[str, Any] = super().to_dict(**kwargs)
        data["base"].pop("api_key", None)  # LlamaIndex keeps credentials out of its reports, and so does this wrapper
        return data

    def __setattr__(self, name: str, value: Any) -> None:
        """Set callbacks, batches and limits on the embedding model inside, too, and refuse a cache."""
        if name == "embeddings_cache" and value is not None:
            raise EmbeddingError(_NO_CACHE)
        super().__setattr__(name, value)
        if name in _OF_THE_MODEL:
            setattr(self.base, name, value)

    # ---- queries -----------------------------------------------------------------------------------------------

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a query and transform its vector.

        Returns:
            (d,) of length 1; the embedding model's own vector where queries are served plain.

        Raises:
            NotTrainedError: There is no model yet, and ``untrained="error"``.
            EmbeddingMismatchError: The adapter was trained with another embedding model.
        """
        return self._served.transform(self.base.get_query_embedding(query), self.base)

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Do the same as `get_query_embedding` with the embedding model's async methods."""
        vector = await self.base.aget_query_embedding(query)
        return await asyncio.to_thread(self._served.transform, vector, self.base)

    def get_agg_embedding_from_queries(self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None) -> Embedding:
        """Embed several texts of one query and transform their vectors.

        Returns:
            (d,), the mean of the transformed vectors, of length 1; or the vector that ``agg_fn`` makes of their list.
        """
        vectors = [self.base.get_query_embedding(query) for query in queries]
        return self._aggregated(vectors, agg_fn)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """Do the same as `get_agg_embedding_from_queries` with the embedding model's async methods."""
        vectors = await asyncio.gather(*(self.base.aget_query_embedding(query) for query in queries))
        return await asyncio.to_thread(self._aggregated, vectors, agg_fn)

    def _aggregated(self, vectors: list[Embedding], agg_fn: Callable[..., Embedding] | None) -> Embedding:
        if agg_fn is None:
            return mean_of_transformed(vectors, self._served, self.base)
        # The vector is marked as transformed, whatever the function made, because its parts are transformed.
        return TransformedVector(agg_fn([self._served.transform(vector, self.base) for vector in vectors]))

    def _get_query_embedding(self, query: str) -> Embedding:
        return self.get_query_embedding(query)

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await self.aget_query_embedding(query)

    # ---- documents ---------------------------------------------------------------------------------------------

    def get_text_embedding(self, text: str) -> Embedding:
        """Embed a document. Nothing is transformed."""
        return self.base.get_text_embedding(text)

    async def aget_text_embedding(self, text: str) -> Embedding:
        """Do the same as `get_text_embedding` with the embedding model's async methods."""
        return await self.base.aget_text_embedding(text)

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> list[Embedding]:
        """Embed documents in the batches of the embedding model. Nothing is transformed."""
        return self.base.get_text_embedding_batch(texts, show_progress=show_progress, **kwargs)

    async def aget_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> list[Embedding]:
        """Do the same as `get_text_embedding_batch` with the embedding model's async methods."""
        return await self.base.aget_text_embedding_batch(texts, show_progress=show_progress, **kwargs)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self.get_text_embedding(text)

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await self.aget_text_embedding(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self.get_text_embedding_batch(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self.aget_text_embedding_batch(texts)
