"""`Lists`: an inverted file over very many keys, and how it grows with them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._immutable import ReadOnlyArrays
from deepmem_integrations._kmeans import assign, spherical_kmeans
from deepmem_integrations._vectors import Vectors

MANY_KEYS = 20_000
"""From this many keys on, the keys are sorted into lists."""
BUDGET = 8_192
"""How many keys one query is compared with at least."""
DEPTH = 32
"""With how many lists of the usual size one query is compared at least. Above 260,000 keys that is more than `BUDGET`."""
SAMPLE, ROUNDS = 64, 5
"""How many keys for each list are clustered, and for how many rounds of k-means."""


@dataclass(frozen=True)
class Lists(ReadOnlyArrays):
    """An inverted file over very many keys. The keys are sorted by list, and a query looks at the closest lists alone.

    Attributes:
        centroids: (c, d) float32 unit rows.
        starts: (c + 1,) int64; list i holds the keys ``starts[i]:starts[i + 1]``.
    """

    centroids: Vectors
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, keys: Vectors, *, seed: int = 0) -> "tuple[NDArray[np.int64], Lists]":
        """Cluster keys by spherical k-means on a sample of them.

        Args:
            keys: (m, d) float32 unit rows.
            seed: Fixes the sample and the first centroids.

        Returns:
            (m,) int64, the order into which the keys have to be put, and the lists.
        """
        rng = np.random.default_rng(seed)
        count = int(2 * np.sqrt(len(keys)))
        sample = keys[np.sort(rng.permutation(len(keys))[: SAMPLE * count])]
        drawn = sample[np.sort(rng.permutation(len(sample))[:count])]
        centroids = spherical_kmeans(sample, drawn, rounds=ROUNDS)
        lists, _ = assign(keys, centroids)
        order = np.argsort(lists, kind="stable")
        return order, cls(centroids, np.searchsorted(lists[order], np.arange(count + 1)))

    def closest_lists(self, place: Vectors) -> list[slice]:
        """Return the slices of the keys to look at: the closest lists, until they hold enough keys.

        Args:
            place: (d,) float32, a query in the kernel space.
        """
        order = np.argsort(-(self.centroids @ place))
        budget = max(BUDGET, DEPTH * int(self.starts[-1]) // len(self.centroids))
        enough = int(np.searchsorted(np.cumsum(np.diff(self.starts)[order]), budget)) + 1
        return [slice(self.starts[i], self.starts[i + 1]) for i in order[:enough].tolist() if self.starts[i] < self.starts[i + 1]]

    def fit(self, keys: int) -> bool:
        """Tell whether so many keys may stay in these lists: they are neither twice nor half as many as were clustered."""
        clustered = (len(self.centroids) / 2) ** 2
        return keys >= MANY_KEYS and clustered / 2 <= keys <= clustered * 2

    def with_keys(self, new: Vectors) -> "tuple[NDArray[np.int64], Lists]":
        """Put further keys at the ends of their lists.

        Args:
            new: (n, d) float32 unit rows.

        Returns:
            (n,) int64, the row of the key before which each of them goes, and the lists with them.
        """
        lists, _ = assign(new, self.centroids)
        more = np.cumsum(np.bincount(lists, minlength=len(self.centroids)))
        return self.starts[lists + 1], Lists(self.centroids, self.starts + np.concatenate([[0], more]))

    def of_keys(self, rows: NDArray[np.int64]) -> "Lists":
        """Leave out all keys but those of some rows, which ascend."""
        return Lists(self.centroids, np.searchsorted(rows, self.starts).astype(np.int64))
