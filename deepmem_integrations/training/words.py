"""The words of a training's queries: which documents a search by words finds for each query, and with which scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.words import LexicalSearch, WordIndex, search_words

FOUND = 100
"""How many documents a search by words finds for each query, as a retriever's does."""
KEPT = 10_000_000
"""How many scores are kept at most, in 40 MB."""


@dataclass(frozen=True)
class QueryWords:
    """A search by words for the queries of a training.

    Attributes:
        search: The search by words.
        texts: The n texts of the queries.
        row_of: Document id → row of the corpus. Documents that have no row do not count.
        ids: The N ids of the rows.
    """

    search: LexicalSearch
    texts: Sequence[str]
    row_of: Mapping[str, int]
    ids: Sequence[str]

    def extended(self, texts: Sequence[str]) -> "QueryWords":
        """Add further queries."""
        return QueryWords(self.search, [*self.texts, *texts], self.row_of, self.ids)

    @cached_property
    def found(self) -> list[dict[int, float]]:
        """For each query, row → score of the documents that the search finds."""
        found = []
        for query, text in enumerate(self.texts):
            if self._scorer:
                scores = self._all(query)
                rows = _top(scores, FOUND)
                found.append(dict(zip(rows.tolist(), scores[rows].tolist(), strict=True)))
            else:
                names, scores = search_words(self.search, text, FOUND)
                pairs = zip(names, scores.tolist(), strict=True)
                found.append({self.row_of[name]: score for name, score in pairs if name in self.row_of})
        return found

    @cached_property
    def unit(self) -> float:
        """The usual score of the best document: the median over the queries whose best score is above 0, or 1."""
        best = [best for scores in self.found if scores and (best := max(scores.values())) > 0]
        return float(np.median(best)) if best else 1.0

    def scores(self, query: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score documents for a query.

        Args:
            query: The number of the query.
            rows: (m,) int64, rows of the corpus.

        Returns:
            (m,) float32; 0 for documents without any word of the query, or which the search does not find.
        """
        if self._scorer:
            return self._all(query)[rows]
        found = self.found[query]
        return np.array([found.get(row, 0.0) for row in rows.tolist()], dtype=np.float32)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what the search says: it need not be there in another process."""
        sparse: list[tuple[NDArray[np.int32], NDArray[np.float32]]] | None = None
        if self._scorer:
            sparse = []
            for query in range(len(self.texts)):
                scores = self._all(query)
                rows = np.flatnonzero(scores)
                sparse.append((rows.astype(np.int32), scores[rows]))
        return RecordedWords, (self.found, self.unit, sparse)

    @cached_property
    def _scorer(self) -> Callable[[str], NDArray[np.float32]] | None:
        """For a text, the scores of all documents; None where the search can only find."""
        return self.search.scorer(self.ids) if isinstance(self.search, WordIndex) else None

    @cached_property
    def _kept(self) -> dict[int, NDArray[np.float32]]:
        return {}

    def _all(self, query: int) -> NDArray[np.float32]:
        """Score all documents for a query, (N,) float32. Both views ask for the same scores."""
        if query in self._kept:
            return self._kept[query]
        assert self._scorer is not None
        scores = self._scorer(self.texts[query])
        if (len(self._kept) + 1) * len(scores) <= KEPT:
            self._kept[query] = scores
        return scores


@dataclass(frozen=True)
class RecordedWords:
    """The words of a training's queries as another process has them: what the search said, without the search.

    Attributes:
        found: See `QueryWords`.
        unit: See `QueryWords`.
        all_scores: For each query the rows, ascending, of the documents with a word of it, and their scores; None where the
            search can only find.
    """

    found: list[dict[int, float]]
    unit: float
    all_scores: list[tuple[NDArray[np.int32], NDArray[np.float32]]] | None

    def scores(self, query: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score documents for a query: see `QueryWords.scores`."""
        if self.all_scores is None:
            found = self.found[query]
            return np.array([found.get(row, 0.0) for row in rows.tolist()], dtype=np.float32)
        known, scores = self.all_scores[query]
        if not len(known):
            return np.zeros(len(rows), dtype=np.float32)
        places = np.minimum(np.searchsorted(known, rows), len(known) - 1)
        return np.where(known[places] == rows, scores[places], np.float32(0))


def _top(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Find the rows of the k largest scores above 0, in no order."""
    rows = np.argpartition(-scores, k - 1)[:k] if k < len(scores) else np.arange(len(scores))
    return rows[scores[rows] > 0]
