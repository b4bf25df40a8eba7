"""The Deep Lake v4 vector store for LangChain, with Deep Lake v3's ``deep_memory=True``."""

# The searches name their options one by one, so that a misspelt or unknown option is an error and is not ignored.
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

from deepmem_integrations._ordered import ordered
from deepmem_integrations.corpora.deeplake import DeepLakeCorpus
from deepmem_integrations.deeplake import DeepLakeStore, Filter, Metric, StoredDocument
from deepmem_integrations.deeplake.v3_arguments import check_search, warn_of_replaced
from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain.v3_dataset import V3Dataset
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.models import beside, check_outside

Scored = list[tuple[Document, float]]

_TAKES = "filter, deep_memory and distance_metric"
_MMR_SEARCH = 'max_marginal_relevance_search(query, k, fetch_k), or as_retriever(search_type="mmr", …)'
_MMR_ASKED = ("maximal_marginal_relevance", "use_maximal_marginal_relevance")
"""How programs for v3 ask a search by maximal marginal relevance to be one."""


class SearchOptions(TypedDict, total=False):
    """The options that every search of `DeepLake` takes.

    Deep Lake v3's ``exec_option``, ``runtime``, ``num_workers`` and ``verbose`` are ignored with a warning.

    Attributes:
        filter: The metadata that the documents must have.
        deep_memory: Transform the query with the trained model. A search without a trained model raises a ModelNotFoundError.
        distance_metric: ``"cos"``, the default, scores documents by cosine similarity (best: 1); ``"l2"`` scores them by
            distance (best: 0).
    """

    filter: Filter | None
    deep_memory: bool
    distance_metric: str | None


