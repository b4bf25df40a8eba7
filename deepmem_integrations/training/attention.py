"""The attention part: learns *what users asked for*, and serves documents that have labels."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.adapter import KernelSpace, ValueSpace
from deepmem_integrations.labels import LabelRows

RIDGE = 0.01
"""λ of the values' whitening, as a share of the mean eigenvalue."""
CORPUS_WEIGHT = 3
"""In the kernel space's covariance the corpus counts as much as this many queries for each dimension."""


class CorpusStatistics:
    """The mean and the covariance of document vectors, gathered batch by batch.

    Attributes:
        count: How many documents.
    """

    def __init__(self, count: int, total: NDArray[np.float64], second: NDArray[np.float64]) -> None:
        self.count = count
        self._total = total
        self._second = second

    @classmethod
    def empty(cls, dimension: int) -> "CorpusStatistics":
        """Of no document yet."""
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    def add(self, documents: Vectors) -> "CorpusStatistics":
        """Add (n, d) float32 unit rows. A block's products are float32, their sum is float64."""
        for block in blocks(len(documents), documents.shape[1]):
            part = documents[block]
            self.count += len(part)
            self._total += part.sum(axis=0, dtype=np.float64)
            self._second += part.T @ part
        return self

    @property
    def mean(self) -> NDArray[np.float64]:
        """(d,) float64."""
        return self._total / self.count

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(d, d) float64, about the mean."""
        return np.asarray(self._second / self.count - np.outer(self.mean, self.mean))

    def value_map(self) -> Vectors:
        """``(E[d dᵀ] + λ I)⁻¹``, (d, d) float32: turns a document into the direction that favours it over the others.

        Without it, a step towards a document is mostly a step towards what all documents have in common.
        """
        moment = self._second / self.count
        d = len(moment)
        return np.ascontiguousarray(np.linalg.inv(moment + RIDGE * np.trace(moment) / d * np.eye(d)), dtype=np.float32)

    def kernel_space(self, queries: Vectors) -> KernelSpace:
        """Centre on the training queries; whiten by their covariance and the corpus', each scaled to a mean eigenvalue of 1.

        Few queries do not tell their covariance: the corpus stands in. The identity is added to the mix, so that directions
        in which nothing varies are not blown up.

        Args:
            queries: (n, d) float32 unit rows, n ≥ 1.
        """
        n, d = queries.shape
        centre = queries.mean(axis=0)
        spread = (queries - centre).T.astype(np.float64) @ (queries - centre) / n
        mixed = (n * _mean_eigenvalue_one(spread) + CORPUS_WEIGHT * d * _mean_eigenvalue_one(self.covariance)) / (
            n + CORPUS_WEIGHT * d
        )
        # Any P with P Pᵀ = (C + I)⁻¹ gives the same products between whitened queries.
        factor = np.linalg.cholesky(mixed + np.eye(d))
        return KernelSpace(centre, np.ascontiguousarray(np.linalg.inv(factor).T, dtype=np.float32))


def _mean_eigenvalue_one(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = np.trace(covariance) / len(covariance)
    return np.asarray(covariance / mean if mean > 1e-12 else covariance)


def target_means(labels: LabelRows, corpus: Vectors) -> Vectors:
    """Each query's weighted mean document vector, (n, d) float32."""
    means = np.empty((len(labels), corpus.shape[1]), dtype=np.float32)
    for query in range(len(labels)):
        rows, weights = labels[query]
        means[query] = weights @ corpus[rows] / weights.sum()
    return means


def value_space(targets: Vectors, labels: LabelRows, documents: Vectors, statistics: CorpusStatistics) -> ValueSpace:
    """How documents become values of the attention.

    They are whitened, and scaled so that a value's product with the best of its own documents is 1 on average.

    Args:
        targets: (n, d) from `target_means`.
        labels: The labels of the same queries.
        documents: (N, d) float32 unit rows that the labels name.
        statistics: Of the corpus.
    """
    unscaled = ValueSpace(statistics.mean.astype(np.float32), statistics.value_map(), 1.0)
    values = unscaled.place(targets)
    best = np.array([(documents[labels[query][0]] @ values[query]).max() for query in range(len(labels))])
    average = float(best.mean())
    # A corpus whose documents are all the same has no direction that favours one of them.
    return replace(unscaled, scale=1 / average if average > 1e-6 else 0.0)
