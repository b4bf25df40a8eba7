"""The documents to search: their ids and vectors, from arrays or from a store."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import InvalidVectorsError

Batch = tuple[Sequence[str], ArrayLike]
"""Ids and their (n, d) vectors."""

CorpusVectors = NDArray[np.generic] | Sequence[Sequence[float]] | Iterable[Batch]
"""An (N, d) array, whose ids come apart, or anything that yields (ids, vectors) batches."""


class Corpus(Protocol):
    """What Deep Memory needs of a store: all its documents, once through."""

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches."""
        ...

    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield batches of documents with their ids, texts and metadata, as the store's framework knows them."""
        ...


class GivenCorpus:
    """Documents that the caller passes, embedded again.

    Args:
        documents: n documents, as the store's framework knows them.
        ids: Their n ids in the store.
        texts: The n texts to embed.
        model: The store's embedding model: whatever `Embedder` takes.
    """

    def __init__(self, documents: Sequence[Any], ids: Sequence[str], texts: Sequence[str], model: Any) -> None:
        """Keep them; nothing is embedded yet."""
        self._documents, self._ids, self._texts = documents, ids, texts
        self._embedder = Embedder.of(model)
        self._vectors: Vectors | None = None

    def vectors(self) -> Iterator[Batch]:
        """Yield all documents as one batch, embedded the first time."""
        if self._vectors is None:
            self._vectors = self._embedder.embed_documents(self._texts, progress="Embedding documents")
        yield self._ids, self._vectors

    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield all documents."""
        yield self._documents


@runtime_checkable
class SearchedCorpus(Protocol):
    """A store too large to be read in full, or one that lists nothing: what its own search finds stands for all of it."""

    def near(self, queries: Vectors, k: int, ids: Collection[str]) -> Iterator[Batch]:
        """Yield, each once, the k documents nearest to each query and those with the given ids.

        Args:
            queries: (n, d) float32.
            k: How many documents for each query.
            ids: Documents that are wanted in any case; unknown ids are left out.
        """
        ...


def read_corpus(vectors: CorpusVectors, ids: Sequence[str] | None = None) -> tuple[list[str], Vectors]:
    """Gather a corpus in memory.

    Args:
        vectors: An (N, d) array with ``ids``, or batches of (ids, vectors) without.
        ids: The ids of the array's rows.

    Returns:
        The N ids, and their vectors as (N, d) float32 unit rows.

    Raises:
        InvalidVectorsError: No document; ids and vectors that differ in number; an id that is no string or appears twice;
            batches of different dimensions; a vector with NaN, infinity or nothing but zeros.
    """
    if ids is not None:
        if not isinstance(vectors, np.ndarray | list | tuple):
            raise InvalidVectorsError("corpus_ids go with an array of corpus vectors; batches bring their own ids.")
        matrix, names = np.asarray(vectors), list(ids)
    else:
        if isinstance(vectors, np.ndarray | list | tuple) and not (len(vectors) and isinstance(vectors[0], tuple)):
            raise InvalidVectorsError("Pass corpus_ids with an array of corpus vectors: the labels name documents by id.")
        names, parts = [], []
        for batch_ids, batch in cast("Iterable[Batch]", vectors):
            part = np.asarray(batch, dtype=np.float32)
            if len(batch_ids) != len(part):
                raise InvalidVectorsError(f"A batch of the corpus has {len(batch_ids)} ids for {len(part)} vectors.")
            if len(part):
                names += batch_ids
                parts.append(part)
        if len({part.shape[1:] for part in parts}) > 1:
            raise InvalidVectorsError(f"The batches have different dimensions: {sorted({part.shape[1:] for part in parts})}.")
        matrix = np.concatenate(parts) if parts else np.empty((0, 0))
    if len(names) == 0 or len(matrix) == 0:
        raise InvalidVectorsError("The corpus is empty: add documents to the store before training or evaluating.")
    if len(names) != len(matrix):
        raise InvalidVectorsError(f"Got {len(names)} ids for {len(matrix)} corpus vectors.")
    seen: set[str] = set()
    for row, name in enumerate(names):
        if not isinstance(name, str):
            raise InvalidVectorsError(f"Document ids are strings; row {row} has {name!r} ({type(name).__name__}).")
        if name in seen:
            raise InvalidVectorsError(f"The document id {name!r} appears twice in the corpus (again in row {row}).")
        seen.add(name)
    return [str(name) for name in names], unit_rows(matrix, "corpus vector", ids=names)
