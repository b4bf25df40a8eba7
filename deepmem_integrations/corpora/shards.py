"""A corpus in shards, which are read one by one, in any process: nobody holds the whole corpus."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations._workers import Workers
from deepmem_integrations.corpora.corpus import Batch, Corpus, ListedCorpus, NamedBy, unit_batches
from deepmem_integrations.corpora.selection import Selected, Selection

BLOCKS = 4
"""How many blocks of 32 MB (see `blocks`) a shard of an array has."""


class Shard(Protocol):
    """Consecutive documents of a corpus. A shard is small itself, and travels to other processes.

    Attributes:
        first: The number of its first document in the corpus.
        count: How many documents it has.
    """

    @property
    def first(self) -> int: ...  # noqa: D102 - see the class
    @property
    def count(self) -> int: ...  # noqa: D102 - see the class

    def batches(self) -> Iterator[Batch]:
        """Read the shard: yield (ids, (n, d) vectors) batches."""
        ...


class ShardedCorpus(ListedCorpus):
    """A corpus that is read in shards. A subclass cuts it, and reads the documents.

    Attributes:
        kind: The name by which another process finds the subclass: see `open_shards`.
    """

    kind: ClassVar[str]

    @abstractmethod
    def shards(self) -> Sequence[Shard]:
        """Return the shards, in the order of the corpus. The same corpus is always cut in the same way.

        Raises:
            StoreError: The corpus cannot be read.
        """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The dimension of the vectors."""

    @abstractmethod
    def known(self, ids: Collection[str]) -> set[str]:
        """Return those of the given ids that the corpus has. No vector is read."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the arguments by which another process opens the same corpus, as JSON values."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return what changes when the documents do: a version, or the sizes and times of files. No document is read.

        Raises:
            StoreError: The corpus cannot be read.
        """

    def in_shards(self) -> "ShardedCorpus":
        """Return the corpus itself; a subclass whose documents have versions returns them at the newest one."""
        return self

    def __len__(self) -> int:
        """The number of documents."""
        return sum(shard.count for shard in self.shards())

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of all documents."""
        for shard in self.shards():
            yield from shard.batches()

    def around(
        self,
        queries: Callable[[], Vectors],
        k: int,
        ids: Collection[str],
        *,
        parents: Collection[str] = (),
        named_by: NamedBy | None = None,
        workers: Workers | None = None,
    ) -> Iterator[Batch]:
        """Yield the k documents nearest to each query, found exactly, and the documents with the given ids.

        Args:
            queries: A function that returns the (n, d) float32 query vectors.
            k: How many documents to find for each query.
            ids: The ids of documents to yield in any case.
            parents: These make no difference: where labels name parents, `CorpusAtLevel` reads all documents.
            named_by: See ``parents``.
            workers: Where the shards are searched; by default in this process, one after another.

        Raises:
            StoreError: The corpus cannot be read.
            InvalidVectorsError: See `unit_batches`.
        """
        found = Selection(queries(), ids, k)
        if workers is None:
            for shard in self.shards():
                _select(found, shard)
        else:
            items = ((shard, found.threshold) for shard in self.shards())
            for part in workers.map(_selected, items, (queries(), frozenset(ids), k)):
                found.join(part)
        chosen = found.chosen()
        for block in blocks(len(chosen.ids), self.dimension):
            yield chosen.ids[block], chosen.vectors[block]


@runtime_checkable
class HasShards(Protocol):
    """A corpus that any process can read where it lies: in shards, and at one version where the documents have versions."""

    def in_shards(self) -> ShardedCorpus | None:
        """Return the documents as they are now, in shards; None where this process alone can read them.

        Raises:
            StoreError: The documents cannot be read.
        """
        ...


def in_shards(corpus: Corpus) -> ShardedCorpus | None:
    """Return the documents of a corpus as they are now, in shards; None where this process alone can read them.

    Raises:
        StoreError: The documents cannot be read.
    """
    return corpus.in_shards() if isinstance(corpus, HasShards) else None


def unit_shard(shard: Shard) -> Iterator[tuple[int, list[str], Vectors]]:
    """Check a shard, and yield the number of the first document, the ids and the unit rows of blocks of at most 32 MB."""
    number = shard.first
    for ids, vectors in unit_batches(shard.batches(), first=shard.first):
        for block in blocks(len(ids), vectors.shape[1]):
            yield number + block.start, ids[block], vectors[block]
        number += len(ids)


def _select(selection: Selection, shard: Shard) -> None:
    for number, ids, vectors in unit_shard(shard):
        selection.add(number, ids, vectors)


def _selected(queries: Vectors, ids: frozenset[str], k: int, shard: Shard, threshold: Vectors) -> Selected:
    """Select from one shard, in any process."""
    selection = Selection(queries, ids, k, threshold=threshold)
    _select(selection, shard)
    return selection.part()


class ArrayShard:
    """Some rows of an array. The rows of a memory-mapped file travel as the path of the file.

    Args:
        vectors: (N, d), the whole array.
        ids: The ids of the shard's documents.
        first: The number of the first of them in the corpus.
        row: The row of the first of them in the array.
    """

    def __init__(self, vectors: np.ndarray[Any, Any], ids: Sequence[str], first: int, row: int) -> None:
        self._vectors, self._ids, self._row = vectors, ids, row
        self.first, self.count = first, len(ids)

    def batches(self) -> Iterator[Batch]:
        """Yield (ids, vectors) batches of at most 32 MB."""
        for block in blocks(self.count, self._vectors.shape[1]):
            yield self._ids[block], self._vectors[self._row + block.start : self._row + block.stop]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path of a ``.npy`` file of which all is mapped, and otherwise the shard's own rows."""
        if isinstance(self._vectors, np.memmap) and _is_file(self._vectors):
            return _mapped, (str(self._vectors.filename), self._ids, self.first, self._row)
        return ArrayShard, (self._vectors[self._row : self._row + self.count].copy(), self._ids, self.first, 0)


def _mapped(path: str, ids: Sequence[str], first: int, row: int) -> ArrayShard:
    return ArrayShard(np.load(path, mmap_mode="r", allow_pickle=False), ids, first, row)


def _is_file(mapped: np.memmap[Any, Any]) -> bool:
    """Tell whether an array is what a ``.npy`` file holds, and neither a part of it nor changed in memory."""
    if mapped.filename is None or mapped.mode == "c":
        return False
    try:
        whole = np.load(mapped.filename, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    if not isinstance(whole, np.memmap):
        return False
    mine, its = ((one.offset, one.shape, one.strides, one.dtype) for one in (mapped, whole))
    return mine == its


def array_shards(vectors: np.ndarray[Any, Any], ids: Sequence[str]) -> list[ArrayShard]:
    """Cut an array into shards.

    Args:
        vectors: (N, d), any real dtype.
        ids: The N ids.
    """
    return [ArrayShard(vectors, ids[cut], cut.start, cut.start) for cut in shard_rows(len(ids), vectors.shape[1])]


def shard_rows(rows: int, dimension: int) -> list[slice]:
    """Cut numbered rows into shards, `BLOCKS` blocks each, so that sums over them are those over an array to the last bit."""
    starts = [block.start for block in blocks(rows, dimension)][::BLOCKS]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], rows], strict=True)]
