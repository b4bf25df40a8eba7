"""Queries with the same vector are merged before a training, so that no query is held out while its twin trains."""

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.labels import LabelRows

TWINS = 0.99999
"""The cosine above which two vectors are those of the same text: one text's vectors differ a little from batch to batch."""


def merge_twins(queries: Vectors, labels: LabelRows) -> tuple[NDArray[np.int64], NDArray[np.int64], Vectors, LabelRows]:
    """Sort queries by their vectors and merge equal ones: their documents are united, and the larger weight stays.

    After the sorting, the order in which the caller gives the queries cannot change the folds and batches.

    Args:
        queries: (n, d) float32 unit rows.
        labels: Their labels.

    Returns:
        (n,) int64, the rows of the queries in their new order; (n,) int64, for each of these the merged query that it belongs
        to; the (m, d) merged queries; and their labels.
    """
    # By the first components, as long as they tell all queries apart: rounding elsewhere does not change the order.
    columns = 8 if len(np.unique(queries[:, :8], axis=0)) == len(queries) else queries.shape[1]
    order = np.lexsort(queries[:, :columns].T[::-1])
    queries, labels = queries[order], labels.take(order)
    first = np.arange(len(queries))
    for block in blocks(len(queries), len(queries)):
        rows, twins = np.nonzero(queries[block] @ queries.T > TWINS)
        for row, twin in zip((rows + block.start).tolist(), twins.tolist(), strict=True):
            first[row] = min(first[row], first[twin])
    merged: dict[int, dict[int, float]] = {}
    for row, representative in enumerate(first.tolist()):
        weights = merged.setdefault(representative, {})
        for document, weight in labels.weight_of(row).items():
            weights[document] = max(weight, weights.get(document, 0.0))
    kept = np.array(list(merged))
    merged_labels = LabelRows.of_rows([dict(sorted(weights.items())) for weights in merged.values()])
    return order, np.searchsorted(kept, first), queries[kept], merged_labels


def have_twins(queries: Vectors, others: Vectors) -> NDArray[np.bool_]:
    """Tell which queries are among the others: (n, d) and (m, d) float32 unit rows → (n,) bool."""
    found = np.zeros(len(queries), dtype=bool)
    for block in blocks(len(queries), len(others)):
        found[block] = (queries[block] @ others.T > TWINS).any(axis=1)
    return found
