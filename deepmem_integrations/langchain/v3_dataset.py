"""The data set of a `DeepLake` store for programs that were written for Deep Lake v3."""

from typing import Any

import numpy as np

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import StoreError


class V3Dataset:
    """A Deep Lake v4 data set on which v3's ``dataset.text.data(aslist=True)["value"]`` works, too.

    ``id``, ``text``, ``metadata`` and ``embedding`` are the tensors of v3, in the order of the data set. All other attributes
    are those of the v4 data set.

    Args:
        store: The store, whose data set need not exist yet.
    """

    def __init__(self, store: DeepLakeStore) -> None:
        self._store = store
        self.id = V3Tensor(store, "id")
        self.text = V3Tensor(store, "text")
        self.metadata = V3Tensor(store, "metadata")
        self.embedding = V3Tensor(store, "embedding")

    def __len__(self) -> int:
        """Count the documents."""
        return len(self._store)

    def __getitem__(self, key: Any) -> Any:
        """Return a column or a row of the v4 data set."""
        return self._dataset[key]

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the v4 data set."""
        return getattr(self._dataset, name)

    @property
    def _dataset(self) -> Any:
        if not len(self._store):
            raise StoreError(f"There is no data set at {self._store.path!r} yet: add documents first.")
        return self._store.dataset


class V3Tensor:
    """A tensor of Deep Lake v3: all values of one kind.

    Args:
        store: The store to read from.
        name: ``id``, ``text``, ``metadata`` or ``embedding``.
    """

    def __init__(self, store: DeepLakeStore, name: str) -> None:
        self._store = store
        self._name = name

    def data(self, aslist: bool = False, fetch_chunks: bool = False) -> dict[str, Any]:
        """Return all values as ``{"value": …}``.

        Args:
            aslist: Return the values as a list; otherwise they come as an array.
            fetch_chunks: Ignored, because it only chose how v3 reads the data set.
        """
        if self._name == "embedding":
            values: list[Any] = [vector for _, batch in self._store.vectors() for vector in batch]
        else:
            values = [getattr(document, self._name) for batch in self._store.documents() for document in batch]
        return {"value": values if aslist else np.array(values)}
