"""The Deep Lake v4 vector store for LlamaIndex, with Deep Lake v3's ``deep_memory=True``."""

# Searches name their options one by one, so that a misspelt or unknown one is an error and not ignored.
# mypy: disable-error-code="override"

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from numpy.typing import ArrayLike

from deepmem_integrations.corpora.deeplake import DeepLakeCorpus
from deepmem_integrations.deeplake import DeepLakeStore, StoredDocument
from deepmem_integrations.deeplake.tql import Condition
from deepmem_integrations.deeplake.v3_arguments import warn_of_replaced
from deepmem_integrations.errors import StoreError
from deepmem_integrations.llama_index.filters import TRUE, all_of, condition, key, one_of
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.models import beside


class DeepLakeVectorStore(BasePydanticVectorStore):
    """A LlamaIndex vector store in a Deep Lake v4 data set, with Deep Memory.

    ``index.as_retriever(vector_store_kwargs={"deep_memory": True})`` transforms queries with the trained model, as in v3; see
    `DeepMemory.from_llama_index` for training. Similarities are cosine similarities. The query modes are ``default``,
    ``hybrid`` (words by BM25 and vectors, with ``alpha``, ``sparse_top_k`` and ``hybrid_top_k``; the data set needs a text
    index, which ``vector_store.store.create_text_index()`` makes) and ``mmr`` (with ``mmr_threshold``, and ``mmr_prefetch_k`` or
    ``mmr_prefetch_factor``). Data sets of llama-index-vector-stores-deeplake, and those of LangChain, open as they are; of nodes
    that are added, one that is there already is replaced.

    Args:
        dataset_path: A local folder, ``mem://…``, ``s3://…``, ``gcs://…``, ``az://…`` or ``al://…``.
        token: Activeloop token, for ``al://`` paths.
        read_only: Open without the right to write.
        ingestion_batch_size: As the next, an argument of Deep Lake v3 that is ignored, with a warning that says what replaces
            it. They keep their places for programs that pass arguments by position.
        ingestion_num_workers: Ignored.
        overwrite: Start empty: an existing data set is deleted.
        exec_option: Ignored, as the next three.
        verbose: Ignored.
        runtime: Ignored.
        index_params: Ignored.
        creds: Credentials of the cloud storage.
        embed_model: The embedding model of the index, which LlamaIndex does not tell its stores: with it ``deep_memory=True``
            refuses a model that was trained with another one.
        deep_memory_path: The folder for trained models; by default beside a local data set, with ``.deepmemory`` appended.

    Raises:
        StoreError: The data set cannot be opened.
    """

    stores_text: bool = True
    flat_metadata: bool = False
    dataset_path: str
    read_only: bool = False

    _store: DeepLakeStore = PrivateAttr()
    _embed_model: BaseEmbedding | None = PrivateAttr()
    _deep_memory_path: str | os.PathLike[str] | None = PrivateAttr()
    _deep_memory: DeepMemory | None = PrivateAttr(default=None)

    def __init__(
        self,
        dataset_path: str | os.PathLike[str] = "llama_index",
        token: str | None = None,
        read_only: bool = False,
        ingestion_batch_size: int | None = None,
        ingestion_num_workers: int | None = None,
        overwrite: bool = False,
        exec_option: str | None = None,
        verbose: bool | None = None,
        runtime: Mapping[str, Any] | None = None,
        index_params: Mapping[str, Any] | None = None,
        *,
        creds: Mapping[str, str] | None = None,
        embed_model: BaseEmbedding | None = None,
        deep_memory_path: str | os.PathLike[str] | None = None,
    ) -> None:
        if embed_model is not None and not isinstance(embed_model, BaseEmbedding):
            raise StoreError(f"embed_model is a LlamaIndex embedding model; got {type(embed_model).__name__}.")
        warn_of_replaced(
            {
                "ingestion_batch_size": ingestion_batch_size,
                "ingestion_num_workers": ingestion_num_workers,
                "exec_option": exec_option,
                "verbose": verbose,
                "runtime": runtime,
                "index_params": index_params,
            }
        )
        super().__init__(dataset_path=os.fspath(dataset_path), read_only=read_only)  # type: ignore[call-arg]
        self._store = DeepLakeStore(dataset_path, read_only=read_only, overwrite=overwrite, token=token, creds=creds)
        self._embed_model = embed_model
        self._deep_memory_path = deep_memory_path

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name of the class."""
        return "DeepLakeVectorStore"

    @property
    def store(self) -> DeepLakeStore:
        """The data set with what it can do beyond LlamaIndex: ``create_text_index()``, ``query(tql)``, ``refresh()``."""
        return self._store

    @property
    def client(self) -> Any:
        """The Deep Lake data set itself; None before the first node."""
        return self._store.dataset

    @property
    def vectorstore(self) -> "DeepLakeVectorStore":
        """The store itself: v3 spelled ``vector_store.vectorstore.deep_memory``."""
        return self

    @property
    def deep_memory(self) -> DeepMemory:
        """Train, evaluate and choose the models of this store.

        Without ``embed_model``, training and evaluating take ``embedding_function=`` as in v3; `DeepMemory.from_llama_index`
        knows the index's model.

        Raises:
            StoreError: No place for the models: no local data set and no ``deep_memory_path``.
        """
        if self._deep_memory is None:
            self._deep_memory = DeepMemory(self.corpus(), self._embed_model or _no_model, self.deep_memory_path)
        return self._deep_memory

    @property
    def deep_memory_path(self) -> str | os.PathLike[str]:
        """The folder for trained models.

        Raises:
            StoreError: No local data set, and none was given.
        """
        return beside(self._store.path) if self._deep_memory_path is None else self._deep_memory_path

    def corpus(self) -> DeepLakeCorpus:
        """All nodes, for training."""
        return DeepLakeCorpus(self._store, _node)

    # ---- writing and reading -----------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Add nodes with their embeddings in one commit, replacing those whose ids are there already.

        Args:
            nodes: The nodes; LlamaIndex's indices embed them first.

        Returns:
            Their ids.

        Raises:
            StoreError: Metadata with NaN or infinity, or a read-only store. Nothing was written.
        """
        self._store.add(
            [node.node_id for node in nodes],
            [node.get_embedding() for node in nodes],
            [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes],
            [_metadata(node) for node in nodes],
        )
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode]) -> list[str]:
        """`add` off the event loop."""
        return await asyncio.to_thread(self.add, nodes)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes with these ids, in the order asked for, or that pass the filters, or both; all without either."""
        if node_ids is not None and filters is None:
            return [_node(found) for found in self._store.get(node_ids)]
        return [_node(found) for found in self._store.find(self._condition(node_ids, filters))]

    async def aget_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """`get_nodes` off the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def delete(self, ref_doc_id: str) -> None:
        """Delete all nodes of a document."""
        self._delete(self._of_documents([ref_doc_id]))

    async def adelete(self, ref_doc_id: str) -> None:
        """`delete` off the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id)

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> None:
        """Delete the nodes with these ids, or that pass the filters, or both.

        Raises:
            StoreError: Neither is given: `clear` deletes all.
        """
        if node_ids is None and (filters is None or not filters.filters):
            raise StoreError("Pass node_ids, or filters that are not empty; clear() deletes all nodes.")
        self._delete(self._condition(node_ids, filters))

    async def adelete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> None:
        """`delete_nodes` off the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters)

    def clear(self) -> None:
        """Delete the data set; the next `add` creates a new one. Trained models stay."""
        self._store.clear()

    async def aclear(self) -> None:
        """`clear` off the event loop."""
        await asyncio.to_thread(self.clear)

    # ---- searching ---------------------------------------------------------------------------------------------

    def query(
        self,
        query: VectorStoreQuery,
        *,
        deep_memory: bool = False,
        mmr_threshold: float | None = None,
        mmr_prefetch_k: int | None = None,
        mmr_prefetch_factor: float | None = None,
    ) -> VectorStoreQueryResult:
        """Search; an index passes ``vector_store_kwargs`` on as these options.

        Args:
            query: LlamaIndex's query, in one of the modes that the class names.
            deep_memory: Transform the query with the trained model, unless that has happened already.
            mmr_threshold: From 0 (unlike each other) to 1 (near the query); 0.5 by default.
            mmr_prefetch_k: Out of how many nodes MMR chooses.
            mmr_prefetch_factor: The same, as a multiple of ``similarity_top_k``; 4 by default.

        Raises:
            ModelNotFoundError: ``deep_memory=True`` and no model was trained.
            StoreError: A mode or an option that there is not, or no query vector.
        """
        if query.output_fields is not None or query.embedding_field is not None:
            raise StoreError(
                "A Deep Lake data set has one embedding, and whole nodes come back: leave output_fields and embedding_field out."
            )
        if query.query_embedding is None:
            raise StoreError("A query needs an embedding: Deep Lake searches by vector.")
        vector: Sequence[float] = query.query_embedding
        if deep_memory:
            model = None if self._embed_model is None else self.deep_memory.embedder
            vector = self.deep_memory.served.transform(vector, model)
        # An index over a store that keeps texts passes an empty list where it means no restriction.
        filter = all_of([self._condition(query.node_ids or None, query.filters), self._of_documents(query.doc_ids or None)])
        k = query.similarity_top_k
        match query.mode:
            case VectorStoreQueryMode.DEFAULT:
                return _result(self._store.search(vector, k, filter=filter))
            case VectorStoreQueryMode.HYBRID:
                k, fetch_k = query.hybrid_top_k or k, query.sparse_top_k or 50
                alpha = 0.5 if query.alpha is None else query.alpha
                text = query.query_str or ""
                return _result(self._store.hybrid_search(text, vector, k, fetch_k=fetch_k, filter=filter, alpha=alpha))
            case VectorStoreQueryMode.MMR:
                if mmr_prefetch_k is not None and mmr_prefetch_factor is not None:
                    raise StoreError("mmr_prefetch_k and mmr_prefetch_factor say the same thing: pass one.")
                fetch_k = mmr_prefetch_k or int(k * (mmr_prefetch_factor or 4))
                found = self._store.search(vector, max(k, fetch_k), filter=filter, with_vectors=True)
                threshold = query.mmr_threshold if query.mmr_threshold is not None else mmr_threshold
                return _diverse(found, vector, k, threshold)
        raise StoreError(
            f"A DeepLakeVectorStore has the query modes default, hybrid and mmr, not {query.mode.value!r}. "
            "For words alone, take hybrid with alpha=0."
        )

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """`query` off the event loop."""
        return await asyncio.to_thread(self.query, query, **options)

    # ---- inside ------------------------------------------------------------------------------------------------

    def _condition(self, node_ids: Sequence[str] | None, filters: MetadataFilters | None) -> Condition:
        named = TRUE if node_ids is None else one_of(self._store.layout.id, node_ids)
        return all_of([named, condition(filters, self._store)])

    def _of_documents(self, ref_doc_ids: Sequence[str] | None) -> Condition:
        return TRUE if ref_doc_ids is None else one_of(key("ref_doc_id", self._store), ref_doc_ids)

    def _delete(self, filter: Condition) -> None:
        self._store.delete([found.id for found in self._store.find(filter)])


