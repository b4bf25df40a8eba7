"""Segments: which terms are in which documents, for some of the documents of a word index. A segment never changes.

Arrays of a segment of n documents, V terms and p postings (a posting is one term in one document):

- ``ids.*`` and ``terms.*``: the tables of document ids and of terms, see `strings`. The row of an id is the document's row.
- ``starts`` (V + 1) int64: the postings of term t are ``starts[t]`` to ``starts[t + 1]``.
- ``documents`` (p,) uint32: the rows of the documents, ascending for each term.
- ``counts`` (p,) uint8, uint16 or uint32: how often the term is in the document.
- ``lengths`` (n,) uint32: how many terms each document has.
- ``text_hashes`` (2n,) uint64: the BLAKE2b hashes, 16 bytes each, of the documents' texts.
"""

import hashlib
import os
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._strings import encode
from deepmem_integrations.errors import StorageError
from deepmem_integrations.words.analysis import Analysis
from deepmem_integrations.words.arrays import Array
from deepmem_integrations.words.strings import StringTable, join, pack

_BLOCK = 8_000_000
"""How many postings are merged at a time, so that memory stays small."""

_NONE: NDArray[np.uint32] = np.empty(0, np.uint32)


class Segment:
    """The arrays of a segment, in memory or mapped.

    Args:
        arrays: The arrays that the module's docstring lists.

    Raises:
        KeyError, ValueError: An array is missing, or the arrays do not fit together.
    """

    def __init__(self, arrays: dict[str, Array]) -> None:
        self.ids = StringTable("ids", arrays)
        self.terms = StringTable("terms", arrays)
        self.starts: Array = arrays["starts"]
        self.documents: Array = arrays["documents"]
        self.counts: Array = arrays["counts"]
        self.lengths: Array = arrays["lengths"]
        self.text_hashes: Array = arrays["text_hashes"].reshape(-1, 2)
        fits = (
            len(self.ids) == len(self.lengths) == len(self.text_hashes)
            and len(self.starts) == len(self.terms) + 1
            and len(self.documents) == len(self.counts) == self.starts[-1]
        )
        if not fits:
            raise ValueError("the arrays do not fit together")

    def __len__(self) -> int:
        """The number of documents, deleted ones included."""
        return len(self.lengths)


class LiveSegment:
    """A segment, and which of its documents are deleted.

    Args:
        segment: The segment.
        deleted: Ascending rows, uint32.
    """

    def __init__(self, segment: Segment, deleted: NDArray[np.uint32] = _NONE) -> None:
        self.segment = segment
        self.deleted = deleted
        self.alive: NDArray[np.bool_] | None = None
        """(n,) whether a document is there; None where all are."""
        if len(deleted):
            self.alive = np.ones(len(segment), np.bool_)
            self.alive[deleted] = False

    def __len__(self) -> int:
        """The number of documents that are there."""
        return len(self.segment) - len(self.deleted)

    @property
    def total_length(self) -> int:
        """How many terms the documents that are there have in all."""
        lengths = self.segment.lengths
        return int(lengths.sum(dtype=np.int64)) - int(lengths[self.deleted].sum(dtype=np.int64))

    def find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the (n,) rows of documents, −1 for those that are not there."""
        rows = self.segment.ids.find(ids)
        if self.alive is not None:
            rows[(rows >= 0) & ~self.alive[rows]] = -1
        return rows

    def postings(self, term: int) -> tuple[Array, Array, int]:
        """Return the documents of a term, deleted ones included, the counts, and how many of the documents are there."""
        start, end = self.segment.starts[term : term + 2]
        documents = self.segment.documents[start:end]
        number = len(documents)
        if number and self.alive is not None:
            if 8 * len(self.deleted) < number:  # few are deleted: each is looked up among the documents, which ascend
                places = np.minimum(np.searchsorted(documents, self.deleted), number - 1)
                number -= int(np.count_nonzero(documents[places] == self.deleted))
            else:
                number = int(np.count_nonzero(self.alive[documents]))
        return documents, self.segment.counts[start:end], number


def text_hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the (n, 2) uint64 hashes of texts."""
    digests = b"".join(hashlib.blake2b(encode(text), digest_size=16).digest() for text in texts)
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


