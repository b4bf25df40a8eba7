"""One generation of a word index, as a reader sees it: which documents there are, and their scores."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.words.analysis import Analysis
from deepmem_integrations.words.arrays import Array, damaged, map_arrays
from deepmem_integrations.words.manifest import INDEX, Manifest, Stamp
from deepmem_integrations.words.segment import LiveSegment, Segment

_SAMPLED = 16
"""One score of every 16 is looked at to guess which scores are high."""

_log = logging.getLogger(__name__)


class State:
    """One generation of an index, as a reader sees it.

    Args:
        folder: The folder.
        manifest: The manifest.
        stamp: The stamp of the manifest's file.
        segments: The segments that the manifest lists.
    """

    def __init__(self, folder: Path, manifest: Manifest, stamp: Stamp, segments: tuple[LiveSegment, ...]) -> None:
        self.folder, self.manifest, self.stamp, self.segments = folder, manifest, stamp, segments
        self.documents = manifest.documents
        self.average_length = manifest.length / max(manifest.documents, 1)
        self._starts = np.cumsum([0, *(len(live.segment) for live in segments)])
        # Made by the first query. Two threads may both make them: a lock could be held where a process forks.
        self._analysis: Analysis | None = None
        self._computed_norms: list[NDArray[np.float32]] | None = None

    @property
    def analysis(self) -> Analysis:
        """The way from a query to its terms."""
        analysis = self._analysis
        if analysis is None:
            analysis = Analysis(self.manifest.language)
            if analysis.signature != self.manifest.analysis:
                _log.warning(
                    "The word index in %s was made with another version of PyStemmer or of the rules for words (%s, now %s): "
                    "some words are not found until a refresh with all documents.",
                    self.folder,
                    self.manifest.analysis,
                    analysis.signature,
                )
            self._analysis = analysis
        return analysis

    @property
    def _norms(self) -> list[NDArray[np.float32]]:
        """For each segment, (n,) what BM25 adds to tf below the line."""
        norms = self._computed_norms
        if norms is None:
            b = self.manifest.b / max(self.average_length, 1e-9)
            fixed = self.manifest.k1 * (1 - self.manifest.b)
            norms = [(fixed + self.manifest.k1 * b * live.segment.lengths).astype(np.float32) for live in self.segments]
            self._computed_norms = norms
        return norms

    def all_scores(self, terms: Sequence[str]) -> NDArray[np.float32]:
        """Return the scores of all rows of all segments; 0 for deleted documents."""
        scores = np.zeros(self._starts[-1], np.float32)
        for weight, postings in self._weighted(terms):
            for number, documents, counts in postings:
                rows = documents.astype(np.intp)
                part = scores[self._starts[number] : self._starts[number + 1]]
                part[rows] += _term_scores(weight, counts, self._norms[number][rows])
        for start, live in zip(self._starts.tolist(), self.segments, strict=False):
            scores[start + live.deleted.astype(np.intp)] = 0
        return scores

    def row_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the (n,) row of each document over all segments; −1 where there is none."""
        rows = np.full(len(ids), -1, np.int64)
        for live, start in zip(self.segments, self._starts.tolist(), strict=False):
            found = live.find(ids)
            rows[found >= 0] = found[found >= 0] + start
        return rows

    def scores_of(self, terms: Sequence[str], ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n,) scores of documents."""
        scores = np.zeros(len(ids), np.float32)
        found = [live.find(ids) for live in self.segments]
        for weight, postings in self._weighted(terms):
            for number, documents, counts in postings:
                which = np.flatnonzero(found[number] >= 0)
                rows = found[number][which].astype(documents.dtype)  # of one type: no copy of the postings
                places = np.minimum(np.searchsorted(documents, rows), len(documents) - 1)
                hit = documents[places] == rows
                scores[which[hit]] += _term_scores(weight, counts[places[hit]], self._norms[number][rows[hit]])
        return scores

    def _weighted(self, terms: Sequence[str]) -> Iterator[tuple[np.float32, list[tuple[int, Array, Array]]]]:
        """Yield, for each distinct term, its weight and its postings: segment number, rows and counts."""
        distinct = Counter(terms)
        rows = [live.segment.terms.find(list(distinct)).tolist() for live in self.segments]
        for column, times in enumerate(distinct.values()):
            postings, frequency = [], 0
            for number, live in enumerate(self.segments):
                if (row := rows[number][column]) >= 0:
                    documents, counts, there = live.postings(row)
                    frequency += there
                    if there:
                        postings.append((number, documents, counts))
            if frequency:
                idf = np.log1p((self.documents - frequency + 0.5) / (frequency + 0.5))
                yield np.float32(times * idf), postings

    def ids(self, rows: NDArray[np.intp]) -> list[str]:
        """Return the ids of rows over all segments."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        return [
            self.segments[number].segment.ids[row]
            for number, row in zip(numbers.tolist(), (rows - self._starts[numbers]).tolist(), strict=True)
        ]

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """Turn the errors of files with wrong contents into one that says so."""
        try:
            yield
        except (IndexError, ValueError, OverflowError) as error:
            raise damaged(self.folder / INDEX, repr(error)) from error


