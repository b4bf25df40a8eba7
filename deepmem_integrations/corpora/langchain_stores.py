"""Readers of LangChain's vector stores, beyond their common interface: the documents in full, and the metric.

The stores' own packages are never imported: a store is recognised by the name of its class.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from deepmem_integrations.corpora.corpus import Batch
from deepmem_integrations.corpora.stores import (
    BATCH,
    Measure,
    StoreCorpus,
    batches,
    chroma_metric,
    chroma_records,
    faiss_metric,
    faiss_vectors,
    kind_of,
    qdrant_metric,
    qdrant_points,
)
from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import StoreError


class InMemoryCorpus(StoreCorpus):
    """The documents of LangChain's own store in memory."""

    kind = "langchain_core.InMemoryVectorStore"

    def read_vectors(self) -> Iterator[Batch]:
        for batch in batches(list(self.store.store.values())):
            yield [entry["id"] for entry in batch], np.array([entry["vector"] for entry in batch])

    def documents(self) -> Iterator[Sequence[Document]]:
        for batch in batches(list(self.store.store.values())):
            yield [Document(id=entry["id"], page_content=entry["text"], metadata=entry["metadata"]) for entry in batch]


class FaissCorpus(StoreCorpus):
    """The documents of a FAISS store, whose index must be able to give its vectors back."""

    kind = "langchain_community.FAISS"

    @property
    def metric(self) -> str:
        # The store's own distance_strategy need not be that of the index.
        return faiss_metric(self.store.index)

    def read_vectors(self) -> Iterator[Batch]:
        instead = "pass from_langchain(…, documents=[…]) to embed them again."
        for rows in batches(range(len(self.store.index_to_docstore_id))):
            vectors = faiss_vectors(self.store.index, rows[0], len(rows), instead)
            yield [str(self.store.index_to_docstore_id[row]) for row in rows], vectors

    def documents(self) -> Iterator[Sequence[Document]]:
        for rows in batches(range(len(self.store.index_to_docstore_id))):
            names = [self.store.index_to_docstore_id[row] for row in rows]
            found = [(name, self.store.docstore.search(name)) for name in names]
            # The documents of old files have no ids.
            yield [Document(id=name, page_content=one.page_content, metadata=one.metadata) for name, one in found]


class ChromaCorpus(StoreCorpus):
    """The documents of a Chroma store, in this process or on a server."""

    kind = "langchain_chroma.Chroma"

    @property
    def metric(self) -> str:
        return chroma_metric(self.store._collection)

    def read_vectors(self) -> Iterator[Batch]:
        for found in chroma_records(self.store._collection, "embeddings"):
            yield found["ids"], found["embeddings"]

    def documents(self) -> Iterator[Sequence[Document]]:
        for found in chroma_records(self.store._collection, "documents", "metadatas"):
            columns = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
            yield [Document(id=name, page_content=text or "", metadata=metadata or {}) for name, text, metadata in columns]


class QdrantCorpus(StoreCorpus):
    """The documents of a Qdrant store, in this process or on a server. Ids are UUIDs or numbers; labels name both as strings."""

    kind = "langchain_qdrant.QdrantVectorStore"

    @property
    def metric(self) -> str:
        return qdrant_metric(self.store.client, self.store.collection_name, self.store.vector_name)

    def read_vectors(self) -> Iterator[Batch]:
        name = self.store.vector_name
        for points in self._scroll(with_payload=False, with_vectors=[name] if name else True):
            vectors = [point.vector[name] if isinstance(point.vector, dict) else point.vector for point in points]
            yield [str(point.id) for point in points], np.array(vectors)

    def documents(self) -> Iterator[Sequence[Document]]:
        text, metadata = self.store.content_payload_key, self.store.metadata_payload_key
        for points in self._scroll(with_payload=[text, metadata], with_vectors=False):
            yield [
                Document(id=str(point.id), page_content=point.payload.get(text) or "", metadata=point.payload.get(metadata) or {})
                for point in points
            ]

    def _scroll(self, **options: Any) -> Iterator[list[Any]]:
        return qdrant_points(self.store.client, self.store.collection_name, **options)


