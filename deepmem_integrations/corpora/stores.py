"""The common parts of the readers: the base class, and functions for the stores that both frameworks wrap.

The packages of the stores are neither needed nor imported.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeVar

import numpy as np

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora.corpus import Batch, ListedCorpus
from deepmem_integrations.errors import StoreError

BATCH = 1_000
"""How many documents are read from a store at a time."""
_EVEN = 1.05
"""The ratio of the longest to the shortest vector up to which the lengths count as equal.

An index that keeps 8 bits for each number returns unit vectors whose lengths differ by a few percent.
"""
_Item = TypeVar("_Item")


class StoreCorpus(ListedCorpus):
    """A corpus of all documents of one kind of vector store.

    Args:
        store: The store, which is read anew with each call of a method.
    """

    kind: ClassVar[str]
    """The top-level package and the name of the store's class, for example ``langchain_chroma.Chroma``."""

    def __init__(self, store: Any) -> None:
        self.store = store

    @property
    def metric(self) -> str:
        """The measure by which the store ranks: ``cosine``, ``l2``, ``dot``, or another name that the store gives it."""
        return "cosine"

    @abstractmethod
    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of all documents, unchecked."""

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of all documents.

        An adapter is trained and evaluated by cosine similarity, and its transformed queries have the length 1. So the store has
        to rank as cosine similarity does. Vectors of equal length rank alike by cosine similarity, L2 distance and dot product.

        Raises:
            StoreError: The store ranks by L2 distance or dot product and its vectors differ in length by more than 5%, or the
                store ranks by a measure other than these.
        """
        metric = self.metric
        shortest, longest = np.inf, 0.0
        for ids, vectors in self.read_vectors():
            if metric != "cosine":
                lengths = np.linalg.norm(np.asarray(vectors, dtype=np.float32), axis=1)
                shortest, longest = min(shortest, lengths.min()), max(longest, lengths.max())
                if metric not in ("l2", "dot") or longest > _EVEN * shortest:
                    raise StoreError(
                        f"{type(self.store).__name__} ranks by {metric}, and its vectors have lengths of {shortest:.3g} to "
                        f"{longest:.3g}; Deep Memory ranks by cosine similarity. Make the store with cosine distance, or with "
                        "L2 distance or dot product and vectors of length 1, which rank alike."
                    )
            yield ids, vectors

    def check_lengths(self) -> None:
        """Check on the first batch of vectors that the lengths of the vectors do not change the ranking.

        Later vectors are not checked, so the check may miss a difference.

        Raises:
            StoreError: The store does not rank the first vectors as cosine similarity does (see `vectors`).
        """
        if self.metric != "cosine":
            next(self.vectors(), None)


def kind_of(store: Any, kinds: Iterable[str]) -> str | None:
    """Return the kind of a store, if it is among the given kinds. A subclass has the kind of its base class.

    Args:
        store: The store.
        kinds: The kinds to look for, in the form of `StoreCorpus.kind`.

    Returns:
        The kind, or None if the store has none of these kinds.
    """
    names = [f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(store).__mro__]
    known = set(kinds)
    return next((name for name in names if name in known), None)


def batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield the items in lists of at most `BATCH` items."""
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def faiss_metric(index: Any) -> str:
    """Return the measure by which a FAISS index ranks, in the words of `StoreCorpus.metric`."""
    number = int(index.metric_type)
    return {0: "dot", 1: "l2"}.get(number, f"FAISS's metric {number}")


def faiss_vectors(index: Any, start: int, rows: int, instead: str) -> Vectors:
    """Return the vectors of consecutive rows of a FAISS index.

    Args:
        index: The FAISS index.
        start: The first row.
        rows: The number of rows.
        instead: The advice with which the error message ends.

    Returns:
        (rows, d) float32.

    Raises:
        StoreError: The index cannot return its vectors.
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
    """Return the measure by which a Chroma collection ranks, from its configuration."""
    spaces = [(collection.configuration_json.get(index) or {}).get("space") for index in ("hnsw", "spann")]
    name = next(filter(None, spaces), (collection.metadata or {}).get("hnsw:space", "l2"))
    return {"ip": "dot"}.get(name, str(name))


def chroma_records(collection: Any, *include: str) -> Iterator[Any]:
    """Yield the records of a Chroma collection in batches.

    The records are read by id, because offsets shift while somebody writes to the collection.
    """
    for batch in batches(collection.get(include=[])["ids"]):
        yield collection.get(ids=batch, include=list(include))


def qdrant_metric(client: Any, collection: str, vector_name: str) -> str:
    """Return the measure by which a Qdrant collection ranks, from its configuration."""
    vectors = client.get_collection(collection).config.params.vectors
    parameters = vectors[vector_name] if isinstance(vectors, dict) else vectors
    name = str(parameters.distance.value).lower()
    return {"euclid": "l2"}.get(name, name)


def qdrant_points(client: Any, collection: str, **options: Any) -> Iterator[list[Any]]:
    """Yield the points of a Qdrant collection in batches."""
    offset = None
    while True:
        points, offset = client.scroll(collection, limit=BATCH, offset=offset, **options)
        if points:
            yield points
        if offset is None:
            return