class DeepLake(VectorStore):
    """A LangChain vector store in a Deep Lake v4 data set, with Deep Memory.

    Train with ``db.deep_memory.train(queries, relevance)`` (``db.vectorstore.deep_memory`` works as in v3), then search with
    ``deep_memory=True``, or use ``db.as_retriever(search_kwargs={"deep_memory": True})``. Scores are cosine similarities. A
    negative similarity has the relevance score 0.

    Args:
        dataset_path: A local folder, ``mem://…``, ``s3://…``, ``gcs://…``, ``az://…`` or ``al://…``.
        token: The Activeloop token for an ``al://`` path.
        embedding: The embedding model. Everything but a search by vector needs one.
        embedding_function: The other name of ``embedding`` in v3.
        read_only: Open the data set without the right to write.
        ingestion_batch_size: Ignored, as are the five arguments from here to ``index_params``. Deep Lake v3 had these arguments;
            they keep their places for programs that pass arguments by position. A warning says what replaces them.
        num_workers: Ignored: see ``ingestion_batch_size``.
        verbose: Ignored: see ``ingestion_batch_size``.
        exec_option: Ignored: see ``ingestion_batch_size``.
        runtime: Ignored: see ``ingestion_batch_size``.
        index_params: Ignored: see ``ingestion_batch_size``.
        overwrite: Start with an empty data set. An existing data set is deleted.
        creds: The credentials of the cloud storage.
        deep_memory_path: The folder for trained models. By default the folder lies beside a local data set and has its name with
            ``.deepmemory`` appended.

    Raises:
        StoreError: The data set cannot be opened, both names of the embedding model are used, or ``deep_memory_path`` is the data
            set's own folder or lies in it.

    Example:
        >>> import tempfile
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     db = DeepLake(f"{folder}/docs", embedding=DeterministicFakeEmbedding(size=8))
        ...     ids = db.add_texts(["Run git revert.", "Run git stash."], ids=["doc-1", "doc-2"])
        ...     [document.id for document in db.similarity_search("Run git stash.", k=1)]
        ['doc-2']
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
        if deep_memory_path is not None:
            check_outside(deep_memory_path, dataset_path)  # before anything is overwritten
        self.store = DeepLakeStore(dataset_path, read_only=read_only, overwrite=overwrite, token=token, creds=creds)
        self._deep_memory_path = deep_memory_path
        self._deep_memory: DeepMemory | None = None

    @property
    def embeddings(self) -> Embeddings | None:
        """The embedding model."""
        return self._embedding

    @property
    def deep_memory(self) -> DeepMemory:
        """The `DeepMemory` of this store, which trains, evaluates and chooses its models.

        Raises:
            StoreError: There is no embedding model, or no folder for the models: the data set is not local, and no
                ``deep_memory_path`` was given.
        """
        if self._deep_memory is None:
            self._deep_memory = DeepMemory(self.corpus(), self._embedder(), self.deep_memory_path)
        return self._deep_memory

    @property
    def deep_memory_path(self) -> str | os.PathLike[str]:
        """The folder for trained models.

        Raises:
            StoreError: The data set is not local, and no ``deep_memory_path`` was given.
        """
        return beside(self.store.path) if self._deep_memory_path is None else self._deep_memory_path

    def corpus(self) -> DeepLakeCorpus:
        """Return all documents, for training."""
        return DeepLakeCorpus(self.store, _document)

    @property
    def vectorstore(self) -> "DeepLake":
        """The store itself, because programs for v3 write ``db.vectorstore.deep_memory``."""
        return self

    @property
    def dataset(self) -> V3Dataset:
        """The data set, because programs for v3 write ``db.vectorstore.dataset``."""
        return V3Dataset(self.store)

    def ds(self) -> V3Dataset:
        """Return the data set, as in v3. Methods such as ``ds().query(tql)`` are those of Deep Lake v4."""
        return self.dataset

    # ---- writing and reading -----------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        ids: Sequence[str | None] | None = None,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
    ) -> list[str]:
        """Embed texts and add them in one commit, replacing documents of the same id.

        Args:
            texts: The texts of the documents.
            metadatas: A JSON-like dict for each text.
            ids: An id for each text. An id is made up where it is None.
            batch_size: How many texts to embed in one call of the embedding model, as ``langchain_core.indexing.index`` asks for;
                by default all.
            num_workers: Ignored, with a warning, as in the constructor.

        Returns:
            The ids of the documents.
        """
        warn_of_replaced({"num_workers": num_workers})
        texts = ordered(texts, "texts", StoreError)
        given = [None] * len(texts) if ids is None else ordered(ids, "ids", StoreError)
        names = [name or str(uuid.uuid4()) for name in given]
        if texts:
            model = self._embedder()
            vectors = [vector for batch in _batches(texts, batch_size) for vector in model.embed_documents(batch)]
            self.store.add(names, vectors, texts, metadatas)
        return names

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        ids: Sequence[str | None] | None = None,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
    ) -> list[str]:
        """Do the same as `add_texts` with the embedding model's async methods."""
        warn_of_replaced({"num_workers": num_workers})
        texts = ordered(texts, "texts", StoreError)
        given = [None] * len(texts) if ids is None else ordered(ids, "ids", StoreError)
        names = [name or str(uuid.uuid4()) for name in given]
        if texts:
            model = self._embedder()
            vectors = [vector for batch in _batches(texts, batch_size) for vector in await model.aembed_documents(batch)]
            await run_in_executor(None, self.store.add, names, vectors, texts, metadatas)
        return names

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids. Unknown ids are left out."""
        return [_document(found) for found in self.store.get(ids)]

    def delete(self, ids: Sequence[str] | None = None, filter: Filter | None = None, delete_all: bool = False) -> bool:
        """Delete the documents with these ids, the documents with this metadata, or all documents.

        Raises:
            StoreError: Not exactly one of the three arguments is given, or the filter is empty.
        """
        if (ids is not None) + (filter is not None) + bool(delete_all) != 1 or filter == {}:
            raise StoreError("Pass exactly one of: ids, a filter that is not empty, delete_all=True.")
        if delete_all:
            self.store.clear()
        else:
            self.store.delete(ids if ids is not None else [found.id for found in self.store.find(filter)])
        return True

    def delete_dataset(self) -> None:
        """Delete the whole data set, as ``delete(delete_all=True)`` does. Trained models stay. The method has the name of v3."""
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
        """Open or create a data set and add texts. ``kwargs`` are passed to the constructor."""
        store = cls(dataset_path, embedding=embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    # ---- searching ---------------------------------------------------------------------------------------------

    def similarity_search(
        self, query: str | None = None, k: int = 4, *, tql: str | None = None, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """Return the k documents nearest to the query, best first.

        Args:
            query: The text of the query.
            k: How many documents to return.
            tql: A query in Deep Lake's own language, in place of all other arguments: ``SELECT * WHERE …``. Its LIMIT sets the
                number of documents.
            options: ``filter``, ``deep_memory`` and ``distance_metric``: see `SearchOptions`.

        Raises:
            ModelNotFoundError: ``deep_memory`` is True, and there is no trained model yet.
            StoreError: ``tql`` is given together with options, neither ``tql`` nor ``query`` is given, or Deep Lake v4 cannot
                search in this way.
        """
        if tql is not None:
            return self._query(tql, options)
        return _documents(self.similarity_search_with_score(_text(query), k, **options))

    async def asimilarity_search(
        self, query: str | None = None, k: int = 4, *, tql: str | None = None, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """Do the same as `similarity_search` with the embedding model's async methods."""
        if tql is not None:
            return await run_in_executor(None, self._query, tql, options)
        return _documents(await self.asimilarity_search_with_score(_text(query), k, **options))

    def similarity_search_with_score(self, query: str, k: int = 4, **options: Unpack[SearchOptions]) -> Scored:
        """Return the k documents nearest to the query with their scores, best first."""
        return self.similarity_search_with_score_by_vector(self._embed(query, options), k, **options)

    async def asimilarity_search_with_score(self, query: str, k: int = 4, **options: Unpack[SearchOptions]) -> Scored:
        """Do the same as `similarity_search_with_score` with the embedding model's async methods."""
        vector = await self._aembed(query, options)
        return await run_in_executor(None, self.similarity_search_with_score_by_vector, vector, k, **options)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **options: Unpack[SearchOptions]) -> list[Document]:
        """Return the k documents nearest to a query vector, best first."""
        return _documents(self.similarity_search_with_score_by_vector(embedding, k, **options))

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **options: Unpack[SearchOptions]
    ) -> Scored:
        """Return the k documents nearest to a query vector with their scores, best first."""
        found = self._search(embedding, k, **options)[1]
        return [(_document(document), document.score or 0.0) for document in found]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """Return k documents out of the ``fetch_k`` nearest that are near the query and unlike each other (MMR).

        With ``deep_memory=True``, nearness is measured to the transformed query.
        """
        vector = self._embed(query, options)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **options)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """Do the same as `max_marginal_relevance_search` with the embedding model's async methods."""
        vector = await self._aembed(query, options)
        return await self.amax_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **options)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """Return the documents that `max_marginal_relevance_search` finds for a query vector."""
        asked: dict[str, Any] = {name: value for name, value in options.items() if name not in _MMR_ASKED}
        query, found = self._search(embedding, max(k, fetch_k), with_vectors=True, **asked)
        vectors: list[Any] = [document.vector for document in found]
        chosen = maximal_marginal_relevance(np.asarray(query), vectors, lambda_mult, k)
        return [_document(found[index]) for index in chosen]

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **options: Unpack[SearchOptions]
    ) -> list[Document]:
        """Run `max_marginal_relevance_search_by_vector` in a thread, off the event loop."""
        search = self.max_marginal_relevance_search_by_vector
        return await run_in_executor(None, search, embedding, k, fetch_k, lambda_mult, **options)

    def hybrid_search(
        self, query: str, k: int = 4, fetch_k: int = 50, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> list[Document]:
        """Search by vector and by words (BM25), and fuse the two rankings; see `DeepLakeStore.hybrid_search`.

        The data set needs a text index, which ``db.store.create_text_index()`` makes.

        Args:
            query: The text of the query.
            k: How many documents to return.
            fetch_k: How many documents of each ranking take part.
            filter: The metadata that the documents must have.
            deep_memory: Transform the query vector with the trained model. The search by words is not changed.

        Raises:
            ModelNotFoundError: ``deep_memory`` is True, and there is no trained model yet.
            StoreError: The data set has no text index.
        """
        vector = self._embed(query, {"deep_memory": deep_memory})
        return self._fuse(query, vector, k, fetch_k, filter, deep_memory)

    async def ahybrid_search(
        self, query: str, k: int = 4, fetch_k: int = 50, *, filter: Filter | None = None, deep_memory: bool = False
    ) -> list[Document]:
        """Do the same as `hybrid_search` with the embedding model's async methods."""
        vector = await self._aembed(query, {"deep_memory": deep_memory})
        return await run_in_executor(None, self._fuse, query, vector, k, fetch_k, filter, deep_memory)

    def search(self, query: str = "", search_type: str = "", **options: Any) -> list[Document]:
        """Run a search by its name: ``similarity``, ``mmr``, ``similarity_score_threshold`` or ``hybrid``.

        Raises:
            StoreError: The arguments are those of the search of v3's own vector store.
        """
        if not search_type:
            raise StoreError(
                "search takes a query and the name of a search type. What v3's vectorstore.search(embedding_data=…) found, "
                "similarity_search(query, k, deep_memory=True) and similarity_search_by_vector(embedding, k) find as documents."
            )
        if search_type == "hybrid":
            return self.hybrid_search(query, **options)
        return super().search(query, search_type, **options)

    async def asearch(self, query: str, search_type: str, **options: Any) -> list[Document]:
        """Do the same as `search` with the embedding model's async methods."""
        if search_type == "hybrid":
            return await self.ahybrid_search(query, **options)
        return await super().asearch(query, search_type, **options)

    def as_retriever(self, **options: Any) -> VectorStoreRetriever:
        """Return a retriever over this store, as any LangChain store does. ``search_type="hybrid"`` is one more search type."""
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
        """Return the embedding model, without its Deep Memory wrapper where the store itself transforms the query."""
        model: Embeddings = untransformed(self._embedder()) if options.get("deep_memory") else self._embedder()
        return model

    def _embed(self, query: str, options: SearchOptions) -> list[float]:
        return self._query_embedder(options).embed_query(query)

    async def _aembed(self, query: str, options: SearchOptions) -> list[float]:
        return await self._query_embedder(options).aembed_query(query)

    def _transformed(self, vector: list[float], deep_memory: bool) -> list[float]:
        """Transform the query vector if ``deep_memory`` is True, unless it has been transformed before."""
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
        **others: Any,
    ) -> tuple[Any, list[StoredDocument]]:
        """Return the query vector that the store was searched with, and the documents that were found."""
        check_search(others, _TAKES, _MMR_SEARCH)
        metric = _metric(distance_metric)
        if metric != "cos" and deep_memory:
            raise StoreError(
                f"Deep Memory works on cosine similarity: leave distance_metric={distance_metric!r} out (with stored vectors of "
                "length 1 both metrics rank alike), or search with deep_memory=False."
            )
        query = self._transformed(vector, deep_memory)
        return query, self.store.search(query, k, filter=filter, with_vectors=with_vectors, metric=metric)

    def _fuse(
        self, query: str, vector: list[float], k: int, fetch_k: int, filter: Filter | None, deep_memory: bool
    ) -> list[Document]:
        found = self.store.hybrid_search(query, self._transformed(vector, deep_memory), k, fetch_k=fetch_k, filter=filter)
        return [_document(document) for document in found]

    def _query(self, tql: str, options: SearchOptions) -> list[Document]:
        others: dict[str, Any] = {name: value for name, value in options.items() if name not in SearchOptions.__annotations__}
        check_search(others, _TAKES, _MMR_SEARCH)
        if used := [name for name, value in options.items() if value and name not in others]:
            raise StoreError(f"A TQL query replaces all other options: write {', '.join(used)} into it, or leave tql out.")
        return [_document(found) for found in self.store.query(tql)]


