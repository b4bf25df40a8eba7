"""Readers of LangChain's vector stores, beyond their common interface: the documents in full, and the metric.

The stores' own packages are never imported: a store is recognised by the name of its class.
"""

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from deepmem_integrations.corpora.corpus import Batch, HasCorpus
from deepmem_integrations.corpora.langchain_tables import (
    DuckDBCorpus,
    LanceDBCorpus,
    MilvusCorpus,
    SKLearnCorpus,
    SQLiteVecCorpus,
)
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
        for batch in self._entries():
            yield [entry["id"] for entry in batch], np.array([entry["vector"] for entry in batch])

    def read_documents(self) -> Iterator[Sequence[Document]]:
        for batch in self._entries():
            yield [_in_memory_document(entry) for entry in batch]

    def having(self, key: str, names: Sequence[str] | Sequence[int]) -> Any:
        wanted, allowed = set(names), self.filter
        return lambda document: str(document.metadata.get(key)) in wanted and (allowed is None or allowed(document))

    def _entries(self) -> Iterator[list[Any]]:
        entries, allowed = list(self.store.store.values()), self.filter
        yield from batches(entry for entry in entries if allowed is None or allowed(_in_memory_document(entry)))


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
            kept = [place for place, row in enumerate(rows) if self._allows(row)]
            if kept:
                yield [str(self.store.index_to_docstore_id[rows[place]]) for place in kept], vectors[kept]

    def read_documents(self) -> Iterator[Sequence[Document]]:
        for rows in batches(range(len(self.store.index_to_docstore_id))):
            names = [self.store.index_to_docstore_id[row] for row in rows if self._allows(row)]
            found = [(name, self.store.docstore.search(name)) for name in names]
            # The documents of old files have no ids.
            if found:
                yield [Document(id=name, page_content=one.page_content, metadata=one.metadata) for name, one in found]

    def having(self, key: str, names: Sequence[str] | Sequence[int]) -> Any:
        wanted, allowed = set(names), self._function()
        return lambda metadata: str(metadata.get(key)) in wanted and allowed(metadata)

    def _function(self) -> Callable[[Any], bool]:
        if self.filter is None:
            return lambda metadata: True
        allowed: Callable[[Any], bool] = self.store._create_filter_func(self.filter)
        return allowed

    def _allows(self, row: int) -> bool:
        if self.filter is None:
            return True
        return bool(self._function()(self.store.docstore.search(self.store.index_to_docstore_id[row]).metadata))


class ChromaCorpus(StoreCorpus):
    """The documents of a Chroma store, in this process or on a server."""

    kind = "langchain_chroma.Chroma"
    tells_numbers = True

    @property
    def metric(self) -> str:
        return chroma_metric(self.store._collection)

    def read_vectors(self) -> Iterator[Batch]:
        for found in chroma_records(self.store._collection, "embeddings", where=self.filter):
            yield found["ids"], found["embeddings"]

    def read_documents(self) -> Iterator[Sequence[Document]]:
        for found in chroma_records(self.store._collection, "documents", "metadatas", where=self.filter):
            columns = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
            yield [Document(id=name, page_content=text or "", metadata=metadata or {}) for name, text, metadata in columns]

    def having(self, key: str, names: Sequence[str] | Sequence[int]) -> Any:
        return _both(self.filter, {key: {"$in": list(names)}})


