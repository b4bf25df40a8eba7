"""Labels as row numbers of the corpus, which training and evaluation compute with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmem_integrations._immutable import ReadOnlyArrays
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.files import Labels
from deepmem_integrations.labels.relevance import Relevance


@dataclass(frozen=True)
class LabelRows(ReadOnlyArrays):
    """The labels of n queries, with corpus rows in place of document ids, in compressed sparse row form.

    Another `LabelRows` holds what was judged irrelevant: see `of_irrelevant`.

    Attributes:
        starts: (n + 1,) int64; query i owns the entries ``starts[i]:starts[i + 1]``, which may be none.
        documents: (labels,) int64, rows of the corpus.
        weights: (labels,) float32, above 0 and up to 1; the largest weight of a query's labels is 1. Of what was judged
            irrelevant, they are the strengths of the judgements, which are below 0 in `signed` rows.

    Example:
        >>> rows = LabelRows.of(Relevance(["a query"], [[("x", 4.0), ("y", 2.0)]]), {"w": 0, "x": 1, "y": 2})
        >>> rows.weight_of(0)
        {1: 1.0, 2: 0.5}
    """

    starts: NDArray[np.int64]
    documents: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, relevance: Relevance, rows: Mapping[str, int]) -> "LabelRows":
        """Look up the row of every document. All documents must be in ``rows``: see `Relevance.check`."""
        return cls.of_rows([{rows[document]: weight for document, weight in labels} for labels in relevance.labels])

    @classmethod
    def of_irrelevant(cls, relevance: Relevance, rows: Mapping[str, int]) -> "LabelRows":
        """Look up the row of every document that was judged irrelevant.

        The weights say how strong the judgement is: −0.5 becomes 0.5, and −1, all below it, and 0, which TREC writes, become 1.

        Example:
            >>> judged = Relevance(["a query"], [[("x", 1.0), ("y", 0), ("z", -0.5)]])
            >>> LabelRows.of_irrelevant(judged, {"x": 0, "y": 1, "z": 2}).weight_of(0)
            {1: 1.0, 2: 0.5}
        """
        return cls.of_strengths([{rows[name]: weight for name, weight in judged} for judged in relevance.irrelevant])

    @classmethod
    def of_strengths(cls, irrelevant: Sequence[Mapping[int, float]]) -> "LabelRows":
        """Build from a mapping corpus row → weight ≤ 0 for each query: see `of_irrelevant`."""
        return cls._of([{row: min(1.0, -weight or 1.0) for row, weight in query.items()} for query in irrelevant])

    @classmethod
    def of_rows(cls, labels: Sequence[Mapping[int, float]]) -> "LabelRows":
        """Build from a mapping corpus row → weight for each query.

        The weights of each query are scaled so that the largest is 1. No metric and no loss depends on that scale, and no weight
        is then too large or too small for float32.
        """
        largest = [max(query.values(), default=1.0) for query in labels]
        return cls._of([{row: w / most for row, w in query.items()} for query, most in zip(labels, largest, strict=True)])

    @classmethod
    def _of(cls, labels: Sequence[Mapping[int, float]]) -> "LabelRows":
        return cls(
            starts=np.cumsum([0, *map(len, labels)], dtype=np.int64),
            documents=np.array([row for query in labels for row in query], dtype=np.int64),
            weights=np.array([max(weight, 1e-6) for query in labels for weight in query.values()], dtype=np.float32),
        )

    @classmethod
    def empty(cls, queries: int) -> "LabelRows":
        """Build the labels of queries that have none."""
        return cls(np.zeros(queries + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

    def joined(self, others: "LabelRows") -> "LabelRows":
        """Return the labels of these queries, followed by those of other queries."""
        return LabelRows(
            np.concatenate([self.starts, self.starts[-1] + others.starts[1:]]),
            np.concatenate([self.documents, others.documents]),
            np.concatenate([self.weights, others.weights]),
        )

    def only(self, kept: NDArray[np.bool_]) -> "LabelRows":
        """Return the labels of some documents alone, ``kept`` being (N,) bool. See `scaled`."""
        return self._entries(kept[self.documents])

    def united(self, owners: NDArray[np.int64], count: int) -> "LabelRows":
        """Unite the labels of queries with the same owner; the larger of two weights counts.

        Args:
            owners: (n,) int64, the owner of each query.
            count: The number of owners.
        """
        of_owner = np.repeat(owners, np.diff(self.starts))
        # The labels are sorted by owner, document and falling weight, so that the first of each owner and document counts.
        order = np.lexsort((-self.weights, self.documents, of_owner))
        of_owner, documents, weights = of_owner[order], self.documents[order], self.weights[order]
        first = np.ones(len(of_owner), dtype=bool)
        first[1:] = (of_owner[1:] != of_owner[:-1]) | (documents[1:] != documents[:-1])
        return LabelRows(np.searchsorted(of_owner[first], np.arange(count + 1)), documents[first], weights[first])

    def scaled(self) -> "LabelRows":
        """Scale the weights of each query so that the largest is 1 again."""
        if not len(self.documents):
            return self
        largest = np.maximum.reduceat(self.weights, self.starts[:-1][self.labelled])
        return LabelRows(self.starts, self.documents, self.weights / np.repeat(largest, np.diff(self.starts)[self.labelled]))

    def without(self, others: "LabelRows") -> "LabelRows":
        """Return the labels, query by query, of documents that ``others``, the labels of the same queries, do not name."""
        width = 1 + max(int(rows.documents.max(initial=0)) for rows in (self, others))
        mine, theirs = (rows.owners * width + rows.documents for rows in (self, others))
        return self._entries(~np.isin(mine, theirs))

    def _entries(self, kept: NDArray[np.bool_]) -> "LabelRows":
        """Return some of the entries alone, ``kept`` being (labels,) bool."""
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts].astype(np.int64)
        return LabelRows(starts, self.documents[kept], self.weights[kept])

    def named_by(self, used: NDArray[np.int64]) -> "LabelRows":
        """Return the labels with places in ``used``, ascending rows of the corpus, in place of rows of the corpus."""
        return LabelRows(self.starts, np.searchsorted(used, self.documents).astype(np.int64), self.weights)

    def signed(self, irrelevant: "LabelRows", factor: float) -> "LabelRows":
        """Add what the same queries judged irrelevant, with ``-factor`` times its weight: votes for and against documents."""
        order = np.argsort(np.concatenate([self.owners, irrelevant.owners]), kind="stable")
        return LabelRows(
            self.starts + irrelevant.starts,
            np.concatenate([self.documents, irrelevant.documents])[order],
            np.concatenate([self.weights, np.float32(-factor) * irrelevant.weights])[order],
        )

    @property
    def owners(self) -> NDArray[np.int64]:
        """(labels,) int64, the query of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(n,) bool, which queries have a label."""
        return np.diff(self.starts) > 0

    def __len__(self) -> int:
        """Count the queries."""
        return len(self.starts) - 1

    def __getitem__(self, query: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows and the weights of one query's documents."""
        entries = slice(self.starts[query], self.starts[query + 1])
        return self.documents[entries], self.weights[entries]

    def weight_of(self, query: int) -> dict[int, float]:
        """Return corpus row → weight of one query's documents."""
        rows, weights = self[query]
        return dict(zip(rows.tolist(), weights.tolist(), strict=True))

    def document_lists(self) -> list[list[int]]:
        """Return the rows of each query's documents."""
        return [rows.tolist() for rows in np.split(self.documents, self.starts[1:-1])] if len(self) else []

    def take(self, queries: NDArray[np.int64]) -> "LabelRows":
        """Return the labels of these queries, in this order."""
        firsts = self.starts[queries]
        sizes = self.starts[queries + 1] - firsts
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        entries = np.arange(starts[-1]) + np.repeat(firsts - starts[:-1], sizes)
        return LabelRows(starts, self.documents[entries], self.weights[entries])


