"""The Deep Lake v4 vector store for LangChain, with Deep Lake v3's ``deep_memory=True``."""

# Searches name their options one by one, so that a misspelt or unknown one is an error and not ignored.
# mypy: disable-error-code="override"

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from deepmem_integrations._tql import Filter
from deepmem_integrations.deeplake import DeepLakeStore, StoredDocument
from deepmem_integrations.errors import StoreError
from deepmem_integrations.memory import DeepMemory, beside

Scored = list[tuple[Document, float]]


class DeepLake(VectorStore):
    """A LangChain vector store in a Deep Lake v4 data set, with Deep Memory.

    Train with ``db.deep_memory.train(queries, relevance)`` (``db.vectorstore.deep_memory`` works as in v3), then search with
    ``deep_memory=True``, or ``db.as_retriever(search_kwargs={"deep_memory": True})``. Scores are cosine similarities; as
    relevance scores, negative ones count as 0.

    Args:
        dataset_path: A local folder, ``mem://…``, ``s3://…``, ``gcs://…``, ``az://…`` or ``al://…``.
        token: Activeloop token, for ``al://`` paths.
        embedding: The embedding model; needed for everything but search by vector.
        embedding_function: v3's other name for ``embedding``.
        read_only: Open without the right to write.
        overwrite: Start empty: an existing data set is deleted.
        creds: Credentials of the cloud storage.
        deep_memory_path: The folder for trained models; by default beside a local data set, with ``.deepmemory`` appended.

    Raises:
        StoreError: The data set cannot be opened, or both names of the embedding model are used.
    """

    def __init__(
        self,
        dataset_path: str | os.PathLike[str] = "./deeplake/",
        token: str | None = None,
        embedding: Embeddings | None = None,
        embedding_function: Embeddings | None = None,
        read_only: bool = False,
        *,
        overwrite: bool = False,
        creds: Mapping[str, str] | None = None,
        deep_memory_path: str | os.PathLike[str] | None = None,
    ) -> None:
        """Open the data set if it is there."""
        if embedding is not None and embedding_function is not None:
            raise StoreError("embedding and embedding_function are two names for the same thing: pass one.")
        self._embedding = embedding if embedding is not None else embedding_function
        if self._embedding is not None and not hasattr(self._embedding, "embed_query"):
            raise StoreError(f"embedding is a LangChain Embeddings; got {type(self._embedding).__name__}.")
        self.store = DeepLakeStore(dataset_path, read_only=read_only, overwrite=overwrite, token=token, creds=creds)
        self._deep_memory_path = deep_memory_path
        self._deep_memory: DeepMemory | None = None

    @property
    def embeddings(self) -> Embeddings | None:
        """The embedding model."""
        return self._embedding

    @property
    def deep_memory(self) -> DeepMemory:
        """Train, evaluate and choose the models of this store.

        Raises:
            StoreError: No embedding model, or no place for the models: no local data set and no ``deep_memory_path``.
        """
        if self._deep_memory is None:
            path = beside(self.store.path) if self._deep_memory_path is None else self._deep_memory_path
            self._deep_memory = DeepMemory(self.store, self._embedder(), path)
        return self._deep_memory

    @property
    def vectorstore(self) -> "DeepLake":
        """The store itself: v3 spelled ``db.vectorstore.deep_memory``."""
        return self

    # ---- writing and reading -----------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
    ) -> list[str]:
        """Embed texts and add them in one commit, replacing documents of the same id.

        Args:
            texts: The texts.
            metadatas: A JSON-like dict for each.
            ids: An id for each; made up where None.

        Returns:
            The ids.
        """
        texts = list(texts)
        names = [name or str(uuid.uuid4()) for name in (ids if ids is not None else [None] * len(texts))]
        if texts:
            self.store.add(names, self._embedder().embed_documents(texts), texts, metadatas)
        return names

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
    ) -> list[str]:
        """`add_texts` with the embedding model's own async."""
        texts = list(texts)
        names = [name or str(uuid.uuid4()) for name in (ids if ids is not None else [None] * len(texts))]
        if texts:
            vectors = await self._embedder().aembed_documents(texts)
            await run_in_executor(None, self.store.add, names, vectors, texts, metadatas)
        return names

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids; unknown ids are left out."""
        return [_document(found) for found in self.store.get(ids)]

    def delete(self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, delete_all: bool = False) -> bool:
        """Delete documents by id, by metadata, or all of them.

        Raises:
            StoreError: Not exactly one of the three.
        """
        if (ids is not None) + (filter is not None) + delete_all != 1 or filter == {}:
            raise StoreError("Pass exactly one of: ids, a filter that is not empty, delete_all=True.")
        if delete_all:
            self.store.clear()
        else:
            self.store.delete(ids if ids is not None else [found.id for found in self.store.find(filter)])
        return True

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        dataset_path: str | os.PathLike[str] = "./deeplake/",
        **kwargs: Any,
    ) -> "DeepLake":
        """Open or create a store and add texts. ``kwargs`` are the constructor's."""
        store = cls(dataset_path, embedding=embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    # ---- searching ---------------------------------------------------------------------------------------------

    def similarity_search(
        self, query: str, k: int = 4, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> list[Document]:
        """The k documents nearest to the query, best first.

        Args:
            query: The text.
            k: How many.
            filter: Metadata the documents must have.
            deep_memory: Transform the query with the trained model.

        Raises:
            ModelNotFoundError: ``deep_memory=True`` and no model was trained.
        """
        return _documents(self.similarity_search_with_score(query, k, filter=filter, deep_memory=deep_memory))

    async def asimilarity_search(
        self, query: str, k: int = 4, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> list[Document]:
        """`similarity_search` with the embedding model's own async."""
        found = await self.asimilarity_search_with_score(query, k, filter=filter, deep_memory=deep_memory)
        return _documents(found)

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> Scored:
        """`similarity_search` with cosine similarities."""
        vector = self._embedder().embed_query(query)
        return self.similarity_search_with_score_by_vector(vector, k, filter=filter, deep_memory=deep_memory)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> Scored:
        """`similarity_search_with_score` with the embedding model's own async."""
        vector = await self._embedder().aembed_query(query)
        return await run_in_executor(
            None, self.similarity_search_with_score_by_vector, vector, k, filter=filter, deep_memory=deep_memory
        )

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> list[Document]:
        """The k documents nearest to a vector, best first."""
        return _documents(self.similarity_search_with_score_by_vector(embedding, k, filter=filter, deep_memory=deep_memory))

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> Scored:
        """`similarity_search_by_vector` with cosine similarities."""
        found = self.store.search(self._moved(embedding, deep_memory), k, filter=filter)
        return [(_document(document), document.score or 0.0) for document in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        deep_memory: bool = False,
    ) -> list[Document]:
        """Return k documents out of the ``fetch_k`` nearest, relevant to the (moved) query and unlike each other."""
        vector = self._embedder().embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, filter=filter, deep_memory=deep_memory
        )

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        deep_memory: bool = False,
    ) -> list[Document]:
        """`max_marginal_relevance_search` with the embedding model's own async."""
        vector = await self._embedder().aembed_query(query)
        return await self.amax_marginal_relevance_search_by_vector(
            vector, k, fetch_k, lambda_mult, filter=filter, deep_memory=deep_memory
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        deep_memory: bool = False,
    ) -> list[Document]:
        """`max_marginal_relevance_search` for a vector."""
        query = self._moved(embedding, deep_memory)
        found = self.store.search(query, max(k, fetch_k), filter=filter, with_vectors=True)
        vectors: list[Any] = [document.vector for document in found]
        chosen = maximal_marginal_relevance(np.asarray(query), vectors, lambda_mult, k)
        return [_document(found[index]) for index in chosen]

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        deep_memory: bool = False,
    ) -> list[Document]:
        """`max_marginal_relevance_search_by_vector` off the event loop."""
        return await run_in_executor(
            None,
            self.max_marginal_relevance_search_by_vector,
            embedding,
            k,
            fetch_k,
            lambda_mult,
            filter=filter,
            deep_memory=deep_memory,
        )

    def _select_relevance_score_fn(self) -> Any:
        return lambda cosine: min(1.0, max(0.0, cosine))

    def _embedder(self) -> Embeddings:
        if self._embedding is None:
            raise StoreError("This DeepLake has no embedding model: pass DeepLake(dataset_path, embedding=…).")
        return self._embedding

    def _moved(self, vector: list[float], deep_memory: bool) -> Any:
        """The query vector, transformed where Deep Memory is asked for."""
        return self.deep_memory.transform(vector) if deep_memory else vector


def _document(found: StoredDocument) -> Document:
    return Document(id=found.id, page_content=found.text, metadata=found.metadata)


def _documents(found: Scored) -> list[Document]:
    return [document for document, _ in found]
