"""The retriever to swap in: any LlamaIndex vector index or vector store, searched with transformed queries."""

import asyncio
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryMode

from deepmem_integrations.errors import StoreError
from deepmem_integrations.memory import MemoryLike, ServedAdapter


@dataclass
class TransformedQueryBundle(QueryBundle):
    """A query whose embedding has been transformed: nothing of ours transforms it again."""


class DeepMemoryRetriever(BaseRetriever):
    """Retrieve with Deep Memory; the index, its filters and its query modes stay as they are.

    A query is embedded with the embedding model of the wrapped retriever and transformed. Of a query with several embedding
    strings each is transformed, then their mean is taken. A model that is put in use meanwhile serves the next query.

    Args:
        source: A ``VectorStoreIndex``, a ``VectorIndexRetriever`` (its settings are kept), or a vector store that stores texts.
        memory: A `DeepMemory`, a `QueryAdapter`, or the path of an adapter file.
        deep_memory: False gives plain results from the same object; may be changed at any time.
        **options: For an index or a store, what ``index.as_retriever`` takes: ``similarity_top_k``, ``filters``,
            ``vector_store_query_mode``, ``embed_model``, …

    Raises:
        StoreError: ``source`` is something else (a BM25 retriever searches without vectors), or options come with a retriever.
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
    """

    def __init__(
        self,
        source: VectorStoreIndex | VectorIndexRetriever | BasePydanticVectorStore,
        memory: MemoryLike,
        *,
        deep_memory: bool = True,
        **options: Any,
    ) -> None:
        """Wrap the retriever, or make one."""
        self._retriever = _vector_retriever(source, options)
        self._served = ServedAdapter(memory)
        self.deep_memory = deep_memory
        super().__init__(callback_manager=self._retriever.callback_manager, object_map=self._retriever.object_map)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._applies(query_bundle):
            vectors = _given(query_bundle)
            if vectors is None:
                vectors = [self._embed_model.get_query_embedding(text) for text in query_bundle.embedding_strs]
            query_bundle = self._transformed(query_bundle, vectors)
        # A copy: LlamaIndex's own retriever writes the embedding into the bundle that it is given.
        return self._retriever._retrieve(replace(query_bundle))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._applies(query_bundle):
            vectors = _given(query_bundle)
            if vectors is None:
                embed = self._embed_model.aget_query_embedding
                vectors = await asyncio.gather(*(embed(text) for text in query_bundle.embedding_strs))
            # The first query embeds a few texts to check the embedding model, and a new model is read from disk.
            query_bundle = await asyncio.to_thread(self._transformed, query_bundle, vectors)
        return await self._retriever._aretrieve(replace(query_bundle))

    @property
    def _embed_model(self) -> BaseEmbedding:
        return self._retriever._embed_model

    def _applies(self, query_bundle: QueryBundle) -> bool:
        if not self.deep_memory or isinstance(query_bundle, TransformedQueryBundle):
            return False
        store, mode = self._retriever._vector_store, self._retriever._vector_store_query_mode
        if not store.is_embedding_query or mode in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE):
            raise StoreError(
                f"The query mode {mode.value!r} of {type(store).__name__} searches without a query vector: there is nothing to "
                "transform. Use the default or the hybrid mode, or DeepMemoryRetriever(…, deep_memory=False)."
            )
        return True

    def _transformed(self, query_bundle: QueryBundle, vectors: Sequence[Sequence[float]]) -> TransformedQueryBundle:
        adapter = self._served.adapter
        self._served.check(adapter, self._embed_model)
        mean = adapter.transform(vectors).mean(axis=0)
        mean /= np.linalg.norm(mean)
        return TransformedQueryBundle(
            query_bundle.query_str,
            image_path=query_bundle.image_path,
            custom_embedding_strs=query_bundle.custom_embedding_strs,
            embedding=[float(value) for value in mean],
        )


def _given(query_bundle: QueryBundle) -> list[list[float]] | None:
    """The embedding that the caller put into the bundle, if any."""
    return None if query_bundle.embedding is None else [query_bundle.embedding]


def _vector_retriever(source: Any, options: dict[str, Any]) -> VectorIndexRetriever:
    if isinstance(source, VectorIndexRetriever):
        if options:
            raise StoreError(f"A retriever brings its own settings: set {', '.join(options)} on it, or pass its index instead.")
        return source
    if isinstance(source, BasePydanticVectorStore):
        source = VectorStoreIndex.from_vector_store(source, embed_model=options.pop("embed_model", None))
    if isinstance(source, VectorStoreIndex):
        known = {*inspect.signature(VectorIndexRetriever.__init__).parameters, "vector_store_kwargs"} - {
            "self",
            "index",
            "kwargs",
        }
        if unknown := options.keys() - known:
            raise StoreError(f"Unknown options: {', '.join(sorted(unknown))}. There are: {', '.join(sorted(known))}.")
        retriever = source.as_retriever(**options)
        if isinstance(retriever, VectorIndexRetriever):
            return retriever
    raise StoreError(
        f"{type(source).__name__} does not search by query vector. Pass a VectorStoreIndex, its retriever, or a vector store."
    )
