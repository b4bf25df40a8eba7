"""The documents of a Deep Lake data set, as a framework knows them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from deepmem_integrations.corpora.corpus import Batch
from deepmem_integrations.deeplake import DeepLakeStore, StoredDocument


class DeepLakeCorpus:
    """All documents of a Deep Lake data set, as a framework knows them.

    Args:
        store: The store; it is read when asked.
        document: Makes the framework's document of one.
    """

    def __init__(self, store: DeepLakeStore, document: Callable[[StoredDocument], Any]) -> None:
        """Keep both."""
        self.store = store
        self._document = document

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches."""
        return self.store.vectors()

    def documents(self) -> Iterator[Sequence[Any]]:
        """Yield batches of documents with their ids."""
        for batch in self.store.documents():
            yield [self._document(found) for found in batch]
