"""The retriever for LlamaIndex: any vector index or vector store, searched with transformed queries."""

import asyncio
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding, mean_agg
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryMode

from deepmem_integrations.corpora.llama_index_stores import check_lengths
from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import StoreError
from deepmem_integrations.llama_index.queries import given, is_transformed, transformed
from deepmem_integrations.serving import HasModels, MemoryLike, ServedAdapter


class DeepMemoryRetriever(BaseRetriever):
    """Retrieve with Deep Memory from any vector index or vector store that searches by vector. The index is never changed.

    The retriever embeds the query with the index's own embedding model, transforms the query vector, and searches the index by
    vector. A model that is put in use later serves the next query. Filters, and the query modes that search by vector, keep
    working. If a query has several embedding strings, the vector of each is transformed, and the mean of the vectors is taken.

    Args:
        source: A ``VectorStoreIndex``, a ``VectorIndexRetriever`` (its settings are kept), or a vector store that stores texts.
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        deep_memory: False returns plain results, as the index's own retriever would. The attribute may be changed at any time.
        **options: Options of ``index.as_retriever``, for an index or a store: ``similarity_top_k``, ``filters``,
            ``vector_store_query_mode``, ``node_ids``, ``embed_model``, … A bare store has no embedding model; by default the
            retriever uses the one of the `DeepMemory`, or else LlamaIndex's ``Settings.embed_model``.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
        StoreError: ``source`` is something else (a BM25 retriever searches without vectors), an option is unknown, or options
            are given for a retriever.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> from deepmem_integrations import QueryAdapter
        >>> index = VectorStoreIndex([TextNode(id_="doc-1", text="Run git revert.")], embed_model=MockEmbedding(embed_dim=8))
        >>> retriever = DeepMemoryRetriever(index, memory=QueryAdapter(8), similarity_top_k=1)
        >>> [node.node_id for node in retriever.retrieve("undo a commit")]
        ['doc-1']
    """

    def __init__(
        self,
        source: VectorStoreIndex | VectorIndexRetriever | BasePydanticVectorStore,
        memory: MemoryLike,
        *,
        deep_memory: bool = True,
        **options: Any,
    ) -> None:
        self._served = ServedAdapter(memory)
        self._retriever = _vector_retriever(source, memory, options)
        self._lengths_checked = False
        self.deep_memory = deep_memory
        super().__init__(
            callback_manager=self._retriever.callback_manager,
            object_map=self._retriever.object_map,
            verbose=self._retriever._verbose,
        )

    @property
    def similarity_top_k(self) -> int:
        """How many nodes to return. The number can be set, as on LlamaIndex's own retriever."""
        return self._retriever.similarity_top_k

    @similarity_top_k.setter
    def similarity_top_k(self, similarity_top_k: int) -> None:
        self._retriever.similarity_top_k = similarity_top_k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._embeds(query_bundle):
            vectors = given(query_bundle)
            if vectors is None:
                model = self._embed_model
                vectors = [model.get_query_embedding(text) for text in query_bundle.embedding_strs]
            query_bundle = self._with_embedding(query_bundle, vectors)
        # The bundle is copied, because LlamaIndex's own retriever writes the embedding into the bundle that it gets.
        return self._retriever._retrieve(replace(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._embeds(query_bundle):
            vectors = given(query_bundle)
            if vectors is None:
                embed = self._embed_model.aget_query_embedding
                vectors = await asyncio.gather(*(embed(text) for text in query_bundle.embedding_strs))
            # The first query embeds a few texts to check the embedding model, and a model that was put in use is read from disk.
            query_bundle = await asyncio.to_thread(self._with_embedding, query_bundle, vectors)
        return await self._retriever._aretrieve(replace(query_bundle))

    @property
    def _embed_model(self) -> BaseEmbedding:
        model: BaseEmbedding = untransformed(self._retriever._embed_model)
        return model

    def _embeds(self, query_bundle: QueryBundle) -> bool:
        """Tell whether this retriever has to embed the query in place of the wrapped retriever."""
        if is_transformed(query_bundle):
            return False
        store, mode = self._retriever._vector_store, self._retriever._vector_store_query_mode
        by_vector = store.is_embedding_query and mode not in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE)
        if not self.deep_memory:
            # Results are plain only if the query is embedded without the Deep Memory wrapper of the embedding model.
            return by_vector and query_bundle.embedding is None and self._embed_model is not self._retriever._embed_model
        if not by_vector:
            raise StoreError(
                f"The query mode {mode.value!r} of {type(store).__name__} searches without a query vector: there is nothing to "
                "transform. Use the default or the hybrid mode, or DeepMemoryRetriever(…, deep_memory=False)."
            )
        return True

    def _with_embedding(self, query_bundle: QueryBundle, vectors: Sequence[Sequence[float]]) -> QueryBundle:
        if not self.deep_memory:
            return replace(query_bundle, embedding=mean_agg([list(vector) for vector in vectors]))
        if not self._lengths_checked:
            check_lengths(self._retriever._index)
            self._lengths_checked = True
        return transformed(query_bundle, vectors, self._served, self._embed_model)


def _vector_retriever(source: Any, memory: MemoryLike, options: dict[str, Any]) -> VectorIndexRetriever:
    if isinstance(source, VectorIndexRetriever) and _defines_retrieve(source) is VectorIndexRetriever:
        if options:
            raise StoreError(
                f"A retriever brings its own settings: set {', '.join(options)} on the retriever, or pass its index instead."
            )
        return source
    if isinstance(source, BasePydanticVectorStore):
        if not source.stores_text:
            raise StoreError(
                f"A {type(source).__name__} keeps vectors without texts: pass the VectorStoreIndex over it, which has the texts."
            )
        model = options.pop("embed_model", None)
        if model is None and isinstance(memory, HasModels) and isinstance(memory.embedder.model, BaseEmbedding):
            model = memory.embedder.model
        source = VectorStoreIndex.from_vector_store(source, embed_model=model)
    if isinstance(source, VectorStoreIndex):
        # The index passes the last two arguments itself, and also its own node_ids, which are replaced below.
        given_by_index = {"self", "index", "kwargs", "callback_manager", "object_map"}
        known = {*inspect.signature(VectorIndexRetriever.__init__).parameters, "vector_store_kwargs"} - given_by_index
        if unknown := options.keys() - known:
            raise StoreError(f"Unknown options: {', '.join(sorted(unknown))}. The options are: {', '.join(sorted(known))}.")
        node_ids = options.pop("node_ids", None)
        retriever = source.as_retriever(**options)
        if isinstance(retriever, VectorIndexRetriever):
            if node_ids is not None:
                retriever._node_ids = node_ids
            return retriever
    raise StoreError(
        f"{type(source).__name__} does not search by query vector. Pass a VectorStoreIndex, its retriever, or a vector store."
    )


def _defines_retrieve(retriever: VectorIndexRetriever) -> type:
    """Return the class that defines the retriever's ``_retrieve``.

    The methods themselves cannot be compared, because LlamaIndex's instrumentation wraps them.
    """
    return next(base for base in type(retriever).__mro__ if "_retrieve" in vars(base))
