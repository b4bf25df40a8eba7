"""`DeepLakeCorpus`, which reads the documents of a Deep Lake data set."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora.corpus import Batch, ListedCorpus
from deepmem_integrations.corpora.stores import batches
from deepmem_integrations.deeplake import DeepLakeStore, StoredDocument
from deepmem_integrations.deeplake.tql import Filter


class DeepLakeCorpus(ListedCorpus):
    """A corpus of all documents of a Deep Lake data set.

    Args:
        store: The store, which is read anew with each call of a method.
        document: A function that turns a `StoredDocument` into an object of the framework. By default `documents` yields the
            `StoredDocument` objects as they are.
        filter: Metadata that the documents must have; None for all documents.

    Example:
        >>> store = DeepLakeStore("mem://pages")
        >>> store.add(["page-1"], [[1.0, 0.0]], texts=["How to install"])
        >>> [document.text for batch in DeepLakeCorpus(store).documents() for document in batch]
        ['How to install']
    """

    def __init__(
        self, store: DeepLakeStore, document: Callable[[StoredDocument], Any] | None = None, filter: Filter | None = None
    ) -> None:
        self.store, self.filter = store, filter
        self._document = document

    def under(self, filter: Filter) -> "DeepLakeCorpus":
        """Return a corpus of those documents that pass a filter."""
        return DeepLakeCorpus(self.store, self._document, filter)

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of all documents."""
        if self.filter is None:
            yield from self.store.vectors()
            return
        for batch in self._found():
            found = self.store.get([document.id for document in batch], with_vectors=True)
            yield [document.id for document in found], np.array([document.vector for document in found])

    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield batches of all documents as objects of the framework."""
        for batch in self.store.documents() if self.filter is None else self._found():
            yield batch if self._document is None else [self._document(found) for found in batch]

    def _found(self) -> Iterator[list[StoredDocument]]:
        return batches(self.store.find(self.filter))

    def search_ids(self, vector: Vectors, k: int) -> list[str]:
        """Return the ids of the k documents that the store's own search finds for a (d,) query vector, best first."""
        return [document.id for document in self.store.search(vector, k, filter=self.filter)]
