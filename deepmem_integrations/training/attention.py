"""The attention part, which learns *what users asked for* and serves documents that have labels."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.adapter import KernelSpace, ValueSpace
from deepmem_integrations.labels import LabelRows

RIDGE = 0.01
"""The λ of the values' whitening, as a share of the mean eigenvalue."""
CORPUS_WEIGHT = 3
"""In the covariance of the kernel space, the corpus counts as much as this many queries for each dimension."""


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
        """Start with no document."""
        return cls(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    def add(self, documents: Vectors) -> "CorpusStatistics":
        """Add documents, (n, d) float32 unit rows. The products of a block are float32, and their sum is float64."""
        for block in blocks(len(documents), documents.shape[1]):
            part = documents[block]
            self.count += len(part)
            self._total += part.sum(axis=0, dtype=np.float64)
            self._second += part.T @ part
        return self

    def join(self, other: "CorpusStatistics") -> None:
        """Add the documents of other statistics."""
        self.count += other.count
        self._total += other._total
        self._second += other._second

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the statistics as arrays, from which `of_arrays` makes them again to the last bit."""
        return {"count": np.array([self.count]), "total": self._total, "second": self._second}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "CorpusStatistics":
        """Make statistics of the arrays that `arrays` returned; others beside them are ignored."""
        return cls(int(arrays["count"][0]), arrays["total"].copy(), arrays["second"].copy())

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean document, (d,) float64."""
        return self._total / self.count

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariance about the mean, (d, d) float64."""
        return np.asarray(self._second / self.count - np.outer(self.mean, self.mean))

    def value_map(self) -> Vectors:
        """Compute ``(E[d dᵀ] + λ I)⁻¹``, (d, d) float32: it turns a document into the direction that favours the document.

        Without this map, a step towards a document is mostly a step towards what all documents have in common.
        """
        moment = self._second / self.count
        d = len(moment)
        return np.ascontiguousarray(np.linalg.inv(moment + RIDGE * np.trace(moment) / d * np.eye(d)), dtype=np.float32)

    def kernel_space(self, queries: Vectors) -> KernelSpace:
        """Build the space in which queries are compared.

        The space is centred on the training queries and whitened by a mix of their covariance and that of the corpus, each scaled
        to a mean eigenvalue of 1: few queries do not determine a covariance. The identity is added to the mix, so that directions
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
        # Every P with P Pᵀ = (C + I)⁻¹ gives the same products between whitened queries.
        factor = np.linalg.cholesky(mixed + np.eye(d))
        return KernelSpace(centre, np.ascontiguousarray(np.linalg.inv(factor).T, dtype=np.float32))


def _mean_eigenvalue_one(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = np.trace(covariance) / len(covariance)
    return np.asarray(covariance / mean if mean > 1e-12 else covariance)


def target_means(labels: LabelRows, corpus: Vectors) -> Vectors:
    """Compute the weighted mean document vector of each query, (n, d) float32. It is 0 for a query without labels."""
    means = np.empty((len(labels), corpus.shape[1]), dtype=np.float32)
    for query in range(len(labels)):
        rows, weights = labels[query]
        means[query] = weights @ corpus[rows] / (weights.sum() or 1)
    return means


def value_space(targets: Vectors, labels: LabelRows, documents: Vectors, statistics: CorpusStatistics) -> ValueSpace:
    """Compute how documents become values of the attention part.

    Documents are whitened, and scaled so that the product of a value with the best of its own documents is 1 on average.

    Args:
        targets: (n, d) from `target_means`.
        labels: The labels of the same queries.
        documents: (N, d) float32 unit rows, which the labels name.
        statistics: The statistics of the corpus.
    """
    unscaled = ValueSpace(statistics.mean.astype(np.float32), statistics.value_map(), 1.0)
    values = unscaled.place(targets)
    best = np.array([(documents[labels[query][0]] @ values[query]).max() for query in range(len(labels))])
    average = float(best.mean())
    # Where all documents are the same, no direction favours one of them.
    return replace(unscaled, scale=1 / average if average > 1e-6 else 0.0)
