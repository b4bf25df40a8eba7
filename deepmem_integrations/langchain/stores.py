"""What is known of LangChain's vector stores beyond their common interface: how to read one in full, and by what it ranks.

The stores' own packages are not needed and not imported: a store is known by the name of its class.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from deepmem_integrations.corpus import Batch
from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import StoreError

_BATCH = 1_000
_EVEN = 1.05
"""Lengths up to this ratio count as equal: an index of 8 bits a number gives unit vectors back nearly so."""
_Item = TypeVar("_Item")


class StoreCorpus(ABC):
    """The documents of one kind of vector store, as they lie there.

    Args:
        vectorstore: The store; it is read when asked.
    """

    kind: ClassVar[str]
    """The distribution's import name and the class: ``langchain_chroma.Chroma``."""

    def __init__(self, vectorstore: VectorStore) -> None:
        """Keep the store."""
        self.store: Any = vectorstore

    @property
    def metric(self) -> str:
        """By what the store ranks: ``cosine``, ``l2``, ``dot``, or a name of its own."""
        return "cosine"

    @abstractmethod
    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches."""

    @abstractmethod
    def documents(self) -> Iterator[Sequence[Document]]:
        """Yield batches of documents with their ids."""

    def vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches.

        Raises:
            StoreError: The store ranks by anything but cosine similarity, and the vectors' lengths make a difference. A
                transform is trained and judged by cosine similarity, and gives the query length 1.
        """
        metric = self.metric
        shortest, longest = np.inf, 0.0
        for ids, vectors in self.read_vectors():
            if metric != "cosine":
                lengths = np.linalg.norm(np.asarray(vectors, dtype=np.float32), axis=1)
                shortest, longest = min(shortest, lengths.min()), max(longest, lengths.max())
                if metric not in ("l2", "dot") or longest > _EVEN * shortest:
                    raise StoreError(
                        f"{type(self.store).__name__} ranks by {metric}, and its vectors have lengths of {shortest:.3g} to "
                        f"{longest:.3g}; Deep Memory works on cosine similarity. Make the store with cosine distance, or "
                        "normalise the vectors, with which L2 and dot product rank alike."
                    )
            yield ids, vectors


class InMemoryCorpus(StoreCorpus):
    """LangChain's own store in memory."""

    kind = "langchain_core.InMemoryVectorStore"

    def read_vectors(self) -> Iterator[Batch]:
        """Yield batches."""
        for batch in batches(list(self.store.store.values())):
            yield [entry["id"] for entry in batch], np.array([entry["vector"] for entry in batch])

    def documents(self) -> Iterator[Sequence[Document]]:
        """Yield batches."""
        for batch in batches(list(self.store.store.values())):
            yield [Document(id=entry["id"], page_content=entry["text"], metadata=entry["metadata"]) for entry in batch]


class FaissCorpus(StoreCorpus):
    """FAISS, of any index that can give its vectors back."""

    kind = "langchain_community.FAISS"

    @property
    def metric(self) -> str:
        """The index knows it; the store's own ``distance_strategy`` need not be true."""
        number = int(self.store.index.metric_type)
        return {0: "dot", 1: "l2"}.get(number, f"FAISS's metric {number}")

    def read_vectors(self) -> Iterator[Batch]:
        """Yield batches.

        Raises:
            StoreError: The index cannot give its vectors back.
        """
        for rows in batches(range(len(self.store.index_to_docstore_id))):
            try:
                vectors = self.store.index.reconstruct_n(rows[0], len(rows))
            except RuntimeError as error:
                raise StoreError(
                    f"This FAISS index does not give its vectors back ({error}). Call make_direct_map() on it if it has that, "
                    "or pass from_langchain(…, documents=[…]) to embed them again."
                ) from error
            yield [str(self.store.index_to_docstore_id[row]) for row in rows], vectors

    def documents(self) -> Iterator[Sequence[Document]]:
        """Yield batches."""
        for rows in batches(range(len(self.store.index_to_docstore_id))):
            names = [self.store.index_to_docstore_id[row] for row in rows]
            found = [(name, self.store.docstore.search(name)) for name in names]
            # Old files hold documents without their ids.
            yield [Document(id=name, page_content=one.page_content, metadata=one.metadata) for name, one in found]


