"""Checks and arithmetic on vectors, shared by training, evaluation and serving."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError

Vectors = NDArray[np.float32]
"""A float32 matrix with one vector in each row."""

_BLOCK_FLOATS = 1 << 23
"""The size of a block of scores, 32 MB of float32."""
_SMALLEST = np.float32(1e-20)
"""Squared lengths between this number and its reciprocal are computed without underflow or overflow that matters."""
_UNIT = np.float32(4e-6)
"""How far the squared length of a row that has been scaled to length 1 is from 1 at most, in float32."""


def unit_rows(
    vectors: ArrayLike, what: str, *, dimension: int | None = None, ids: Sequence[str] | None = None, first: int = 0
) -> Vectors:
    """Check vectors and return them as a contiguous float32 matrix whose rows have length 1.

    Args:
        vectors: (n, d), any real dtype.
        what: How error messages call a vector, e.g. ``"query vector"``.
        dimension: The d that is expected; None takes any.
        ids: The names of the rows, for error messages.
        first: The number of the first row, for error messages.

    Returns:
        A new array, (n, d) float32, rows of length 1.

    Raises:
        InvalidVectorsError: The vectors are no matrix of real numbers, or a row holds NaN or infinity, or is all zeros.
        EmbeddingMismatchError: d is not ``dimension``.

    Example:
        >>> unit_rows([[3, 4], [0, 2]], "query vector").round(1)
        array([[0.6, 0.8], [0. , 1. ]], dtype=float32)
    """
    try:
        matrix = np.array(vectors, dtype=np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidVectorsError(f"The {what}s are not a matrix of numbers: {error}.") from error
    if matrix.ndim != 2:
        raise InvalidVectorsError(f"The {what}s need the shape (rows, dimension); got {matrix.shape}.")
    if dimension is not None and matrix.shape[1] != dimension:
        raise EmbeddingMismatchError(
            f"The {what}s have {matrix.shape[1]} dimensions where {dimension} are expected. "
            "Embed them with the model that was used for training and for the store."
        )

    def name_of(faulty: NDArray[np.bool_]) -> str:
        row = int(faulty.argmax())
        return f"{what.capitalize()} {first + row}" + (f" (id {ids[row]!r})" if ids is not None else "")

    squares = np.einsum("nd,nd->n", matrix, matrix)
    if (squares > _SMALLEST).all() and (squares < 1 / _SMALLEST).all():
        longer = np.abs(squares - 1) > _UNIT  # rows of length 1 stay as they are
        if longer.any():
            matrix /= np.sqrt(np.where(longer, squares, 1))[:, None]
        return matrix
    # Dividing by the largest component first keeps the squares of very large and very small rows representable.
    scale = np.abs(matrix).max(axis=1, initial=0.0, keepdims=True)
    bad = ~np.isfinite(scale[:, 0])
    if bad.any():
        raise InvalidVectorsError(f"{name_of(bad)} holds NaN or infinity.")
    zero = scale[:, 0] == 0
    if zero.any():
        raise InvalidVectorsError(f"{name_of(zero)} is all zeros: it has no direction.")
    matrix /= scale
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut a number of rows into slices, so that a float32 block of (slice, columns) stays near 32 MB."""
    step = max(1, _BLOCK_FLOATS // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def nearest(queries: Vectors, corpus: Vectors, k: int) -> NDArray[np.int64]:
    """Find for each query the k rows of the corpus with the largest dot product, by exact search.

    Args:
        queries: (n, d) float32.
        corpus: (N, d) float32.
        k: How many rows to find; more than N means N.

    Returns:
        (n, min(k, N)) int64 row numbers, best first. If scores are equal, the lower row number comes first.
    """
    k = min(k, len(corpus))
    found = np.empty((len(queries), k), dtype=np.int64)
    for block in blocks(len(queries), len(corpus)):
        found[block] = largest(queries[block] @ corpus.T, k)
    return found


def first_same(vectors: Vectors, cosine: float) -> NDArray[np.int64]:
    """Find for each row the first one that is the same, up to rounding, and is itself not the same as an earlier one.

    Args:
        vectors: (n, d) float32 unit rows.
        cosine: Rows with a larger cosine are the same.

    Returns:
        (n,) int64 row numbers; that of the row itself where no earlier one is the same.

    Example:
        >>> first_same(np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32), 0.999).tolist()
        [0, 1, 0]
    """
    first = np.arange(len(vectors))
    for block in blocks(len(vectors), len(vectors)):
        for row, same in enumerate(vectors[block] @ vectors.T > cosine, start=block.start):
            own = np.flatnonzero(same[:row])
            first[row] = next(iter(own[first[own] == own].tolist()), row)
    return first


def largest(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Find the columns of the k largest scores of each row, best first; of equal scores the lower column comes first.

    Args:
        scores: (n, N), any real dtype.
        k: How many columns to find, at most N.

    Returns:
        (n, k) int64.
    """
    n, columns = scores.shape
    if k == 0:
        return np.empty((n, 0), dtype=np.int64)
    if k < columns:
        # A partition breaks ties at random. So all columns that reach the k-th score are taken, and then sorted.
        threshold = np.partition(scores, columns - k, axis=1)[:, columns - k]
        result = np.empty((n, k), dtype=np.int64)
        for row in range(n):
            candidates = np.flatnonzero(scores[row] >= threshold[row])
            order = np.argsort(-scores[row, candidates], kind="stable")[:k]
            result[row] = candidates[order]
        return result
    return np.argsort(-scores, axis=1, kind="stable").astype(np.int64)
