"""`TrainingData`: the queries, labels and documents that a training learns from, and how one candidate is fitted to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, nearest
from deepmem_integrations.adapter import Attention, QueryAdapter, ValueSpace
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.attention import CorpusStatistics, target_means, value_space
from deepmem_integrations.training.candidates import TEMPERATURE, Candidate
from deepmem_integrations.training.folds import Fold
from deepmem_integrations.training.linear import Negatives, train_linear
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
    """

    queries: Vectors
    labels: LabelRows
    corpus: Vectors
    statistics: CorpusStatistics
    seed: int
    near: NDArray[np.int64]
    words: QueryWords | None = None
    shown: Sequence[NDArray[np.int64] | None] | None = None

    @classmethod
    def of(cls, queries: Vectors, labels: LabelRows, corpus: Vectors, statistics: CorpusStatistics, seed: int) -> "TrainingData":
        """Find the documents nearest to each query, and take the rest as it is."""
        return cls(queries, labels, corpus, statistics, seed, nearest(queries, corpus, NEAR))

    @property
    def all_labelled(self) -> bool:
        """Whether every document has a label."""
        return len(np.unique(self.labels.documents)) == len(self.corpus)

    def take(self, rows: NDArray[np.int64], labels: LabelRows) -> "TrainingData":
        """Return the data of these queries alone, without their words, and with the given labels in place of their own."""
        return TrainingData(self.queries[rows], labels, self.corpus, self.statistics, self.seed, self.near[rows])

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
        near = np.concatenate([self.near, nearest(queries, self.corpus, NEAR)])
        shown = self.shown and [*self.shown, *[None] * len(queries)]
        both = replace(self, queries=np.concatenate([self.queries, queries]), near=near, words=words, shown=shown)
        return both, Fold(np.arange(len(self.queries)), self.labels, rows, labels, [[] for _ in rows])

    def linear(self, negatives: Negatives) -> Vectors:
        """Train the linear part, W, (d, d) float32.

        Args:
            negatives: Which documents the softmax runs over: see `Negatives`.
        """
        pool = np.unique(self.labels.documents) if negatives == "labelled" else np.arange(len(self.corpus))
        return train_linear(self.queries, self.targets, self.labels, self.corpus, pool, self.near, seed=self.seed)

    @cached_property
    def targets(self) -> Vectors:
        """The weighted mean document vector of each query, (n, d) float32."""
        return target_means(self.labels, self.corpus)

    def value_space(self) -> ValueSpace:
        """Return the map from documents to the values of the attention part."""
        return value_space(self.targets, self.labels, self.corpus, self.statistics)

    def attention(self, strength: float = 1.0) -> Attention:
        """Build the attention part."""
        space = self.statistics.kernel_space(self.queries)
        return Attention(space.place(self.queries), self.value_space().place(self.targets), TEMPERATURE, strength, space)

    def fit(self, candidate: Candidate) -> QueryAdapter:
        """Train the transform of a candidate on all queries.

        The attention part is there in any case, because its keys also serve the remembered answers. Its strength is 0 where the
        candidate leaves it out.
        """
        linear = self.linear(candidate.linear) if candidate.linear else None
        return QueryAdapter(self.corpus.shape[1], linear=linear, attention=self.attention(candidate.attention))
