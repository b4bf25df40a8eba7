"""Build the attention part of an adapter.

The attention part learns *which documents users asked for*. It helps queries whose documents have labels.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.adapter import KernelSpace, ValueSpace
from deepmem_integrations.labels import LabelRows

RIDGE = 0.01
"""λ in the whitening of the values, as a share of the mean eigenvalue."""
CORPUS_WEIGHT = 3
"""How many queries for each dimension the corpus counts as in the covariance of the kernel space."""


class CorpusStatistics:
    """The mean and the covariance of document vectors, gathered batch by batch.

    Args:
        count: The number of documents so far.
        total: (d,) float64, the sum of their vectors.
        second: (d, d) float64, the sum of the outer products of their vectors.

    Attributes:
        count: The number of documents so far.
    """

    def __init__(self, count: int, total: NDArray[np.float64], second: NDArray[np.float64]) -> None:
        self.count = count
        self._total = total
        self._second = second

    @classmethod
    def empty(cls, dimension: int) -> "CorpusStatistics":
        """Return the statistics of no documents, to `add` to.

        Args:
            dimension: d, the length of the vectors.
        """
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    def add(self, documents: Vectors) -> "CorpusStatistics":
        """Add documents. The products within a block are float32, and their sum over the blocks is float64.

        Args:
            documents: (n, d) float32 unit rows.

        Returns:
            This object.
        """
        for block in blocks(len(documents), documents.shape[1]):
            part = documents[block]
            self.count += len(part)
            self._total += part.sum(axis=0, dtype=np.float64)
            self._second += part.T @ part
        return self

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean document vector, (d,) float64."""
        return self._total / self.count

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariance of the document vectors about their mean, (d, d) float64."""
        return np.asarray(self._second / self.count - np.outer(self.mean, self.mean))

    def value_map(self) -> Vectors:
        """Return ``(E[d dᵀ] + λ I)⁻¹``, which maps a document to the direction that favours it over the other documents.

        Without this map, moving a query towards a document would mostly move it towards what all documents have in common.

        Returns:
            (d, d) float32.
        """
        moment = self._second / self.count
        d = len(moment)
        return np.ascontiguousarray(np.linalg.inv(moment + RIDGE * np.trace(moment) / d * np.eye(d)), dtype=np.float32)

    def kernel_space(self, queries: Vectors) -> KernelSpace:
        """Return the space in which the attention part compares queries.

        The space is centred on the training queries. It is whitened by a mix of the covariance of the queries and the
        covariance of the corpus, each scaled to a mean eigenvalue of 1. The corpus is part of the mix because a few queries
        are not enough to estimate a covariance. The identity is added, so that directions without any variation are not
        blown up.

        Args:
            queries: (n, d) float32 unit rows, n ≥ 1.
        """
        n, d = queries.shape
        centre = queries.mean(axis=0)
        spread = (queries - centre).T.astype(np.float64) @ (queries - centre) / n
        mixed = (n * _mean_eigenvalue_one(spread) + CORPUS_WEIGHT * d * _mean_eigenvalue_one(self.covariance)) / (
            n + CORPUS_WEIGHT * d
        )
        # Every P with P Pᵀ = (C + I)⁻¹ gives the same products between whitened queries. The Cholesky factor is the cheapest.
        factor = np.linalg.cholesky(mixed + np.eye(d))
        return KernelSpace(centre, np.ascontiguousarray(np.linalg.inv(factor).T, dtype=np.float32))


def _mean_eigenvalue_one(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = np.trace(covariance) / len(covariance)
    return np.asarray(covariance / mean if mean > 1e-12 else covariance)


def target_means(labels: LabelRows, corpus: Vectors) -> Vectors:
    """Return the weighted mean of each query's labelled documents.

    Args:
        labels: The labels of n queries.
        corpus: (N, d) float32 unit rows.

    Returns:
        (n, d) float32.
    """
    means = np.empty((len(labels), corpus.shape[1]), dtype=np.float32)
    for query in range(len(labels)):
        rows, weights = labels[query]
        means[query] = weights @ corpus[rows] / weights.sum()
    return means


def value_space(targets: Vectors, labels: LabelRows, documents: Vectors, statistics: CorpusStatistics) -> ValueSpace:
    """Return the map from documents to the values of the attention part.

    The documents are whitened. They are then scaled so that the product of a value and the best of its own documents is 1 on
    average.

    Args:
        targets: (n, d) float32 from `target_means`.
        labels: The labels of the same n queries, as rows of ``documents``.
        documents: (N, d) float32 unit rows.
        statistics: The statistics of the corpus.
    """
    unscaled = ValueSpace(statistics.mean.astype(np.float32), statistics.value_map(), 1.0)
    values = unscaled.place(targets)
    best = np.array([(documents[labels[query][0]] @ values[query]).max() for query in range(len(labels))])
    average = float(best.mean())
    # If all documents are the same, no direction favours one of them over the others.
    return replace(unscaled, scale=1 / average if average > 1e-6 else 0.0)
