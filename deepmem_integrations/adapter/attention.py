"""The attention part of an adapter: one attention layer whose keys are the training queries."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._immutable import ReadOnlyArrays
from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.adapter.lists import Lists

NEIGHBOURS = 64
"""How many keys move a query. On the test collections 16 and 256 rank alike, and all keys a little worse: far ones add up."""


@dataclass(frozen=True)
class KernelSpace(ReadOnlyArrays):
    """The space in which queries are compared. It is centred and whitened, or what all questions share would make them alike.

    Attributes:
        centre: (d,) float32, subtracted from a query.
        projection: (d, d) float32, applied to the difference.
    """

    centre: Vectors
    projection: Vectors

    def place(self, queries: Vectors) -> Vectors:
        """Map (n, d) float32 unit rows to (n, d) float32 unit rows. A query at the very centre becomes zeros."""
        moved = (queries - self.centre) @ self.projection
        return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9), dtype=np.float32)


class Values(Protocol):
    """The values of keys: an array, or what computes the rows that are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, d)."""
        ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> Vectors:
        """Return the values of some keys: int64 rows of any shape → float32 of that shape and d."""
        ...


@dataclass(frozen=True)
class Attention(ReadOnlyArrays):
    """The part of an adapter that learns what users asked for.

    It moves a query by ``strength · Σ exp((x·key − 1) / temperature) · value`` over the nearest keys, where x is the query's
    place in the kernel space.

    Attributes:
        keys: (m, d) float32 unit rows, the places of the training queries.
        values: (m, d) float32, the direction in which each key moves a query; where keys are in lists, those of the keys that a
            query finds are computed.
        temperature: The width of the kernel, above 0.
        strength: The factor of the sum. With 0 no query moves, and the keys serve the remembered answers alone.
        space: The space in which queries are compared; None compares them as they are.
        neighbours: How many of the nearest keys move a query; None for all.
        lists: The lists into which very many keys are sorted.
    """

    keys: Vectors
    values: Vectors | Values
    temperature: float
    strength: float
    space: KernelSpace | None = None
    neighbours: int | None = NEIGHBOURS
    lists: Lists | None = None

    def attend(self, queries: Vectors) -> tuple[NDArray[np.int64], Vectors, Vectors]:
        """Find the keys that move each query, and how strongly.

        Args:
            queries: (n, d) float32 unit rows.

        Returns:
            (n, k) int64 rows of the keys in no order, (n, k) float32 factors of their values, and (n, k) float32 similarities
            to the query; k ≤ ``neighbours``.
        """
        places = self.space.place(queries) if self.space else queries
        k = min(self.neighbours or len(self.keys), len(self.keys))
        if len(places) == 1:
            found = self._search(places[0], k)
            rows, similarities = found[0][None], found[1][None]
        else:
            rows = np.empty((len(queries), k), dtype=np.int64)
            similarities = np.empty((len(queries), k), dtype=np.float32)
            if self.lists is not None:
                for query, place in enumerate(places):
                    rows[query], similarities[query] = self._search(place, k)
            else:
                for block in blocks(len(queries), len(self.keys)):
                    similarity = places[block] @ self.keys.T
                    rows[block] = np.argpartition(similarity, -k, axis=1)[:, -k:] if k < len(self.keys) else np.arange(k)
                    similarities[block] = np.take_along_axis(similarity, rows[block], axis=1)
        return rows, self.strength * np.exp((similarities - 1.0) / self.temperature), similarities

    def shift(self, queries: Vectors) -> Vectors:
        """Compute what is added to each query: (n, d) float32 unit rows → (n, d) float32."""
        rows, weights, _ = self.attend(queries)
        if rows.shape[1] == len(self.keys) and isinstance(self.values, np.ndarray):  # all of them, in their order
            return np.asarray(weights @ self.values, dtype=np.float32)
        if len(queries) == 1:
            return np.asarray(weights @ self.values[rows[0]], dtype=np.float32)
        moved = np.empty((len(queries), self.values.shape[1]), dtype=np.float32)
        for block in blocks(len(queries), rows.shape[1] * self.values.shape[1]):
            moved[block] = np.matmul(weights[block, None, :], self.values[rows[block]])[:, 0]
        return moved

    def find(self, places: Vectors, cosine: float) -> NDArray[np.int64]:
        """Return for each place, (n, d) float32, the row of a key whose cosine is above a limit, (n,) int64; -1 for none."""
        found = np.full(len(places), -1)
        if self.lists is None:
            for block in blocks(len(places), len(self.keys)):
                same = places[block] @ self.keys.T > cosine
                found[block] = np.where(same.any(axis=1), same.argmax(axis=1), -1) if len(self.keys) else -1
            return found
        for row, place in enumerate(places):
            rows, similarities = self._search(place, 1)
            if similarities[0] > cosine:
                found[row] = rows[0]
        return found

    def _search(self, place: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        """Find one query's nearest keys and their similarities, both (k,)."""
        if self.lists is None:
            similarity = self.keys @ place
            best = np.argpartition(similarity, -k)[-k:] if k < len(self.keys) else np.arange(k)
            return best, similarity[best]
        slices = self.lists.closest_lists(place)
        similarity = np.concatenate([self.keys[part] @ place for part in slices])
        best = np.argpartition(similarity, -k)[-k:]
        rows = np.concatenate([np.arange(part.start, part.stop) for part in slices])
        return rows[best], similarity[best]
