"""Labels that name only what a search had shown, as clicks and thumbs do.

Measured on the whole corpus, such labels always favour the search that showed the documents: whatever it finds could be labelled,
and nothing else could. So candidates are compared by how they order what was shown, and documents that were not shown count
neither as right nor as wrong (condensed lists: Sakai 2007).

Users look the less at a document the lower it stands, so labels at low ranks are few and count more (inverse propensity
weighting: Joachims, Swaminathan and Schnabel 2017). How much users look is not known. Where each rank counts as much as any
other, labels that depend on the rank alone, and not on the document, favour no candidate, since every candidate only reorders the
ranks. But at low ranks clicks are mostly noise. So a training goes half the way, by the square root of these weights, and a
candidate must prove that it ranks what was labelled higher than labels explain that are drawn by rank alone (`by_chance`). With
280 clicks on the demo's documents that is worth one to two points of recall@10 more than the whole way.

Labels may say what was shown (`Relevance.shown`), as those of a feedback log's clicks do. Where they do not, `exposure` looks
whether they end where the untransformed search ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.labels import LabelRows, sum_by_group
from deepmem_integrations.training.cross_validation import label_gains

MAX_DEPTH = 50
"""The largest number of documents that a search is thought to show."""
LEAST = 6
"""How many queries at least must have a wrong document near the edge of what was shown.

Of unbiased labels drawn from StackFAQ, where the untransformed search is nearly perfect, up to 7% of draws are taken for clicks;
elsewhere, of samples of 10 to 400 queries, none to 2%. Perfect and noisy clicks are noticed from some 50 to 200 queries on.
"""


MAX_WEIGHT = 10.0
"""How many times as much as a label at the most common rank a label counts at most."""


TRAINED_EVENNESS = 0.5
"""What `weights_of_queries` takes for the queries of a training."""


@dataclass(frozen=True)
class Exposure:
    """What was shown to users when they gave their labels.

    Attributes:
        lists: For each of n queries the rows of the documents that were shown or labelled, ascending; None where any could be
            labelled.
        by_chance: For each list the gains in nDCG and recall, (2, S) float64, that its documents have on average where labels
            depend on the rank alone; None where there is no list.
        weights: (n,) how much each query counts. Questions with an answer count 1 on average.
        depth: How many documents were shown at most.
    """

    lists: Sequence[NDArray[np.int64] | None]
    by_chance: Sequence[NDArray[np.float64] | None]
    weights: NDArray[np.float64]
    depth: int

    @classmethod
    def of(
        cls, labels: LabelRows, ranks: Sequence[Mapping[int, int] | None], questions: NDArray[np.int64] | None = None
    ) -> "Exposure":
        """Weigh the queries, and measure what labels by rank alone would be.

        Args:
            labels: The labels of n queries.
            ranks: For each query the row of each document that was shown → its rank, from 1; None where users could label any.
            questions: (n,) int64, the question of each query, since spellings of one question count as one; by default each
                query asks its own.

        Example:
            >>> labels = LabelRows.of_rows([{7: 1.0}, {8: 1.0}, {8: 1.0}, {3: 1.0}])
            >>> found = Exposure.of(labels, [{7: 1, 8: 2}, {8: 1, 7: 2}, {8: 1, 7: 2}, None])
            >>> found.lists[1], found.by_chance[1][1], found.depth
            (array([7, 8]), array([0., 1.]), 2)
        """
        depth = max((max(shown.values(), default=0) for shown in ranks if shown is not None), default=0)
        owners, placed, gained = [], [], []
        for query, shown in enumerate(ranks):
            rows, values = labels[query]
            for row, gain in zip(rows.tolist(), label_gains(values).T, strict=True):
                if shown is not None and row in shown:
                    owners.append(query)
                    placed.append(shown[row])
                    gained.append(gain)
        questions = np.arange(len(ranks)) if questions is None else questions
        # Queries without an answer have no score, so the questions of the others count 1 on average.
        weights = weights_of_queries(owners, placed, np.where(labels.labelled, questions, -1), TRAINED_EVENNESS)
        expected = np.zeros((2, depth + 1))
        for owner, rank, gain in zip(owners, placed, gained, strict=True):
            expected[:, rank] += weights[owner] * gain
        showing = np.bincount([rank for shown in ranks if shown for rank in set(shown.values())], minlength=depth + 1)
        expected /= np.maximum(showing, 1)
        lists: list[NDArray[np.int64] | None] = []
        by_chance: list[NDArray[np.float64] | None] = []
        for query, shown in enumerate(ranks):
            if shown is None:
                lists.append(None)
                by_chance.append(None)
                continue
            seen = sorted({*shown, *labels[query][0].tolist()})
            lists.append(np.array(seen, dtype=np.int64))
            by_chance.append(expected[:, np.array([shown.get(row, 0) for row in seen], dtype=np.int64)])
        return cls(lists, by_chance, weights, depth)


def weights_of_ranks(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weight of each label by its rank, (labels,): each rank counts as much as any other, within `MAX_WEIGHT`."""
    counts = np.bincount(ranks)
    return np.asarray(np.minimum(counts.max() / counts[ranks], MAX_WEIGHT), dtype=np.float64)


