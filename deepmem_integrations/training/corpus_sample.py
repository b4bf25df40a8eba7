"""The documents that a training ranks: the whole corpus, or a sample of a very large one.

A large corpus is read in shards, on this machine or by workers elsewhere, with the same result to the last bit wherever the
machines compute alike: each shard is summed up by itself, the sums are added in the order of the corpus, and the choice of
documents does not depend on the order (see `deepmem_integrations.corpora.selection`).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations._workers import Workers
from deepmem_integrations.corpora import CorpusVectors, Lots, Selected, Selection, Shard, ShardedCorpus, digest, unit_batches
from deepmem_integrations.corpora.shards import BLOCKS, array_shards, unit_shard
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError
from deepmem_integrations.training.attention import CorpusStatistics
from deepmem_integrations.training.hardware import single_threaded_operations

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

    Raises:
        InvalidVectorsError: See `unit_batches`.
        EmbeddingMismatchError: Queries and corpus differ in dimension.
    """
    rng = np.random.default_rng(seed)
    mined = queries[np.sort(rng.permutation(len(queries))[:MINED_QUERIES])]
    lots = Lots(rng.bit_generator.state)
    shards = _shards(vectors, ids) if workers is not None else ()
    if workers is not None and shards:
        total = sum(shard.count for shard in shards)
        if total > MAX_DOCUMENTS:
            return _read_by_workers(workers, shards, total, mined, labelled, lots, on_read, isinstance(vectors, ShardedCorpus))
    statistics, number = CorpusStatistics.empty(queries.shape[1]), 0 if isinstance(vectors, ShardedCorpus) else None
    sample: Selection | None = None
    names: list[str] = []
    parts: list[Vectors] = []
    for shard in _read(vectors, ids):
        of_shard = CorpusStatistics.empty(queries.shape[1])
        for first, batch_ids, batch in shard:
            _check_dimension(queries, batch)
            of_shard.add(batch)
            number = None if number is None else number + digest(batch_ids, batch)
            if sample is None:
                names += batch_ids
                parts.append(batch)
                if len(names) > MAX_DOCUMENTS:
                    sample, kept, start = Selection(mined, labelled, NEAR, MAX_DOCUMENTS, lots), names, 0
                    for part in parts:
                        sample.add(start, kept[start : start + len(part)], part)
                        start += len(part)
                    names, parts = [], []
            else:
                sample.add(first, batch_ids, batch)
            on_read(statistics.count + of_shard.count)
        statistics.join(of_shard)
    if sample is None:
        if len(set(names)) < len(names):  # each shard has seen its own ids alone
            raise InvalidVectorsError("A document id appears twice in the corpus: ids name one document each.")
        return CorpusSample(names, np.concatenate(parts), statistics, len(names), number)
    chosen = sample.chosen()
    return CorpusSample(chosen.ids, chosen.vectors, statistics, statistics.count, number)


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
    digest: int | None


def _read_by_workers(
    workers: Workers,
    shards: Sequence[Shard],
    total: int,
    mined: Vectors,
    labelled: Collection[str],
    lots: Lots,
    on_read: Callable[[int], None],
    digested: bool,
) -> CorpusSample:
    """Read a large corpus shard by shard, and keep what the workers return of each.

    Later shards are searched for documents that are nearer than those found by then, so they return few.
    """
    sample = Selection(mined, labelled, NEAR, MAX_DOCUMENTS, lots)
    statistics, number = CorpusStatistics.empty(mined.shape[1]), 0
    shared = (mined, frozenset(labelled), lots, lots.limit(total, MAX_DOCUMENTS), (NEAR, MAX_DOCUMENTS), digested)
    for part in workers.map(_read_shard, ((shard, sample.threshold) for shard in shards), shared):
        statistics.join(part.statistics)
        sample.join(part.selected)
        number += part.digest or 0
        on_read(statistics.count)
    chosen = sample.chosen()
    return CorpusSample(chosen.ids, chosen.vectors, statistics, statistics.count, number if digested else None)


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
    return _Part(statistics, sample.part(), number if digested else None)
