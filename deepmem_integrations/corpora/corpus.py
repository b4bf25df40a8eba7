"""`Corpus`: the documents to search, with their ids and vectors, from arrays or from a store."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmem_integrations._ordered import ordered
from deepmem_integrations._texts import id_and_text
from deepmem_integrations._vectors import Vectors, blocks, unit_rows
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import InvalidVectorsError, StoreError

Batch = tuple[Sequence[str], ArrayLike]
"""The ids and the (n, d) vectors of some documents."""

CorpusVectors = NDArray[np.generic] | Sequence[Sequence[float]] | Iterable[Batch]
"""An (N, d) array, whose ids are passed beside it, or anything that yields (ids, vectors) batches."""
NamedBy = Callable[[str, Any], str]
"""A function from a document's id and the document to what labels name the document by, such as its parent."""
METRICS = ("cosine", "l2", "dot")
"""By what a store may rank: see `check_lengths_of`."""
_EVEN = 1.05
"""Lengths up to this ratio count as equal: an index with 8 bits a number gives unit vectors back with nearly equal lengths."""


class Corpus(Protocol):
    """The documents of a store, as training and evaluation read them.

    `ListedCorpus` is the base class for every store whose documents can all be listed.
    """

    @property
    def listed(self) -> bool:
        """Whether all documents can be listed. Otherwise the documents that the store's search finds are a sample."""
        ...

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of all documents.

        Raises:
            StoreError: The documents cannot be listed, or the store cannot be read.
        """
        ...

    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield batches of all documents as objects of the store's framework, with their ids, texts and metadata.

        Raises:
            StoreError: The documents cannot be listed, or the store cannot be read.
        """
        ...

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (ids, texts) batches of all documents, for a word index.

        Raises:
            StoreError: The documents cannot be listed, the store cannot be read, or a document has no id or no text.
        """
        ...

    def around(
        self,
        queries: Callable[[], Vectors],
        k: int,
        ids: Collection[str],
        *,
        parents: Collection[str] = (),
        named_by: NamedBy | None = None,
    ) -> Iterator[Batch]:
        """Yield the documents that training or evaluation on some queries has to rank, each document once.

        A listed corpus yields all of its documents and does not call ``queries``. Any other corpus yields the k documents
        nearest to each query, and the documents with the given ids.

        Args:
            queries: A function that returns the (n, d) float32 query vectors. The call may embed the queries first.
            k: How many documents to find for each query.
            ids: The ids of documents to yield in any case. Unknown ids are ignored.
            parents: What labels name where these are no ids: documents of such parents are yielded in any case, and those of the
                k parents nearest to each query. A listed corpus yields all of its documents.
            named_by: A function from a document's id and the document to its parent, of which other documents may have the same.

        Raises:
            StoreError: The store cannot be read, or cannot be searched by vector.
        """
        ...


@runtime_checkable
class HasCorpus(Protocol):
    """A vector store that reads its own documents. The Deep Lake stores for LangChain and for LlamaIndex are of this kind."""

    def corpus(self) -> Corpus:
        """Return a reader of the store's documents."""
        ...


