"""`TrainingData`: the queries, labels and documents that a training learns from, and how one candidate is fitted to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import Attention, QueryAdapter, ValueSpace
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.attention import CorpusStatistics, target_means, value_space
from deepmem_integrations.training.candidates import EPOCHS, TEMPERATURES, AttentionSettings, Candidate
from deepmem_integrations.training.folds import Fold
from deepmem_integrations.training.linear import Negatives, negative_rows, train_linear
from deepmem_integrations.training.words import QueryWords


@dataclass(frozen=True)
class TrainingData:
    """The queries, labels and documents that a training learns from.

    Attributes:
        queries: (n, d) float32 unit rows, the query vectors.
        labels: The labels of the n queries, as rows of the corpus.
        corpus: (N, d) float32 unit rows, the documents that are ranked.
        statistics: The mean and covariance of all documents, ranked or not.
        seed: Fixes the result.
        words: The words of the queries, or None where there is no search by words.
    """

    queries: Vectors
    labels: LabelRows
    corpus: Vectors
    statistics: CorpusStatistics
    seed: int
    words: QueryWords | None = None

    def take(self, rows: NDArray[np.int64], labels: LabelRows) -> "TrainingData":
        """Return the data of these queries alone, without their words, and with the given labels in place of their own."""
        return TrainingData(self.queries[rows], labels, self.corpus, self.statistics, self.seed)

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
        both = replace(self, queries=np.concatenate([self.queries, queries]), words=words)
        return both, Fold(np.arange(len(self.queries)), self.labels, rows, labels, [[] for _ in rows])

    def linear(self, negatives: Negatives, epochs: tuple[int, ...] = EPOCHS) -> dict[int, Vectors]:
        """Train the linear part.

        Args:
            negatives: Which documents the softmax runs over: see `Negatives`.
            epochs: The epochs after which to keep W.

        Returns:
            Epoch → W, (d, d) float32.
        """
        rows = negative_rows(negatives, self.labels, len(self.corpus), self.seed)
        targets = target_means(self.labels, self.corpus)
        return train_linear(self.queries, targets, self.corpus[rows], epochs=epochs, seed=self.seed)

    def value_space(self) -> ValueSpace:
        """Return the map from documents to the values of the attention part."""
        return value_space(target_means(self.labels, self.corpus), self.labels, self.corpus, self.statistics)

    def attentions(self) -> dict[float, Attention]:
        """Build the attention part for each temperature, with a strength of 1."""
        space = self.statistics.kernel_space(self.queries)
        values = self.value_space().place(target_means(self.labels, self.corpus))
        keys = space.place(self.queries)
        return {temperature: Attention(keys, values, temperature, 1.0, space) for temperature in TEMPERATURES}

    def fit(self, candidate: Candidate) -> QueryAdapter:
        """Train the transform of a candidate on all queries.

        The attention part is there in any case, because its keys also serve the remembered answers. Its strength is 0 where the
        candidate leaves it out.
        """
        linear = None
        if candidate.linear:
            linear = self.linear(candidate.linear.negatives, (candidate.linear.epochs,))[candidate.linear.epochs]
        settings = candidate.attention or AttentionSettings(TEMPERATURES[0], 0.0)
        attention = replace(self.attentions()[settings.temperature], strength=settings.strength)
        return QueryAdapter(self.corpus.shape[1], linear=linear, attention=attention)
