"""The query transform as one of LlamaIndex's query transforms."""

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle

from deepmem_integrations.llama_index.queries import given, is_transformed, transformed
from deepmem_integrations.serving import MemoryLike, OnBroken, Untrained
from deepmem_integrations.transforms import QueryTransform


class DeepMemoryQueryTransform(QueryTransform, BaseQueryTransform):
    """Give a query its transformed vector, for ``TransformQueryEngine`` and ``TransformRetriever``.

    If the query has an embedding, the embedding is transformed. Otherwise, each of its embedding strings (HyDE makes several)
    is embedded and transformed, and the mean of the vectors is taken. A vector that any part of this package has transformed
    before passes unchanged. ``fit`` trains the model that the transform uses. LlamaIndex's query transforms have no async
    methods, so this one would block an event loop while it embeds: use `DeepMemoryRetriever` in async programs.

    Args:
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        embed_model: The embedding model for texts; by default the embedding model of the `DeepMemory`.
        untrained: What to do where there is no model yet. By default, a `DeepMemory` and a folder, also one that is not there
            yet, serve queries as they are (``"plain"``), and a missing adapter file is an error (``"error"``).
        on_broken: What to do where the model is damaged or belongs to another embedding model: ``"error"``, or ``"plain"``, which
            serves queries as they are and logs an error once for each state of the model's file.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.

    Example:
        >>> from llama_index.core import MockEmbedding
        >>> from deepmem_integrations import QueryAdapter
        >>> transform = DeepMemoryQueryTransform(memory=QueryAdapter(8), embed_model=MockEmbedding(embed_dim=8))
        >>> len(transform("how do I undo a commit?").embedding)
        8
    """

    def __init__(
        self,
        memory: MemoryLike,
        embed_model: BaseEmbedding | None = None,
        *,
        untrained: Untrained | None = None,
        on_broken: OnBroken = "error",
    ) -> None:
        super().__init__(memory, embed_model, untrained=untrained, on_broken=on_broken)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Do nothing, because the transform has no prompts."""

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        if is_transformed(query_bundle):
            return query_bundle
        vectors: Any = given(query_bundle)
        if vectors is None:
            embedder = self._for_texts("embed_model")
            vectors = [embedder.embed_query(text) for text in query_bundle.embedding_strs]
        return transformed(query_bundle, vectors, self._served, None if self._embedder is None else self._embedder.model)
