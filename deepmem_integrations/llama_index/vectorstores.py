"""The Deep Lake v4 vector store for LlamaIndex, with Deep Lake v3's ``deep_memory=True``."""

# The searches name their options one by one, so that a misspelt or unknown option is an error and is not ignored.
# mypy: disable-error-code="override"

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import BaseModel, PrivateAttr
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode, ImageNode, IndexNode, MetadataMode, TextNode
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
from deepmem_integrations.deeplake.metadata import find_fault
from deepmem_integrations.deeplake.tql import Condition
from deepmem_integrations.deeplake.v3_arguments import check_search, warn_of_replaced
from deepmem_integrations.errors import StoreError
from deepmem_integrations.llama_index.filters import TRUE, all_of, condition, key, one_of
from deepmem_integrations.llama_index.queries import OnlyThese
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.models import beside, check_outside

_KNOWN_TO_INDEX = ("ImageNode", "ImageDocument", "IndexNode")
"""The kinds of nodes that an index keeps itself even over a store that keeps texts."""


class DeepLakeVectorStore(BasePydanticVectorStore):
    """A LlamaIndex vector store in a Deep Lake v4 data set, with Deep Memory.

    Train with `DeepMemory.from_llama_index`, then use ``index.as_retriever(vector_store_kwargs={"deep_memory": True})``, which
    transforms queries with the trained model, as in v3. Similarities are cosine similarities. The query modes are:

    - ``default``, which searches by vector;
    - ``hybrid``, which searches by vector and by words (BM25), with ``alpha``, ``sparse_top_k`` and ``hybrid_top_k``. The data
      set needs a text index, which ``vector_store.store.create_text_index()`` makes;
    - ``mmr``, with ``mmr_threshold``, and ``mmr_prefetch_k`` or ``mmr_prefetch_factor``.

    The data sets of llama-index-vector-stores-deeplake and of LangChain open as they are. A node that is added replaces a node
    with the same id.

    Over a store that keeps texts, an index passes the ids of its ``ImageNode`` and ``IndexNode`` objects to every search as
    ``node_ids``. Ids that name nothing but such nodes therefore restrict no search; ids of text nodes do. To find images alone,
    use filters, or a `DeepMemoryRetriever` with ``node_ids``.

    Args:
        dataset_path: A local folder, ``mem://…``, ``s3://…``, ``gcs://…``, ``az://…`` or ``al://…``.
        token: The Activeloop token for an ``al://`` path.
        read_only: Open the data set without the right to write.
        ingestion_batch_size: Ignored, as are ``ingestion_num_workers`` and the four arguments from ``exec_option`` to
            ``index_params``. Deep Lake v3 had these arguments; they keep their places for programs that pass arguments by
            position. A warning says what replaces them.
        ingestion_num_workers: Ignored: see ``ingestion_batch_size``.
        overwrite: Start with an empty data set. An existing data set is deleted.
        exec_option: Ignored: see ``ingestion_batch_size``.
        verbose: Ignored: see ``ingestion_batch_size``.
        runtime: Ignored: see ``ingestion_batch_size``.
        index_params: Ignored: see ``ingestion_batch_size``.
        creds: The credentials of the cloud storage.
        embed_model: The embedding model of the index, which LlamaIndex does not pass to its stores. With an ``embed_model``,
            ``deep_memory=True`` refuses a model that was trained with another embedding model.
        deep_memory_path: The folder for trained models. By default the folder lies beside a local data set and has its name with
            ``.deepmemory`` appended.

    Raises:
        StoreError: The data set cannot be opened, ``embed_model`` is no LlamaIndex embedding model, or ``deep_memory_path`` is
            the data set's own folder or lies in it.

    Example:
        >>> import tempfile
        >>> from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> nodes = [TextNode(id_="doc-1", text="Run git revert.")]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     context = StorageContext.from_defaults(vector_store=DeepLakeVectorStore(f"{folder}/docs"))
        ...     index = VectorStoreIndex(nodes, storage_context=context, embed_model=MockEmbedding(embed_dim=8))
        ...     [node.node_id for node in index.as_retriever().retrieve("undo a commit")]
        ['doc-1']
    """

    stores_text: bool = True
    flat_metadata: bool = False
    dataset_path: str
    read_only: bool = False

    _store: DeepLakeStore = PrivateAttr()
    _embed_model: BaseEmbedding | None = PrivateAttr()
    _deep_memory_path: str | os.PathLike[str] | None = PrivateAttr()
    _deep_memory: DeepMemory | None = PrivateAttr(default=None)
    _known_to_index: set[str] = PrivateAttr(default_factory=set)

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
        if deep_memory_path is not None:
            check_outside(deep_memory_path, dataset_path)  # before anything is overwritten
        super().__init__(dataset_path=os.fspath(dataset_path), read_only=read_only)  # type: ignore[call-arg]
        self._store = DeepLakeStore(dataset_path, read_only=read_only, overwrite=overwrite, token=token, creds=creds)
        self._embed_model = embed_model
        self._deep_memory_path = deep_memory_path

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes for the class."""
        return "DeepLakeVectorStore"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything or raise an error. LlamaIndex's own method leaves out what it cannot pickle."""
        return BaseModel.__getstate__(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up the state. LlamaIndex's own method calls the constructor."""
        BaseModel.__setstate__(self, state)

    @property
    def store(self) -> DeepLakeStore:
        """The store underneath, which offers more than LlamaIndex: ``create_text_index()``, ``query(tql)``, ``refresh()``."""
        return self._store

    @property
    def client(self) -> Any:
        """The Deep Lake data set; None before the first node is added."""
        return self._store.dataset

    @property
    def vectorstore(self) -> "DeepLakeVectorStore":
        """The store itself, because programs for v3 write ``vector_store.vectorstore.deep_memory``."""
        return self

    @property
    def deep_memory(self) -> DeepMemory:
        """The `DeepMemory` of this store, which trains, evaluates and chooses its models.

        Without an ``embed_model``, ``train`` and ``evaluate`` need ``embedding_function=``, as in v3. A
        `DeepMemory.from_llama_index` takes the embedding model from the index.

        Raises:
            StoreError: There is no folder for the models: the data set is not local, and no ``deep_memory_path`` was given.
        """
        if self._deep_memory is None:
            self._deep_memory = DeepMemory(self.corpus(), self._embed_model or _no_model, self.deep_memory_path)
        return self._deep_memory

    @property
    def deep_memory_path(self) -> str | os.PathLike[str]:
        """The folder for trained models.

        Raises:
            StoreError: The data set is not local, and no ``deep_memory_path`` was given.
        """
        return beside(self._store.path) if self._deep_memory_path is None else self._deep_memory_path

    def corpus(self) -> DeepLakeCorpus:
        """Return all nodes, for training."""
        return DeepLakeCorpus(self._store, _node)

    # ---- writing and reading -----------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Add nodes with their embeddings in one commit, replacing nodes of the same id.

        Args:
            nodes: The nodes, which LlamaIndex's indices embed before.

        Returns:
            The ids of the nodes.

        Raises:
            StoreError: Metadata hold NaN or infinity, or the store is read-only. Nothing was written.
        """
        nodes = list(nodes)
        self._store.add(
            [node.node_id for node in nodes],
            [node.get_embedding() for node in nodes],
            [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes],
            [_metadata(node) for node in nodes],
        )
        self._known_to_index.update(node.node_id for node in nodes if isinstance(node, ImageNode | IndexNode))
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Run `add` in a thread, off the event loop."""
        return await asyncio.to_thread(self.add, nodes)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return the nodes with these ids, or the nodes that pass the filters.

        Args:
            node_ids: The ids of the nodes, which are returned in this order where there are no filters.
            filters: The filters. With ``node_ids``, the nodes that have one of the ids and pass the filters are returned. Without
                both arguments, all nodes are returned.
        """
        if node_ids is not None and filters is None:
            return [_node(found) for found in self._store.get(node_ids)]
        return [_node(found) for found in self._store.find(self._condition(node_ids, filters))]

    async def aget_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Run `get_nodes` in a thread, off the event loop."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def delete(self, ref_doc_id: str) -> None:
        """Delete all nodes of the document with this id."""
        self._delete(self._of_documents([ref_doc_id]))

    async def adelete(self, ref_doc_id: str) -> None:
        """Run `delete` in a thread, off the event loop."""
        await asyncio.to_thread(self.delete, ref_doc_id)

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> None:
        """Delete the nodes with these ids, the nodes that pass the filters, or with both arguments the nodes for which both hold.

        Raises:
            StoreError: There are no ids, and no filters or only empty ones. To delete all nodes, call `clear`.
        """
        if node_ids is None and (filters is None or not filters.filters):
            raise StoreError("Pass node_ids, or filters that are not empty; clear() deletes all nodes.")
        self._delete(self._condition(node_ids, filters))

    async def adelete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> None:
        """Run `delete_nodes` in a thread, off the event loop."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters)

    def clear(self) -> None:
        """Delete the data set; the next `add` creates a new one. Trained models stay."""
        self._store.clear()

    async def aclear(self) -> None:
        """Run `clear` in a thread, off the event loop."""
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
        **others: Any,
    ) -> VectorStoreQueryResult:
        """Return the nodes nearest to the query, best first. An index passes its ``vector_store_kwargs`` on as these options.

        Args:
            query: LlamaIndex's query, in one of the query modes of this class.
            deep_memory: Transform the query with the trained model, unless it has been transformed before.
            mmr_threshold: A number from 0, which prefers nodes unlike each other, to 1, which prefers nodes near the query; by
                default 0.5.
            mmr_prefetch_k: The number of nearest nodes out of which MMR chooses.
            mmr_prefetch_factor: The number of nearest nodes as a multiple of ``similarity_top_k``; by default 4.
            others: ``exec_option``, ``runtime``, ``num_workers`` and ``verbose`` of Deep Lake v3, ignored with a warning.

        Raises:
            ModelNotFoundError: ``deep_memory`` is True, and there is no trained model yet.
            StoreError: The query mode or an option is not supported, or the query has no embedding.
            TypeError: An option is unknown.
        """
        check_search(
            others,
            "deep_memory, mmr_threshold, mmr_prefetch_k and mmr_prefetch_factor",
            'as_retriever(vector_store_query_mode="mmr", vector_store_kwargs={"mmr_prefetch_k": …})',
        )
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
        restricted = query.node_ids if self._restricts(query.node_ids) else None
        filter = all_of([self._condition(restricted, query.filters), self._of_documents(query.doc_ids or None)])
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
                    raise StoreError("mmr_prefetch_k and mmr_prefetch_factor set the same number: pass one of them.")
                fetch_k = mmr_prefetch_k or int(k * (mmr_prefetch_factor or 4))
                found = self._store.search(vector, max(k, fetch_k), filter=filter, with_vectors=True)
                threshold = query.mmr_threshold if query.mmr_threshold is not None else mmr_threshold
                return _diverse(found, vector, k, threshold)
        raise StoreError(
            f"A DeepLakeVectorStore has the query modes default, hybrid and mmr, not {query.mode.value!r}. "
            "To search by words alone, use the mode hybrid with alpha=0."
        )

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Run `query` in a thread, off the event loop."""
        return await asyncio.to_thread(self.query, query, **options)

    def _restricts(self, node_ids: Sequence[str] | None) -> bool:
        """Tell whether ids restrict a search. An index passes the ids of the nodes that it knows, which are no texts, if any."""
        if not node_ids or isinstance(node_ids, OnlyThese):
            return bool(node_ids)
        others = [name for name in node_ids if name not in self._known_to_index]
        if not others:
            return False
        named = one_of(self._store.layout.id, others)
        texts = Condition(f"NOT ({one_of(key('_node_type', self._store), _KNOWN_TO_INDEX)})")
        if self._store.find(all_of([named, texts]), limit=1):
            return True
        return len(others) == len(node_ids) and not self._store.find(named, limit=1)

    def _condition(self, node_ids: Sequence[str] | None, filters: MetadataFilters | None) -> Condition:
        named = TRUE if node_ids is None else one_of(self._store.layout.id, list(node_ids))
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
    """Return everything of a node but its text and its embedding, as LlamaIndex's stores write it."""
    try:
        # LlamaIndex would write NaN as null without a warning. Dates are allowed, because they become texts.
        json.dumps(node.metadata, allow_nan=False, default=str)
        if numbers := {key: value.item() for key, value in node.metadata.items() if isinstance(value, np.generic)}:
            node = node.model_copy(update={"metadata": {**node.metadata, **numbers}})
        return node_to_metadata_dict(node, remove_text=True)
    except (ValueError, TypeError, RecursionError) as error:
        fault = "they are nested too deeply" if isinstance(error, RecursionError) else find_fault(node.metadata) or f"{error}."
        raise StoreError(f"The metadata of node {node.node_id!r} cannot be stored: {fault}") from error


def _node(found: StoredDocument) -> BaseNode:
    """Return a node as it was added. A document that another framework added becomes a TextNode."""
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
    """Choose the k nodes that are near the query and unlike each other.

    The similarities in the result are the scores of MMR, as in LlamaIndex's own stores.
    """
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
