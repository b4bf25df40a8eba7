"""Labels that name only what the untransformed search had shown, as clicks and thumbs do.

Measured on the whole corpus, such labels always favour the untransformed queries: whatever these find was shown and could be
labelled, and nothing else could. So candidates are compared by how they order what was shown, and documents that were not shown
count neither as right nor as wrong (condensed lists: Sakai 2007).

Users look the less at a document the lower it stands, so labels at low ranks are few and count more (inverse propensity
weighting: Joachims, Swaminathan and Schnabel 2017). How much users look is not known. Each rank counts as much as any other, so
that clicks which depend on the rank alone, and not on the document, favour no candidate: every candidate only reorders the ranks.

Where labels say what was shown (`Relevance.shown`), as those of a feedback log's clicks do, the same holds whatever search showed
it. Where they do not, `exposure` looks whether they end where the untransformed search ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.labels import LabelRows

MAX_DEPTH = 50
"""The largest number of documents that a search is thought to show."""
LEAST = 6
"""How many queries at least must have a wrong document near the edge of what was shown.

Of unbiased labels drawn from StackFAQ, where the untransformed search is nearly perfect, up to 7% of draws are taken for clicks;
elsewhere, of samples of 10 to 400 queries, none to 2%. Perfect and noisy clicks are noticed from some 50 to 200 queries on.
"""


MAX_WEIGHT = 10.0
"""How many times as much as a label at the most common rank a label counts at most."""


@dataclass(frozen=True)
class Exposure:
    """What the untransformed search had shown when users gave their labels.

    Attributes:
        depth: How many documents the search showed for each query.
        weights: (n,) how much each query counts, 1 on average.
    """

    depth: int
    weights: NDArray[np.float64]


def weights_of_ranks(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weight of each label by its rank, (labels,): each rank counts as much as any other, within `MAX_WEIGHT`."""
    counts = np.bincount(ranks)
    return np.asarray(np.minimum(counts.max() / counts[ranks], MAX_WEIGHT), dtype=np.float64)


def weights_of_queries(owners: Sequence[int], ranks: Sequence[int], count: int) -> NDArray[np.float64]:
    """Return how much each query counts, (count,) with a mean of 1: the mean of `weights_of_ranks` over its labels.

    Args:
        owners: The query of each label.
        ranks: The rank of each label, from 1.
        count: How many queries there are. One without labels counts like a label at the most common rank.
    """
    weights = np.ones(count)
    if len(ranks):
        sums = np.bincount(owners, weights_of_ranks(np.asarray(ranks)), minlength=count)
        labels = np.bincount(owners, minlength=count)
        weights[labels > 0] = sums[labels > 0] / labels[labels > 0]
    return np.asarray(weights / weights.mean())


def exposure(labels: LabelRows, near: NDArray[np.int64], documents: int) -> Exposure | None:
    """Tell whether the labels end where a search by the untransformed queries ends.

    Unbiased labels thin out towards the lower ranks. That many labels lie just above some rank, and none below, is the sign of a
    list that ended there.

    Args:
        labels: The labels of n queries.
        near: (n, m) int64, the rows of the documents nearest to each query, best first.
        documents: How many documents the corpus has.

    Returns:
        None where labels may name any document.

    Example:
        >>> near = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] * 12)
        >>> found = exposure(LabelRows.of_rows([{row % 4: 1.0} for row in range(12)]), near, documents=100)
        >>> found.depth
        4
        >>> exposure(LabelRows.of_rows([{row % 4: 1.0} for row in range(11)] + [{9: 1.0}]), near, documents=100) is None
        True
    """
    rows = np.flatnonzero(labels.labelled)
    if 0 < len(rows) < len(labels):  # the others only judged documents irrelevant
        shown = exposure(labels.take(rows), near[rows], documents)
        weights = np.ones(len(labels))
        weights[rows] = 1.0 if shown is None else shown.weights
        return shown and replace(shown, weights=weights)
    sizes = np.diff(labels.starts)
    found = near[labels.owners] == labels.documents[:, None]
    if not len(rows) or not found.any(axis=1).all():
        return None
    rank = found.argmax(axis=1) + 1
    depth = int(rank.max())
    order = np.lexsort((rank, labels.owners))
    wrong = np.empty(len(rank), dtype=np.int64)  # how many documents without a label of the query stand above each label
    wrong[order] = rank[order] - 1 - (np.arange(len(rank)) - np.repeat(labels.starts[:-1], sizes))
    most = np.maximum.reduceat(wrong, labels.starts[:-1])
    at_the_edge = int((2 * most >= most.max()).sum())
    if most.max() < 2 or at_the_edge < LEAST or depth > MAX_DEPTH or 3 * depth > documents:
        return None
    weights = np.add.reduceat(weights_of_ranks(rank), labels.starts[:-1]) / sizes
    return Exposure(depth, weights / weights.mean())
