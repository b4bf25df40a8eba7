"""Readers of LlamaIndex's vector stores: how the nodes of each kind of store are read, and by what measure the store ranks.

The packages of the stores are neither needed nor imported, because a store is recognised by the name of its class.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from deepmem_integrations.corpora.corpus import Batch
from deepmem_integrations.corpora.stores import (
    BATCH,
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
from deepmem_integrations.errors import StoreError


class IndexCorpus(StoreCorpus):
    """A corpus of the nodes of an index, read from one kind of vector store.

    Args:
        index: The index. Its store is read anew with each call of a method.
    """

    def __init__(self, index: VectorStoreIndex) -> None:
        super().__init__(index.vector_store)
        self.index = index

    @abstractmethod
    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches."""

    def documents(self) -> Iterator[Sequence[BaseNode]]:
        """Yield batches of nodes, from the store, or from the index's docstore if the store keeps no texts."""
        for ids, _ in self.read_vectors():
            names = list(ids)
            found = self.store.get_nodes(names) if self.store.stores_text else self.index.docstore.get_nodes(names)
            nodes = {node.node_id: node for node in found}
            yield [nodes[name] for name in names]


class SimpleCorpus(IndexCorpus):
    """The reader of LlamaIndex's in-memory store."""

    kind = "llama_index.SimpleVectorStore"

    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches."""
        for batch in batches(list(self.store.data.embedding_dict.items())):
            yield [name for name, _ in batch], np.array([vector for _, vector in batch])


class FaissCorpus(IndexCorpus):
    """The reader of a FAISS store. Its FAISS index must be able to return the vectors.

    FAISS knows row numbers only. The LlamaIndex index over the store knows the node of each row.
    """

    kind = "llama_index.FaissVectorStore"

    @property
    def metric(self) -> str:
        """The measure of the FAISS index."""
        return faiss_metric(self.store.client)

    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches. Rows without a node are left out, since their nodes were deleted from the index.

        Raises:
            StoreError: The FAISS index cannot return its vectors.
        """
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
    """The reader of a Chroma store, which may be in this process or on a server."""

    kind = "llama_index.ChromaVectorStore"

    @property
    def metric(self) -> str:
        """The measure in the collection's configuration."""
        return chroma_metric(self.store.client)

    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches."""
        for found in chroma_records(self.store.client, "embeddings"):
            yield found["ids"], found["embeddings"]


class QdrantCorpus(IndexCorpus):
    """The reader of a Qdrant store, which may be in this process or on a server."""

    kind = "llama_index.QdrantVectorStore"

    @property
    def metric(self) -> str:
        """The measure in the collection's configuration."""
        return qdrant_metric(self._client(), self.store.collection_name, self.store.dense_vector_name)

    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches."""
        name = self.store.dense_vector_name
        for points in qdrant_points(self._client(), self.store.collection_name, with_payload=False, with_vectors=True):
            vectors = [point.vector[name] if isinstance(point.vector, dict) else point.vector for point in points]
            yield [str(point.id) for point in points], np.array(vectors)

    def _client(self) -> Any:
        if self.store.client is None:
            raise StoreError("This QdrantVectorStore has only an async client: give it client=QdrantClient(…), too.")
        return self.store.client


class PostgresCorpus(IndexCorpus):
    """The reader of Postgres tables with pgvector, which LlamaIndex always searches by cosine similarity."""

    kind = "llama_index.PGVectorStore"

    def read_vectors(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches."""
        for rows in self._read("embedding"):
            # pgvector returns half-precision vectors as objects that NumPy does not read.
            vectors = [row.embedding.to_numpy() if hasattr(row.embedding, "to_numpy") else row.embedding for row in rows]
            yield [row.node_id for row in rows], np.array(vectors, dtype=np.float32)

    def documents(self) -> Iterator[Sequence[BaseNode]]:
        """Yield batches of nodes."""
        # The store's own get_nodes fails on half-precision vectors.
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


KINDS = {corpus.kind: corpus for corpus in (SimpleCorpus, FaissCorpus, ChromaCorpus, QdrantCorpus, PostgresCorpus)}


def check_lengths(index: VectorStoreIndex) -> None:
    """Check on the first vectors of an index that the lengths of the vectors do not change the ranking.

    Later vectors are not checked, so the check may miss a difference.

    Raises:
        StoreError: The store ranks by another measure than cosine similarity, under which these vectors may rank differently.
    """
    kind = kind_of(index.vector_store, KINDS)
    # Two kinds of store cannot be read here: a Qdrant that was opened for async calls, and a store without a reader.
    if kind is not None and not (kind == QdrantCorpus.kind and index.vector_store.client is None):
        KINDS[kind](index).check_lengths()
