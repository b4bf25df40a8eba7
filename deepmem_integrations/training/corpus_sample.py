"""The documents that a training ranks: the whole corpus, or a sample of a very large one."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.corpora import CorpusVectors, unit_batches
from deepmem_integrations.errors import EmbeddingMismatchError
from deepmem_integrations.training.attention import CorpusStatistics

MAX_DOCUMENTS = 30_000
"""How many documents a training ranks at most: the labelled ones, those nearest to training queries, and others at random."""
MINED_QUERIES = 1_000
"""How many training queries add their nearest documents to the sample of a large corpus."""
NEAR = 20
"""How many nearest documents each of these queries adds: the hard negatives."""
_MINED_TOGETHER = 1024
"""How many documents are compared with the queries at once: 4 MB of cosines stay in the processor's cache."""


@dataclass(frozen=True)
class CorpusSample:
    """The documents that training ranks: the whole corpus, or a sample of a very large one.

    Attributes:
        ids: The N ids.
        vectors: (N, d) float32 unit rows.
        statistics: The statistics of all documents, in the sample or not.
        total: How many documents the corpus has.
    """

    ids: list[str]
    vectors: Vectors
    statistics: CorpusStatistics
    total: int


def read_corpus_sample(
    vectors: CorpusVectors,
    ids: Sequence[str] | None,
    queries: Vectors,
    labelled: Collection[str],
    seed: int,
    on_read: Callable[[int], None] = lambda documents: None,
) -> CorpusSample:
    """Read a corpus once, in batches, and return it or a sample of it.

    Args:
        vectors: See `unit_batches`.
        ids: See `unit_batches`.
        queries: (n, d) float32 unit rows, the training queries.
        labelled: The documents to keep in any case.
        seed: Fixes which documents are drawn.
        on_read: Called after each batch with the number of documents that have been read.

    Raises:
        InvalidVectorsError: See `unit_batches`.
        EmbeddingMismatchError: Queries and corpus differ in dimension.
    """
    rng = np.random.default_rng(seed)
    statistics = CorpusStatistics.empty(queries.shape[1])
    sample: _Sample | None = None
    names: list[str] = []
    parts: list[Vectors] = []
    for batch_ids, batch in _in_blocks(unit_batches(vectors, ids)):
        if batch.shape[1] != queries.shape[1]:
            raise EmbeddingMismatchError(
                f"The query vectors have {queries.shape[1]} dimensions, those of the corpus {batch.shape[1]}. "
                "Embed the queries with the model that the store's documents were embedded with."
            )
        statistics.add(batch)
        if sample is None:
            names += batch_ids
            parts.append(batch)
            if len(names) > MAX_DOCUMENTS:
                drawn = np.sort(rng.permutation(len(queries))[:MINED_QUERIES])
                sample = _Sample(queries[drawn], set(labelled), rng)
                kept, names = names, []
                for part in parts:
                    sample.add(kept[: len(part)], part)
                    kept = kept[len(part) :]
                parts = []
        else:
            sample.add(batch_ids, batch)
        on_read(statistics.count)
    if sample is None:
        return CorpusSample(names, np.concatenate(parts), statistics, len(names))
    return sample.of(statistics)


def _in_blocks(batches: Iterator[tuple[list[str], Vectors]]) -> Iterator[tuple[list[str], Vectors]]:
    for names, batch in batches:
        for block in blocks(len(batch), batch.shape[1]):
            yield names[block], batch[block]


class _Sample:
    """The labelled documents, the nearest documents of some queries, and a uniform sample, updated batch by batch.

    A document keeps its place in ``vectors`` until another one takes it, so that few vectors are copied.
    """

    def __init__(self, queries: Vectors, labelled: set[str], rng: np.random.Generator) -> None:
        self.queries = queries
        self.labelled = labelled
        self.rng = rng
        self.count = 0
        self.ids: list[str] = []
        self.vectors: Vectors = np.empty((MAX_DOCUMENTS, queries.shape[1]), dtype=np.float32)
        self.numbers: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # of the documents, as the corpus counts them
        self.wanted: NDArray[np.bool_] = np.empty(0, dtype=bool)
        # Each document gets a random number; those with the smallest numbers are a uniform sample.
        self.lots: NDArray[np.float64] = np.empty(0)
        self.best: Vectors = np.full((len(queries), NEAR), -np.inf, dtype=np.float32)
        self.best_number: NDArray[np.int64] = np.full((len(queries), NEAR), -1)

    def add(self, ids: list[str], vectors: Vectors) -> None:
        self._mine(vectors)
        before = len(self.ids)
        numbers = np.concatenate([self.numbers, self.count + np.arange(len(ids))])
        wanted = np.concatenate([self.wanted, np.array([name in self.labelled for name in ids], dtype=bool)])
        lots = np.concatenate([self.lots, self.rng.random(len(ids))])
        self.count += len(ids)
        kept = wanted | np.isin(numbers, self.best_number)
        others = np.flatnonzero(~kept)
        room = max(0, max(MAX_DOCUMENTS, before) - int(kept.sum()))
        kept[others[np.argsort(lots[others])[:room]]] = True
        # New documents take the places of those that are left out, and then further places.
        new = np.flatnonzero(kept[before:])
        free = np.flatnonzero(~kept[:before])
        places = np.concatenate([free, np.arange(before, before + len(new) - len(free))])
        if len(places) and places[-1] >= len(self.vectors):
            more = np.empty((places[-1] + 1 - len(self.vectors), self.vectors.shape[1]), dtype=np.float32)
            self.vectors = np.concatenate([self.vectors, more])
        self.vectors[places] = vectors[new]
        self.ids += [""] * (len(new) - len(free))
        for place, row in zip(places.tolist(), new.tolist(), strict=True):
            self.ids[place] = ids[row]
        order = np.arange(len(self.ids))
        order[places] = before + new
        self.numbers, self.wanted, self.lots = numbers[order], wanted[order], lots[order]

    def _mine(self, vectors: Vectors) -> None:
        """Merge a batch into the nearest documents of each query. Few queries find a nearer one than they have."""
        for start in range(0, len(vectors), _MINED_TOGETHER):
            scores = self.queries @ vectors[start : start + _MINED_TOGETHER].T
            rows = np.flatnonzero((scores > self.best.min(axis=1, keepdims=True)).any(axis=1))
            scores = scores[rows]
            columns = np.argpartition(scores, -min(NEAR, scores.shape[1]), axis=1)[:, -NEAR:]
            values = np.concatenate([self.best[rows], np.take_along_axis(scores, columns, axis=1)], axis=1)
            found = np.concatenate([self.best_number[rows], columns + self.count + start], axis=1)
            order = np.argpartition(values, -NEAR, axis=1)[:, -NEAR:]
            self.best[rows] = np.take_along_axis(values, order, axis=1)
            self.best_number[rows] = np.take_along_axis(found, order, axis=1)

    def of(self, statistics: CorpusStatistics) -> CorpusSample:
        """Return the sample in the order of the corpus."""
        order = np.argsort(self.numbers)
        return CorpusSample([self.ids[row] for row in order.tolist()], self.vectors[order], statistics, self.count)