class QdrantCorpus(StoreCorpus):
    """The documents of a Qdrant store, in this process or on a server. Ids are UUIDs or numbers; labels name both as strings."""

    kind = "langchain_qdrant.QdrantVectorStore"
    tells_numbers = True

    @property
    def metadata_id(self) -> str:
        return "_id"

    @property
    def metric(self) -> str:
        return qdrant_metric(self.store.client, self.store.collection_name, self.store.vector_name)

    def read_vectors(self) -> Iterator[Batch]:
        name = self.store.vector_name
        for points in self._scroll(with_payload=False, with_vectors=[name] if name else True):
            vectors = [point.vector[name] if isinstance(point.vector, dict) else point.vector for point in points]
            yield [str(point.id) for point in points], np.array(vectors)

    def read_documents(self) -> Iterator[Sequence[Document]]:
        text, metadata = self.store.content_payload_key, self.store.metadata_payload_key
        for points in self._scroll(with_payload=[text, metadata], with_vectors=False):
            yield [
                Document(id=str(point.id), page_content=point.payload.get(text) or "", metadata=point.payload.get(metadata) or {})
                for point in points
            ]

    def having(self, key: str, names: Sequence[str] | Sequence[int]) -> Any:
        models = importlib.import_module("qdrant_client.models")  # which whoever made the store has imported
        path = f"{self.store.metadata_payload_key}.{key}"
        named = models.FieldCondition(key=path, match=models.MatchAny(any=list(names)))
        return models.Filter(must=[named] if self.filter is None else [named, self.filter])

    def _scroll(self, **options: Any) -> Iterator[list[Any]]:
        return qdrant_points(self.store.client, self.store.collection_name, scroll_filter=self.filter, **options)


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

    def read_documents(self) -> Iterator[Sequence[Document]]:
        for rows in self._read("document", "cmetadata"):
            yield [Document(id=row.id, page_content=row.document or "", metadata=row.cmetadata or {}) for row in rows]

    def having(self, key: str, names: Sequence[str] | Sequence[int]) -> Any:
        return _both(self.filter, {key: {"$in": list(names)}})

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
            clause = self.store._create_filter_clause(self.filter) if self.filter else None
            if clause is not None:
                query = query.filter(clause)
            while rows := query.filter(table.id > last).limit(BATCH).all():
                yield rows
                last = rows[-1].id


class PGVectorStoreCorpus(StoreCorpus):
    """The documents of a Postgres store of langchain-postgres's newer class."""

    kind = "langchain_postgres.PGVectorStore"
    tells_numbers = True

    @property
    def metric(self) -> str:
        name = str(self.store._PGVectorStore__vs.distance_strategy.name)
        return {"COSINE_DISTANCE": "cosine", "EUCLIDEAN": "l2", "INNER_PRODUCT": "dot"}.get(name, name)

    def read_vectors(self) -> Iterator[Batch]:
        # The vectors arrive as Postgres writes them, which is JSON.
        for found in self._read("embeddings"):
            yield found["ids"], np.array([json.loads(text) for text in found["embeddings"]])

    def read_documents(self) -> Iterator[Sequence[Document]]:
        for found in self._read("documents", "metadatas"):
            columns = zip(found["ids"], found["documents"], found["metadatas"], strict=True)
            yield [Document(id=name, page_content=text or "", metadata=metadata) for name, text, metadata in columns]

    def having(self, key: str, names: Sequence[str] | Sequence[int]) -> Any:
        return _both(self.filter, {key: {"$in": list(names)}})  # where the key has a column of its own

    def _read(self, *include: str) -> Iterator[dict[str, Any]]:
        for batch in batches(self.store.get(include=[], where=self.filter)["ids"]):
            yield self.store.get(ids=batch, include=list(include))


KINDS: dict[str, type[StoreCorpus]] = {
    corpus.kind: corpus
    for corpus in (
        *(InMemoryCorpus, FaissCorpus, ChromaCorpus, QdrantCorpus, PGVectorCorpus, PGVectorStoreCorpus),
        *(LanceDBCorpus, MilvusCorpus, SQLiteVecCorpus, SKLearnCorpus, DuckDBCorpus),
    )
}

_measures: "WeakKeyDictionary[VectorStore, dict[str | None, Measure]]" = WeakKeyDictionary()
"""The measures of the stores that `check_lengths` has checked, by the metric that the caller named."""


def document_id(document: Document, vectorstore: VectorStore, id_key: str | None = None) -> str:
    """Return the id of a document that a store has found.

    Args:
        document: The document.
        vectorstore: The store.
        id_key: The metadata key that names documents; None where the store's own ids do.

    Raises:
        StoreError: The store does not return ids, or the document has no such metadata.
    """
    name = id_if_any(document, vectorstore, id_key)
    if name is None and id_key is not None:
        raise StoreError(
            f"A document has no {id_key!r} in its metadata, which names documents (id_key); its keys are: "
            f"{', '.join(map(repr, document.metadata)) or 'none'}. Its text: {document.page_content[:60]!r}"
        )
    if name is None:
        raise StoreError(
            f"{type(vectorstore).__name__} does not return the ids of the documents it finds. Name documents by a metadata key, "
            'from_langchain(…, id_key="…"), or pass from_langchain(…, documents=[…]).'
        )
    return name


