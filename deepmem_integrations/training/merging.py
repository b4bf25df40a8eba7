"""Merge queries with the same vector before a training: they are one query, and a transform cannot tell them apart."""

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.labels import LabelRows

TWINS = 0.99999
"""The cosine above which two vectors count as the same. The vectors of one text differ a little from batch to batch."""


def merge_twins(queries: Vectors, labels: LabelRows) -> tuple[NDArray[np.int64], NDArray[np.int64], Vectors, LabelRows]:
    """Sort queries by their vectors, and merge queries with equal vectors into one.

    A merged query has the documents of all its queries. Where two of them give a document different weights, the larger weight
    stays. Because of the sorting, the order of the caller's queries does not change the folds and batches.

    Args:
        queries: (n, d) float32 unit rows.
        labels: The labels of the n queries.

    Returns:
        Four things: the rows of the queries in their new order, (n,) int64; for each query in this order, the row of the
        merged query that it belongs to, (n,) int64; the vectors of the merged queries, (m, d) float32; and their labels.
    """
    # The first components are enough to sort by if they differ for all queries. Rounding in the others then changes nothing.
    columns = 8 if len(np.unique(queries[:, :8], axis=0)) == len(queries) else queries.shape[1]
    order = np.lexsort(queries[:, :columns].T[::-1])
    queries, labels = queries[order], labels.take(order)
    first = np.arange(len(queries))
    for block in blocks(len(queries), len(queries)):
        for row, same in enumerate(queries[block] @ queries.T > TWINS, start=block.start):
            first[row] = first[np.flatnonzero(same)].min(initial=row)
    merged: dict[int, dict[int, float]] = {}
    for row, representative in enumerate(first.tolist()):
        weights = merged.setdefault(representative, {})
        for document, weight in labels.weight_of(row).items():
            weights[document] = max(weight, weights.get(document, 0.0))
    kept = np.array(list(merged))
    merged_labels = LabelRows.of_rows([dict(sorted(weights.items())) for weights in merged.values()])
    return order, np.searchsorted(kept, first), queries[kept], merged_labels


def have_twins(queries: Vectors, others: Vectors) -> NDArray[np.bool_]:
    """Tell which queries have the same vector as one of the others.

    Args:
        queries: (n, d) float32 unit rows.
        others: (m, d) float32 unit rows.

    Returns:
        (n,) bool.
    """
    found = np.zeros(len(queries), dtype=bool)
    for block in blocks(len(queries), len(others)):
        found[block] = (queries[block] @ others.T > TWINS).any(axis=1)
    return found
