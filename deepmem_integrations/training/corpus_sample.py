"""The documents that a training ranks: the whole corpus, or a sample of a very large one."""

from collections.abc import Collection, Iterator, Sequence
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
    vectors: CorpusVectors, ids: Sequence[str] | None, queries: Vectors, labelled: Collection[str], seed: int
) -> CorpusSample:
    """Read a corpus once, in batches, and return it or a sample of it.

    Args:
        vectors: See `unit_batches`.
        ids: See `unit_batches`.
        queries: (n, d) float32 unit rows, the training queries.
        labelled: The documents to keep in any case.
        seed: Fixes which documents are drawn.

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
    if sample is None:
        return CorpusSample(names, np.concatenate(parts), statistics, len(names))
    return CorpusSample(sample.ids, sample.vectors, statistics, statistics.count)


def _in_blocks(batches: Iterator[tuple[list[str], Vectors]]) -> Iterator[tuple[list[str], Vectors]]:
    for names, batch in batches:
        for block in blocks(len(batch), batch.shape[1]):
            yield names[block], batch[block]


class _Sample:
    """The labelled documents, the nearest documents of some queries, and a uniform sample, updated batch by batch."""

    def __init__(self, queries: Vectors, labelled: set[str], rng: np.random.Generator) -> None:
        self.queries = queries
        self.labelled = labelled
        self.rng = rng
        self.ids: list[str] = []
        self.vectors: Vectors = np.empty((0, queries.shape[1]), dtype=np.float32)
        self.wanted: NDArray[np.bool_] = np.empty(0, dtype=bool)
        # Each document gets a random number; those with the smallest numbers are a uniform sample.
        self.lots: NDArray[np.float64] = np.empty(0)
        self.best: Vectors = np.full((len(queries), NEAR), -np.inf, dtype=np.float32)
        self.best_row: NDArray[np.int64] = np.full((len(queries), NEAR), -1)

    def add(self, ids: list[str], vectors: Vectors) -> None:
        offset = len(self.ids)
        self.ids += ids
        self.vectors = np.concatenate([self.vectors, vectors])
        self.wanted = np.concatenate([self.wanted, np.array([name in self.labelled for name in ids], dtype=bool)])
        self.lots = np.concatenate([self.lots, self.rng.random(len(ids))])
        self._mine(vectors, offset)
        mined = np.zeros(len(self.ids), dtype=bool)
        mined[self.best_row[self.best_row >= 0]] = True
        kept = self.wanted | mined
        others = np.flatnonzero(~kept)
        room = max(0, MAX_DOCUMENTS - int(kept.sum()))
        kept[others[np.argsort(self.lots[others])[:room]]] = True
        rows = np.flatnonzero(kept)
        place = np.full(len(self.ids), -1)
        place[rows] = np.arange(len(rows))
        self.best_row = np.where(self.best_row >= 0, place[self.best_row], -1)
        self.ids = [self.ids[row] for row in rows]
        self.vectors, self.wanted, self.lots = self.vectors[rows], self.wanted[rows], self.lots[rows]

    def _mine(self, vectors: Vectors, offset: int) -> None:
        """Merge a batch into the nearest documents of each query. Few queries find a nearer one than they have."""
        for block in blocks(len(self.queries), len(vectors)):
            scores = self.queries[block] @ vectors.T
            better = np.flatnonzero((scores > self.best[block].min(axis=1, keepdims=True)).any(axis=1))
            k = min(NEAR, len(vectors))
            columns = np.argpartition(scores[better], -k, axis=1)[:, -k:]
            rows = better + block.start
            values = np.concatenate([self.best[rows], np.take_along_axis(scores[better], columns, axis=1)], axis=1)
            found = np.concatenate([self.best_row[rows], columns + offset], axis=1)
            order = np.argpartition(values, -NEAR, axis=1)[:, -NEAR:]
            self.best[rows] = np.take_along_axis(values, order, axis=1)
            self.best_row[rows] = np.take_along_axis(found, order, axis=1)
