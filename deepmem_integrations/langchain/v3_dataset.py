"""What Deep Lake v3 programs still say to the vector store, and what answers them today."""

from typing import Any

import numpy as np

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import StoreError


class V3Dataset:
    """A Deep Lake v4 data set on which v3's ``dataset.text.data(aslist=True)["value"]`` works, too.

    ``id``, ``text``, ``metadata`` and ``embedding`` are v3's tensors, in the order of the data set; everything else is the v4
    data set's own.

    Args:
        store: The store; the data set need not exist yet.
    """

    def __init__(self, store: DeepLakeStore) -> None:
        self._store = store
        self.id = V3Tensor(store, "id")
        self.text = V3Tensor(store, "text")
        self.metadata = V3Tensor(store, "metadata")
        self.embedding = V3Tensor(store, "embedding")

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._store)

    def __getitem__(self, key: Any) -> Any:
        """The v4 data set's own column or row."""
        return self._dataset[key]

    def __getattr__(self, name: str) -> Any:
        """The v4 data set's own attribute."""
        return getattr(self._dataset, name)

    @property
    def _dataset(self) -> Any:
        if not len(self._store):
            raise StoreError(f"There is no data set at {self._store.path!r} yet: add documents first.")
        return self._store.dataset


class V3Tensor:
    """One of v3's tensors.

    Args:
        store: The store.
        name: ``id``, ``text``, ``metadata`` or ``embedding``.
    """

    def __init__(self, store: DeepLakeStore, name: str) -> None:
        self._store = store
        self._name = name

    def data(self, aslist: bool = False, fetch_chunks: bool = False) -> dict[str, Any]:
        """All values, as ``{"value": …}``: a list, or an array without ``aslist``. ``fetch_chunks`` only chose how to read."""
        if self._name == "embedding":
            values: list[Any] = [vector for _, batch in self._store.vectors() for vector in batch]
        else:
            values = [getattr(document, self._name) for batch in self._store.documents() for document in batch]
        return {"value": values if aslist else np.array(values)}
