"""The query transform as LlamaIndex's own kind of object, which can be trained."""

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle

from deepmem_integrations.llama_index.queries import given, is_transformed, transformed
from deepmem_integrations.serving import MemoryLike
from deepmem_integrations.transforms import QueryTransform


class DeepMemoryQueryTransform(QueryTransform, BaseQueryTransform):
    """A query in, the query with its transformed embedding out: for ``TransformQueryEngine`` and ``TransformRetriever``.

    An embedding that the bundle brings is transformed; else each of its embedding strings (HyDE makes several) is embedded and
    transformed, and their mean taken. What this package has transformed before passes unchanged. LlamaIndex's query transforms
    have no async side, so this one would hold up an event loop while it embeds: in async programs take `DeepMemoryRetriever`.

    Args:
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        embed_model: The embedding model for texts; by default that of the `DeepMemory`.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
    """

    def __init__(self, memory: MemoryLike, embed_model: BaseEmbedding | None = None) -> None:
        super().__init__(memory, embed_model)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """There are none."""

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        if is_transformed(query_bundle):
            return query_bundle
        vectors: Any = given(query_bundle)
        if vectors is None:
            embedder = self._for_texts("embed_model")
            vectors = [embedder.embed_query(text) for text in query_bundle.embedding_strs]
        return transformed(query_bundle, vectors, self._served, None if self._embedder is None else self._embedder.model)
