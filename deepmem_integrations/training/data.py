"""`TrainingData`: the queries, labels and documents that a training learns from, and how one candidate is fitted to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, nearest
from deepmem_integrations.adapter import Attention, QueryAdapter, ValueSpace
from deepmem_integrations.adapter.remembered import AGAINST, AWAY
from deepmem_integrations.labels import LabelRows, Parents
from deepmem_integrations.training.attention import CorpusStatistics, target_means, value_space
from deepmem_integrations.training.candidates import TEMPERATURE, Candidate
from deepmem_integrations.training.folds import Fold
from deepmem_integrations.training.linear import HARD, Negatives, train_linear
from deepmem_integrations.training.words import QueryWords

NEAR = 100
"""How many of the documents nearest to a query a training looks at."""


@dataclass(frozen=True)
class TrainingData:
    """The queries, labels and documents that a training learns from.

    Attributes:
        queries: (n, d) float32 unit rows, the query vectors.
        labels: The labels of the n queries, as rows of the corpus.
        corpus: (N, d) float32 unit rows, the documents that are ranked.
        statistics: The mean and covariance of all documents, ranked or not.
        seed: Fixes the result.
        near: (n, m) int64, the rows of the documents nearest to each query, best first.
        words: The words of the queries, or None where there is no search by words.
        shown: For each query the rows of the documents that users could label, ascending, or None where they could label any.
            None where that holds for all queries. What was not shown may be relevant or not, so nothing is judged by it.
        by_chance: For each of these lists what its documents gain by their ranks alone: see `Exposure`.
        irrelevant: What the n queries judged irrelevant, as rows of the corpus; None where no query did.
        groups: (n,) int64, the question of each query: see `question_groups`. None where each query is a question.
        parents: The parents of the documents, where the caller's labels name parents; None where they name documents. The labels
            here name documents in both cases: see `Parents.documents`.
    """

    queries: Vectors
    labels: LabelRows
    corpus: Vectors
    statistics: CorpusStatistics
    seed: int
    near: NDArray[np.int64]
    words: QueryWords | None = None
    shown: Sequence[NDArray[np.int64] | None] | None = None
    by_chance: Sequence[NDArray[np.float64] | None] | None = None
    irrelevant: LabelRows | None = None
    groups: NDArray[np.int64] | None = None
    parents: Parents | None = None

    @classmethod
    def of(
        cls,
        queries: Vectors,
        labels: LabelRows,
        corpus: Vectors,
        statistics: CorpusStatistics,
        seed: int,
        parents: Parents | None = None,
    ) -> "TrainingData":
        """Find the documents nearest to each query, of each parent the nearest one, and take the rest as it is."""
        near = nearest(queries, corpus, NEAR) if parents is None else parents.nearest(queries, corpus, NEAR)
        return cls(queries, labels, corpus, statistics, seed, near, parents=parents)

    @property
    def named(self) -> LabelRows:
        """The labels as the caller's name them: of documents, or of parents."""
        return self.labels if self.parents is None else self.parents.labels(self.labels)

    @property
    def of_row(self) -> NDArray[np.int64] | None:
        """(N,) int64, the parent of each document; None where labels name documents."""
        return None if self.parents is None else self.parents.of_row

    @property
    def all_labelled(self) -> bool:
        """Whether every document has a label."""
        return len(np.unique(self.labels.documents)) == len(self.corpus)

    def take(self, rows: NDArray[np.int64], labels: LabelRows) -> "TrainingData":
        """Return the data of these queries alone, without their words, and with the given labels in place of their own."""
        irrelevant = None if self.irrelevant is None else self.irrelevant.take(rows)
        return replace(
            self,
            queries=self.queries[rows],
            labels=labels,
            near=self.near[rows],
            irrelevant=irrelevant,
            words=None,
            shown=None,
            by_chance=None,
            groups=None,
        )

    def held_out(self, queries: Vectors, labels: LabelRows, texts: Sequence[str]) -> "tuple[TrainingData, Fold]":
        """Add queries that are scored but not trained on.

        Args:
            queries: (v, d) float32 unit rows.
            labels: The labels of these queries.
            texts: The texts of these queries, for a search by words.

        Returns:
            The data with both kinds of queries, and the one fold that holds the added queries out.
        """
        rows = np.arange(len(self.queries), len(self.queries) + len(queries))
        words = self.words and self.words.extended(texts)
        parents = self.parents
        found = nearest(queries, self.corpus, NEAR) if parents is None else parents.nearest(queries, self.corpus, NEAR)
        near = np.concatenate([self.near, found])
        nothing = [None] * len(queries)
        shown, by_chance = self.shown and [*self.shown, *nothing], self.by_chance and [*self.by_chance, *nothing]
        irrelevant = self.irrelevant and self.irrelevant.joined(LabelRows.empty(len(queries)))
        queries = np.concatenate([self.queries, queries])
        both = replace(self, queries=queries, near=near, words=words, shown=shown, by_chance=by_chance, irrelevant=irrelevant)
        return both, Fold(np.arange(len(self.labels)), self.labels, rows, labels, [[] for _ in rows])

    def linear(self, negatives: Negatives) -> Vectors:
        """Train the linear part on the queries that have labels: W, (d, d) float32.

        Where the softmax runs over the corpus, what a query judged irrelevant comes before the documents nearest to it, among
        which are the query's hard negatives. A softmax over the labelled documents keeps to these: to push away for every query
        what was wrong for one cost 3 points of nDCG@10 on TAT-QA, where it is often the answer to a later one.

        Args:
            negatives: Which documents the softmax runs over: see `Negatives`.
        """
        pool = np.unique(self.labels.documents) if negatives == "labelled" else np.arange(len(self.corpus))
        rows = np.flatnonzero(self.labels.labelled)
        if not len(rows):
            return np.zeros((self.corpus.shape[1],) * 2, dtype=np.float32)
        near = self.near if self.irrelevant is None or negatives == "labelled" else _put_first(self.irrelevant, self.near)
        labels = self.labels.take(rows)
        return train_linear(
            *(self.queries[rows], self.targets[rows], labels, self.corpus, pool, near[rows]), seed=self.seed, parents=self.of_row
        )

    @cached_property
    def targets(self) -> Vectors:
        """The weighted mean document vector of each query, (n, d) float32; 0 for a query without labels."""
        return target_means(self.labels, self.corpus)

    def value_space(self) -> ValueSpace:
        """Return the map from documents to the values of the attention part."""
        judged = self.labels
        if self.irrelevant is not None and not judged.labelled.any():
            judged = self.irrelevant
        judged = judged.take(np.flatnonzero(judged.labelled))
        return value_space(target_means(judged, self.corpus), judged, self.corpus, self.statistics)

    def values(self) -> Vectors:
        """Return the value of each query in the attention part, as `RememberedQueries.values` computes them, (n, d) float32."""
        space, values = self.value_space(), np.zeros((len(self.labels), self.corpus.shape[1]), dtype=np.float32)
        for judged, factor in ((self.labels, 1.0), (self.irrelevant, -AWAY)):
            if judged is not None:
                rows = np.flatnonzero(judged.labelled & self.labels.labelled)
                values[rows] += np.float32(factor) * space.place(target_means(judged.take(rows), self.corpus))
        return values

    @property
    def votes(self) -> LabelRows:
        """The votes of each query for and against documents, by which remembered answers are scored."""
        return self.labels if self.irrelevant is None else self.labels.signed(self.irrelevant, AGAINST)

    def attention(self, strength: float = 1.0) -> Attention:
        """Build the attention part."""
        space = self.statistics.kernel_space(self.queries)
        return Attention(space.place(self.queries), self.values(), TEMPERATURE, strength, space)

    def fit(self, candidate: Candidate) -> QueryAdapter:
        """Train the transform of a candidate on all queries.

        The attention part is there in any case, because its keys also serve the remembered answers. Its strength is 0 where the
        candidate leaves it out.
        """
        linear = self.linear(candidate.linear) if candidate.linear else None
        return QueryAdapter(self.corpus.shape[1], linear=linear, attention=self.attention(candidate.attention))


def _put_first(irrelevant: LabelRows, near: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put some of what each query judged irrelevant before the documents nearest to the query, and drop the last of these."""
    near = near.copy()
    for query in np.flatnonzero(irrelevant.labelled).tolist():
        wrong = irrelevant[query][0][: min(HARD, near.shape[1])]
        others = near[query][~np.isin(near[query], wrong)]
        near[query] = np.concatenate([wrong, others])[: near.shape[1]]
    return near