def weights_of_queries(
    owners: Sequence[int], ranks: Sequence[int], questions: NDArray[np.int64], evenness: float = 1.0
) -> NDArray[np.float64]:
    """Return how much each query counts, (n,), by the ranks of its labels: see `weights_of_ranks`. Questions count 1 on average.

    Args:
        owners: The query of each label.
        ranks: The rank of each label, from 1.
        questions: (n,) int64, the question of each query; −1 for queries that have no score. A query without labels counts like a
            label at the most common rank.
        evenness: The power of the labels' weights: with 1 each rank counts as much as any other, with 0 each label.
    """
    weights = np.ones(len(questions))
    if len(ranks):
        sums = np.bincount(owners, weights_of_ranks(np.asarray(ranks)) ** evenness, minlength=len(questions))
        labels = np.bincount(owners, minlength=len(questions))
        weights[labels > 0] = sums[labels > 0] / labels[labels > 0]
    return weights / mean_by_question(weights, questions)


def mean_by_question(weights: NDArray[np.float64], questions: NDArray[np.int64]) -> float:
    """Return the mean weight of questions, 1 where there is none: by it, scores are divided that would else be above 1.

    Args:
        weights: (n,) how much each query counts.
        questions: (n,) int64, the question of each query; −1 for queries that have no score.

    Example:
        >>> mean_by_question(np.array([1.0, 1.0, 3.0, 9.0]), np.array([4, 4, 5, -1]))
        2.0
    """
    kept = questions >= 0
    if not kept.any():
        return 1.0
    sums, counts = sum_by_group(np.stack([weights[kept], np.ones(kept.sum())], axis=1), questions[kept]).T
    return float((sums / counts).mean())


def exposure(labels: LabelRows, near: NDArray[np.int64], documents: int) -> int:
    """Tell where the labels end because a search by the untransformed queries ends there.

    Unbiased labels thin out towards the lower ranks. That many labels lie just above some rank, and none below, is the sign of a
    list that ended there.

    Args:
        labels: The labels of n queries.
        near: (n, m) int64, the rows of the documents nearest to each query, best first.
        documents: How many documents the corpus has.

    Returns:
        How many documents the search showed for each query; 0 where labels may name any document.

    Example:
        >>> near = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] * 12)
        >>> exposure(LabelRows.of_rows([{row % 4: 1.0} for row in range(12)]), near, documents=100)
        4
        >>> exposure(LabelRows.of_rows([{row % 4: 1.0} for row in range(11)] + [{9: 1.0}]), near, documents=100)
        0
    """
    rows = np.flatnonzero(labels.labelled)
    if 0 < len(rows) < len(labels):  # the others only judged documents irrelevant
        return exposure(labels.take(rows), near[rows], documents)
    found = near[labels.owners] == labels.documents[:, None]
    if not len(rows) or not found.any(axis=1).all():
        return 0
    rank = found.argmax(axis=1) + 1
    depth = int(rank.max())
    order = np.lexsort((rank, labels.owners))
    wrong = np.empty(len(rank), dtype=np.int64)  # how many documents without a label of the query stand above each label
    wrong[order] = rank[order] - 1 - (np.arange(len(rank)) - np.repeat(labels.starts[:-1], np.diff(labels.starts)))
    most = np.maximum.reduceat(wrong, labels.starts[:-1])
    at_the_edge = int((2 * most >= most.max()).sum())
    if most.max() < 2 or at_the_edge < LEAST or depth > MAX_DEPTH or 3 * depth > documents:
        return 0
    return depth
