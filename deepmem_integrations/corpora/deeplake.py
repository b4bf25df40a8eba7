"""`DeepLakeCorpus`, which reads the documents of a Deep Lake data set."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from deepmem_integrations.corpora.corpus import Batch, ListedCorpus
from deepmem_integrations.deeplake import DeepLakeStore, StoredDocument


class DeepLakeCorpus(ListedCorpus):
    """A corpus of all documents of a Deep Lake data set.

    Args:
        store: The store, which is read anew with each call of a method.
        document: A function that turns a `StoredDocument` into an object of the framework. By default `documents` yields the
            `StoredDocument` objects as they are.

    Example:
        >>> store = DeepLakeStore("mem://pages")
        >>> store.add(["page-1"], [[1.0, 0.0]], texts=["How to install"])
        >>> [document.text for batch in DeepLakeCorpus(store).documents() for document in batch]
        ['How to install']
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
