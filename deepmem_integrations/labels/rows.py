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

    Attributes:
        starts: (n + 1,) int64; query i owns the entries ``starts[i]:starts[i + 1]``.
        documents: (labels,) int64, rows of the corpus.
        weights: (labels,) float32, above 0; the largest weight of each query is 1.

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
    def of_rows(cls, labels: Sequence[Mapping[int, float]]) -> "LabelRows":
        """Build from a mapping corpus row → weight for each query.

        The weights of each query are scaled so that the largest is 1. No metric and no loss depends on that scale, and no weight
        is then too large or too small for float32.
        """
        scaled: list[float] = []
        for query in labels:
            largest = max(query.values())
            scaled += [max(weight / largest, 1e-6) for weight in query.values()]
        return cls(
            starts=np.cumsum([0, *map(len, labels)], dtype=np.int64),
            documents=np.array([row for query in labels for row in query], dtype=np.int64),
            weights=np.array(scaled, dtype=np.float32),
        )

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

    def take(self, queries: NDArray[np.int64]) -> "LabelRows":
        """Return the labels of these queries, in this order."""
        return LabelRows.of_rows([self.weight_of(query) for query in queries])


def labelled_vectors(
    query_vectors: ArrayLike, relevance: Relevance | Labels, corpus_ids: Sequence[str], *, dimension: int
) -> tuple[Vectors, LabelRows, tuple[str, ...]]:
    """Check that query vectors, labels and corpus belong together.

    Args:
        query_vectors: (n, d), any real dtype.
        relevance: The labels of the n queries, in the same order.
        corpus_ids: The N document ids of the corpus.
        dimension: d, the length of the corpus vectors.

    Returns:
        The query vectors as (n, d) float32 unit rows, the labels with corpus rows, and the n query ids.

    Raises:
        InvalidRelevanceError: There is no query, the numbers of labels and vectors differ, a label is invalid, or a document is
            not in the corpus.
        InvalidVectorsError: A query vector holds NaN or infinity, or is all zeros.
        EmbeddingMismatchError: The query vectors do not have ``dimension``.
    """
    if not isinstance(relevance, Relevance):
        relevance = Relevance([f"query {row}" for row in range(len(relevance))], relevance)
    rows = {name: row for row, name in enumerate(corpus_ids)}
    labels = LabelRows.of(relevance.check(rows), rows)
    queries = unit_rows(query_vectors, "query vector", dimension=dimension)
    if len(queries) != len(labels):
        raise InvalidRelevanceError(f"Got {len(queries)} query vectors for {len(labels)} labelled queries.")
    if len(queries) == 0:
        raise InvalidRelevanceError("There is no labelled query.")
    return queries, labels, relevance.query_ids