def labelled_vectors(
    query_vectors: ArrayLike, relevance: Relevance | Labels, corpus_ids: Sequence[str], *, dimension: int
) -> tuple[Vectors, LabelRows, LabelRows, tuple[str, ...]]:
    """Check that query vectors, labels and corpus belong together.

    Args:
        query_vectors: (n, d), any real dtype.
        relevance: The labels of the n queries, in the same order.
        corpus_ids: The N document ids of the corpus.
        dimension: d, the length of the corpus vectors.

    Returns:
        The query vectors as (n, d) float32 unit rows, the labels with corpus rows, what was judged irrelevant with corpus rows,
        and the n query ids.

    Raises:
        InvalidRelevanceError: There is no query, the numbers of labels and vectors differ, a label is invalid, or a document is
            not in the corpus.
        InvalidVectorsError: A query vector holds NaN or infinity, or is all zeros.
        EmbeddingMismatchError: The query vectors do not have ``dimension``.
    """
    if not isinstance(relevance, Relevance):
        relevance = Relevance.unnamed(relevance)
    rows = {name: row for row, name in enumerate(corpus_ids)}
    labels, irrelevant = LabelRows.of(relevance.check(rows), rows), LabelRows.of_irrelevant(relevance, rows)
    queries = unit_rows(query_vectors, "query vector", dimension=dimension)
    if len(queries) != len(labels):
        raise InvalidRelevanceError(f"Got {len(queries)} query vectors for {len(labels)} labelled queries.")
    if len(queries) == 0:
        raise InvalidRelevanceError("There is no labelled query.")
    return queries, labels, irrelevant, relevance.query_ids