def id_if_any(document: Document, vectorstore: VectorStore, id_key: str | None = None) -> str | None:
    """Return the id of a document that a store has found; None where the store does not tell the id: see `document_id`."""
    if id_key is not None:
        value = document.metadata.get(id_key)
        return None if value is None else str(value)
    if document.id:
        return document.id
    kind = kind_of(vectorstore, KINDS)
    key = KINDS[kind](vectorstore).metadata_id if kind else None
    return str(document.metadata[key]) if key in document.metadata else None


def named(document: Document, vectorstore: VectorStore, id_key: str | None) -> Document:
    """Return the document with the id that names it: see `document_id`.

    Raises:
        StoreError: See `document_id`.
    """
    name = document_id(document, vectorstore, id_key)
    return document if document.id == name else document.model_copy(update={"id": name})


def store_corpus(vectorstore: VectorStore, filter: Any = None, metric: str | None = None) -> StoreCorpus:
    """Return the reader of a store.

    Args:
        vectorstore: The store.
        filter: The store's own filter, which the documents have to pass; None for all documents.
        metric: By what the caller says that the store ranks; by default the store tells.

    Raises:
        StoreError: There is no reader for this kind of store, or the store has no filters.
    """
    kind = kind_of(vectorstore, KINDS)
    if kind is None:
        raise StoreError(
            f"The documents of a {type(vectorstore).__name__} cannot be listed here. Pass the documents, "
            "from_langchain(…, documents=[…]), or train with the store's search alone, from_langchain(…, scan=False). "
            f"Documents can be listed in DeepLake, {', '.join(KINDS)}."
        )
    return KINDS[kind](vectorstore, filter, metric)


def metric_of(vectorstore: VectorStore) -> str | None:
    """Return the metric by which a store ranks: see `StoreCorpus.metric`; None where nobody can tell."""
    if kind_of(vectorstore, KINDS) is not None:
        return store_corpus(vectorstore).metric_used
    return "cosine" if isinstance(vectorstore, HasCorpus) else None


def check_lengths(vectorstore: VectorStore, metric: str | None = None) -> Measure | None:
    """Check once, on the first vectors of a store, that their lengths do not change the ranking.

    Args:
        vectorstore: The store.
        metric: By what the caller says that the store ranks; by default the store tells.

    Returns:
        By what the store ranks; None where nobody can tell.

    Raises:
        StoreError: See `StoreCorpus.vectors`.
    """
    if kind_of(vectorstore, KINDS) is None:
        return None
    known = _measures.setdefault(vectorstore, {})
    if metric in known:
        return known[metric]
    corpus = store_corpus(vectorstore, metric=metric)
    # A PGVector that is opened for async alone cannot be read from here.
    if getattr(vectorstore, "async_mode", False) and corpus.metric_used != "cosine":
        return None
    measure = corpus.measure()
    if measure is not None:
        known[metric] = measure
    return measure


def embeddings_of(vectorstore: VectorStore, embeddings: Embeddings | None = None) -> Embeddings:
    """Return the embedding model of a store, without this package's own wrapper.

    Args:
        vectorstore: The store.
        embeddings: The store's embedding model, as the caller knows it; by default the store tells.

    Raises:
        StoreError: The store has no embedding model, or does not return it.
        EmbeddingError: The wrapper lies inside another tool's wrapper.
    """
    embeddings = embeddings or vectorstore.embeddings
    if embeddings is None:
        raise StoreError(
            f"{type(vectorstore).__name__} has no embedding model, or does not return it (its `embeddings` is None): "
            "pass the LangChain Embeddings that it was made with, embeddings=…"
        )
    model: Embeddings = untransformed(embeddings)
    return model


def _both(filter: Any, condition: dict[str, Any]) -> dict[str, Any]:
    return {"$and": [filter, condition]} if filter else condition


def _in_memory_document(entry: Any) -> Document:
    return Document(id=entry["id"], page_content=entry["text"], metadata=entry["metadata"])