def read_state(folder: Path, before: State | None) -> State:
    """Read the newest state. Segments that an earlier state has open stay open."""
    while True:
        manifest, stamp = Manifest.read(folder / INDEX)
        if before is not None and before.manifest.generation == manifest.generation and before.manifest == manifest:
            return State(folder, manifest, stamp, before.segments)
        known = {e["name"]: live for e, live in zip(before.manifest.segments, before.segments, strict=True)} if before else {}
        try:
            opened = tuple(open_segment(folder, entry, known.get(entry["name"])) for entry in manifest.segments)
        except FileNotFoundError as error:  # replaced meanwhile, or lost
            if Manifest.read(folder / INDEX)[0] == manifest:
                raise damaged(Path(str(error.filename)), "the file is missing") from error
            continue
        except (KeyError, TypeError) as error:
            raise damaged(folder / INDEX, repr(error)) from error
        if sum(len(live) for live in opened) != manifest.documents:
            raise damaged(folder / INDEX, "its segments do not have the documents that it counts")
        return State(folder, manifest, stamp, opened)


def open_segment(folder: Path, entry: dict[str, Any], known: LiveSegment | None = None) -> LiveSegment:
    """Open a segment that a manifest lists.

    Args:
        folder: The folder of the index.
        entry: The manifest's entry.
        known: The same segment as an earlier state has it, whose file is open.

    Raises:
        FileNotFoundError: A file is missing.
        StorageError: A file is damaged.
    """
    path = folder / entry["name"]
    try:
        segment = known.segment if known else Segment(map_arrays(path, entry["bytes"]))
        deleted = np.empty(0, np.uint32)
        if entry["deleted"]:
            path = folder / entry["deleted"]["name"]
            deleted = map_arrays(path, entry["deleted"]["bytes"])["rows"]
            if len(deleted) and int(deleted[-1]) >= len(segment):
                raise ValueError("a deleted row is not in its segment")
    except (KeyError, ValueError, IndexError) as error:
        raise damaged(path, repr(error)) from error
    return LiveSegment(segment, deleted)


def _term_scores(weight: np.float32, counts: Array, norms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return BM25's part of one term: idf · tf / (tf + norm)."""
    frequencies = counts.astype(np.float32)
    norms = norms + frequencies
    np.divide(frequencies, norms, out=frequencies)
    frequencies *= weight
    return frequencies


def best(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Return the rows of the k highest scores above 0, and of all scores equal to the last of them, in any order."""
    least = np.float32(0)
    # A sample tells a score that somewhat more than k documents reach, so that not all scores need be ordered.
    sample = scores[::_SAMPLED]
    place = len(sample) - (2 * k // _SAMPLED + _SAMPLED)
    if place > len(sample) // 2:
        least = np.partition(sample, place)[place]
    rows = np.flatnonzero(scores >= least) if least > 0 else np.flatnonzero(scores)
    if len(rows) < k and least > 0:  # the sample misled
        rows = np.flatnonzero(scores)
    if len(rows) <= k:
        return rows
    found = scores[rows]
    limit = np.partition(found, len(found) - k)[len(found) - k]
    return np.compress(found >= limit, rows)
