"""Choose some documents of a corpus that is read once, in parts and in any order: the choice is the same as of the whole.

Chosen are the documents that labels name, those nearest to some queries, and others at random. Each document has a number, its
place in the corpus, from which its lot in the draw follows. So every part of a corpus can be read by itself, and the choices of
two parts together make the choice of both.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, largest
from deepmem_integrations.errors import InvalidVectorsError

_TOGETHER = 1024
"""How many documents are compared with the queries at once: 4 MB of cosines stay in the processor's cache."""
_DRAWN_TOGETHER = 1_000_000
"""How many lots are drawn at once."""


class Lots:
    """A random number between 0 and 1 for each document of a corpus, by the document's number.

    Args:
        state: The state of a PCG64 generator, whose next numbers are the lots of the documents 0, 1, 2, …

    Example:
        >>> lots = Lots(np.random.default_rng(0).bit_generator.state)
        >>> bool((lots.of(0, 10)[7:] == lots.of(7, 3)).all())
        True
    """

    def __init__(self, state: Any) -> None:
        self._state = state

    def of(self, first: int, count: int) -> NDArray[np.float64]:
        """Return the lots of some documents, (count,) float64, without drawing those before."""
        generator = np.random.PCG64()
        generator.state = self._state
        return np.random.Generator(generator.advance(first)).random(count)

    def limit(self, total: int, count: int) -> float:
        """Return the largest of the ``count`` smallest lots of a corpus of ``total`` documents; 1 where all are among them."""
        smallest = np.empty(0)
        for first in range(0, total, _DRAWN_TOGETHER):
            smallest = np.concatenate([smallest, self.of(first, min(_DRAWN_TOGETHER, total - first))])
            if len(smallest) > count:
                smallest = np.partition(smallest, count - 1)[:count] if count else smallest[:0]
        return 1.0 if total <= count else float(smallest.max(initial=-1.0))


@dataclass(frozen=True)
class Selected:
    """What was chosen of a part of a corpus.

    Attributes:
        numbers: (m,) int64, the numbers of the chosen documents.
        ids: Their m ids.
        vectors: (m, d) float32 unit rows.
        lots: (m,) float64, their lots.
        scores: (n, near) float32, the cosines of the documents nearest to each query, best first; −∞ fills up.
        nearest: (n, near) int64, the numbers of these documents.
    """

    numbers: NDArray[np.int64]
    ids: list[str]
    vectors: Vectors
    lots: NDArray[np.float64]
    scores: Vectors
    nearest: NDArray[np.int64]


