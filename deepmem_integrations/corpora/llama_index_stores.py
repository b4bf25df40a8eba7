"""Readers of LlamaIndex's vector stores, beyond their common interface: the nodes in full, and the metric.

The stores' own packages are never imported: a store is recognised by the name of its class.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from deepmem_integrations._weak import WeakCache
from deepmem_integrations.corpora.corpus import Batch, HasCorpus
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
    lance_metric,
    milvus_rows,
    qdrant_metric,
    qdrant_points,
    sql_texts,
)
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import StoreError


class IndexCorpus(StoreCorpus):
    """The nodes of an index over one kind of vector store, with the vectors that the store has.

    Args:
        index: The index. Its store is read anew with each call.
        metric: By what the caller says that the store ranks; by default the store tells.
    """

    def __init__(self, index: VectorStoreIndex, metric: str | None = None) -> None:
        super().__init__(index.vector_store, metric=metric)
        self.index = index

    @abstractmethod
    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches."""

    def read_documents(self) -> Iterator[Sequence[BaseNode]]:
        """Yield batches of nodes, from the store, or from the index's docstore where the store keeps no texts."""
        for ids, _ in self.read_vectors():
            names = list(ids)
            found = self.store.get_nodes(names) if self.store.stores_text else self.index.docstore.get_nodes(names)
            nodes = {node.node_id: node for node in found}
            yield [nodes[name] for name in names]


