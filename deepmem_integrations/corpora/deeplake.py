"""The documents of a Deep Lake data set."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from deepmem_integrations.corpora.corpus import Batch, ListedCorpus
from deepmem_integrations.deeplake import DeepLakeStore, StoredDocument


class DeepLakeCorpus(ListedCorpus):
    """All documents of a Deep Lake data set.

    Args:
        store: The store. It is read anew with each call.
        document: Turns a stored document into an object of the framework; by default `StoredDocument` itself is given.
    """

    def __init__(self, store: DeepLakeStore, document: Callable[[StoredDocument], Any] | None = None) -> None:
        self.store = store
        self._document = document

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of all documents."""
        return self.store.vectors()

    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield batches of all documents as objects of the framework."""
        for batch in self.store.documents():
            yield batch if self._document is None else [self._document(found) for found in batch]
