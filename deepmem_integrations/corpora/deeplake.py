"""`DeepLakeCorpus`, which reads the documents of a Deep Lake data set, and `DeepLakeShards`, its documents at one version."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.corpora.corpus import Batch, ListedCorpus
from deepmem_integrations.corpora.shards import ShardedCorpus, shard_rows
from deepmem_integrations.corpora.stores import BATCH, batches
from deepmem_integrations.deeplake import DeepLakeStore, StoredDocument
from deepmem_integrations.deeplake.tql import Filter
from deepmem_integrations.errors import StoreError


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

    def in_shards(self) -> "DeepLakeShards | None":
        """Return the documents at the newest version; None under a filter, of an empty data set, and of one at ``mem://``."""
        found = self.store.snapshot() if self.filter is None else None
        return None if found is None else DeepLakeShards(**found.access)

    def _found(self) -> Iterator[list[StoredDocument]]:
        return batches(self.store.find(self.filter))

    def search_ids(self, vector: Vectors, k: int) -> list[str]:
        """Return the ids of the k documents that the store's own search finds for a (d,) query vector, best first."""
        return [document.id for document in self.store.search(vector, k, filter=self.filter)]


class DeepLakeShards(ShardedCorpus):
    """The documents of a Deep Lake data set at one version, in shards of rows that any process reads where they lie.

    The shards are cut as those of an array are, so a training gives the model that it gives over an array of the same vectors.

    Args:
        path: See `DeepLakeStore`.
        version: The version of the data set.
        token: See `DeepLakeStore`.
        creds: See `DeepLakeStore`.
        data_set: The data set's own id; another data set at the same path is refused. By default the one that is there now.

    Raises:
        StoreError: The data set, or this version, is not there any more.
    """

    kind = "deeplake"

    def __init__(
        self,
        path: str,
        version: str,
        token: str | None = None,
        creds: Mapping[str, str] | None = None,
        data_set: str | None = None,
    ) -> None:
        self._store = DeepLakeStore(path, version=version, token=token, creds=creds)
        self._data_set = data_set or _id_of(self._store)
        _check_same(self._store, self._data_set)

    def shards(self) -> Sequence["DeepLakeShard"]:
        """Return the shards, in the order of the data set."""
        cuts = shard_rows(len(self._store), self.dimension)
        return [DeepLakeShard(self._store, self._data_set, cut.start, cut.stop - cut.start) for cut in cuts]

    @property
    def dimension(self) -> int:
        """The dimension of the vectors."""
        return int(self._store.dimension or 0)

    def known(self, ids: Collection[str]) -> set[str]:
        """Return those of the given ids that the data set has. The column of ids alone is read."""
        wanted, found = set(ids), set[str]()
        for batch in self._store.id_batches():
            found |= wanted.intersection(batch)
        return found

    def documents(self) -> Iterator[Sequence[StoredDocument]]:
        """Yield batches of all documents, without their vectors."""
        yield from self._store.documents()

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (ids, texts) batches of all documents, for a word index."""
        for shard in self.shards():
            yield from shard.texts()

    def fingerprint(self) -> str:
        """Return the id and the version of the data set."""
        return f"{self._data_set} {self._store.version}"

    def to_json(self) -> dict[str, Any]:
        """Return the arguments, for another process. The token and the credentials are among them."""
        return {**self._store.access, "data_set": self._data_set}

    def __repr__(self) -> str:
        """Name the data set and its version."""
        return f"DeepLakeShards({self._store.path!r}, {self._store.version!r})"


@dataclass(frozen=True)
class DeepLakeShard:
    """Some rows of a Deep Lake data set at one version.

    Attributes:
        store: The data set at the version.
        data_set: The id of the data set.
        first: The number of the first document.
        count: How many documents the shard has.
    """

    store: DeepLakeStore
    data_set: str
    first: int
    count: int

    def batches(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of at most about 32 MB.

        Raises:
            StoreError: The rows cannot be read, or another data set has taken the place of this one.
        """
        _check_same(self.store, self.data_set)
        for block in blocks(self.count, self.store.dimension or 0):
            yield self.store.rows(self.first + block.start, self.first + block.stop)

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (ids, texts) batches.

        Raises:
            StoreError: See `batches`.
        """
        _check_same(self.store, self.data_set)
        end = self.first + self.count
        for start in range(self.first, end, BATCH):
            yield self.store.row_texts(start, min(start + BATCH, end))


def _id_of(store: DeepLakeStore) -> str:
    return str(getattr(store.dataset, "id", ""))


def _check_same(store: DeepLakeStore, data_set: str) -> None:
    if _id_of(store) != data_set:
        raise StoreError(
            f"The data set {store.path!r} was deleted and made again while it was read for a training or an evaluation: start "
            "anew."
        )
