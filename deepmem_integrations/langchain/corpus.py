"""Read the ids and vectors of LangChain vector stores."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from deepmem_integrations.corpus import Batch, Corpus
from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain.vectorstores import DeepLake


class InMemoryCorpus:
    """The documents of an `InMemoryVectorStore`."""

    def __init__(self, vectorstore: InMemoryVectorStore) -> None:
        """Keep the store; it is read when asked."""
        self._documents: dict[str, dict[str, Any]] = vectorstore.store

    def vectors(self) -> Iterator[Batch]:
        """Yield all documents as one batch."""
        documents = list(self._documents.values())
        if documents:
            yield [document["id"] for document in documents], np.array([document["vector"] for document in documents])


def read_vectorstore(vectorstore: VectorStore) -> tuple[Corpus, Embeddings]:
    """The corpus and the embedding model of a vector store.

    Raises:
        StoreError: No vector store, one without an embedding model, or of a kind whose vectors cannot be listed.
    """
    if not isinstance(vectorstore, VectorStore):
        raise StoreError(f"from_langchain takes a LangChain vector store; got {type(vectorstore).__name__}.")
    embeddings = vectorstore.embeddings
    if embeddings is None:
        raise StoreError(f"{type(vectorstore).__name__} has no embedding model: create the store with one.")
    if isinstance(vectorstore, DeepLake):
        return vectorstore.store, embeddings
    if isinstance(vectorstore, InMemoryVectorStore):
        return InMemoryCorpus(vectorstore), embeddings
    raise StoreError(
        f"The vectors of a {type(vectorstore).__name__} cannot be listed here; DeepLake and InMemoryVectorStore can. "
        "Train from arrays instead: train_adapter(query_vectors, relevance, corpus_vectors, corpus_ids), "
        "then DeepMemoryRetriever(vectorstore=…, memory=result.adapter) serves any store."
    )