class ChromaCorpus(StoreCorpus):
    """Chroma, in this process or on a server."""

    kind = "langchain_chroma.Chroma"

    @property
    def metric(self) -> str:
        """From the collection's configuration."""
        collection = self.store._collection
        spaces = [(collection.configuration_json.get(index) or {}).get("space") for index in ("hnsw", "spann")]
        name = next(filter(None, spaces), (collection.metadata or {}).get("hnsw:space", "l2"))
        return {"ip": "dot"}.get(name, str(name))

    def read_vectors(self) -> Iterator[Batch]:
        """Yield batches."""
        for found in self._read("embeddings"):
            yield found["ids"], found["embeddings"]

    def documents(self) -> Iterator[Sequence[Document]]:
        """Yield batches."""
        for found in self._read("documents", "metadatas"):
            columns = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
            yield [Document(id=name, page_content=text or "", metadata=metadata or {}) for name, text, metadata in columns]

    def _read(self, *include: str) -> Iterator[dict[str, Any]]:
        # By ids and not by offsets, which shift under a writer.
        for batch in batches(self.store.get(include=[])["ids"]):
            yield self.store.get(ids=batch, include=list(include))


class QdrantCorpus(StoreCorpus):
    """Qdrant, in this process or on a server. Its ids are UUIDs or numbers; labels name both as strings."""

    kind = "langchain_qdrant.QdrantVectorStore"

    @property
    def metric(self) -> str:
        """From the collection's configuration."""
        vectors = self.store.client.get_collection(self.store.collection_name).config.params.vectors
        parameters = vectors[self.store.vector_name] if isinstance(vectors, dict) else vectors
        name = str(parameters.distance.value).lower()
        return {"euclid": "l2"}.get(name, name)

    def read_vectors(self) -> Iterator[Batch]:
        """Yield batches."""
        name = self.store.vector_name
        for points in self._scroll(with_payload=False, with_vectors=[name] if name else True):
            vectors = [point.vector[name] if isinstance(point.vector, dict) else point.vector for point in points]
            yield [str(point.id) for point in points], np.array(vectors)

    def documents(self) -> Iterator[Sequence[Document]]:
        """Yield batches."""
        text, metadata = self.store.content_payload_key, self.store.metadata_payload_key
        for points in self._scroll(with_payload=[text, metadata], with_vectors=False):
            yield [
                Document(id=str(point.id), page_content=point.payload.get(text) or "", metadata=point.payload.get(metadata) or {})
                for point in points
            ]

    def _scroll(self, **options: Any) -> Iterator[list[Any]]:
        offset = None
        while True:
            points, offset = self.store.client.scroll(self.store.collection_name, limit=_BATCH, offset=offset, **options)
            if points:
                yield points
            if offset is None:
                return


class PGVectorCorpus(StoreCorpus):
    """Postgres through langchain-postgres's older class."""

    kind = "langchain_postgres.PGVector"

    @property
    def metric(self) -> str:
        """From the store."""
        name = getattr(self.store._distance_strategy, "value", self.store._distance_strategy)
        return {"inner": "dot"}.get(name, str(name))

    def read_vectors(self) -> Iterator[Batch]:
        """Yield batches."""
        for rows in self._read("embedding"):
            yield [row.id for row in rows], np.array([row.embedding for row in rows])

    def documents(self) -> Iterator[Sequence[Document]]:
        """Yield batches."""
        for rows in self._read("document", "cmetadata"):
            yield [Document(id=row.id, page_content=row.document or "", metadata=row.cmetadata or {}) for row in rows]

    def _read(self, *names: str) -> Iterator[list[Any]]:
        if self.store.async_mode:
            raise StoreError("This PGVector was opened with async_mode=True; open it once more without, to train from it.")
        table, last = self.store.EmbeddingStore, ""
        with self.store.session_maker() as session:
            collection = self.store.get_collection(session)
            query = session.query(table.id, *(getattr(table, name) for name in names))
            query = query.filter(table.collection_id == collection.uuid).order_by(table.id)
            while rows := query.filter(table.id > last).limit(_BATCH).all():
                yield rows
                last = rows[-1].id


