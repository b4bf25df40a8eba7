"""What a report is made of, and the sums that its parts share."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.evaluation import (
    FETCHED,
    HYBRID,
    TRANSFORM,
    WITH,
    WITHOUT,
    WORDS,
    Evaluation,
    Interval,
    Scores,
    bootstrap_mean,
    score_rankings,
)
from deepmem_integrations.labels import LabelRows, Relevance
from deepmem_integrations.models import ModelInfo
from deepmem_integrations.report.sizes import ContextLength

CUTOFFS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)
"""The cut-offs k of a report. Small ones stand close together, since a language model's context has few documents."""
ANSWERS = "answers alone"
"""The side of the documents that remembered queries asked for, which stands beside the sides of an `Evaluation`."""
MAIN = "ndcg@10"
"""The metric by which queries are won and lost."""

_Key = TypeVar("_Key", bound=Hashable)
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Material:
    """A measured model with its test queries.

    Attributes:
        evaluation: The evaluation of the n queries, with the cut-offs `CUTOFFS`.
        labels: The n labelled queries.
        vectors: (n, d) float32, their untransformed vectors.
        adapter: The model.
        model: What is known of the model's file.
        corpus: The ids of all documents; None where the documents cannot be listed.
        length: How documents are measured.
        lengths: Document id → length, of documents that were found. It is empty where no text could be read.
        openings: Document id → the beginning of the text, of documents that are shown.
        parent_of: Document id → parent, where the labels name parents. Documents are then called by these everywhere.
    """

    evaluation: Evaluation
    labels: Relevance
    vectors: Vectors
    adapter: QueryAdapter
    model: ModelInfo
    corpus: frozenset[str] | None
    length: ContextLength
    lengths: Mapping[str, int]
    openings: Mapping[str, str]
    parent_of: Mapping[str, str] = field(default_factory=dict)

    def named(self, ids: Iterable[str]) -> list[str]:
        """Return what the labels name some documents by, best first and each once."""
        return list(dict.fromkeys(self.parent_of.get(name, name) for name in ids))

    @cached_property
    def right(self) -> list[list[str]]:
        """For each query the ids of the documents that answer it."""
        return [[name for name, _ in labels] for labels in self.labels.labels]

    @cached_property
    def labelled(self) -> frozenset[str] | None:
        """The ids of the documents that answer a remembered query; None where the model remembers none."""
        remembered = self.adapter.remembered_queries
        if remembered is None:
            return None
        rows = np.unique(remembered.labels.documents).tolist()
        return frozenset(self.named(remembered.document_ids[row] for row in rows))

    @cached_property
    def seen(self) -> NDArray[np.bool_] | None:
        """(n,) bool, whether a training query asked for one of the right documents; None where the model cannot tell."""
        labelled = self.labelled
        return None if labelled is None else np.array([not labelled.isdisjoint(right) for right in self.right], dtype=bool)

    @cached_property
    def views(self) -> dict[str, NDArray[np.int64]]:
        """``all``, and where the model can tell ``seen`` and ``unseen`` → the rows of the queries that can be scored."""
        scored = np.isfinite(self.evaluation.per_query[WITHOUT][MAIN])
        views = {"all": scored}
        if self.seen is not None:
            views |= {"seen": scored & self.seen, "unseen": scored & ~self.seen}
        return {name: np.flatnonzero(rows) for name, rows in views.items()}

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """The sides that were measured, from the plain vectors to what the model gives."""
        known = (WITHOUT, WORDS, HYBRID, ANSWERS, TRANSFORM, WITH)
        return tuple(side for side in known if side in self.scores)

    @cached_property
    def answered(self) -> list[list[str]]:
        """For each query the documents that remembered queries like it asked for, best first."""
        found = []
        for vector in self.vectors:
            scores = self.adapter.answers(vector)
            found.append(self.named(name for name, score in scores.items() if score > 0)[:FETCHED])
        return found

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Side → metric → (n,) the score of each query. Remembered answers stand among them where the ranking counts them."""
        scores = dict(self.evaluation.per_query)
        ranking = self.adapter.ranking
        if ranking is not None and ranking.answers:
            names = dict.fromkeys(name for rows in (*self.answered, *self.right) for name in rows)
            row_of = {name: row for row, name in enumerate(names)}
            depth = max(1, *map(len, self.answered))
            rankings = np.full((len(self.labels), depth), -1, dtype=np.int64)
            for query, rows in enumerate(self.answered):
                rankings[query, : len(rows)] = [row_of[name] for name in rows]
            labels = LabelRows.of_rows([{row_of[name]: weight for name, weight in row} for row in self.labels.labels])
            scores[ANSWERS] = score_rankings(rankings, labels, self.evaluation.top_k)
        return scores

    def questions(self, rows: NDArray[np.int64]) -> int:
        """Count the different questions among some queries."""
        return len(np.unique(self.evaluation.groups[rows]))

    def intervals(self, columns: Mapping[_Key, Values], rows: NDArray[np.int64]) -> dict[_Key, Interval]:
        """Bound the means of some columns over some queries.

        Args:
            columns: Key → (n,) a value of each query.
            rows: The rows of the queries, one or more.

        Returns:
            Key → `Interval`.
        """
        groups = np.unique(self.evaluation.groups[rows], return_inverse=True)[1].reshape(-1).astype(np.int64)
        values = np.stack([column[rows] for column in columns.values()], axis=1)
        return dict(zip(columns, bootstrap_mean(values, groups=groups), strict=True))


def as_json(interval: Interval) -> dict[str, float]:
    """Return an interval as plain JSON values."""
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def rank_of(name: str, found: Sequence[str]) -> int | None:
    """Return the rank of a document, from 1; None where it was not found."""
    return found.index(name) + 1 if name in found else None
