"""The Deep Lake v4 vector store for LangChain, with Deep Lake v3's ``deep_memory=True``."""

# Searches name their options one by one, so that a misspelt or unknown one is an error and not ignored.
# mypy: disable-error-code="override"

import os
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypedDict, Unpack

import numpy as np
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from deepmem_integrations.corpora.deeplake import DeepLakeCorpus
from deepmem_integrations.deeplake import DeepLakeStore, Filter, Metric, StoredDocument
from deepmem_integrations.deeplake.v3_arguments import warn_of_replaced
from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain.v3_dataset import V3Dataset
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.models import beside

Scored = list[tuple[Document, float]]


class SearchOptions(TypedDict, total=False):
    """What every search of `DeepLake` takes.

    Attributes:
        filter: Metadata the documents must have.
        deep_memory: Transform the query with the trained model. Without one, a ModelNotFoundError.
        distance_metric: ``"cos"``, the default, with similarities as scores (best: 1); or ``"l2"``, with distances (best: 0).
    """

    filter: Filter | None
    deep_memory: bool
    distance_metric: str | None


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
        ingestion_batch_size: As the next five, an argument of Deep Lake v3 that is ignored, with a warning that says what
            replaces it. They keep their places for programs that pass arguments by position.
        num_workers: Ignored.
        verbose: Ignored.
        exec_option: Ignored.
        runtime: Ignored.
        index_params: Ignored.
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
        ingestion_batch_size: int | None = None,
        num_workers: int | None = None,
        verbose: bool | None = None,
        exec_option: str | None = None,
        runtime: Mapping[str, Any] | None = None,
        index_params: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = False,
        creds: Mapping[str, str] | None = None,
        deep_memory_path: str | os.PathLike[str] | None = None,
    ) -> None:
        if embedding is not None and embedding_function is not None:
            raise StoreError("embedding and embedding_function are two names for the same thing: pass one.")
        self._embedding = embedding if embedding is not None else embedding_function
        if self._embedding is not None and not hasattr(self._embedding, "embed_query"):
            raise StoreError(f"embedding is a LangChain Embeddings; got {type(self._embedding).__name__}.")
        warn_of_replaced(
            {
                "ingestion_batch_size": ingestion_batch_size,
                "num_workers": num_workers,
                "verbose": verbose,
                "exec_option": exec_option,
                "runtime": runtime,
                "index_params": index_params,
            }
        )
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
            self._deep_memory = DeepMemory(self.corpus(), self._embedder(), self.deep_memory_path)
        return self._deep_memory

    @property
    def deep_memory_path(self) -> str | os.PathLike[str]:
        """The folder for trained models.

        Raises:
            StoreError: The data set is not local, and no folder was given.
        """
        return beside(self.store.path) if self._deep_memory_path is None else self._deep_memory_path

    def corpus(self) -> DeepLakeCorpus:
        """All documents, for training."""
        return DeepLakeCorpus(self.store, _document)

    @property
    def vectorstore(self) -> "DeepLake":
        """The store itself: v3 spelled ``db.vectorstore.deep_memory``."""
        return self

    @property
    def dataset(self) -> V3Dataset:
        """The data set: v3 spelled ``db.vectorstore.dataset``."""
        return V3Dataset(self.store)

    def ds(self) -> V3Dataset:
        """The data set, as in v3; ``ds().query(tql)`` and the like are Deep Lake v4's own."""
        return self.dataset

    # ---- writing and reading -----------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
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

    def delete(self, ids: Sequence[str] | None = None, filter: Filter | None = None, delete_all: bool = False) -> bool:
        """Delete documents by id, by metadata, or all of them.

        Raises:
            StoreError: Not exactly one of the three.
        """
        if (ids is not None) + (filter is not None) + bool(delete_all) != 1 or filter == {}:
            raise StoreError("Pass exactly one of: ids, a filter that is not empty, delete_all=True.")
        if delete_all:
            self.store.clear()
        else:
            self.store.delete(ids if ids is not None else [found.id for found in self.store.find(filter)])
        return True

    def delete_dataset(self) -> None:
        """Delete the whole data set: `delete` with ``delete_all=True``, by v3's name. Trained models stay."""
        self.delete(delete_all=True)

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
        self, query: str | None = None, k: int = 4, *, tql: str | None = None, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """The k documents nearest to the query, best first; see `SearchOptions`.

        Args:
            query: The text.
            k: How many.
            tql: A query in Deep Lake's own language in place of all that: ``SELECT * WHERE …``, with its own LIMIT.
            options: ``filter``, ``deep_memory``, ``distance_metric``.

        Raises:
            ModelNotFoundError: ``deep_memory=True`` and no model was trained.
            StoreError: ``tql`` together with options or with neither, or something that Deep Lake v4 cannot do.
        """
        if tql is not None:
            return self._query(tql, options)
        return _documents(self.similarity_search_with_score(_text(query), k, **options))

    async def asimilarity_search(
        self, query: str | None = None, k: int = 4, *, tql: str | None = None, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """`similarity_search` with the embedding model's own async."""
        if tql is not None:
            return await run_in_executor(None, self._query, tql, options)
        return _documents(await self.asimilarity_search_with_score(_text(query), k, **options))

    def similarity_search_with_score(self, query: str, k: int = 4, **options: Unpack[SearchOptions]) -> Scored:
        """`similarity_search` with scores."""
        return self.similarity_search_with_score_by_vector(self._embed(query, options), k, **options)

    async def asimilarity_search_with_score(self, query: str, k: int = 4, **options: Unpack[SearchOptions]) -> Scored:
        """`similarity_search_with_score` with the embedding model's own async."""
        vector = await self._aembed(query, options)
        return await run_in_executor(None, self.similarity_search_with_score_by_vector, vector, k, **options)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Unpack[SearchOptions]) -> list[Document]:
        """The k documents nearest to a vector, best first."""
        return _documents(self.similarity_search_with_score_by_vector(embedding, k, **options))

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **options: Unpack[SearchOptions]
    ) -> Scored:
        """`similarity_search_by_vector` with scores."""
        found = self._search(embedding, k, **options)[1]
        return [(_document(document), document.score or 0.0) for document in found]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """Return k documents out of the ``fetch_k`` nearest, relevant to the (moved) query and unlike each other."""
        vector = self._embed(query, options)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **options)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """`max_marginal_relevance_search` with the embedding model's own async."""
        vector = await self._aembed(query, options)
        return await self.amax_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **options)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """`max_marginal_relevance_search` for a vector."""
        query, found = self._search(embedding, max(k, fetch_k), with_vectors=True, **options)
        vectors: list[Any] = [document.vector for document in found]
        chosen = maximal_marginal_relevance(np.asarray(query), vectors, lambda_mult, k)
        return [_document(found[index]) for index in chosen]

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """`max_marginal_relevance_search_by_vector` off the event loop."""
        search = self.max_marginal_relevance_search_by_vector
        return await run_in_executor(None, search, embedding, k, fetch_k, lambda_mult, **options)

    def hybrid_search(
        self, query: str, k: int = 4, fetch_k: int = 50, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> list[Document]:
        """Search by vector and by words (BM25), and fuse the two rankings; see `DeepLakeStore.hybrid_search`.

        The data set needs a text index, which ``db.store.create_text_index()`` makes.

        Args:
            query: The text.
            k: How many documents to return.
            fetch_k: How many of each ranking take part.
            filter: Metadata the documents must have.
            deep_memory: Transform the query with the trained model; the words stay as they are.

        Raises:
            StoreError: There is no text index.
        """
        vector = self._embed(query, {"deep_memory": deep_memory})
        return self._fuse(query, vector, k, fetch_k, filter, deep_memory)

    async def ahybrid_search(
        self, query: str, k: int = 4, fetch_k: int = 50, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> list[Document]:
        """`hybrid_search` with the embedding model's own async."""
        vector = await self._aembed(query, {"deep_memory": deep_memory})
        return await run_in_executor(None, self._fuse, query, vector, k, fetch_k, filter, deep_memory)

    def search(self, query: str, search_type: str, **options: Any) -> list[Document]:
        """Any search by its name: ``similarity``, ``mmr``, ``similarity_score_threshold`` or ``hybrid``."""
        if search_type == "hybrid":
            return self.hybrid_search(query, **options)
        return super().search(query, search_type, **options)

    async def asearch(self, query: str, search_type: str, **options: Any) -> list[Document]:
        """`search` with the embedding model's own async."""
        if search_type == "hybrid":
            return await self.ahybrid_search(query, **options)
        return await super().asearch(query, search_type, **options)

    def as_retriever(self, **options: Any) -> VectorStoreRetriever:
        """A retriever over this store, as of any LangChain store; ``search_type="hybrid"`` is one more."""
        if options.get("search_type") != "hybrid":
            return super().as_retriever(**options)
        return HybridRetriever(vectorstore=self, **{"tags": self._get_retriever_tags(), **options})

    def _select_relevance_score_fn(self) -> Any:
        return lambda cosine: min(1.0, max(0.0, cosine))

    def _similarity_search_with_relevance_scores(self, query: str, k: int = 4, **options: Any) -> Scored:
        _must_be_cosine(options)
        return super()._similarity_search_with_relevance_scores(query, k, **options)

    async def _asimilarity_search_with_relevance_scores(self, query: str, k: int = 4, **options: Any) -> Scored:
        _must_be_cosine(options)
        return await super()._asimilarity_search_with_relevance_scores(query, k, **options)

    def _embedder(self) -> Embeddings:
        if self._embedding is None:
            raise StoreError("This DeepLake has no embedding model: pass DeepLake(dataset_path, embedding=…).")
        return self._embedding

    def _query_embedder(self, options: SearchOptions) -> Embeddings:
        """The embedding model; below our own wrapper where the store itself transforms the query."""
        model: Embeddings = untransformed(self._embedder()) if options.get("deep_memory") else self._embedder()
        return model

    def _embed(self, query: str, options: SearchOptions) -> list[float]:
        return self._query_embedder(options).embed_query(query)

    async def _aembed(self, query: str, options: SearchOptions) -> list[float]:
        return await self._query_embedder(options).aembed_query(query)

    def _transformed(self, vector: list[float], deep_memory: bool) -> list[float]:
        """Transform the query vector if Deep Memory is asked for, and only once."""
        return self.deep_memory.served.transform(vector, self.deep_memory.embedder) if deep_memory else vector

    def _search(
        self,
        vector: list[float],
        k: int,
        *,
        filter: Filter | None = None,
        deep_memory: bool = False,
        distance_metric: str | None = None,
        with_vectors: bool = False,
    ) -> tuple[Any, list[StoredDocument]]:
        """The query vector as it was searched, and what was found."""
        metric = _metric(distance_metric)
        if metric != "cos" and deep_memory:
            raise StoreError(
                f"Deep Memory works on cosine similarity: leave distance_metric={distance_metric!r} out (with stored vectors of "
                "length 1 both rank alike), or search with deep_memory=False."
            )
        query = self._transformed(vector, deep_memory)
        return query, self.store.search(query, k, filter=filter, with_vectors=with_vectors, metric=metric)

    def _fuse(
        self, query: str, vector: list[float], k: int, fetch_k: int, filter: Filter | None, deep_memory: bool
    ) -> list[Document]:
        found = self.store.hybrid_search(query, self._transformed(vector, deep_memory), k, fetch_k=fetch_k, filter=filter)
        return [_document(document) for document in found]

    def _query(self, tql: str, options: SearchOptions) -> list[Document]:
        if used := [name for name, value in options.items() if value]:
            raise StoreError(f"A TQL query says itself what to find: write {', '.join(used)} into it, or leave tql out.")
        return [_document(found) for found in self.store.query(tql)]


class HybridRetriever(VectorStoreRetriever):
    """What ``DeepLake.as_retriever(search_type="hybrid")`` gives: LangChain's own retriever knows no such search."""

    allowed_search_types: ClassVar[Collection[str]] = ("hybrid",)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self.vectorstore.search(query, self.search_type, **(self.search_kwargs | kwargs))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await self.vectorstore.asearch(query, self.search_type, **(self.search_kwargs | kwargs))


def _metric(name: str | None) -> Metric:
    """Deep Lake v3's name of a distance metric as one that v4 has."""
    metrics: dict[str, Metric] = {"cos": "cos", "l2": "l2"}
    if name is None:
        return "cos"
    if str(name).lower() not in metrics:
        raise StoreError(f"Deep Lake v4 cannot rank by distance_metric={name!r}; it can by 'cos' and 'l2'.")
    return metrics[name.lower()]


def _must_be_cosine(options: Mapping[str, Any]) -> None:
    if _metric(options.get("distance_metric")) != "cos":
        raise StoreError(
            "Relevance scores are cosine similarities: leave distance_metric out, or take similarity_search_with_score."
        )


def _text(query: str | None) -> str:
    if query is None:
        raise StoreError("Pass a query, or tql=…")
    return query


def _document(found: StoredDocument) -> Document:
    return Document(id=found.id, page_content=found.text, metadata=found.metadata)


def _documents(found: Scored) -> list[Document]:
    return [document for document, _ in found]
