"""The memory part: learns *what users asked for*, and serves documents that have labels."""

from dataclasses import dataclass

import numpy as np

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.labels import LabelRows

RIDGE = 0.01
"""λ as a share of the mean eigenvalue of the corpus covariance."""


@dataclass(frozen=True)
class Whitening:
    """The corpus statistics that turn a document vector into the direction that favours it over the others.

    Without the whitening, a step towards a document is mostly a step towards what all documents have in common.

    Attributes:
        mean: (d,) float32, the mean document.
        matrix: (d, d) float32, ``(C + λ I)⁻¹`` with C = DᵀD / N and λ = 0.01 · tr(C) / d.
    """

    mean: Vectors
    matrix: Vectors

    @classmethod
    def of(cls, corpus: Vectors) -> "Whitening":
        """Compute both from the (N, d) unit rows of a corpus."""
        n, d = corpus.shape
        total, second = np.zeros(d), np.zeros((d, d))
        for block in blocks(n, d):
            part = corpus[block].astype(np.float64)
            total += part.sum(axis=0)
            second += part.T @ part
        covariance = second / n
        ridge = RIDGE * np.trace(covariance) / d
        matrix = np.linalg.inv(covariance + ridge * np.eye(d))
        return cls((total / n).astype(np.float32), matrix.astype(np.float32))


def target_means(labels: LabelRows, corpus: Vectors) -> Vectors:
    """Each query's weighted mean document vector, (n, d) float32."""
    means = np.empty((len(labels), corpus.shape[1]), dtype=np.float32)
    for query in range(len(labels)):
        rows, weights = labels[query]
        means[query] = weights @ corpus[rows] / weights.sum()
    return means


def memory_values(targets: Vectors, labels: LabelRows, corpus: Vectors, whitening: Whitening) -> Vectors:
    """The value of each training query: where its documents lie, whitened.

    Args:
        targets: (n, d) from `target_means`.
        labels: The labels of the same queries.
        corpus: (N, d) float32 unit rows.
        whitening: Of the same corpus.

    Returns:
        (n, d) float32, scaled so that a value's product with the best of its own documents is 1 on average.
    """
    values = (targets - whitening.mean) @ whitening.matrix
    best = np.array([(corpus[labels[query][0]] @ values[query]).max() for query in range(len(labels))])
    scale = float(best.mean())
    # A corpus whose documents are all the same has no direction that favours one of them.
    return np.asarray(values / scale if scale > 1e-6 else np.zeros_like(values), dtype=np.float32)
