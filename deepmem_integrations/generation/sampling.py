"""The order in which to ask about documents, so that a few of them cover the corpus."""

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._kmeans import assign, spherical_kmeans
from deepmem_integrations._vectors import Vectors

_MOST_CLUSTERS = 256
_FITTED_ON = 50_000
_ROUNDS = 10


def coverage_order(vectors: Vectors, count: int, *, seed: int) -> NDArray[np.int64]:
    """Order documents so that any number of them, taken from the start, covers the corpus.

    The order takes one document of every cluster, then a second one of every cluster, and so on. The clusters are those of
    spherical k-means.

    Args:
        vectors: (N, d) float32 unit rows.
        count: How many documents the caller will take. There are at most this many clusters, and at most 256.
        seed: Fixes the order.

    Returns:
        (N,) int64 row numbers. The first document of a cluster is the one nearest to its centre; the others follow at random.
    """
    rng = np.random.default_rng(seed)
    order: NDArray[np.int64] = rng.permutation(len(vectors))
    clusters = min(_MOST_CLUSTERS, count, len(vectors))
    if clusters < 2:
        return order
    labels, central = _clusters(vectors, vectors[order[:_FITTED_ON]], clusters, rng)
    order = np.concatenate([central, order[~np.isin(order, central)]])
    # A document's position in its cluster is the round in which it is taken; within a round, clusters come in random order.
    place = np.empty(len(order), dtype=np.int64)
    for cluster in range(clusters):
        members = np.flatnonzero(labels[order] == cluster)
        place[members] = np.arange(len(members))
    return order[np.lexsort((rng.permutation(clusters)[labels[order]], place))]


def _clusters(
    vectors: Vectors, sample: Vectors, clusters: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cluster of each row, and the row nearest to the centre of each cluster."""
    centres = spherical_kmeans(sample, _starts(sample, clusters, rng), rounds=_ROUNDS)
    labels, cosines = assign(vectors, centres)
    central = [int(rows[cosines[rows].argmax()]) for c in range(clusters) if len(rows := np.flatnonzero(labels == c))]
    return labels, np.array(central, dtype=np.int64)


def _starts(sample: Vectors, clusters: int, rng: np.random.Generator) -> Vectors:
    """Draw the first centres far from one another, so that small topics get a centre (k-means++, Arthur & Vassilvitskii 2007)."""
    rows = [0]
    distances = np.ones(len(sample))
    for _ in range(clusters - 1):
        distances = np.minimum(distances, np.maximum(1 - sample @ sample[rows[-1]], 0))
        total = distances.sum()
        rows.append(int(rng.choice(len(sample), p=distances / total)) if total > 0 else int(rng.integers(len(sample))))
    return sample[rows]