def _no_model(texts: list[str]) -> ArrayLike:
    raise StoreError(
        "A LlamaIndex vector store does not know its embedding model: pass embedding_function=…, make the store with "
        "DeepLakeVectorStore(…, embed_model=…), or train with DeepMemory.from_llama_index(index)."
    )


def _metadata(node: BaseNode) -> dict[str, Any]:
    """A node's metadata and everything else of it but text and embedding, as LlamaIndex's stores write it."""
    try:
        # LlamaIndex writes NaN as null, without a word; dates become texts.
        json.dumps(node.metadata, allow_nan=False, default=str)
    except ValueError as error:
        raise StoreError(f"The metadata of node {node.node_id!r} cannot be stored: {error}.") from error
    return node_to_metadata_dict(node, remove_text=True)


def _node(found: StoredDocument) -> BaseNode:
    """A node as it was added; what another framework added becomes a TextNode."""
    if "_node_content" in found.metadata:
        return metadata_dict_to_node(found.metadata, text=found.text)
    return TextNode(id_=found.id, text=found.text, metadata=found.metadata)


def _result(found: Sequence[StoredDocument]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[_node(document) for document in found],
        similarities=[document.score or 0.0 for document in found],
        ids=[document.id for document in found],
    )


def _diverse(found: Sequence[StoredDocument], vector: Sequence[float], k: int, threshold: float | None) -> VectorStoreQueryResult:
    """The k of them that are near the query and unlike each other; the similarities are MMR's, as in LlamaIndex's stores."""
    if threshold is not None and not 0 <= threshold <= 1:
        raise StoreError(f"mmr_threshold lies between 0 and 1; got {threshold!r}.")
    vectors: Any = [document.vector for document in found]
    scores, rows = get_top_k_mmr_embeddings(
        np.asarray(vector),  # type: ignore[arg-type]
        vectors,
        similarity_top_k=k,
        embedding_ids=list(range(len(found))),
        mmr_threshold=threshold,
    )
    chosen = [found[row] for row in rows]
    return VectorStoreQueryResult(
        nodes=[_node(document) for document in chosen],
        similarities=[float(score) for score in scores],
        ids=[document.id for document in chosen],
    )
