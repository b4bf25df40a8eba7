"""`Parents`: labels that name what documents are parts of, as row numbers, and rankings in which a parent counts once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._immutable import ReadOnlyArrays
from deepmem_integrations._vectors import Vectors, blocks, largest
from deepmem_integrations.labels.relevance import Relevance
from deepmem_integrations.labels.rows import LabelRows

WRONG = 10
"""A parent that was judged irrelevant stands for as many of its documents, those nearest to the query."""


@dataclass(frozen=True)
class Parents(ReadOnlyArrays):
    """The parents of N documents. A document without one is its own parent, by its own id.

    Attributes:
        names: The P names, in the order of each parent's first document.
        of_row: (N,) int64, the number of each document's parent.

    Example:
        >>> parents = Parents.of({"page#1": "page", "page#2": "page"}, ["page#1", "faq", "page#2"])
        >>> parents.names, parents.of_row.tolist()
        (('page', 'faq'), [0, 1, 0])
    """

    names: tuple[str, ...]
    of_row: NDArray[np.int64]

    @classmethod
    def of(cls, parent_of: Mapping[str, str], ids: Sequence[str]) -> "Parents":
        """Number the parents of documents.

        Args:
            parent_of: Document id → parent, of those that have one.
            ids: The N ids.
        """
        number: dict[str, int] = {}
        rows = [number.setdefault(parent_of.get(name, name), len(number)) for name in ids]
        return cls(tuple(number), np.array(rows, dtype=np.int64))

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Name → number."""
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The documents by parent, (N,) int64, and where each parent's begin, (P,) int64."""
        order = np.argsort(self.of_row, kind="stable")
        return order, np.searchsorted(self.of_row[order], np.arange(len(self.names)))

    def documents_of(self, parent: int) -> NDArray[np.int64]:
        """Return the rows of a parent's documents, ascending."""
        order, starts = self._sorted
        return order[starts[parent] : starts[parent + 1] if parent + 1 < len(starts) else None]

    def best(self, scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Find the best document of each parent: of equal ones, the first.

        Args:
            scores: (n, N), any real dtype.

        Returns:
            The scores of the best documents, (n, P), and their rows, (n, P) int64.

        Example:
            >>> parents = Parents(("page", "faq"), np.array([0, 1, 0]))
            >>> [found.tolist() for found in parents.best(np.array([[0.1, 0.3, 0.2]]))]
            [[[0.2, 0.3]], [[2, 1]]]
        """
        order, starts = self._sorted
        ordered = scores[:, order]
        best = np.maximum.reduceat(ordered, starts, axis=1)
        rows = np.where(ordered == best[:, self.of_row[order]], order, len(order))
        return best, np.minimum.reduceat(rows, starts, axis=1)

    def top(self, scores: NDArray[Any], k: int) -> NDArray[np.int64]:
        """Find the best documents of the k best parents, (n, min(k, P)) int64 rows, best first. Arguments are those of `best`."""
        best, rows = self.best(scores)
        return np.take_along_axis(rows, largest(best, min(k, len(self.names))), axis=1)

    def nearest(self, queries: Vectors, corpus: Vectors, k: int) -> NDArray[np.int64]:
        """Find for each query the nearest document of each of the k nearest parents, by exact search.

        Args:
            queries: (n, d) float32.
            corpus: (N, d) float32.
            k: How many parents to find.

        Returns:
            (n, min(k, P)) int64 rows of the corpus, best first.
        """
        found = np.empty((len(queries), min(k, len(self.names))), dtype=np.int64)
        for block in blocks(len(queries), 2 * len(corpus)):
            found[block] = self.top(queries[block] @ corpus.T, k)
        return found

    def labels(self, labels: LabelRows) -> LabelRows:
        """Return labels of documents as labels of their parents. Several documents of one parent are one label."""
        named = LabelRows(labels.starts, self.of_row[labels.documents], labels.weights)
        return named.united(np.arange(len(labels)), len(labels))

    def documents(self, relevance: Relevance, queries: Vectors, ids: Sequence[str], corpus: Vectors) -> Relevance:
        """Name documents in place of parents: what answers, or does not answer, the query.

        That a parent answers a query says that one of its documents does, and not which one. The nearest to the query is taken.
        That it does not answer says that none of them does; the `WRONG` nearest ones stand for them.

        Args:
            relevance: The labels of n queries, whose parents are all among ``names``: see `Relevance.check`.
            queries: (n, d) float32, the vectors of the queries.
            ids: The N ids of the documents.
            corpus: (N, d) float32, the vectors of the documents.

        Example:
            >>> parents, corpus = Parents(("page",), np.array([0, 0])), np.eye(2, dtype=np.float32)
            >>> labels = Relevance(["a query"], [[("page", 1.0)]], level="doc_uri")
            >>> parents.documents(labels, corpus[1:], ["page#1", "page#2"], corpus).labels
            ((('page#2', 1.0),),)
        """
        judged: list[list[tuple[str, float]]] = []
        for query, row in zip(queries, relevance.relevance, strict=True):
            judged.append([])
            for name, weight in row:
                rows = self.documents_of(self.number_of[name])
                nearest = rows[np.argsort(-(corpus[rows] @ query), kind="stable")[: 1 if weight > 0 else WRONG]]
                judged[-1] += [(ids[document], weight) for document in nearest.tolist()]
        return relevance.relabelled(judged)
