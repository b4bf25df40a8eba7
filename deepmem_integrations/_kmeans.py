"""Spherical k-means (Dhillon and Modha 2001), from centres that the caller has drawn."""

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks


def spherical_kmeans(vectors: Vectors, centres: Vectors, *, rounds: int) -> Vectors:
    """Move centres to the middle of the vectors that are nearest to them, several times over.

    Args:
        vectors: (n, d) float32 unit rows.
        centres: (k, d) float32 unit rows to start from.
        rounds: How many times.

    Returns:
        (k, d) float32 unit rows. A centre that no vector is nearest to stays where it is.
    """
    for _ in range(rounds):
        sums = np.zeros_like(centres)
        np.add.at(sums, assign(vectors, centres)[0], vectors)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 1e-6, sums / np.maximum(norms, 1e-6), centres)
    return centres


def assign(vectors: Vectors, centres: Vectors) -> tuple[NDArray[np.int64], Vectors]:
    """Find the nearest centre of each vector.

    Args:
        vectors: (n, d) float32 unit rows.
        centres: (k, d) float32 unit rows.

    Returns:
        (n,) int64 rows of the centres, and (n,) float32 cosines to them.
    """
    rows = np.empty(len(vectors), dtype=np.int64)
    cosines = np.empty(len(vectors), dtype=np.float32)
    for block in blocks(len(vectors), len(centres)):
        scores = vectors[block] @ centres.T
        rows[block] = scores.argmax(axis=1)
        cosines[block] = scores.max(axis=1)
    return rows, cosines