class NodesCorpus(IndexCorpus):
    """The nodes of any store that returns them with its common method ``get_nodes()``, which reads all of them at once.

    Nodes that come without their vectors are embedded again.
    """

    kind = ""

    @property
    def metric_used(self) -> str | None:  # type: ignore[override]
        """The metric that the caller named; None where nobody knows."""
        return self._given_metric

    def read_vectors(self) -> Iterator[Batch]:
        for nodes in self.read_documents():
            vectors = [node.embedding for node in nodes]
            if None in vectors:
                texts = [node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
                vectors = list(Embedder(self.index._embed_model).embed_documents(texts))
            yield [node.node_id for node in nodes], np.array(vectors, dtype=np.float32)

    def read_documents(self) -> Iterator[Sequence[BaseNode]]:
        yield from batches(self.store.get_nodes())

    @staticmethod
    def reads(store: Any) -> bool:
        """Tell whether a store returns all of its nodes without being told which."""
        if type(store).get_nodes is BasePydanticVectorStore.get_nodes:
            return False
        try:
            return bool(store.get_nodes())
        except (NotImplementedError, TypeError, ValueError):  # most stores want to know which nodes
            return False


class SimpleCorpus(IndexCorpus):
    """The nodes of LlamaIndex's own store in memory."""

    kind = "llama_index.SimpleVectorStore"

    def read_vectors(self) -> Iterator[Batch]:
        for batch in batches(list(self.store.data.embedding_dict.items())):
            yield [name for name, _ in batch], np.array([vector for _, vector in batch])


class FaissCorpus(IndexCorpus):
    """The nodes of a FAISS store, whose index must be able to give its vectors back.

    The LlamaIndex index over the store knows which row is which node.
    """

    kind = "llama_index.FaissVectorStore"

    @property
    def metric(self) -> str:
        return faiss_metric(self.store.client)

    def read_vectors(self) -> Iterator[Batch]:
        faiss, names = self.store.client, self.index.index_struct.nodes_dict
        instead = "pass from_llama_index(…, nodes=[…]) to embed them again."
        # In a FaissMapVectorStore each row carries a number, and the store knows the node of each number.
        numbers = getattr(faiss, "id_map", None)
        named = getattr(self.store, "_faiss_id_to_node_id_map", {})
        for rows in batches(range(int(faiss.ntotal))):
            vectors = faiss_vectors(faiss if numbers is None else faiss.index, rows[0], len(rows), instead)
            ids = [names.get(str(row)) if numbers is None else named.get(numbers.at(row)) for row in rows]
            kept = [place for place, name in enumerate(ids) if name is not None]
            yield [str(ids[place]) for place in kept], vectors[kept]


class ChromaCorpus(IndexCorpus):
    """The nodes of a Chroma store, in this process or on a server."""

    kind = "llama_index.ChromaVectorStore"

    @property
    def metric(self) -> str:
        return chroma_metric(self.store.client)

    def read_vectors(self) -> Iterator[Batch]:
        for found in chroma_records(self.store.client, "embeddings"):
            yield found["ids"], found["embeddings"]


class QdrantCorpus(IndexCorpus):
    """The nodes of a Qdrant store, in this process or on a server."""

    kind = "llama_index.QdrantVectorStore"

    @property
    def metric(self) -> str:
        return qdrant_metric(self._client(), self.store.collection_name, self.store.dense_vector_name)

    def read_vectors(self) -> Iterator[Batch]:
        name = self.store.dense_vector_name
        for points in qdrant_points(self._client(), self.store.collection_name, with_payload=False, with_vectors=True):
            vectors = [point.vector[name] if isinstance(point.vector, dict) else point.vector for point in points]
            yield [str(point.id) for point in points], np.array(vectors)

    def _client(self) -> Any:
        if self.store.client is None:
            raise StoreError("This QdrantVectorStore has only an async client: give it client=QdrantClient(…), too.")
        return self.store.client


class LanceDBCorpus(IndexCorpus):
    """The nodes of a LanceDB table."""

    kind = "llama_index.LanceDBVectorStore"

    @property
    def metric(self) -> str:
        return lance_metric(self.store._table, self.store.vector_column_name)

    def read_vectors(self) -> Iterator[Batch]:
        vector = self.store.vector_column_name
        if self.store._table is not None:
            for batch in self.store.table.search().select(["id", vector]).to_batches(BATCH):
                yield batch["id"].to_pylist(), np.array(batch[vector].to_pylist(), dtype=np.float32)

    def read_documents(self) -> Iterator[Sequence[BaseNode]]:
        for ids, _ in self.read_vectors():
            yield self.store.get_nodes(where=f"id IN ({sql_texts(list(ids))})")  # node_ids are quoted as columns


class MilvusCorpus(IndexCorpus):
    """The nodes of a Milvus collection."""

    kind = "llama_index.MilvusVectorStore"

    @property
    def metric(self) -> str:
        name = str(self.store.similarity_metric).lower()
        return {"ip": "dot"}.get(name, name)

    def read_vectors(self) -> Iterator[Batch]:
        key, vector = "id", self.store.embedding_field
        for rows in milvus_rows(self.store.client, self.store.collection_name, "", [key, vector]):
            yield [str(row[key]) for row in rows], np.array([row[vector] for row in rows], dtype=np.float32)


class PostgresCorpus(IndexCorpus):
    """The nodes of a Postgres store with pgvector, which LlamaIndex always searches by cosine."""

    kind = "llama_index.PGVectorStore"

    def read_vectors(self) -> Iterator[Batch]:
        for rows in self._read("embedding"):
            # Vectors of half precision come in another class.
            vectors = [row.embedding.to_numpy() if hasattr(row.embedding, "to_numpy") else row.embedding for row in rows]
            yield [row.node_id for row in rows], np.array(vectors, dtype=np.float32)

    def read_documents(self) -> Iterator[Sequence[BaseNode]]:
        # The store's own get_nodes fails on half precision.
        for rows in self._read("text", "metadata_"):
            yield [metadata_dict_to_node(row.metadata_, text=row.text) for row in rows]

    def _read(self, *names: str) -> Iterator[list[Any]]:
        self.store._initialize()
        table, last = self.store._table_class, -1
        with self.store._session() as session:
            query = session.query(table.id, table.node_id, *(getattr(table, name) for name in names)).order_by(table.id)
            while rows := query.filter(table.id > last).limit(BATCH).all():
                yield rows
                last = rows[-1].id


KINDS: dict[str, type[IndexCorpus]] = {
    corpus.kind: corpus
    for corpus in (SimpleCorpus, FaissCorpus, ChromaCorpus, QdrantCorpus, LanceDBCorpus, MilvusCorpus, PostgresCorpus)
}


_MEASURES: WeakCache[dict[tuple[str | None, int], Measure]] = WeakCache()
"""The measures of the stores that were checked, by the metric that the caller named, and by their client."""


def measure(index: VectorStoreIndex, metric: str | None = None) -> Measure | None:
    """Return by what the store of an index ranks, as far as that can be read, and check its first vectors, once for each store.

    Args:
        index: The index.
        metric: By what the caller says that the store ranks; by default the store tells.

    Raises:
        StoreError: See `StoreCorpus.vectors`.
    """
    kind = kind_of(index.vector_store, KINDS)
    # A Qdrant that is opened for async alone cannot be read from here, and neither can a store of an unknown kind.
    if kind is None or (kind == QdrantCorpus.kind and index.vector_store.client is None):
        return None
    known = _MEASURES.get(index.vector_store, dict)
    key = metric, id(getattr(index.vector_store, "client", None))  # a store may be given another index
    if key not in known and (found := KINDS[kind](index, metric).measure()) is not None:
        known[key] = found
    return known.get(key)


def metric_of(index: VectorStoreIndex) -> str | None:
    """Return the metric by which the store of an index ranks: see `StoreCorpus.metric`; None where nobody can tell."""
    kind = kind_of(index.vector_store, KINDS)
    if kind is None or (kind == QdrantCorpus.kind and index.vector_store.client is None):
        return "cosine" if isinstance(index.vector_store, HasCorpus) else None
    return KINDS[kind](index).metric_used
