"""The retriever for LangChain: any vector store, searched with transformed queries."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore, VectorStoreRetriever
from pydantic import ConfigDict, Field, model_validator

from deepmem_integrations.corpora.langchain_stores import check_lengths, embeddings_of
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import StoreError
from deepmem_integrations.serving import MemoryLike, ServedAdapter

_SEARCHES = {
    "similarity": ("similarity_search_by_vector",),
    "mmr": ("max_marginal_relevance_search_by_vector",),
    # LangChain has no common name for a search by vector that returns scores; stores use one of these two names.
    "similarity_score_threshold": (
        "similarity_search_with_score_by_vector",
        "similarity_search_by_vector_with_relevance_scores",
    ),
}


class DeepMemoryRetriever(BaseRetriever):
    """Retrieve with Deep Memory from any vector store that searches by vector. The store is never changed.

    The retriever embeds the query with the store's own embedding model, transforms the query vector, and searches the store by
    vector. A model that is put in use later serves the next query. ``k``, ``deep_memory`` and the options of the store's search
    can be given for one call, ``retriever.invoke(query, k=3)``. In a chain,
    ``retriever.configurable_fields(k=ConfigurableField(id="k"))`` does the same.

    Args:
        vectorstore: The vector store to search.
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        k: How many documents to return. None leaves the number to the store, which is mostly 4.
        deep_memory: False returns plain results, as the store's own retriever would.
        search_type: ``"similarity"``; ``"mmr"``, which re-ranks with the transformed query; or ``"similarity_score_threshold"``,
            which uses the store's own relevance scores.
        search_kwargs: Options of the store's search: ``filter``, ``fetch_k``, ``score_threshold``, … ``k`` and ``deep_memory``
            may be given here, too.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
        ValidationError: An option is unknown or given twice, or a threshold search has no ``score_threshold``.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from deepmem_integrations import QueryAdapter
        >>> embeddings = DeterministicFakeEmbedding(size=8)
        >>> store = InMemoryVectorStore.from_texts(["Run git revert.", "Run git stash."], embeddings, ids=["doc-1", "doc-2"])
        >>> retriever = DeepMemoryRetriever(vectorstore=store, memory=QueryAdapter(8), k=1)
        >>> [document.id for document in retriever.invoke("Run git stash.")]
        ['doc-2']
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    vectorstore: VectorStore
    memory: Any
    k: int | None = Field(default=None, ge=1)
    deep_memory: bool = True
    search_type: Literal["similarity", "mmr", "similarity_score_threshold"] = "similarity"
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    # This is a field and no private attribute, because LangChain makes a new retriever from the fields for each configured call.
    served: ServedAdapter | None = Field(default=None, exclude=True, repr=False, description="The adapter behind memory.")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._serve()

    @model_validator(mode="before")
    @classmethod
    def _from_search_kwargs(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Move ``k`` and ``deep_memory`` from ``search_kwargs`` to the fields, so that they can be configured."""
        if not isinstance(options := values.get("search_kwargs"), dict):
            return values
        for name in ("k", "deep_memory"):
            if name in options:
                if values.get(name) is not None:
                    raise ValueError(f"{name} is given twice, directly and in search_kwargs: leave one of them out.")
                options = {key: value for key, value in options.items() if key != name}
                values = {**values, name: values["search_kwargs"][name], "search_kwargs": options}
        return values

    @model_validator(mode="after")
    def _has_a_threshold(self) -> "DeepMemoryRetriever":
        threshold = self.search_kwargs.get("score_threshold")
        if self.search_type == "similarity_score_threshold" and not isinstance(threshold, int | float):
            raise ValueError('search_type="similarity_score_threshold" needs search_kwargs={"score_threshold": a number}.')
        return self

    @classmethod
    def from_retriever(cls, retriever: VectorStoreRetriever, memory: MemoryLike) -> "DeepMemoryRetriever":
        """Return a retriever with Deep Memory that keeps a retriever's store, search type and options, name, tags and metadata.

        Args:
            retriever: A retriever that ``vectorstore.as_retriever(…)`` returned.
            memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.

        Raises:
            StoreError: The retriever does not search a vector store in the common way.

        Example:
            >>> from langchain_core.embeddings import DeterministicFakeEmbedding
            >>> from langchain_core.vectorstores import InMemoryVectorStore
            >>> from deepmem_integrations import QueryAdapter
            >>> plain = InMemoryVectorStore(DeterministicFakeEmbedding(size=8)).as_retriever(search_kwargs={"k": 2})
            >>> DeepMemoryRetriever.from_retriever(plain, memory=QueryAdapter(8)).k
            2
        """
        if (
            not isinstance(retriever, VectorStoreRetriever)
            or type(retriever)._get_relevant_documents is not VectorStoreRetriever._get_relevant_documents
        ):
            raise StoreError(
                f"from_retriever takes a retriever of vectorstore.as_retriever(); a {type(retriever).__name__} searches in its "
                "own way. Give its store DeepMemoryEmbeddings(embeddings, memory) as its embedding model instead."
            )
        kept = {name: getattr(retriever, name) for name in ("search_type", "name", "tags", "metadata")}
        return cls(vectorstore=retriever.vectorstore, memory=memory, search_kwargs=dict(retriever.search_kwargs), **kept)

    def _serve(self) -> ServedAdapter:
        """Return the adapter behind ``memory``, which may have been assigned anew, or replaced in a copy of the retriever."""
        if self.served is None or self.served.memory is not self.memory:
            self.served = ServedAdapter(self.memory)
        return self.served

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        **kwargs: Any,
    ) -> list[Document]:
        embeddings, deep_memory, options = self._request(kwargs)
        if embeddings is None:
            return self.vectorstore.search(query, self.search_type, **options)
        name, options, threshold = self._by_vector(options)
        vector = embeddings.embed_query(query)
        if deep_memory:
            vector = self._transform(vector, embeddings)
        with self._not_implemented():
            return self._above(threshold, getattr(self.vectorstore, name)(vector, **options))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        **kwargs: Any,
    ) -> list[Document]:
        embeddings, deep_memory, options = self._request(kwargs)
        if embeddings is None:
            plain: list[Document] = await self._call("search", query, self.search_type, **options)
            return plain
        name, options, threshold = self._by_vector(options)
        vector = await embeddings.aembed_query(query)
        if deep_memory:
            # The first query embeds a few texts to check the embedding model, and a model that was put in use is read from disk.
            vector = await run_in_executor(None, self._transform, vector, embeddings)
        with self._not_implemented():
            return self._above(threshold, await self._call(name, vector, **options))

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        """Call a method of the store: its async method where there is one, otherwise the method in a thread."""
        # A PGVector that was opened without async_mode refuses its own async methods.
        if getattr(self.vectorstore, "async_mode", True) and hasattr(self.vectorstore, f"a{name}"):
            return await getattr(self.vectorstore, f"a{name}")(*args, **options)
        return await run_in_executor(None, getattr(self.vectorstore, name), *args, **options)

    def _request(self, kwargs: dict[str, Any]) -> tuple[Embeddings | None, bool, dict[str, Any]]:
        """Return the embedding model for the query, whether to transform the query, and the options for the store.

        The embedding model is None where the store's own search by text gives the right results.
        """
        options = {"k": self.k, "deep_memory": self.deep_memory, **self.search_kwargs, **kwargs}
        deep_memory = options.pop("deep_memory")
        if options["k"] is None:
            del options["k"]
        if not deep_memory and (self.vectorstore.embeddings is None or not hasattr(self.vectorstore.embeddings, "untransformed")):
            return None, False, options
        return embeddings_of(self.vectorstore), deep_memory, options

    def _by_vector(self, options: dict[str, Any]) -> tuple[str, dict[str, Any], float | None]:
        """Return the name of the store's method, the options of the method, and the lowest relevance score to keep.

        Raises:
            StoreError: The store does not search by vector alone, or it returns no scores when it searches by vector.
        """
        store, kind = self.vectorstore, type(self.vectorstore).__name__
        instead = f"Make the {kind} with DeepMemoryEmbeddings(embeddings, memory) as its embedding model instead"
        mode = getattr(store, "retrieval_mode", "dense")
        hybrid = getattr(getattr(store, "_PGVectorStore__vs", store), "hybrid_search_config", None)
        if getattr(mode, "value", mode) != "dense" or hybrid is not None:
            raise StoreError(
                f"This {kind} does not search by vector alone (it is set up for hybrid or sparse search), and a search by the "
                f"transformed vector would leave the rest out. {instead}, and keep its search_type."
            )
        name = next((name for name in _SEARCHES[self.search_type] if hasattr(store, name)), None)
        if name is None:
            raise StoreError(
                f"{kind} gives no scores when it searches by vector, so nothing can be compared with score_threshold. {instead}, "
                'and use its own as_retriever(search_type="similarity_score_threshold").'
            )
        threshold = options.pop("score_threshold") if self.search_type == "similarity_score_threshold" else None
        return name, options, threshold

    def _above(self, threshold: float | None, found: list[Any]) -> list[Document]:
        """Return the documents; where they have scores, those whose relevance score (0 to 1) reaches the threshold."""
        if threshold is None:
            return found
        # InMemoryVectorStore has no function for relevance scores; its scores are cosine similarities and are taken as they are.
        same = isinstance(self.vectorstore, InMemoryVectorStore)
        relevance = float if same else self.vectorstore._select_relevance_score_fn()
        return [document for document, score in found if relevance(score) >= threshold]

    def _transform(self, vector: list[float], embeddings: Embeddings) -> list[float]:
        check_lengths(self.vectorstore)
        return self._serve().transform(vector, embeddings)

    @contextlib.contextmanager
    def _not_implemented(self) -> Iterator[None]:
        try:
            yield
        except NotImplementedError as error:
            raise StoreError(
                f"{type(self.vectorstore).__name__} cannot be searched by vector in this way ({error!r}). Make it with "
                "DeepMemoryEmbeddings(embeddings, memory) as its embedding model, and use its own retriever."
            ) from error

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        parameters: dict[str, Any] = {**super()._get_ls_params(**kwargs)}
        parameters["ls_vector_store_provider"] = type(self.vectorstore).__name__
        if self.vectorstore.embeddings is not None:
            embeddings = embeddings_of(self.vectorstore)
            parameters["ls_embedding_provider"] = type(embeddings).__name__
            parameters["embedding_model"] = Embedder(embeddings).name
        parameters["deep_memory"] = self._serve().name if self._request(kwargs)[1] else "off"
        return parameters  # type: ignore[return-value]