class Selection:
    """The named documents, those nearest to some queries, and others at random, updated batch by batch.

    A document keeps its place in ``vectors`` until another one takes it, so that few vectors are copied.

    Args:
        queries: (n, d) float32 unit rows.
        named: The ids of documents to choose in any case.
        near: How many nearest documents of each query to choose, 1 or more.
        size: How many documents to choose in all, others at random included, where the named and the nearest are fewer.
        lots: The lots of the documents; None where ``size`` is 0.
        threshold: (n,) float32, a cosine for each query below which no document is among the nearest of the whole corpus.
        limit: A lot above which no document of the whole corpus is chosen at random.
    """

    def __init__(
        self,
        queries: Vectors,
        named: Collection[str],
        near: int,
        size: int = 0,
        lots: Lots | None = None,
        *,
        threshold: Vectors | None = None,
        limit: float = 1.0,
    ) -> None:
        self._queries, self._named, self._near, self._size, self._lots, self._limit = queries, named, near, size, lots, limit
        self._ids: list[str] = []
        self._vectors: Vectors = np.empty((size + near * len(queries), queries.shape[1]), dtype=np.float32)  # few are touched
        self._numbers: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # −1 where a place is free
        self._wanted: NDArray[np.bool_] = np.empty(0, dtype=bool)
        self._drawn: NDArray[np.float64] = np.empty(0)
        self._scores: Vectors = np.full((len(queries), near), -np.inf, dtype=np.float32)
        self._nearest: NDArray[np.int64] = np.full((len(queries), near), -1)
        if threshold is not None:  # a document as near as the threshold may have the lower number
            self._scores[:] = np.nextafter(threshold, np.float32(-np.inf))[:, None]

    @property
    def threshold(self) -> Vectors:
        """(n,) float32, the cosine of each query's last document so far; −∞ where there are fewer."""
        return np.where(self._nearest[:, -1] >= 0, self._scores[:, -1], np.float32(-np.inf))

    def add(self, first: int, ids: list[str], vectors: Vectors) -> None:
        """Choose among further documents, whose numbers are higher than those of all before.

        Args:
            first: The number of the first of them; the others follow.
            ids: n ids.
            vectors: (n, d) float32 unit rows.
        """
        self._search(first, vectors)
        lots = np.zeros(len(ids)) if self._lots is None else self._lots.of(first, len(ids))
        self._keep(first + np.arange(len(ids)), ids, vectors, lots)

    def join(self, other: Selected) -> None:
        """Choose among what was chosen of a further part, whose numbers are higher than those of all before."""
        self._merge(np.arange(len(self._scores)), other.scores, other.nearest)
        self._keep(other.numbers, other.ids, other.vectors, other.lots)

    def _search(self, first: int, vectors: Vectors) -> None:
        """Merge a batch into the nearest documents of each query. Few queries find a nearer one than they have."""
        if vectors.shape[1] != self._queries.shape[1]:
            raise InvalidVectorsError(
                f"Corpus vector {first} has {vectors.shape[1]} dimensions, and the queries have {self._queries.shape[1]}: the "
                "documents were embedded by different models."
            )
        for start in range(0, len(vectors), _TOGETHER):
            scores = self._queries @ vectors[start : start + _TOGETHER].T
            rows = np.flatnonzero((scores > self._scores[:, -1:]).any(axis=1))
            if not len(rows):
                continue
            scores = scores[rows]
            columns = largest(scores, min(self._near, scores.shape[1]))
            self._merge(rows, np.take_along_axis(scores, columns, axis=1), columns + first + start)

    def _merge(self, rows: NDArray[np.int64], scores: Vectors, numbers: NDArray[np.int64]) -> None:
        """Merge documents of higher numbers into the nearest of some queries; of equal cosines, the lower number stays."""
        values = np.concatenate([self._scores[rows], scores], axis=1)
        found = np.concatenate([self._nearest[rows], numbers], axis=1)
        order = largest(values, self._near)
        self._scores[rows] = np.take_along_axis(values, order, axis=1)
        self._nearest[rows] = np.take_along_axis(found, order, axis=1)

    def _keep(self, numbers: NDArray[np.int64], ids: list[str], vectors: Vectors, lots: NDArray[np.float64]) -> None:
        """Keep what may still be chosen at the end: the named, the nearest so far, and those with the smallest lots so far."""
        before = len(self._ids)
        numbers = np.concatenate([self._numbers, numbers])
        lots = np.concatenate([self._drawn, lots])
        wanted = np.concatenate([self._wanted, np.array([name in self._named for name in ids], dtype=bool)])
        kept = (wanted | np.isin(numbers, self._nearest)) & (numbers >= 0)
        kept[_smallest(lots, numbers, self._size, self._limit)] = True
        # New documents take the places of those that are left out, and then further places.
        new, free = np.flatnonzero(kept[before:]), np.flatnonzero(~kept[:before])
        numbers[free] = -1
        filled = free[: len(new)]
        places = np.concatenate([filled, np.arange(before, before + len(new) - len(filled))])
        if len(places) and places[-1] >= len(self._vectors):
            grown = np.empty((3 * int(places[-1]) // 2 + 1, self._vectors.shape[1]), dtype=np.float32)
            grown[:before] = self._vectors[:before]
            self._vectors = grown
        self._vectors[places] = vectors[new]
        self._ids += [""] * (len(new) - len(filled))
        for place, row in zip(places.tolist(), new.tolist(), strict=True):
            self._ids[place] = ids[row]
        order = np.arange(len(self._ids))
        order[places] = before + new
        self._numbers, self._wanted, self._drawn = numbers[order], wanted[order], lots[order]

    def part(self) -> Selected:
        """Return all that may still be chosen once other parts of the corpus are read, in the order of the corpus."""
        return self._take(np.flatnonzero(self._numbers >= 0))

    def chosen(self) -> Selected:
        """Return what is chosen, in the order of the corpus: of the smallest lots, as many as there is room for.

        Raises:
            InvalidVectorsError: Two of the chosen documents have the same id.
        """
        sure = self._wanted | np.isin(self._numbers, self._nearest)
        sure &= self._numbers >= 0
        others = np.flatnonzero(~sure)
        room = max(0, self._size - int(sure.sum()))
        sure[others[_smallest(self._drawn[others], self._numbers[others], room, self._limit)]] = True
        chosen = self._take(np.flatnonzero(sure))
        if len(set(chosen.ids)) < len(chosen.ids):
            name, times = Counter(chosen.ids).most_common(1)[0]
            raise InvalidVectorsError(f"The document id {name!r} is {times} times in the corpus: ids name one document each.")
        return chosen

    def _take(self, rows: NDArray[np.int64]) -> Selected:
        rows = rows[np.argsort(self._numbers[rows])]
        scores = np.where(self._nearest >= 0, self._scores, np.float32(-np.inf))
        ids = [self._ids[row] for row in rows.tolist()]
        return Selected(self._numbers[rows], ids, self._vectors[rows], self._drawn[rows], scores, self._nearest)


def _smallest(lots: NDArray[np.float64], numbers: NDArray[np.int64], count: int, limit: float) -> NDArray[np.int64]:
    """Return the rows of the documents with the smallest lots up to a limit; of equal lots, those of the lower numbers."""
    rows = np.flatnonzero((numbers >= 0) & (lots <= limit)) if count > 0 else np.empty(0, dtype=np.int64)
    return rows if len(rows) <= count else rows[np.lexsort((numbers[rows], lots[rows]))[:count]]