class PGVectorStoreCorpus(StoreCorpus):
    """Postgres through langchain-postgres's newer class."""

    kind = "langchain_postgres.PGVectorStore"

    @property
    def metric(self) -> str:
        """From the store."""
        name = str(self.store._PGVectorStore__vs.distance_strategy.name)
        return {"COSINE_DISTANCE": "cosine", "EUCLIDEAN": "l2", "INNER_PRODUCT": "dot"}.get(name, name)

    def read_vectors(self) -> Iterator[Batch]:
        """Yield batches; the vectors arrive as Postgres writes them, which is JSON."""
        for found in self._read("embeddings"):
            yield found["ids"], np.array([json.loads(text) for text in found["embeddings"]])

    def documents(self) -> Iterator[Sequence[Document]]:
        """Yield batches."""
        for found in self._read("documents", "metadatas"):
            columns = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
            yield [Document(id=name, page_content=text or "", metadata=metadata) for name, text, metadata in columns]

    def _read(self, *include: str) -> Iterator[dict[str, Any]]:
        for batch in batches(self.store.get(include=[])["ids"]):
            yield self.store.get(ids=batch, include=list(include))


_KINDS = {
    corpus.kind: corpus
    for corpus in (InMemoryCorpus, FaissCorpus, ChromaCorpus, QdrantCorpus, PGVectorCorpus, PGVectorStoreCorpus)
}


_checked: "WeakSet[VectorStore]" = WeakSet()
"""Stores that `check_lengths` has seen."""


def document_id(document: Document, vectorstore: VectorStore) -> str:
    """The id of a document that a store returned.

    Raises:
        StoreError: The store does not tell it.
    """
    if document.id is not None:
        return document.id
    if "_id" in document.metadata and kind_of(vectorstore) == QdrantCorpus.kind:
        return str(document.metadata["_id"])
    raise StoreError(
        f"{type(vectorstore).__name__} does not tell the ids of the documents it finds: pass from_langchain(…, documents=[…])."
    )


def kind_of(vectorstore: VectorStore) -> str | None:
    """The kind of a store, in the way `StoreCorpus.kind` writes it; a subclass is of its base's kind."""
    names = [f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(vectorstore).__mro__]
    return next((name for name in names if name in _KINDS), None)


def store_corpus(vectorstore: VectorStore) -> StoreCorpus:
    """The reader of a store.

    Raises:
        StoreError: There is none for its kind.
    """
    kind = kind_of(vectorstore)
    if kind is None:
        raise StoreError(
            f"The documents of a {type(vectorstore).__name__} cannot be listed here; those of DeepLake and "
            f"{', '.join(_KINDS)} can. Pass its documents: from_langchain(…, documents=[…]), or train with its search "
            "alone: from_langchain(…, scan=False)."
        )
    return _KINDS[kind](vectorstore)


def check_lengths(vectorstore: VectorStore) -> None:
    """Look at the first vectors of a store, once, whether their lengths would change the ranking. No full proof.

    Raises:
        StoreError: As `StoreCorpus.vectors`.
    """
    # A PGVector that is opened for async alone cannot be looked into from here, nor can a store of an unknown kind.
    if kind_of(vectorstore) is None or getattr(vectorstore, "async_mode", False) or vectorstore in _checked:
        return
    corpus = store_corpus(vectorstore)
    if corpus.metric != "cosine":
        next(corpus.vectors(), None)
    _checked.add(vectorstore)


def embeddings_of(vectorstore: VectorStore) -> Embeddings:
    """The embedding model of a store, without our own wrapper.

    Raises:
        StoreError: It has none, or does not tell.
        EmbeddingError: Our own wrapper lies inside another one.
    """
    if vectorstore.embeddings is None:
        raise StoreError(
            f"{type(vectorstore).__name__} has no embedding model, or does not tell it (its `embeddings` is None): "
            "create the store with a LangChain Embeddings."
        )
    model: Embeddings = untransformed(vectorstore.embeddings)
    return model


def batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Cut anything into lists."""
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
