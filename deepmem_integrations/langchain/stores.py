"""What a retriever asks of a vector store beyond its search: cosines for the store's scores, and documents by their ids.

There is one class for each kind of store. A store of any other kind is searched in the common way, and tells no cosines. The
stores' own packages are never imported.
"""

import importlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from numpy.typing import NDArray

from deepmem_integrations.corpora.langchain_search import SCORED, VectorCalls, acall, own_searches
from deepmem_integrations.corpora.langchain_stores import KINDS, check_lengths, id_if_any, named
from deepmem_integrations.corpora.langchain_tables import MilvusCorpus, TableCorpus
from deepmem_integrations.corpora.stores import Measure, kind_of, kind_of_class, whole_numbers
from deepmem_integrations.deeplake.tql import Condition, is_in, literal, where
from deepmem_integrations.errors import StoreError

_LONGEST = 1.01
"""No cosine is longer; a little is left for vectors whose lengths differ a little."""


class StoreAccess:
    """A vector store of any kind.

    Args:
        store: The store.
        embeddings: The store's embedding model: see `VectorCalls`.
        id_key: The metadata key that names documents; None where the store's own ids do.
        metric: By what the caller says that the store ranks; by default the store tells.
    """

    kind: ClassVar[str] = ""
    """The top package and the class of the store: see `StoreCorpus.kind`."""
    applied: ClassVar[tuple[str, ...]] = ()
    """The options of a search that forbid documents, and that a lookup by ids applies as well."""
    harmless: ClassVar[tuple[str, ...]] = ()
    """The options of a search that forbid no document."""

    def __init__(
        self, store: Any, embeddings: Embeddings | None = None, id_key: str | None = None, metric: str | None = None
    ) -> None:
        self.store, self.id_key, self.metric = store, id_key, metric
        self._by_number = False  # whether the documents that were found have whole numbers under the metadata key
        self.calls = VectorCalls(store, embeddings)

    # ---- names -------------------------------------------------------------------------------------------------

    def name_of(self, document: Document) -> str | None:
        """Return the id that names a document; None where nobody can tell."""
        if self.id_key is not None:
            self._by_number = type(document.metadata.get(self.id_key)) is int
        return id_if_any(document, self.store, self.id_key)

    def named(self, document: Document) -> Document:
        """Return the document with the id that names it, as far as anybody can tell."""
        return document if self.name_of(document) is None else named(document, self.store, self.id_key)

    @property
    def filters_after_search(self) -> int | None:
        """How many documents a store has that filters what its search has found; None where the search itself filters."""
        return None

    # ---- scores ------------------------------------------------------------------------------------------------

    @property
    def search_method(self) -> str:
        """The name of the search by vector, with scores where `cosines` understands them."""
        return self.calls.name

    def cosines(
        self, scores: Sequence[float | None], options: Mapping[str, Any], length: float = 1.0
    ) -> NDArray[np.float32] | None:
        """Turn the scores of `search_method` into cosines with the query vector.

        Args:
            scores: n scores.
            options: The options of the search.
            length: The length of the query vector.

        Returns:
            (n,) float32; None where nobody can tell.
        """
        measure = self._measure(options)
        if measure is None or None in scores:
            return None
        cosines = measure.cosines(self._measured(measure.metric, np.asarray(scores, dtype=np.float32)), length)
        return cosines if bool(np.all(np.abs(cosines) <= _LONGEST)) else None

    def relevances(self, scores: Sequence[float], options: Mapping[str, Any], length: float = 1.0) -> Sequence[float]:
        """Turn the scores of `search_method` into relevance scores, which a ``score_threshold`` is compared with.

        Args:
            scores: n scores.
            options: The options of the search.
            length: The length of the query vector.

        Returns:
            n numbers, the larger the better. They are the store's own relevance scores, except where a store ranks by inner
            product: LangChain's function for inner products may give the best document the score 0, so the cosine takes its
            place. A relevance function that the user gave the store always holds.
        """
        own = getattr(self.store, "override_relevance_score_fn", None)
        if own is None and isinstance(self.store, InMemoryVectorStore):
            return scores  # which are cosine similarities; this store has no relevance function
        if own is None and (cosines := self._relevances_by_dot(scores, options, length)) is not None:
            return cosines
        relevance = own or self._relevance_function()
        return [relevance(score) for score in scores]

    def _relevances_by_dot(self, scores: Sequence[float], options: Mapping[str, Any], length: float) -> list[float] | None:
        """Return the cosines where the store ranks by inner product, or rates documents so; None elsewhere."""
        measure = self._measure(options)
        if measure is None:
            return None
        if measure.metric != "dot" and self._relevance_function() is not VectorStore._max_inner_product_relevance_score_fn:
            return None
        scored = self._measured(measure.metric, np.asarray(scores, dtype=np.float32))
        cosines: list[float] = measure.cosines(scored, length).tolist()
        return cosines

    def _relevance_function(self) -> Any:
        """Return the store's own function from one score to a relevance score."""
        return self.store._select_relevance_score_fn()

    def check_lengths(self, options: Mapping[str, Any]) -> None:
        """Check once, on the first vectors, that their lengths do not change the ranking of a search with these options.

        Raises:
            StoreError: See `StoreCorpus.vectors`.
        """
        check_lengths(self.store, self.metric)

    def _measure(self, options: Mapping[str, Any]) -> Measure | None:
        return None

    def _measured(self, metric: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn scores into cosines, dot products, or, for L2 distance, squared distances."""
        return scores

    # ---- documents by id ---------------------------------------------------------------------------------------

    def obeys(self, options: Mapping[str, Any]) -> bool:
        """Tell whether a lookup by ids returns no document that a search with these options would forbid."""
        given = {name for name, value in options.items() if value is not None}
        allowed = given.issubset({*self._applied(), *self.harmless})
        return allowed and self._can_look_up() and self.understands(options.get("filter"))

    def _applied(self) -> tuple[str, ...]:
        return self.applied

    def lookup(self, ids: Sequence[str], options: Mapping[str, Any]) -> dict[str, Document]:
        """Return id → document of the documents with these ids that a search with these options may return.

        Args:
            ids: Ids, known or not.
            options: Options of a search, of which `obeys` is true.
        """
        try:
            return self._named(ids, self._fetch(ids, options))
        except (NotImplementedError, LookupError):  # some stores raise a KeyError for an id that is gone
            return {}

    async def alookup(self, ids: Sequence[str], options: Mapping[str, Any]) -> dict[str, Document]:
        """Do the same as `lookup` off the event loop."""
        try:
            return self._named(ids, await self._afetch(ids, options))
        except (NotImplementedError, LookupError):
            return {}

    def understands(self, filter: Any) -> bool:
        """Tell whether a lookup can apply this filter."""
        return True

    def _can_look_up(self) -> bool:
        if self.id_key is not None:
            return False  # get_by_ids knows the store's own ids alone
        # A class that overrides the search of its base, to add a filter of its own for example, overrides get_by_ids as well,
        # or nothing is looked up.
        owner = _owner(self.store, "get_by_ids")
        return owner not in (None, VectorStore) and not own_searches(self.store, owner)

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        found: list[Document] = self.store.get_by_ids(ids)
        return found

    async def _afetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        found: list[Document] = await acall(self.store, "get_by_ids", ids)
        return found

    def _values(self, names: Sequence[str]) -> Sequence[str] | Sequence[int]:
        """Return names as they stand under the metadata key, for a filter that tells numbers from texts."""
        return whole_numbers(names) if self._by_number else names

    def _named(self, ids: Sequence[str], documents: Sequence[Document]) -> dict[str, Document]:
        found = {self.name_of(document): self.named(document) for document in documents}
        return {name: found[name] for name in ids if name in found}


class _KnownStore(StoreAccess):
    """A store of a kind whose scores and filters are known."""

    applied: ClassVar[tuple[str, ...]] = ("filter",)

    @property
    def search_method(self) -> str:
        return next((name for name in SCORED if hasattr(self.store, name)), SCORED[0])

    def _measure(self, options: Mapping[str, Any]) -> Measure | None:
        return check_lengths(self.store, self.metric)

    def check_lengths(self, options: Mapping[str, Any]) -> None:
        """Check once, on the first vectors, that their lengths do not change the ranking: see `StoreAccess.check_lengths`."""
        self._measure(options)

    def lookup(self, ids: Sequence[str], options: Mapping[str, Any]) -> dict[str, Document]:
        """Look documents up by the store's ids, or by the metadata key that names them (see `StoreAccess.lookup`)."""
        return super().lookup(ids, options) if self.id_key is None else self._look_up_names(self.id_key, ids, options)

    async def alookup(self, ids: Sequence[str], options: Mapping[str, Any]) -> dict[str, Document]:
        """Do the same as `lookup` off the event loop."""
        if self.id_key is None:
            return await super().alookup(ids, options)
        return await run_in_executor(None, self._look_up_names, self.id_key, ids, options)

    def _look_up_names(self, key: str, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Document]:
        corpus = KINDS[self.kind]
        values = self._values(names) if corpus.tells_numbers else names
        if not values:  # of which not one spells a number: some stores refuse an empty list
            return {}
        try:
            return self._named(names, corpus(self.store, options.get(corpus.filter_option)).fetch_by(key, values))
        except NotImplementedError:
            return {}

    def _applied(self) -> tuple[str, ...]:
        return self.applied if self.id_key is None else (KINDS[self.kind].filter_option,)

    def _can_look_up(self) -> bool:
        # A PGVector that is opened for async alone cannot be read by a metadata key.
        return self.id_key is None or (self.kind in KINDS and not getattr(self.store, "async_mode", False))

    async def _afetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        return await run_in_executor(None, self._fetch, ids, options)


class InMemory(_KnownStore):
    """LangChain's own store in memory."""

    kind = "langchain_core.InMemoryVectorStore"

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        allowed = options.get("filter")
        return [document for document in self.store.get_by_ids(ids) if allowed is None or allowed(document)]


class Faiss(_KnownStore):
    """FAISS, whose scores are squared distances, or dot products. It filters the ``fetch_k`` documents that it finds."""

    kind = "langchain_community.FAISS"
    harmless = ("fetch_k",)

    @property
    def filters_after_search(self) -> int | None:
        """All documents of the index, of which the search fetches ``fetch_k``."""
        return len(self.store.index_to_docstore_id)

    def _relevance_function(self) -> Any:
        # The store's own distance_strategy need not be that of the index, and inner products never come here.
        own = super()._relevance_function()
        return self.store._euclidean_relevance_score_fn if own is self.store._max_inner_product_relevance_score_fn else own

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        filter = options.get("filter")
        allowed = None if filter is None else self.store._create_filter_func(filter)
        return [document for document in self.store.get_by_ids(ids) if allowed is None or allowed(document.metadata)]


class Chroma(_KnownStore):
    """Chroma, whose scores are squared distances, or 1 minus a similarity."""

    kind = "langchain_chroma.Chroma"
    applied = ("filter", "where_document")

    def _measured(self, metric: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return scores if metric == "l2" else 1 - scores

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        filters = {"where": options.get("filter"), "where_document": options.get("where_document")}
        found = self.store._collection.get(ids=list(ids), include=["documents", "metadatas"], **filters)
        columns = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
        # The store's search passes over records without a text as well.
        return [Document(id=name, page_content=text, metadata=meta or {}) for name, text, meta in columns if text is not None]


class Qdrant(_KnownStore):
    """Qdrant, whose scores are similarities, or distances. Its ids are UUIDs or whole numbers."""

    kind = "langchain_qdrant.QdrantVectorStore"
    harmless = ("search_params", "consistency")

    def _measured(self, metric: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return scores**2 if metric == "l2" else scores

    def understands(self, filter: Any) -> bool:
        """Tell whether the filter is one of Qdrant's."""
        return filter is None or isinstance(filter, self._models().Filter)

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        models, store, filter = self._models(), self.store, options.get("filter")
        wanted = models.HasIdCondition(has_id=[point for name in ids if (point := _point_id(name)) is not None])
        points, _ = store.client.scroll(
            store.collection_name,
            scroll_filter=models.Filter(must=[wanted] if filter is None else [wanted, filter]),
            limit=len(ids),
            with_payload=True,
            with_vectors=False,
            consistency=options.get("consistency"),
        )
        names = store.collection_name, store.content_payload_key, store.metadata_payload_key
        return [store._document_from_point(point, *names) for point in points]

    def _models(self) -> Any:
        return importlib.import_module("qdrant_client.models")  # which whoever made the store has imported


class PGVector(_KnownStore):
    """A Postgres store of langchain-postgres's older class, whose scores are distances, 1 − cosine, or −dot product."""

    kind = "langchain_postgres.PGVector"

    def _measured(self, metric: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return {"l2": scores**2, "cosine": 1 - scores, "dot": -scores}[metric]

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        with self.store._make_sync_session() as session:
            return self._read(session, ids, options)

    async def _afetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        if not self.store.async_mode:
            return await super()._afetch(ids, options)
        async with self.store._make_async_session() as session:
            documents: list[Document] = await session.run_sync(self._read, ids, options)
            return documents

    def _read(self, session: Any, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        store, table, filter = self.store, self.store.EmbeddingStore, options.get("filter")
        collection = store.CollectionStore.get_by_name(session, store.collection_name)
        conditions = [table.collection_id == collection.uuid, table.id.in_(ids)]
        clause = store._create_filter_clause(filter) if filter else None
        if clause is not None:
            conditions.append(clause)
        rows = session.query(table).filter(*conditions).all()
        return [Document(id=str(row.id), page_content=row.document, metadata=row.cmetadata) for row in rows]


class PGVectorStore(_KnownStore):
    """A Postgres store of langchain-postgres's newer class, whose scores are distances, 1 − cosine, or dot products."""

    kind = "langchain_postgres.PGVectorStore"

    def _measured(self, metric: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return {"l2": scores**2, "cosine": 1 - scores, "dot": scores}[metric]

    def understands(self, filter: Any) -> bool:
        """Tell whether the filter is a mapping; the search ignores any other."""
        return isinstance(filter, dict | None)

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        return _pgvectorstore_documents(self.store.get(ids=list(ids), where=options.get("filter")))

    async def _afetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        return _pgvectorstore_documents(await self.store.aget(ids=list(ids), where=options.get("filter")))


class DeepLake(_KnownStore):
    """This package's own store, whose scores are cosines, unless the search is told to rank by distance."""

    kind = "deepmem_integrations.DeepLake"
    harmless = ("distance_metric",)

    def _applied(self) -> tuple[str, ...]:
        return self.applied

    def _can_look_up(self) -> bool:
        return True

    def _look_up_names(self, key: str, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, Document]:
        column, values = self.store.store.layout.metadata, self._values(names)
        if not values:
            return {}
        clause = where(options.get("filter"), column, is_in(f"{column}[{literal(key)}]", values))
        found = self.store.store.find(Condition(clause.removeprefix("WHERE ")))
        return self._named(
            names, [Document(id=document.id, page_content=document.text, metadata=document.metadata) for document in found]
        )

    def _measure(self, options: Mapping[str, Any]) -> Measure | None:
        return Measure("cosine") if str(options.get("distance_metric") or "cos").lower() == "cos" else None

    def relevances(self, scores: Sequence[float], options: Mapping[str, Any], length: float = 1.0) -> Sequence[float]:
        """Return the store's own relevance scores, which are cosines.

        Raises:
            StoreError: The search ranks by a distance, which a threshold cannot be compared with.
        """
        if self._measure(options) is None:
            raise StoreError(
                f"score_threshold is compared with cosine similarities: leave distance_metric={options['distance_metric']!r} out."
            )
        return super().relevances(scores, options, length)

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        found = self.store.store.get(ids, filter=options.get("filter"))
        return [Document(id=document.id, page_content=document.text, metadata=document.metadata) for document in found]


class Milvus(_KnownStore):
    """Milvus, whose scores are squared distances, or similarities. Its filters are expressions."""

    kind = MilvusCorpus.kind
    applied = ("expr",)
    harmless = ("param", "timeout")

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        narrowed = MilvusCorpus(self.store, MilvusCorpus(self.store, options.get("expr")).with_ids(ids))
        return [document for batch in narrowed.documents() for document in batch]


class Table(_KnownStore):
    """A store whose reader searches its table: see `TableCorpus`."""

    harmless = ("prefilter",)

    def _measure(self, options: Mapping[str, Any]) -> Measure | None:
        asked = options.get("metrics")  # LanceDB's search may be told by what to rank
        return check_lengths(self.store, self.metric if asked is None else str(asked).lower())

    def _measured(self, metric: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._table(None).measured(metric, scores)

    def _fetch(self, ids: Sequence[str], options: Mapping[str, Any]) -> list[Document]:
        return self._table(options.get("filter")).fetch(ids)

    def _table(self, filter: Any) -> TableCorpus:
        corpus: Any = KINDS[self.kind](self.store, filter)
        return corpus  # type: ignore[no-any-return]


class Lance(Table):
    """LanceDB. Its filters are SQL."""

    kind = "langchain_community.LanceDB"


class SQLiteVec(Table):
    """SQLite with sqlite-vec, which has no filters."""

    kind = "langchain_community.SQLiteVec"
    applied = ()


class SKLearn(Table):
    """Lists in memory, which scikit-learn searches, without filters."""

    kind = "langchain_community.SKLearnVectorStore"
    applied = ()


class DuckDB(Table):
    """DuckDB, which has no filters here."""

    kind = "langchain_community.DuckDB"
    applied = ()


_KINDS = {
    access.kind: access
    for access in (
        *(InMemory, Faiss, Chroma, Qdrant, PGVector, PGVectorStore, DeepLake),
        *(Milvus, Lance, SQLiteVec, SKLearn, DuckDB),
    )
}


def store_access(
    store: VectorStore, embeddings: Embeddings | None = None, id_key: str | None = None, metric: str | None = None
) -> StoreAccess:
    """Return the access to a store. A subclass that searches in its own way is a store of no known kind: see `StoreAccess`."""
    options = (embeddings, id_key, metric)
    kind = kind_of(store, _KINDS)
    if kind is None:
        return StoreAccess(store, *options)
    store_class: Any = type(store)
    known: Any = next(base for base in store_class.__mro__ if kind_of_class(base) == kind)
    own = own_searches(store, known) or "get_by_ids" in vars(store) or store_class.get_by_ids is not known.get_by_ids
    return StoreAccess(store, *options) if own else _KINDS[kind](store, *options)


def _owner(store: VectorStore, method: str) -> Any:
    """Return the class that defines a method of a store."""
    return next((base for base in type(store).__mro__ if method in vars(base)), None)


def _point_id(name: str) -> str | int | None:
    """Return the id of a Qdrant point that has this name, or None: Qdrant refuses anything but UUIDs and whole numbers."""
    if name.isdecimal():
        return int(name) if int(name) < 2**64 else None
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return None


def _pgvectorstore_documents(found: Mapping[str, Any]) -> list[Document]:
    columns = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
    return [Document(id=name, page_content=text, metadata=metadata) for name, text, metadata in columns]