class SegmentBuilder:
    """Documents on their way into a segment.

    Args:
        analysis: The way from texts to terms.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._ids: list[str] = []
        self._lengths = array("I")
        self._hashes: list[NDArray[np.uint64]] = []
        self._vocabulary: defaultdict[str, int] = defaultdict()
        self._vocabulary.default_factory = self._vocabulary.__len__  # a new term gets the next number
        self._terms = array("I")

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._ids)

    @property
    def size(self) -> int:
        """How many terms the documents have in all."""
        return len(self._terms)

    def add(self, ids: Sequence[str], texts: Sequence[str], hashes: NDArray[np.uint64]) -> None:
        """Add documents whose ids are not there yet.

        Args:
            ids: n ids.
            texts: n texts.
            hashes: (n, 2), what `text_hashes` returns for the texts.
        """
        number_of = self._vocabulary.__getitem__
        for text in texts:
            terms = self._analysis.terms(text)
            self._terms.extend(map(number_of, terms))
            self._lengths.append(len(terms))
        self._ids += ids
        self._hashes.append(hashes)

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of the segment."""
        table = pack("terms", list(self._vocabulary))
        lengths = np.frombuffer(self._lengths, np.uintc).astype(np.uint32)
        rows = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
        keys, counts = np.unique(np.frombuffer(self._terms, np.uintc).astype(np.uint64) << 32 | rows, return_counts=True)
        numbers = (keys >> 32).astype(np.int64)
        starts = np.zeros(len(self._vocabulary) + 1, np.int64)
        np.cumsum(np.bincount(numbers, minlength=len(self._vocabulary)), out=starts[1:])
        hashes = np.concatenate([np.empty((0, 2), np.uint64), *self._hashes])
        return {
            **pack("ids", self._ids),
            **table,
            "starts": starts,
            "documents": (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32),
            "counts": _narrow(counts),
            "lengths": lengths,
            "text_hashes": hashes.ravel(),
        }


def merge(segments: Sequence[LiveSegment], folder: Path) -> dict[str, Array]:
    """Return the arrays of one segment with the documents that are there, in their order.

    However documents are cut into segments, the same documents in the same order give the same arrays.

    Args:
        segments: The segments.
        folder: A folder for the postings where there are many. Memory holds the ids, the terms and a block of postings at a time.

    Raises:
        StorageError: The folder cannot be written, or the disk is full.
    """
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__
    numbers = [np.fromiter(map(vocabulary.__getitem__, live.segment.terms.all()), np.int64) for live in segments]
    total, most = np.zeros(len(vocabulary), np.int64), 0
    for live, number in zip(segments, numbers, strict=True):
        for block in _blocks(live.segment):
            _, times, own = _postings_there(live, block)
            total[number[block]] += own
            most = max(most, int(times.max(initial=0)))
    starts = np.zeros(len(vocabulary) + 1, np.int64)
    np.cumsum(total, out=starts[1:])
    documents = _scratch(folder, int(starts[-1]), np.dtype(np.uint32))
    counts = _scratch(folder, int(starts[-1]), np.min_scalar_type(most))
    place, first = starts[:-1].copy(), 0
    for live, number in zip(segments, numbers, strict=True):
        alive = live.alive
        renumbered = np.arange(len(live.segment)) if alive is None else np.cumsum(alive) - 1
        for block in _blocks(live.segment):
            rows, times, own = _postings_there(live, block)
            # The postings of a term lie together: each goes to the term's place, plus its distance from the first of them.
            places = np.repeat(place[number[block]] - (np.cumsum(own) - own), own)
            places += np.arange(len(places))
            documents[places] = (renumbered + first)[rows]
            counts[places] = times
            place[number[block]] += own
        first += len(live)
    kept = total > 0  # terms of deleted documents alone are gone
    terms = [term for term, keep in zip(vocabulary, kept.tolist(), strict=True) if keep]
    lengths, hashes = [np.empty(0, np.uint32)], [np.empty(0, np.uint64)]
    for live in segments:
        there = slice(None) if live.alive is None else live.alive
        lengths.append(live.segment.lengths[there])
        hashes.append(live.segment.text_hashes[there].ravel())
    return {
        **join("ids", [(live.segment.ids, live.alive) for live in segments]),
        **pack("terms", terms),
        "starts": np.concatenate([starts[:1], starts[1:][kept]]),
        "documents": documents,
        "counts": counts,
        "lengths": np.concatenate(lengths),
        "text_hashes": np.concatenate(hashes),
    }


def _scratch(folder: Path, size: int, dtype: np.dtype[Any]) -> Array:
    """Return an array to fill; a large one lies in a file without a name, which is gone with the array."""
    if size <= _BLOCK:
        return np.empty(size, dtype)
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".merging-") as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, where it would end the process later
                os.posix_fallocate(file.fileno(), 0, size * dtype.itemsize)
            return np.memmap(file, dtype, "w+", shape=(size,))
    except OSError as error:
        raise StorageError(f"Cannot write to {folder}: {error.strerror or error}. The index is unchanged.") from error


def _blocks(segment: Segment) -> Iterator[slice]:
    """Yield ranges of terms that have up to `_BLOCK` postings, or are one term."""
    first, starts = 0, segment.starts
    while first < len(segment.terms):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _BLOCK, side="right")) - 1)
        yield slice(first, last)
        first = last


def _postings_there(live: LiveSegment, terms: slice) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return the rows and counts of a range of terms without deleted documents, and how many postings each term has."""
    starts = live.segment.starts[terms.start : terms.stop + 1]
    documents, counts = live.segment.documents[starts[0] : starts[-1]], live.segment.counts[starts[0] : starts[-1]]
    if live.alive is None:
        return documents, counts, np.diff(starts)
    there = live.alive[documents]
    before = np.concatenate([[0], np.cumsum(there)])
    return documents[there], counts[there], np.diff(before[starts - starts[0]])


def _narrow(counts: Array) -> Array:
    """Return counts in the smallest type that holds them: nearly always a byte."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
