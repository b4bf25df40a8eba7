"""The documents that a training ranks: the whole corpus, or a sample of a very large one.

A large corpus is read in shards, on this machine or by workers elsewhere, with the same result to the last bit wherever the
machines compute alike: each shard is summed up by itself, the sums are added in the order of the corpus, and the choice of
documents does not depend on the order (see `deepmem_integrations.corpora.selection`).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations._workers import Workers
from deepmem_integrations.corpora import CorpusVectors, Lots, Selected, Selection, Shard, ShardedCorpus, digest, unit_batches
from deepmem_integrations.corpora.shards import BLOCKS, array_shards, unit_shard
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError
from deepmem_integrations.training.attention import CorpusStatistics
from deepmem_integrations.training.checkpoint import Parts, TrainingCheckpoint, as_array, as_texts
from deepmem_integrations.training.hardware import single_threaded_operations

MAX_DOCUMENTS = 30_000
"""How many documents a training ranks at most: the labelled ones, those nearest to training queries, and others at random."""
MINED_QUERIES = 1_000
"""How many training queries add their nearest documents to the sample of a large corpus."""
NEAR = 20
"""How many nearest documents each of these queries adds: the hard negatives."""
_PART = "corpus"
"""The part of a checkpoint that holds what was read."""


@dataclass(frozen=True)
class CorpusSample:
    """The documents that training ranks: the whole corpus, or a sample of a very large one.

    Attributes:
        ids: The N ids.
        vectors: (N, d) float32 unit rows.
        statistics: The statistics of all documents, in the sample or not.
        total: How many documents the corpus has.
        digest: A number that the ids and vectors of a `ShardedCorpus` give, in any order; None for any other corpus.
    """

    ids: list[str]
    vectors: Vectors
    statistics: CorpusStatistics
    total: int
    digest: int | None = None


def read_corpus_sample(
    vectors: CorpusVectors | ShardedCorpus,
    ids: Sequence[str] | None,
    queries: Vectors,
    labelled: Collection[str],
    seed: int,
    on_read: Callable[[int], None] = lambda documents: None,
    workers: Workers | None = None,
    checkpoint: TrainingCheckpoint | None = None,
) -> CorpusSample:
    """Read a corpus once, in batches, and return it or a sample of it.

    Args:
        vectors: A corpus in shards, or see `unit_batches`.
        ids: See `unit_batches`.
        queries: (n, d) float32 unit rows, the training queries.
        labelled: The documents to keep in any case.
        seed: Fixes which documents are drawn.
        on_read: Called after each batch with the number of documents that have been read.
        workers: Who reads the shards of a large corpus; by default this process, one after another. Batches have no shards.
        checkpoint: Keeps what the shards of a large corpus have yielded so far. With a checkpoint, the ids of an array must be
            known to differ.

    Raises:
        InvalidVectorsError: See `unit_batches`.
        EmbeddingMismatchError: Queries and corpus differ in dimension.
    """
    rng = np.random.default_rng(seed)
    mined = queries[np.sort(rng.permutation(len(queries))[:MINED_QUERIES])]
    lots = Lots(rng.bit_generator.state)
    digested = isinstance(vectors, ShardedCorpus)
    shards = _shards(vectors, ids) if workers is not None or checkpoint is not None else ()
    done = _Done.so_far(Selection(mined, labelled, NEAR, MAX_DOCUMENTS, lots), queries.shape[1], checkpoint if shards else None)
    if done.shards:
        on_read(done.statistics.count)
    if workers is not None and shards:
        total = sum(shard.count for shard in shards)
        if total > MAX_DOCUMENTS:
            shared = (mined, frozenset(labelled), lots, lots.limit(total, MAX_DOCUMENTS), (NEAR, MAX_DOCUMENTS), digested)
            _read_by_workers(workers, shards, shared, done, on_read)
            return done.chosen(digested)
    large = done.shards > 0
    names: list[str] = []
    parts: list[Vectors] = []
    for shard in map(unit_shard, shards[done.shards :]) if checkpoint is not None and shards else _read(vectors, ids):
        statistics, number = CorpusStatistics.empty(queries.shape[1]), 0
        for first, batch_ids, batch in shard:
            _check_dimension(queries, batch)
            statistics.add(batch)
            number += digest(batch_ids, batch) if digested else 0
            if large:
                done.sample.add(first, batch_ids, batch)
            else:
                names += batch_ids
                parts.append(batch)
                if len(names) > MAX_DOCUMENTS:
                    large, kept, start = True, names, 0
                    for part in parts:
                        done.sample.add(start, kept[start : start + len(part)], part)
                        start += len(part)
                    names, parts = [], []
            on_read(done.statistics.count + statistics.count)
        done.add(statistics, number, keep=large)
    if not large:
        if len(set(names)) < len(names):  # each shard has seen its own ids alone
            raise InvalidVectorsError("A document id appears twice in the corpus: ids name one document each.")
        return CorpusSample(names, np.concatenate(parts), done.statistics, len(names), done.digest if digested else None)
    return done.chosen(digested)


@dataclass
class _Done:
    """What the shards of a corpus have yielded that were read so far.

    Attributes:
        sample: The choice among their documents, if the corpus is a large one.
        statistics: The statistics of their documents.
        digest: Their digest.
        shards: How many shards these are.
        checkpoint: Where this is kept; None keeps it nowhere.
    """

    sample: Selection
    statistics: CorpusStatistics
    digest: int = 0
    shards: int = 0
    checkpoint: TrainingCheckpoint | None = None

    @classmethod
    def so_far(cls, sample: Selection, dimension: int, checkpoint: TrainingCheckpoint | None) -> "_Done":
        """Go on with what is kept, or begin.

        Args:
            sample: An empty selection.
            dimension: The dimension of the vectors.
            checkpoint: Where it is kept, or None.
        """
        parts = None if checkpoint is None else checkpoint.read(_PART)
        if parts is None:
            return cls(sample, CorpusStatistics.empty(dimension), checkpoint=checkpoint)
        number, shards = as_texts(parts["counts"])
        arrays = {name: parts[name] for name in ("numbers", "vectors", "lots", "scores", "nearest")}
        sample.join(Selected(ids=as_texts(parts["ids"]), **arrays))
        return cls(sample, CorpusStatistics.of_arrays(parts), int(number), int(shards), checkpoint)

    def add(self, statistics: CorpusStatistics, number: int, *, keep: bool) -> None:
        """Add what a further shard yielded, but for its documents, which are in the sample.

        Args:
            statistics: The statistics of its documents.
            number: Their digest.
            keep: Whether to write to the checkpoint when that is due.
        """
        self.statistics.join(statistics)
        self.digest += number
        self.shards += 1
        if keep and self.checkpoint is not None and self.checkpoint.due:
            self.checkpoint.write(_PART, self._arrays())

    def _arrays(self) -> Parts:
        found = self.sample.part()
        return {
            "counts": as_array([str(self.digest), str(self.shards)]),
            "ids": as_array(found.ids),
            "numbers": found.numbers,
            "vectors": found.vectors,
            "lots": found.lots,
            "scores": found.scores,
            "nearest": found.nearest,
            **self.statistics.arrays(),
        }

    def chosen(self, digested: bool) -> CorpusSample:
        """Return the sample of a large corpus that has been read."""
        found = self.sample.chosen()
        number = self.digest if digested else None
        return CorpusSample(found.ids, found.vectors, self.statistics, self.statistics.count, number)


def _shards(vectors: CorpusVectors | ShardedCorpus, ids: Sequence[str] | None) -> Sequence[Shard]:
    """Return the shards that workers read; none of batches, nor of an array that is refused in this process."""
    if isinstance(vectors, ShardedCorpus):
        return vectors.shards()
    if isinstance(vectors, np.ndarray) and vectors.ndim == 2 and ids is not None and len(ids) == len(vectors):
        return array_shards(vectors, ids)
    return ()


def _read(
    vectors: CorpusVectors | ShardedCorpus, ids: Sequence[str] | None
) -> Iterator[Iterator[tuple[int, list[str], Vectors]]]:
    """Yield the shards of a corpus, each as blocks: the number of the first document, the ids, and the vectors."""
    if isinstance(vectors, ShardedCorpus):
        yield from map(unit_shard, vectors.shards())
        return
    read = _in_blocks(unit_batches(vectors, ids))
    if ids is None:  # batches
        yield read
        return
    while (block := next(read, None)) is not None:
        yield chain([block], islice(read, BLOCKS - 1))


def _in_blocks(batches: Iterator[tuple[list[str], Vectors]]) -> Iterator[tuple[int, list[str], Vectors]]:
    number = 0
    for names, batch in batches:
        for block in blocks(len(batch), batch.shape[1]):
            yield number, names[block], batch[block]
            number += block.stop - block.start


def _check_dimension(queries: Vectors, batch: Vectors) -> None:
    if batch.shape[1] != queries.shape[1]:
        raise EmbeddingMismatchError(
            f"The query vectors have {queries.shape[1]} dimensions, those of the corpus {batch.shape[1]}. "
            "Embed the queries with the model that the store's documents were embedded with."
        )


# ---- by workers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """What a training needs of a shard: its statistics, the documents that may be in the sample, and its digest."""

    statistics: CorpusStatistics
    selected: Selected
    digest: int


def _read_by_workers(
    workers: Workers, shards: Sequence[Shard], shared: Sequence[Any], done: _Done, on_read: Callable[[int], None]
) -> None:
    """Read a large corpus shard by shard, and keep what the workers return of each.

    Later shards are searched for documents that are nearer than those found by then, so they return few.
    """
    items = ((shard, done.sample.threshold) for shard in shards[done.shards :])
    for part in workers.map(_read_shard, items, shared):
        done.sample.join(part.selected)
        done.add(part.statistics, part.digest, keep=True)
        on_read(done.statistics.count)


def _read_shard(
    mined: Vectors,
    labelled: frozenset[str],
    lots: Lots,
    limit: float,
    sizes: tuple[int, int],
    digested: bool,
    shard: Shard,
    threshold: Vectors,
) -> _Part:
    """Read one shard, in any process."""
    near, size = sizes  # as they are in the process that asks
    sample = Selection(mined, labelled, near, size, lots, threshold=threshold, limit=limit)
    statistics, number = CorpusStatistics.empty(mined.shape[1]), 0
    with single_threaded_operations():
        for first, ids, vectors in unit_shard(shard):
            _check_dimension(mined, vectors)
            statistics.add(vectors)
            sample.add(first, ids, vectors)
            number += digest(ids, vectors) if digested else 0
    return _Part(statistics, sample.part(), number)
