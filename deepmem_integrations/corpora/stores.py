"""Readers of vector stores, as far as a kind of store is read in the same way through LangChain and LlamaIndex.

The stores' own packages are never imported.
"""

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora.corpus import Batch, ListedCorpus, check_lengths_of
from deepmem_integrations.errors import DeepMemoryError, StoreError

BATCH = 1_000
"""How many documents are read from a store at a time."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Measure:
    """By what a store ranks, and so how its scores tell cosine similarities.

    Attributes:
        metric: See `StoreCorpus.metric`.
        length: The length of the store's vectors, which is the same for all of them; 1 where the metric is ``cosine``.
    """

    metric: str
    length: float = 1.0

    def cosines(self, scores: ArrayLike, query_length: float = 1.0) -> Vectors:
        """Turn scores into cosine similarities.

        Args:
            scores: (m,) cosine similarities, dot products, or *squared* L2 distances.
            query_length: The length of the query vector, which does not matter where the metric is ``cosine``.

        Returns:
            (m,) float32.

        Example:
            >>> Measure("dot", length=2.0).cosines([1.0]), Measure("l2").cosines([0.0, 2.0])
            (array([0.5], dtype=float32), array([1., 0.], dtype=float32))
        """
        given = np.asarray(scores, dtype=np.float64)
        if self.metric == "l2":
            given = (query_length**2 + self.length**2 - given) / 2
        if self.metric != "cosine":
            given = given / (query_length * self.length)
        return np.asarray(given, dtype=np.float32)


class StoreCorpus(ListedCorpus):
    """The documents of one kind of vector store, with the vectors that the store has.

    Args:
        store: The store. It is read anew with each call.
        filter: The store's own filter, which the documents have to pass; None for all documents.
        metric: By what the caller says that the store ranks; by default the store tells.
    """

    kind: ClassVar[str]
    """The top package and the class of the store, such as ``langchain_chroma.Chroma``."""
    filters: ClassVar[bool] = True
    """Whether the store has filters. The search of a store that has none may ignore one in silence."""

    tells_numbers: ClassVar[bool] = False
    """Whether the store's filters tell the number 1 from the text "1"."""

    filter_option: ClassVar[str] = "filter"
    """The name of the option by which the store's search takes its filter."""

    def __init__(self, store: Any, filter: Any = None, metric: str | None = None) -> None:
        if filter is not None and not self.filters:
            raise StoreError(
                f"A {type(store).__name__} has no filters. Pass the documents that belong, documents=[…], or make a store for "
                "each tenant."
            )
        self.store, self.filter = store, filter
        self._given_metric = metric

    @property
    def metric(self) -> str:
        """The metric by which the store ranks: ``cosine``, ``l2``, ``dot``, or the store's own name for another one."""
        return "cosine"

    @property
    def metric_used(self) -> str:
        """The metric that the caller named, or else that of the store.

        Raises:
            StoreError: The store does not answer.
        """
        if self._given_metric:
            return self._given_metric
        with _reading(self.store):
            return self.metric

    @property
    def metadata_id(self) -> str | None:
        """The metadata key under which the store's search returns the id of a document; None where there is no such key."""
        return None

    def having(self, key: str, names: Sequence[str] | Sequence[int]) -> Any:
        """Return the store's own filter for documents that pass the reader's, and have one of some values under a metadata key.

        Args:
            key: The metadata key.
            names: Texts; or whole numbers, where the store's filters tell them from texts.

        Raises:
            NotImplementedError: The store's filters cannot say so.
        """
        raise NotImplementedError(f"a filter of {self.kind} by a list of texts")

    def fetch_by(self, key: str, names: Sequence[str] | Sequence[int]) -> list[Any]:
        """Return the documents that pass the filter and have one of some values under a metadata key: see `having`.

        Raises:
            NotImplementedError: The store's filters cannot say so.
        """
        narrowed = type(self)(self.store, self.having(key, names))
        return [document for batch in narrowed.documents() for document in batch]

    @abstractmethod
    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches, whatever the metric."""

    @abstractmethod
    def read_documents(self) -> Iterator[Sequence[Any]]:
        """Yield batches of all documents as objects of the store's framework."""

    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield batches of all documents as objects of the store's framework.

        Raises:
            StoreError: The store cannot be read, or fails in the middle.
        """
        return readable(self.read_documents(), self.store)

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of all documents.

        An adapter is trained and evaluated by cosine similarity, and its transformed queries have the length 1. So the store has
        to rank as cosine similarity does.

        Raises:
            StoreError: The store cannot be read, or does not rank by cosine similarity, and the vectors' lengths differ, so that
                its ranking is another one: see `check_lengths_of`.
        """
        return check_lengths_of(readable(self.read_vectors(), self.store), self.metric_used, type(self.store).__name__)

    def measure(self) -> Measure | None:
        """Return by what the store ranks, and check on the first vectors that their lengths do not change the ranking.

        Later vectors may still do so.

        Returns:
            None where the lengths matter and there is no vector yet.

        Raises:
            StoreError: See `vectors`.
        """
        metric = self.metric_used
        if metric == "cosine":
            return Measure(metric)
        first = next(self.vectors(), None)
        if first is None:
            return None
        return Measure(metric, float(np.linalg.norm(np.asarray(first[1], dtype=np.float32), axis=1).mean()))


