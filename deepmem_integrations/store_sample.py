"""What a store's own search finds beside an exact ranking, on some of the queries of an evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors, nearest, unit_rows
from deepmem_integrations.labels import Relevance

StoreSearch = Callable[[Vectors, int], Sequence[str]]
"""A store's own search: a (d,) float32 query vector and a number k → the ids of k documents, best first."""

SAMPLED = 50
"""How many queries a store is asked."""
DEPTH = 10
"""How many documents a store is asked for."""
_SAME = 0.99
"""From this overlap on, the two rankings count as the same."""
_TIE = 1e-4
"""Documents whose cosines differ by less may stand in either order."""


@dataclass(frozen=True)
class StoreSample:
    """How a store's own search by vector compares with an exact ranking by cosine similarity, both without a model.

    Attributes:
        queries: How many queries the store was asked for its 10 nearest documents.
        overlap: The share of the exact 10 nearest documents that the store found as well, between 0 and 1. Documents with equal
            cosines stand for each other.
        recall: recall@10 of the store's search on the labels, between 0 and 1.
        exact_recall: recall@10 of the exact ranking for the same queries.
        unknown: How many of the documents that the store found are not among the documents of the exact ranking.
        filtered: Whether the evaluation has a filter, which neither of the two rankings has.
    """

    queries: int
    overlap: float
    recall: float
    exact_recall: float
    unknown: int
    filtered: bool = False

    @property
    def differs(self) -> bool:
        """Whether the store found less than 99% of the exact 10 nearest documents."""
        return self.overlap < _SAME

    def __str__(self) -> str:
        """Say in one sentence how the two compare."""
        unknown = f", {self.unknown} found documents are not among those evaluated" if self.unknown else ""
        without = "a model and the filter" if self.filtered else "a model"
        return (
            f"the store's own search finds {100 * self.overlap:.1f}% of the exact top {DEPTH} ({self.queries} queries, without "
            f"{without}): recall@{DEPTH} {100 * self.recall:.1f} in the store, {100 * self.exact_recall:.1f} exact{unknown}"
        )


def sample_store(
    search: StoreSearch,
    queries: Vectors,
    labels: Relevance,
    ids: Sequence[str],
    corpus: Vectors,
    parent_of: Mapping[str, str] | None = None,
) -> StoreSample:
    """Ask a store some of the queries of an evaluation, and compare what it finds with the exact ranking.

    Args:
        search: The store's own search.
        queries: (n, d) float32, the query vectors of any length but 0, as the embedding model gives them.
        labels: The labels of the n queries, with one query at least that has a document.
        ids: The N ids of the corpus.
        corpus: (N, d) float32 unit rows.
        parent_of: Document id → parent, where the labels name parents.

    Example:
        >>> corpus = np.eye(2, dtype=np.float32)
        >>> labels = Relevance(["q"], [[("a", 1.0)]])
        >>> str(sample_store(lambda vector, k: ["b"], corpus[:1], labels, ["a", "b"], corpus))  # the store lost a document
        "the store's own search finds 50.0% of the exact top 10 ... recall@10 0.0 in the store, 100.0 exact"
    """
    answered = [row for row, documents in enumerate(labels.labels) if documents]
    rows = sorted({answered[place] for place in np.linspace(0, len(answered) - 1, SAMPLED).round().astype(int).tolist()})
    row_of = {name: row for row, name in enumerate(ids)}
    size = min(DEPTH, len(ids))
    directions = unit_rows(queries[rows], "query vector")
    exact = nearest(directions, corpus, size)
    overlaps: list[float] = []
    recalls: list[float] = []
    exact_recalls: list[float] = []
    unknown = 0
    for row, direction, best in zip(tqdm(rows, desc="Asking the store", unit="query", delay=1), directions, exact, strict=True):
        found = list(dict.fromkeys(search(queries[row], DEPTH)))
        known = [row_of[name] for name in found if name in row_of]
        unknown += len(found) - len(known)
        least = corpus[best[-1]] @ direction - _TIE
        overlaps.append(min(1.0, np.count_nonzero(corpus[known] @ direction >= least) / size))
        right = {name for name, _ in labels.labels[row]}
        for names, values in ((found, recalls), ([ids[place] for place in best.tolist()], exact_recalls)):
            values.append(len(right.intersection((parent_of or {}).get(name, name) for name in names)) / len(right))
    overlap, recall, exact_recall = (float(np.mean(values)) for values in (overlaps, recalls, exact_recalls))
    return StoreSample(len(rows), overlap, recall, exact_recall, unknown)
