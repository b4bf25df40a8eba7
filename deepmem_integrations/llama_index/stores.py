"""What a ranking needs of a vector store: its scores as cosine similarities, and nodes by id under all that a retriever forbids.

There is one class for each kind of store. The stores' own packages are never imported.
"""

import asyncio
import contextlib
import copy
import logging
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora.filters import NOTHING, NOWHERE, forbids, ignored, impossible
from deepmem_integrations.corpora.llama_index_stores import measure
from deepmem_integrations.corpora.stores import Measure, kind_of, kind_of_class, sql_texts, whole_numbers
from deepmem_integrations.errors import StoreError
from deepmem_integrations.llama_index.queries import OnlyThese
from deepmem_integrations.ranking import NAMELESS

_logger = logging.getLogger(__name__)


class NodeSearch:
    """Searches a retriever's store for a ranking. `search_of` returns the class for a retriever's kind of store.

    Nothing comes back that the retriever's ``node_ids`` or ``doc_ids`` forbid, whether the store honours them or not, and nothing
    that is not in the store. The store itself applies the retriever's ``filters`` to every search and every look-up.

    This class looks nodes up with a search that names their ids. ``SimpleVectorStore``, Qdrant and Deep Lake honour the ids
    together with filters.

    Args:
        retriever: LlamaIndex's own retriever, which is never changed. Its settings are read anew with each search.
        ids_given: Whether the user gave the retriever's ``node_ids``.

    Attributes:
        retriever: See above.
        store: The vector store.
    """

    kind: ClassVar[str]
    """The top package and the class of the store: see `StoreCorpus.kind`."""
    honours_doc_ids: bool = False
    """Whether the store itself leaves out what ``doc_ids`` forbid. It may know of a node's document what the node does not."""

    def __init__(self, retriever: VectorIndexRetriever, *, ids_given: bool = False) -> None:
        self.retriever = retriever
        self.store: Any = retriever._vector_store
        # An index passes the ids of all its nodes to its retriever, which forbids no node that is inserted later.
        every = set(retriever._index.index_struct.nodes_dict.values())
        passed_by_index = not ids_given and every == set(retriever._node_ids or ())
        self._every_id = retriever._node_ids if passed_by_index else None
        self._measured = False
        self._measure: Measure | None = None
        self._by_number = False  # whether the nodes that were found have whole numbers under the metadata key that names them

    def check_lengths(self, metric: str | None = None) -> None:
        """Check once, on the first vectors, that their lengths do not change the ranking.

        Args:
            metric: By what the caller says that the store ranks; by default the store tells.

        Raises:
            StoreError: See `StoreCorpus.vectors`.
        """
        if not self._measured:
            self._measure = measure(self.retriever._index, metric)
            self._measured = True

    # ---- searching ---------------------------------------------------------------------------------------------

    def search(self, query_bundle: QueryBundle, k: int, id_key: str | None = None) -> dict[str, NodeWithScore]:
        """Search by vector.

        Args:
            query_bundle: The query with its embedding.
            k: How many nodes to find.
            id_key: The metadata key whose values name nodes; None where their ids do.

        Returns:
            Name → node with the store's score, best first.
        """
        return self._permitted(self._narrowed(k)._retrieve(replace(query_bundle)), id_key)

    async def asearch(self, query_bundle: QueryBundle, k: int, id_key: str | None = None) -> dict[str, NodeWithScore]:
        """Do the same as `search`, off the event loop."""
        return self._permitted(await self._aretrieve(self._narrowed(k), query_bundle), id_key)

    async def _aretrieve(self, retriever: VectorIndexRetriever, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Run a copy of LlamaIndex's own retriever off the event loop."""
        # Where a store has no async search of its own, LlamaIndex would search on the event loop.
        if not self._searches_async:
            retriever._vector_store = _InThread(self.store)  # type: ignore[assignment]
        return await retriever._aretrieve(replace(query_bundle))

    @property
    def _searches_async(self) -> bool:
        return type(self.store).aquery is not BasePydanticVectorStore.aquery

    def cosines(self, scores: Sequence[float | None]) -> Vectors | None:
        """Turn the scores of `search`, for a query of length 1, into cosine similarities.

        Returns:
            (m,) float32; None where the scores do not tell the cosine similarities.
        """
        if None in scores:
            return None
        with np.errstate(all="ignore"):
            cosines = self._cosines(np.asarray(scores, dtype=np.float64))
        return cosines if cosines is not None and np.isfinite(cosines).all() else None

    def _cosines(self, scores: Vectors) -> Vectors | None:
        return None if self._measure is None else self._measure.cosines(scores)

    # ---- nodes by id -------------------------------------------------------------------------------------------

    @property
    def looks_up(self) -> bool:
        """Whether nodes can be looked up under all that the retriever forbids."""
        return True

    def look_up(self, ids: Sequence[str], query_bundle: QueryBundle, id_key: str | None = None) -> dict[str, BaseNode]:
        """Return those of some nodes that are in the store and that the retriever does not forbid.

        Args:
            ids: The names of the nodes.
            query_bundle: The query with its embedding, since some stores look nodes up with a search alone.
            id_key: The metadata key whose values name nodes; None where their ids do.
        """
        if id_key is not None:
            return self._looked_up(ids, self._read_named(list(ids), query_bundle, id_key), id_key)
        wanted = self._wanted(ids)
        return self._looked_up(wanted, self._read(wanted, query_bundle) if wanted else [])

    async def alook_up(self, ids: Sequence[str], query_bundle: QueryBundle, id_key: str | None = None) -> dict[str, BaseNode]:
        """Do the same as `look_up`, off the event loop."""
        if id_key is not None:
            return self._looked_up(ids, await self._aread_named(list(ids), query_bundle, id_key), id_key)
        wanted = self._wanted(ids)
        return self._looked_up(wanted, await self._aread(wanted, query_bundle) if wanted else [])

    def _read_named(self, names: list[str], query_bundle: QueryBundle, id_key: str) -> Sequence[BaseNode]:
        """Read nodes by a metadata key, with a search under one filter more."""
        try:
            return [found.node for found in self._having(id_key, names)._retrieve(replace(query_bundle))]
        except (NotImplementedError, ValueError, Warning):  # the store has no such filters; LanceDB raises where nothing passes
            return []

    async def _aread_named(self, names: list[str], query_bundle: QueryBundle, id_key: str) -> Sequence[BaseNode]:
        try:
            return [found.node for found in await self._aretrieve(self._having(id_key, names), query_bundle)]
        except (NotImplementedError, ValueError, Warning):
            return []

    def _having(self, id_key: str, names: list[str]) -> VectorIndexRetriever:
        """Return a copy of LlamaIndex's own retriever that finds only nodes with one of some names under a metadata key."""
        # Stores tell the number 1 from the text "1", and some refuse an empty list.
        values = whole_numbers(names) or names if self._by_number else names
        named = MetadataFilter(key=id_key, operator=FilterOperator.IN, value=values)
        filters = self.retriever._filters
        if filters is None or not filters.filters:
            filters = MetadataFilters(filters=[named])
        elif filters.condition in (None, FilterCondition.AND):
            filters = MetadataFilters(filters=[*filters.filters, named])
        else:
            filters = MetadataFilters(filters=[filters, named])
        narrowed = self._narrowed(len(names))
        narrowed._filters = filters
        return narrowed

    def _read(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        """Read nodes that the filters permit. Others may be among them."""
        return [found.node for found in self._narrowed(len(ids), ids)._retrieve(replace(query_bundle))]

    async def _aread(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        return [found.node for found in await self._aretrieve(self._narrowed(len(ids), ids), query_bundle)]

    def _wanted(self, ids: Sequence[str]) -> list[str]:
        allowed = self._allowed_ids()
        return [name for name in ids if allowed is None or name in allowed]

    def _looked_up(self, ids: Sequence[str], nodes: Sequence[BaseNode], id_key: str | None = None) -> dict[str, BaseNode]:
        found = self._permitted((NodeWithScore(node=node) for node in nodes if node is not None), id_key)
        return {name: found[name].node for name in ids if name in found}

    # ---- what is permitted -------------------------------------------------------------------------------------

    def _allowed_ids(self) -> set[str] | None:
        ids = self.retriever._node_ids
        # An empty list forbids every node: SimpleVectorStore reads it so, too.
        return None if ids is None or ids is self._every_id else set(ids)

    def _permitted(self, found: Iterable[NodeWithScore], id_key: str | None = None) -> dict[str, NodeWithScore]:
        """Leave out what the retriever's ``node_ids`` and ``doc_ids`` forbid, which not every store does itself."""
        ids = self._allowed_ids()
        documents = set() if self.honours_doc_ids else set(self.retriever._doc_ids or ())
        permitted: dict[str, NodeWithScore] = {}
        for one in found:
            if id_key is not None:
                self._by_number = type(one.node.metadata.get(id_key)) is int
            if (ids is None or one.node.node_id in ids) and (not documents or one.node.ref_doc_id in documents):
                name = _name_of(one.node, id_key)
                if name in permitted and permitted[name].node.node_id != one.node.node_id:
                    name = f"{NAMELESS}{one.node.node_id}"  # another node of the same name keeps its place, as in LangChain
                permitted.setdefault(name, one)
        return permitted

    def _narrowed(self, k: int, ids: list[str] | None = None) -> VectorIndexRetriever:
        """Return a copy of LlamaIndex's own retriever with another ``similarity_top_k``, and with other ``node_ids``."""
        narrowed = copy.copy(self.retriever)
        narrowed._similarity_top_k = k
        if ids is not None:
            narrowed._node_ids = OnlyThese(ids)
        elif narrowed._node_ids is not None and narrowed._node_ids is not self._every_id:
            narrowed._node_ids = OnlyThese(narrowed._node_ids)
        elif self.store.stores_text:  # of the nodes in such a store, an index knows those that are no texts, if any
            narrowed._node_ids = None
        return narrowed

    def _in_full(self, nodes: list[BaseNode]) -> Sequence[BaseNode]:
        """Replace nodes that a store keeps in part, an ``IndexNode`` for one, by those of the docstore, as LlamaIndex does."""
        result = VectorStoreQueryResult(nodes=nodes, ids=[node.node_id for node in nodes])
        names = self.retriever._determine_nodes_to_fetch(result)
        if not names:
            return nodes
        fetched = self.retriever._docstore.get_nodes(node_ids=names, raise_error=False)
        return self.retriever._insert_fetched_nodes_into_query_result(result, fetched)

    def _of_docstore(self, ids: Sequence[str]) -> Sequence[BaseNode]:
        return self.retriever._docstore.get_nodes(node_ids=list(ids), raise_error=False)


class SimpleSearch(NodeSearch):
    """Searches LlamaIndex's own store in memory, whose scores are cosine similarities."""

    kind = "llama_index.SimpleVectorStore"

    def _wanted(self, ids: Sequence[str]) -> list[str]:
        there = self.retriever._index.index_struct.nodes_dict  # several indexes may share a store
        return [name for name in super()._wanted(ids) if name in there]


class DeepLakeSearch(NodeSearch):
    """Searches a Deep Lake store of this package, whose scores are cosine similarities."""

    kind = "deepmem_integrations.DeepLakeVectorStore"
    honours_doc_ids = True

    def _cosines(self, scores: Vectors) -> Vectors | None:
        return Measure("cosine").cosines(scores)


class QdrantSearch(NodeSearch):
    """Searches a Qdrant store, whose scores are those of the collection's metric. L2 distances are not squared."""

    kind = "llama_index.QdrantVectorStore"

    @property
    def looks_up(self) -> bool:
        """Whether there are no filters of Qdrant's own, which the store would apply in place of all ids."""
        return self.retriever._kwargs.get("qdrant_filters") is None

    @property
    def honours_doc_ids(self) -> bool:  # type: ignore[override]
        """The same: see `looks_up`."""
        return self.looks_up

    def _cosines(self, scores: Vectors) -> Vectors | None:
        squared = self._measure is not None and self._measure.metric == "l2"
        return super()._cosines(scores**2 if squared else scores)

    def _wanted(self, ids: Sequence[str]) -> list[str]:
        return [name for name in super()._wanted(ids) if _is_uuid(name)]  # a server refuses any other id


class ChromaSearch(NodeSearch):
    """Searches a Chroma store, whose scores are exp(−distance). Chroma's search takes no ids, and its reading does."""

    kind = "llama_index.ChromaVectorStore"

    def _cosines(self, scores: Vectors) -> Vectors | None:
        distances = -np.log(scores)
        squared = self._measure is not None and self._measure.metric == "l2"
        return super()._cosines(distances if squared else 1 - distances)

    def _read(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        retriever = self.retriever
        # Without an embedding, the store reads and does not search.
        query = VectorStoreQuery(similarity_top_k=len(ids), filters=retriever._filters)
        filters = {name: value for name, value in retriever._kwargs.items() if name in ("where", "where_document")}
        return self._in_full(list(self.store.query(query, ids=ids, **filters).nodes or []))

    async def _aread(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        return await asyncio.to_thread(self._read, ids, query_bundle)


class LanceSearch(ChromaSearch):
    """Searches a LanceDB store, whose scores are exp(−distance). Its search takes no ids, and its reading takes a condition."""

    kind = "llama_index.LanceDBVectorStore"

    def search(self, query_bundle: QueryBundle, k: int, id_key: str | None = None) -> dict[str, NodeWithScore]:
        """Search by vector: see `NodeSearch.search`."""
        try:
            return super().search(query_bundle, k, id_key)
        except Warning:  # which LlamaIndex's store raises where it finds nothing
            return {}

    async def asearch(self, query_bundle: QueryBundle, k: int, id_key: str | None = None) -> dict[str, NodeWithScore]:
        """Do the same as `search`, off the event loop."""
        try:
            return await super().asearch(query_bundle, k, id_key)
        except Warning:
            return {}

    @property
    def looks_up(self) -> bool:
        """Whether the search ranks by vector: a condition in LanceDB's own language is applied to look-ups as well."""
        return not self.retriever._kwargs.keys() - {"where"}

    def _read(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        condition, filters = self.retriever._kwargs.get("where"), self.retriever._filters
        if filters is not None and filters.filters:
            condition = self._condition(filters)
        named = f"id IN ({sql_texts(ids)})"
        return self._in_full(list(self.store.get_nodes(where=f"({condition}) AND {named}" if condition else named)))

    def _condition(self, filters: MetadataFilters) -> str:
        """Write filters as the store does. It knows no groups of filters, and leaves them out in silence."""
        if any(isinstance(part, MetadataFilters) for part in filters.filters):
            raise StoreError("LlamaIndex's LanceDBVectorStore knows no filters within filters: pass where=…, in LanceDB's SQL.")
        base = next(base for base in type(self.store).__mro__ if kind_of_class(base) == self.kind)
        return str(sys.modules[base.__module__]._to_lance_filter(filters, self.store._metadata_keys))


class MilvusSearch(NodeSearch):
    """Searches a Milvus store, whose scores are similarities, or squared L2 distances. It honours ids together with filters."""

    kind = "llama_index.MilvusVectorStore"
    honours_doc_ids = True

    @property
    def _searches_async(self) -> bool:
        return self.store.aclient is not None  # which only an event loop can make

    def _wanted(self, ids: Sequence[str]) -> list[str]:
        return [
            name for name in super()._wanted(ids) if not {'"', "\\"} & set(name)
        ]  # the store puts ids between quotes as they are


class PostgresSearch(NodeSearch):
    """Searches a Postgres store with pgvector, whose scores are cosine similarities, and whose search takes no ids."""

    kind = "llama_index.PGVectorStore"

    def _read(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        # The store's own get_nodes fails on half precision, and does not call the user's customize_query_fn.
        from sqlalchemy import select

        store, retriever = self.store, self.retriever
        store._initialize()
        table = store._table_class
        query = select(table.id, table.node_id, table.text, table.metadata_).where(table.node_id.in_(ids))
        if (customize := getattr(store, "_customize_query_fn", None)) is not None:
            query = customize(query, table, **retriever._kwargs)
        if retriever._filters is not None:
            query = query.where(store._recursively_apply_filters(retriever._filters))
        own = {"id", "node_id", "text", "metadata_"}
        with store._session() as session:
            rows = [
                SimpleNamespace(
                    node_id=row.node_id,
                    text=row.text,
                    metadata=row.metadata_,
                    custom_fields={name: value for name, value in row._asdict().items() if name not in own},
                    similarity=None,
                )
                for row in session.execute(query).all()
            ]
        return self._in_full(store._db_rows_to_query_result(rows).nodes)

    async def _aread(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        return await asyncio.to_thread(self._read, ids, query_bundle)


class FaissSearch(NodeSearch):
    """Searches a FAISS store, which knows neither ids nor filters: the index's docstore has the nodes."""

    kind = "llama_index.FaissVectorStore"

    def _read(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        # A FaissMapVectorStore knows which nodes it has; from any other FAISS store nothing can be deleted.
        there = getattr(self.store, "_node_id_to_faiss_id_map", None)
        if there is None:
            there = set(self.retriever._index.index_struct.nodes_dict.values())
        return self._of_docstore([name for name in ids if name in there])

    async def _aread(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        return await asyncio.to_thread(self._read, ids, query_bundle)

    def _read_named(self, names: list[str], query_bundle: QueryBundle, id_key: str) -> Sequence[BaseNode]:
        wanted = set(names)
        every = list(self.retriever._index.index_struct.nodes_dict.values())
        named = [node.node_id for node in self._of_docstore(every) if node is not None and _name_of(node, id_key) in wanted]
        return self._read(named, query_bundle)

    async def _aread_named(self, names: list[str], query_bundle: QueryBundle, id_key: str) -> Sequence[BaseNode]:
        return await asyncio.to_thread(self._read_named, names, query_bundle, id_key)


class OtherSearch(NodeSearch):
    """Searches a store of an unknown kind, whose scores may be anything.

    Without filters, nodes are read by id. With filters, a search that names the ids looks nodes up, because a store applies
    filters when it searches: a store that was seen to ignore them is refused. If the store ignores the ids, or refuses them, it
    finds other nodes or none, and what words and answers found beyond its own search is left out.
    """

    def __init__(self, retriever: VectorIndexRetriever, *, ids_given: bool = False) -> None:
        super().__init__(retriever, ids_given=ids_given)
        self._told = False
        self._honoured: set[tuple[str, type]] = set()

    def search(self, query_bundle: QueryBundle, k: int, id_key: str | None = None) -> dict[str, NodeWithScore]:
        """Search by vector.

        Raises:
            StoreError: The store ignores a filter.
        """
        found = super().search(query_bundle, k, id_key)
        for name, value, narrowed in self._untried() if found else ():
            others: list[NodeWithScore] = []
            with contextlib.suppress(Exception, Warning):
                others = narrowed._retrieve(replace(query_bundle))
            self._note(name, value, others)
        return found

    async def asearch(self, query_bundle: QueryBundle, k: int, id_key: str | None = None) -> dict[str, NodeWithScore]:
        """Do the same as `search`, off the event loop."""
        found = await super().asearch(query_bundle, k, id_key)
        for name, value, narrowed in self._untried() if found else ():
            others: list[NodeWithScore] = []
            with contextlib.suppress(Exception, Warning):
                others = await self._aretrieve(narrowed, query_bundle)
            self._note(name, value, others)
        return found

    def _untried(self) -> Iterator[tuple[str, Any, VectorIndexRetriever]]:
        """Yield each filter that was not tried yet, with a retriever that has to find nothing."""
        filters, options = self.retriever._filters, self.retriever._kwargs
        if filters is not None and filters.filters and ("filters", type(filters)) not in self._honoured:
            narrowed = self._narrowed(1)
            narrowed._filters = MetadataFilters(filters=[MetadataFilter(key=NOWHERE, value=NOTHING)])
            yield "filters", filters, narrowed
        for name, value in options.items():
            if forbids(name, value) and (name, type(value)) not in self._honoured:
                narrowed = self._narrowed(1)
                narrowed._kwargs = {**options, name: impossible(value)}
                yield name, value, narrowed

    def _note(self, name: str, value: Any, found: Sequence[NodeWithScore]) -> None:
        if found:
            raise ignored(self.store, name, value)
        self._honoured.add((name, type(value)))

    def _read(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        with contextlib.suppress(Exception):  # the store reads no nodes by id, or an id is gone; else the search fails as well
            if (nodes := self._unfiltered(ids)) is not None:
                return nodes
        with self._left_out():
            return super()._read(ids, query_bundle)
        return []

    async def _aread(self, ids: list[str], query_bundle: QueryBundle) -> Sequence[BaseNode]:
        with contextlib.suppress(Exception):
            if (nodes := await self._aunfiltered(ids)) is not None:
                return nodes
        with self._left_out():
            return await super()._aread(ids, query_bundle)
        return []

    @contextlib.contextmanager
    def _left_out(self) -> Iterator[None]:
        """Log once where the store takes no such search. The results are those of its own search, ranked."""
        try:
            yield
        except (NotImplementedError, ValueError, TypeError, LookupError) as error:
            if not self._told:
                self._told = True
                _logger.warning(
                    "%s looks no nodes up by id (%s: %s): what words and remembered answers found beyond its own search is left "
                    "out.",
                    type(self.store).__name__,
                    type(error).__name__,
                    error,
                )

    def _unfiltered(self, ids: list[str]) -> Sequence[BaseNode] | None:
        if not self._reads_by_id:
            return None
        if not self.store.stores_text:
            there = set(self.retriever._index.index_struct.nodes_dict.values())
            return self._of_docstore([name for name in ids if name in there])
        if type(self.store).get_nodes is BasePydanticVectorStore.get_nodes:
            return None
        return self._in_full(list(self.store.get_nodes(node_ids=ids)))

    async def _aunfiltered(self, ids: list[str]) -> Sequence[BaseNode] | None:
        own = type(self.store).aget_nodes is not BasePydanticVectorStore.aget_nodes
        if not (own and self._reads_by_id and self.store.stores_text):
            return await asyncio.to_thread(self._unfiltered, ids)
        return await asyncio.to_thread(self._in_full, list(await self.store.aget_nodes(node_ids=ids)))

    @property
    def _reads_by_id(self) -> bool:
        """Whether nodes that are read by their ids are none that the retriever forbids."""
        filters = self.retriever._filters
        return not (filters is not None and filters.filters) and not self.retriever._kwargs


class OwnSearch(OtherSearch):
    """Searches a store whose class overrides the search of the store below it, to add a filter of its own for example.

    Nodes that were read past that search could be forbidden, so the search alone looks nodes up.
    """

    @property
    def _reads_by_id(self) -> bool:
        return False


_KINDS: dict[str, type[NodeSearch]] = {
    search.kind: search
    for search in (
        *(SimpleSearch, DeepLakeSearch, QdrantSearch, ChromaSearch, PostgresSearch, FaissSearch),
        *(LanceSearch, MilvusSearch),
    )
}


def search_of(retriever: VectorIndexRetriever, *, ids_given: bool = False) -> NodeSearch:
    """Return the search of a retriever's store.

    Args:
        retriever: LlamaIndex's own retriever.
        ids_given: Whether the user gave the retriever's ``node_ids``, so that they forbid all other nodes for ever.
    """
    store = retriever._vector_store
    kind = kind_of(store, _KINDS)
    search = OtherSearch if kind is None else _KINDS[kind]
    below: type | None = None  # the class whose nodes may be read past the search
    if kind is None:
        below = next((base for base in type(store).__mro__ if "get_nodes" in vars(base)), None)
    elif search in (PostgresSearch, FaissSearch, LanceSearch):
        package = kind.partition(".")[0]
        below = next(base for base in type(store).__mro__ if kind_of_class(base).partition(".")[0] == package)
    if below not in (None, BasePydanticVectorStore) and _searches_its_own_way(store, below):
        search = OwnSearch
    return search(retriever, ids_given=ids_given)


def _searches_its_own_way(store: Any, below: Any) -> bool:
    """Tell whether a class between a store and one of its bases overrides the search."""
    mro = type(store).__mro__
    return any(name in vars(base) for base in mro[: mro.index(below)] for name in ("query", "aquery"))


class _InThread:
    """A store whose async search runs in a thread."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        return await asyncio.to_thread(self._store.query, query, **options)


def _name_of(node: BaseNode, id_key: str | None) -> str:
    """Return what names a node: a metadata value, or its id."""
    name = None if id_key is None else node.metadata.get(id_key)
    return node.node_id if name is None else str(name)


def _is_uuid(name: str) -> bool:
    try:
        uuid.UUID(name)
    except ValueError:
        return False
    return True