def readable(batches: Iterator[_Item], store: Any) -> Iterator[_Item]:
    """Yield batches, and turn the errors of the store's own package into a StoreError."""
    with _reading(store):
        yield from batches


@contextlib.contextmanager
def _reading(store: Any) -> Iterator[None]:
    try:
        yield
    except DeepMemoryError:
        raise
    except Exception as error:
        name = type(store).__name__
        raise StoreError(
            f"The documents of {name} cannot be read: {type(error).__name__}: {error}. Check the store with its own tools."
        ) from error


def kind_of(store: Any, kinds: Iterable[str]) -> str | None:
    """Find the kind of a store among some kinds, each written as in `StoreCorpus.kind`; a subclass is of its base's kind."""
    names = [kind_of_class(base) for base in type(store).__mro__]
    known = set(kinds)
    return next((name for name in names if name in known), None)


def kind_of_class(store_class: type) -> str:
    """Write a class as in `StoreCorpus.kind`."""
    return f"{store_class.__module__.partition('.')[0]}.{store_class.__name__}"


def batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Cut anything that can be iterated into lists of `BATCH` items."""
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def faiss_metric(index: Any) -> str:
    """Return the metric of a FAISS index: see `StoreCorpus.metric`."""
    number = int(index.metric_type)
    return {0: "dot", 1: "l2"}.get(number, f"FAISS's metric {number}")


def faiss_vectors(index: Any, start: int, rows: int, instead: str) -> Vectors:
    """Read the vectors of some rows of a FAISS index.

    Args:
        index: The index.
        start: The first row.
        rows: How many rows to read.
        instead: The end of the error message, which says what to do instead.

    Returns:
        (rows, d) float32.

    Raises:
        StoreError: The index cannot give its vectors back.
    """
    try:
        if not hasattr(index, "make_direct_map"):
            index.reconstruct(start)  # if this call fails, reconstruct_n would abort the whole process
        return np.asarray(index.reconstruct_n(start, rows), dtype=np.float32)
    except RuntimeError as error:
        raise StoreError(
            f"This FAISS index cannot return its vectors ({error}). Call make_direct_map() on the index if it has that method, "
            f"or {instead}"
        ) from error


def chroma_metric(collection: Any) -> str:
    """Return the metric of a Chroma collection, from its configuration: see `StoreCorpus.metric`."""
    spaces = [(collection.configuration_json.get(index) or {}).get("space") for index in ("hnsw", "spann")]
    name = next(filter(None, spaces), (collection.metadata or {}).get("hnsw:space", "l2"))
    return {"ip": "dot"}.get(name, str(name))


def chroma_records(collection: Any, *include: str, where: Any = None) -> Iterator[Any]:
    """Yield a Chroma collection, or what passes a filter, in batches, by ids, since offsets shift when another process writes."""
    for batch in batches(collection.get(include=[], where=where)["ids"]):
        yield collection.get(ids=batch, include=list(include))


def qdrant_metric(client: Any, collection: str, vector_name: str) -> str:
    """Return the metric of a Qdrant collection, from its configuration: see `StoreCorpus.metric`."""
    vectors = client.get_collection(collection).config.params.vectors
    parameters = vectors[vector_name] if isinstance(vectors, dict) else vectors
    name = str(parameters.distance.value).lower()
    return {"euclid": "l2"}.get(name, name)


def qdrant_points(client: Any, collection: str, **options: Any) -> Iterator[list[Any]]:
    """Yield a Qdrant collection in batches of points."""
    offset = None
    while True:
        points, offset = client.scroll(collection, limit=BATCH, offset=offset, **options)
        if points:
            yield points
        if offset is None:
            return


def lance_metric(table: Any, column: str) -> str:
    """Return the metric by which LanceDB searches a column of a table: that of the column's index, or else L2 distance."""
    for index in table.list_indices() if table is not None else ():
        if column in index.columns:
            return str(getattr(table.index_stats(index.name), "distance_type", None) or "l2").lower()
    return "l2"


def milvus_rows(client: Any, collection: str, filter: str, columns: list[str]) -> Iterator[list[Any]]:
    """Yield batches of the rows of a Milvus collection that pass a filter."""
    if not client.has_collection(collection):
        return
    found = client.query_iterator(collection, batch_size=BATCH, filter=filter, output_fields=columns)
    try:
        while rows := found.next():
            yield list(rows)
    finally:
        found.close()


def whole_numbers(names: Iterable[str]) -> list[int]:
    """Return the whole numbers that names spell. A name that spells none is left out.

    Example:
        >>> whole_numbers(["7", "-1", "07", "page-1"])
        [7, -1]
    """
    return [int(name) for name in names if name.removeprefix("-").isdecimal() and str(int(name)) == name]


def sql_texts(texts: Sequence[str]) -> str:
    """Write texts as a list in SQL, with quotes doubled.

    Example:
        >>> sql_texts(["a", "it's"])
        "'a', 'it''s'"
    """
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
