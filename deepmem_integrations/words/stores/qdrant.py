"""The search of Qdrant by sparse vectors, which weigh words."""

import uuid
from typing import Any

from deepmem_integrations._extras import require
from deepmem_integrations.corpora.stores import kind_of
from deepmem_integrations.errors import StoreError
from deepmem_integrations.words.stores.filtered import Scored, StoreSearch

LANGCHAIN = "langchain_qdrant.QdrantVectorStore"
LLAMA_INDEX = "llama_index.QdrantVectorStore"


class QdrantWords(StoreSearch):
    """The sparse vectors of a Qdrant collection, searched alone. Scores are Qdrant's: dot products of sparse vectors.

    Which words count, and how much, is the sparse embedding's affair: BM25 and SPLADE through fastembed, or a model of your own.

    Args:
        store: LangChain's ``QdrantVectorStore`` with a ``sparse_embedding``, or LlamaIndex's with ``enable_hybrid=True`` and a
            synchronous client.
        metadata: A ``qdrant_client.models.Filter``, which Qdrant checks; for LlamaIndex, ``MetadataFilters`` as well.

    Raises:
        StoreError: The store is no Qdrant store, or has no sparse embedding.
    """

    def __init__(self, store: Any, metadata: Any = None) -> None:
        self._kind = kind_of(store, (LANGCHAIN, LLAMA_INDEX))
        if self._kind is None:
            raise StoreError(
                f"A search by words in Qdrant needs a store among {LANGCHAIN}, {LLAMA_INDEX}; got {type(store).__name__}. "
                "For other stores, index the texts: WordIndex.build(folder, documents)."
            )
        hybrid = store._sparse_embeddings if self._kind == LANGCHAIN else store.enable_hybrid
        if not hybrid:
            raise StoreError(
                "This Qdrant store has no sparse embedding to search words with. Open it with one (LangChain: sparse_embedding=… "
                "and retrieval_mode=RetrievalMode.HYBRID; LlamaIndex: enable_hybrid=True), or index the texts: "
                "WordIndex.build(folder, documents)."
            )
        if store.client is None:
            raise StoreError("This QdrantVectorStore has only an async client: give it client=QdrantClient(…), too.")
        self.store = store
        self.metadata = metadata

    def is_ready(self) -> bool:
        """Tell whether the collection is there and has the sparse vector that the store searches."""
        client, name = self.store.client, self.store.collection_name
        if not client.collection_exists(name):
            return False
        return self.store.sparse_vector_name in (client.get_collection(name).config.params.sparse_vectors or {})

    def fetch(self, text: str, limit: int, ids: list[str] | None) -> Scored:
        """Search in the collection, see `StoreSearch.fetch`."""
        models = require("qdrant_client.models", distribution="qdrant-client")
        conditions = [] if self.metadata is None else [self._own_filter()]
        if ids is not None:
            points = [point for name in ids if (point := _point_id(name)) is not None]
            if not points:
                return []
            conditions.append(models.HasIdCondition(has_id=points))
        indices, values = self._embed(text)
        if not indices:
            return []
        found = self.store.client.query_points(
            self.store.collection_name,
            query=models.SparseVector(indices=indices, values=values),
            using=self.store.sparse_vector_name,
            query_filter=models.Filter(must=conditions) if conditions else None,
            limit=limit,
            with_payload=False,
        )
        return [(str(point.id), float(point.score)) for point in found.points]

    def _embed(self, text: str) -> tuple[list[int], list[float]]:
        if self._kind == LANGCHAIN:
            vector = self.store.sparse_embeddings.embed_query(text)
            return vector.indices, vector.values
        indices, values = self.store._sparse_query_fn([text])
        return indices[0], values[0]

    def _own_filter(self) -> Any:
        return self.store._build_subfilter(self.metadata) if hasattr(self.metadata, "filters") else self.metadata


def _point_id(name: str) -> int | str | None:
    """Return the id of a point, which is a number or a UUID, from the string that labels have; None for any other string."""
    if name.isascii() and name.isdigit():
        number = int(name)
        return number if str(number) == name and number < 1 << 64 else None
    try:
        return name if str(uuid.UUID(name)) == name else None
    except ValueError:
        return None