class ListedCorpus(ABC):
    """A corpus whose documents can all be listed. A subclass defines how the vectors and the documents of a store are read.

    Example:
        >>> class Shelf(ListedCorpus):
        ...     def vectors(self):
        ...         yield ["doc-1", "doc-2"], [[1.0, 0.0], [0.0, 1.0]]
        ...
        ...     def documents(self):
        ...         yield [("doc-1", "Undo a commit."), ("doc-2", "Make a branch.")]
        >>> read_corpus(Shelf().vectors())[0]
        ['doc-1', 'doc-2']
    """

    listed: ClassVar[bool] = True

    @abstractmethod
    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of all documents."""

    @abstractmethod
    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield batches of all documents as objects of the store's framework."""

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (ids, texts) batches of all documents (see `Corpus.texts`)."""
        for batch in self.documents():
            ids, texts = [], []
            for document in batch:
                found = id_and_text(document)
                if found is None or found[0] is None:
                    what = "text" if found is None else "id"
                    raise StoreError(f"A {type(document).__name__} of the store has no {what}, so its words cannot be indexed.")
                ids.append(str(found[0]))
                texts.append(found[1])
            yield ids, texts

    def around(
        self,
        queries: Callable[[], Vectors],
        k: int,
        ids: Collection[str],
        *,
        parents: Collection[str] = (),
        named_by: NamedBy | None = None,
    ) -> Iterator[Batch]:
        """Yield the vectors of all documents. The arguments make no difference (see `Corpus.around`)."""
        return self.vectors()


class GivenCorpus(ListedCorpus):
    """A corpus of documents that the caller passes. The documents are embedded when their vectors are first read.

    Args:
        documents: The n documents, as objects of the store's framework.
        ids: The n ids of the documents in the store.
        texts: The n texts to embed.
        model: The store's embedding model, as `Embedder` takes it.
        metric: By what the store ranks: see `check_lengths_of`.
        store: The name of the store's class, for error messages.

    Example:
        >>> pages = ["How to install", "How to upgrade"]
        >>> corpus = GivenCorpus(pages, ["page-1", "page-2"], pages, lambda texts: [[len(text), 1.0] for text in texts])
        >>> ids, vectors = next(corpus.vectors())
        >>> ids, vectors.shape
        (['page-1', 'page-2'], (2, 2))
    """

    def __init__(
        self,
        documents: Sequence[Any],
        ids: Sequence[str],
        texts: Sequence[str],
        model: Any,
        metric: str | None = "cosine",
        store: str = "The store",
    ) -> None:
        self._documents, self._ids, self._texts = documents, ids, texts
        self._metric, self._store = metric, store
        self._embedder = Embedder.of(model)
        self._vectors: Vectors | None = None

    def vectors(self) -> Iterator[Batch]:
        """Yield the ids and vectors of all documents as one batch. The first call embeds the documents.

        Raises:
            StoreError: See `check_lengths_of`.
        """
        if self._vectors is None:
            self._vectors = self._embedder.embed_documents(self._texts, progress="Embedding documents")
        yield from check_lengths_of([(self._ids, self._vectors)], self._metric, self._store)

    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield all documents as one batch of objects of the store's framework."""
        yield self._documents

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield the ids and texts of all documents as one batch."""
        yield list(self._ids), list(self._texts)


class CorpusView(ListedCorpus):
    """Some documents of a corpus that can be listed, or its documents under other names.

    Args:
        corpus: The corpus.
        view: A function from a document of the corpus to the document with the id that names it here; None leaves it out.

    Example:
        >>> pages = GivenCorpus([("1", "A"), ("2", "B")], ["1", "2"], ["A", "B"], lambda texts: [[1.0, 2.0] for _ in texts])
        >>> view = CorpusView(pages, lambda page: ("page-" + page[0], page[1]) if page[0] != "1" else None)
        >>> [ids for ids, _ in view.vectors()], list(view.documents())
        ([['page-2']], [[('page-2', 'B')]])
    """

    def __init__(self, corpus: Corpus, view: Callable[[Any], Any | None]) -> None:
        self._corpus, self._view = corpus, view

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches. The documents are read first, since they tell the names.

        Raises:
            StoreError: Two documents have the same name.
        """
        names: dict[str, str] = {}
        for batch in self._corpus.documents():
            for document in batch:
                if (seen := self._view(document)) is not None:
                    names[_id_of(document)] = _id_of(seen)
        counts = Counter(names.values())
        if twice := [name for name, count in counts.items() if count > 1]:
            raise StoreError(
                f"{len(twice)} names stand for several documents of the store, {twice[0]!r} for {counts[twice[0]]} of them. "
                "Name documents by a metadata key whose values all differ (id_key)."
            )
        for ids, vectors in self._corpus.vectors():
            rows = [row for row, name in enumerate(ids) if name in names]
            if rows:
                yield [names[ids[row]] for row in rows], np.asarray(vectors)[rows]

    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield batches of the documents, with the ids that name them here."""
        for batch in self._corpus.documents():
            seen = [self._view(document) for document in batch]
            if kept := [document for document in seen if document is not None]:
                yield kept


def _id_of(document: Any) -> str:
    found = id_and_text(document)
    if found is None or found[0] is None:
        raise StoreError(f"A {type(document).__name__} of the store has no id, so no label can name it.")
    return str(found[0])


def check_metric(metric: str | None) -> str | None:
    """Return the metric that a caller names.

    Raises:
        StoreError: The metric is unknown.
    """
    if metric is not None and metric not in METRICS:
        raise StoreError(f"metric says by what the store ranks: {', '.join(map(repr, METRICS))}; got {metric!r}.")
    return metric


def check_lengths_of(batches: Iterable[Batch], metric: str | None, store: str) -> Iterator[Batch]:
    """Check that a store ranks as cosine similarity does, by which adapters are trained and judged, and yield its batches.

    Vectors of equal length rank alike by cosine similarity, L2 distance and dot product.

    Args:
        batches: (ids, (n, d) vectors) batches.
        metric: By what the store ranks: ``cosine``, ``l2``, ``dot``, or the store's own name for another metric; None where
            nobody knows.
        store: The name of the store's class.

    Raises:
        StoreError: The store does not rank by cosine similarity, or by nobody knows what, and the vectors' lengths differ.
    """
    shortest, longest = np.inf, 0.0
    for ids, vectors in batches:
        if metric != "cosine" and len(ids):
            lengths = np.linalg.norm(np.asarray(vectors, dtype=np.float32), axis=1)
            shortest, longest = min(shortest, lengths.min()), max(longest, lengths.max())
            uneven = longest > _EVEN * shortest
            if metric is None and uneven:
                raise StoreError(
                    f"{store} does not tell by what it ranks, which matters, since its vectors have lengths of {shortest:.3g} to "
                    f'{longest:.3g}. Say so: metric="cosine"; or "l2" or "dot", by which such vectors rank otherwise.'
                )
            if metric is not None and (uneven or metric not in METRICS):
                raise StoreError(
                    f"{store} ranks by {metric}, and its vectors have lengths of {shortest:.3g} to "
                    f"{longest:.3g}; Deep Memory ranks by cosine similarity. Make the store with cosine distance, or with "
                    "L2 distance or dot product and vectors of length 1, which rank alike."
                )
        yield ids, vectors


def unit_batches(
    vectors: CorpusVectors, ids: Sequence[str] | None = None, *, first: int = 0
) -> Iterator[tuple[list[str], Vectors]]:
    """Check a corpus and go through it once, batch by batch.

    Args:
        vectors: An (N, d) array, memory-mapped or not, together with ``ids``; or batches of (ids, vectors) without ``ids``.
        ids: The N ids of the array's rows.
        first: The number of the first document, for error messages.

    Yields:
        Batches of n ≥ 1 ids and their vectors, (n, d) float32 unit rows.

    Raises:
        InvalidVectorsError: There is no document; the numbers of ids and vectors differ; an id is no string or appears twice;
            batches have different dimensions; or a vector holds NaN or infinity, or is all zeros.
    """
    seen: set[str] = set()
    dimension = None
    for names, part in _batches(vectors, ids):
        if len(names) != len(part):
            raise InvalidVectorsError(f"A batch of the corpus has {len(names)} ids for {len(part)} vectors.")
        if not len(part):
            continue
        for row, name in enumerate(names, start=first + len(seen)):
            if not isinstance(name, str):
                raise InvalidVectorsError(f"Document ids are strings; row {row} has {name!r} ({type(name).__name__}).")
            if name in seen:
                raise InvalidVectorsError(f"The document id {name!r} appears twice in the corpus (again in row {row}).")
            seen.add(name)
        unit = unit_rows(part, "corpus vector", ids=names, first=first + len(seen) - len(names))
        if dimension is not None and unit.shape[1] != dimension:
            raise InvalidVectorsError(f"The batches have different dimensions: {sorted({dimension, unit.shape[1]})}.")
        dimension = unit.shape[1]
        yield [str(name) for name in names], unit
    if not seen:
        raise InvalidVectorsError("The corpus is empty: add documents to the store before training or evaluating.")


def digest(ids: Sequence[str], vectors: Vectors) -> int:
    """Return a number that tells documents from others. Those of two parts of a corpus add up, in any order.

    Args:
        ids: n ids.
        vectors: (n, d) float32 unit rows.
    """
    rows = zip(ids, vectors, strict=True)
    hashes = (hashlib.sha256(name.encode("utf-8", "surrogatepass") + vector.tobytes()).digest() for name, vector in rows)
    return sum(int.from_bytes(found[:8]) for found in hashes)


def read_corpus(vectors: CorpusVectors, ids: Sequence[str] | None = None) -> tuple[list[str], Vectors]:
    """Read a whole corpus into memory.

    Args:
        vectors: See `unit_batches`.
        ids: See `unit_batches`.

    Returns:
        The N ids, and their vectors as (N, d) float32 unit rows.

    Raises:
        InvalidVectorsError: See `unit_batches`.

    Example:
        >>> read_corpus([[3.0, 4.0]], ["doc-1"])
        (['doc-1'], array([[0.6, 0.8]], dtype=float32))
    """
    names: list[str] = []
    parts: list[Vectors] = []
    for batch_ids, part in unit_batches(vectors, ids):
        names += batch_ids
        parts.append(part)
    return names, np.concatenate(parts) if len(parts) > 1 else parts[0]


def _batches(vectors: CorpusVectors, ids: Sequence[str] | None) -> Iterator[tuple[Sequence[Any], NDArray[Any]]]:
    if hasattr(vectors, "__array__") and not isinstance(vectors, np.ndarray):  # a tensor, or a table of a data frame
        vectors = np.asarray(vectors)
    is_matrix = isinstance(vectors, np.ndarray | list | tuple)
    if ids is None:
        if is_matrix and not (len(vectors) and isinstance(vectors[0], tuple)):  # type: ignore[arg-type,index]
            raise InvalidVectorsError("Pass corpus_ids with an array of corpus vectors: the labels name documents by id.")
        for names, part in cast("Iterable[Batch]", vectors):
            yield list(names), np.asarray(part)
        return
    if not is_matrix:
        raise InvalidVectorsError(
            f"corpus_ids go with an array of corpus vectors; got {type(vectors).__name__}, and batches bring their own ids."
        )
    ids = ordered(ids, "corpus_ids", InvalidVectorsError)
    matrix = vectors if isinstance(vectors, np.ndarray) else np.asarray(vectors)
    if len(ids) != len(matrix):
        raise InvalidVectorsError(f"Got {len(ids)} ids for {len(matrix)} corpus vectors.")
    if matrix.ndim != 2:
        unit_rows(matrix, "corpus vector")
    for block in blocks(len(matrix), matrix.shape[1]):
        yield list(ids[block]), matrix[block]