class HybridRetriever(VectorStoreRetriever):
    """The retriever of ``DeepLake.as_retriever(search_type="hybrid")``, because LangChain's own allows no hybrid search."""

    allowed_search_types: ClassVar[Collection[str]] = ("hybrid",)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self.vectorstore.search(query, self.search_type, **(self.search_kwargs | kwargs))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await self.vectorstore.asearch(query, self.search_type, **(self.search_kwargs | kwargs))


def _batches(texts: list[str], size: int | None) -> list[list[str]]:
    """Split texts into batches of this size; None makes one batch."""
    if size is None:
        return [texts]
    if not isinstance(size, int | np.integer) or size < 1:
        raise StoreError(f"batch_size is a number of texts, 1 or more; got {size!r}.")
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def _metric(name: str | None) -> Metric:
    """Return the metric of Deep Lake v4 that has this name in v3."""
    metrics: dict[str, Metric] = {"cos": "cos", "l2": "l2"}
    if name is None:
        return "cos"
    if str(name).lower() not in metrics:
        raise StoreError(f"Deep Lake v4 cannot rank by distance_metric={name!r}: use 'cos' or 'l2'.")
    return metrics[name.lower()]


def _must_be_cosine(options: Mapping[str, Any]) -> None:
    if _metric(options.get("distance_metric")) != "cos":
        raise StoreError(
            "Relevance scores are cosine similarities: leave distance_metric out, or use similarity_search_with_score."
        )


def _text(query: str | None) -> str:
    if query is None:
        raise StoreError("Pass a query, or tql=….")
    return query


def _document(found: StoredDocument) -> Document:
    return Document(id=found.id, page_content=found.text, metadata=found.metadata)


def _documents(found: Scored) -> list[Document]:
    return [document for document, _ in found]