class PGVectorCorpus(StoreCorpus):
    """The documents of a Postgres store of langchain-postgres's older class."""

    kind = "langchain_postgres.PGVector"

    @property
    def metric(self) -> str:
        name = getattr(self.store._distance_strategy, "value", self.store._distance_strategy)
        return {"inner": "dot"}.get(name, str(name))

    def read_vectors(self) -> Iterator[Batch]:
        for rows in self._read("embedding"):
            yield [row.id for row in rows], np.array([row.embedding for row in rows])

    def documents(self) -> Iterator[Sequence[Document]]:
        for rows in self._read("document", "cmetadata"):
            yield [Document(id=row.id, page_content=row.document or "", metadata=row.cmetadata or {}) for row in rows]

    def _read(self, *names: str) -> Iterator[list[Any]]:
        if self.store.async_mode:
            raise StoreError(
                "This PGVector was opened with async_mode=True, and only a synchronous one can be read. "
                "Open it a second time without async_mode, and pass that one."
            )
        table, last = self.store.EmbeddingStore, ""
        with self.store.session_maker() as session:
            collection = self.store.get_collection(session)
            query = session.query(table.id, *(getattr(table, name) for name in names))
            query = query.filter(table.collection_id == collection.uuid).order_by(table.id)
            while rows := query.filter(table.id > last).limit(BATCH).all():
                yield rows
                last = rows[-1].id


class PGVectorStoreCorpus(StoreCorpus):
    """The documents of a Postgres store of langchain-postgres's newer class."""

    kind = "langchain_postgres.PGVectorStore"

    @property
    def metric(self) -> str:
        name = str(self.store._PGVectorStore__vs.distance_strategy.name)
        return {"COSINE_DISTANCE": "cosine", "EUCLIDEAN": "l2", "INNER_PRODUCT": "dot"}.get(name, name)

    def read_vectors(self) -> Iterator[Batch]:
        # The vectors arrive as Postgres writes them, which is JSON.
        for found in self._read("embeddings"):
            yield found["ids"], np.array([json.loads(text) for text in found["embeddings"]])

    def documents(self) -> Iterator[Sequence[Document]]:
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


_measures: "WeakKeyDictionary[VectorStore, Measure]" = WeakKeyDictionary()
"""The measures of the stores that `check_lengths` has checked."""


def document_id(document: Document, vectorstore: VectorStore) -> str:
    """Return the id of a document that a store has found.

    Raises:
        StoreError: The store does not return ids.
    """
    name = id_if_any(document, vectorstore)
    if name is None:
        raise StoreError(
            f"{type(vectorstore).__name__} does not return the ids of the documents it finds: pass "
            "from_langchain(…, documents=[…])."
        )
    return name


def id_if_any(document: Document, vectorstore: VectorStore) -> str | None:
    """Return the id of a document that a store has found; None where the store does not tell the id."""
    if document.id is not None:
        return document.id
    if "_id" in document.metadata and kind_of(vectorstore, _KINDS) == QdrantCorpus.kind:
        return str(document.metadata["_id"])
    return None


def store_corpus(vectorstore: VectorStore) -> StoreCorpus:
    """Return the reader of a store.

    Raises:
        StoreError: There is no reader for this kind of store.
    """
    kind = kind_of(vectorstore, _KINDS)
    if kind is None:
        raise StoreError(
            f"The documents of a {type(vectorstore).__name__} cannot be listed here. Pass the documents, "
            "from_langchain(…, documents=[…]), or train with the store's search alone, from_langchain(…, scan=False). "
            f"Documents can be listed in DeepLake, {', '.join(_KINDS)}."
        )
    return _KINDS[kind](vectorstore)


def check_lengths(vectorstore: VectorStore) -> Measure | None:
    """Check once, on the first vectors of a store, that their lengths do not change the ranking.

    Returns:
        By what the store ranks; None where nobody can tell.

    Raises:
        StoreError: See `StoreCorpus.vectors`.
    """
    if kind_of(vectorstore, _KINDS) is None:
        return None
    if vectorstore not in _measures:
        corpus = store_corpus(vectorstore)
        # A PGVector that is opened for async alone cannot be read from here.
        if getattr(vectorstore, "async_mode", False) and corpus.metric != "cosine":
            return None
        measure = corpus.measure()
        if measure is None:
            return None
        _measures[vectorstore] = measure
    return _measures[vectorstore]


def embeddings_of(vectorstore: VectorStore) -> Embeddings:
    """Return the embedding model of a store, without this package's own wrapper.

    Raises:
        StoreError: The store has no embedding model, or does not return it.
        EmbeddingError: The wrapper lies inside another tool's wrapper.
    """
    if vectorstore.embeddings is None:
        raise StoreError(
            f"{type(vectorstore).__name__} has no embedding model, or does not return it (its `embeddings` is None): "
            "create the store with a LangChain Embeddings."
        )
    model: Embeddings = untransformed(vectorstore.embeddings)
    return model
