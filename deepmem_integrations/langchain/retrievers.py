"""The retriever to swap in: any LangChain vector store, searched with transformed queries."""

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
    # LangChain has no common name for a search by vector that gives scores.
    "similarity_score_threshold": (
        "similarity_search_with_score_by_vector",
        "similarity_search_by_vector_with_relevance_scores",
    ),
}


class DeepMemoryRetriever(BaseRetriever):
    """Retrieve with Deep Memory from any vector store that searches by vector. The store is never changed.

    The query is embedded with the store's own embedding model, transformed, and searched by vector. A model that is put in
    use meanwhile serves the next query. ``k``, ``deep_memory`` and what the store's search takes can be given for one call,
    ``retriever.invoke(query, k=3)``; in a chain, ``retriever.configurable_fields(k=ConfigurableField(id="k"))`` does the same.

    Args:
        vectorstore: The store.
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        k: How many documents to return; None for as many as the store returns by itself (mostly 4).
        deep_memory: False gives the store's own results, as its own retriever would.
        search_type: ``"similarity"``; ``"mmr"`` (re-ranked with the transformed query); or ``"similarity_score_threshold"``
            (by the store's own relevance scores).
        search_kwargs: Passed to the store's search: ``filter``, ``fetch_k``, ``score_threshold``, … ``k`` and ``deep_memory``
            may stand here instead.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
        ValidationError: An unknown option, or a threshold search without ``score_threshold``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    vectorstore: VectorStore
    memory: Any
    k: int | None = Field(default=None, ge=1)
    deep_memory: bool = True
    search_type: Literal["similarity", "mmr", "similarity_score_threshold"] = "similarity"
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    # A field and no private attribute, since LangChain makes a new retriever from the fields for each configured call.
    served: ServedAdapter | None = Field(default=None, exclude=True, repr=False, description="What memory was read as.")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._serve()

    @model_validator(mode="before")
    @classmethod
    def _from_search_kwargs(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Let ``k`` and ``deep_memory`` be fields, wherever they were written, so that they can be configured."""
        if not isinstance(options := values.get("search_kwargs"), dict):
            return values
        for name in ("k", "deep_memory"):
            if name in options:
                if values.get(name) is not None:
                    raise ValueError(f"{name} is given twice, as itself and in search_kwargs: leave one of them out.")
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
        """The same retriever with Deep Memory: its store, search type, search options, name, tags and metadata are kept.

        Args:
            retriever: What ``vectorstore.as_retriever(…)`` gave.
            memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.

        Raises:
            StoreError: A retriever that does not search a vector store in the common way.
        """
        if (
            not isinstance(retriever, VectorStoreRetriever)
            or type(retriever)._get_relevant_documents is not VectorStoreRetriever._get_relevant_documents
        ):
            raise StoreError(
                f"from_retriever takes what vectorstore.as_retriever() gives; a {type(retriever).__name__} searches in its own "
                "way. Give its store DeepMemoryEmbeddings(embeddings, memory) as embedding model instead."
            )
        kept = {name: getattr(retriever, name) for name in ("search_type", "name", "tags", "metadata")}
        return cls(vectorstore=retriever.vectorstore, memory=memory, search_kwargs=dict(retriever.search_kwargs), **kept)

    def _serve(self) -> ServedAdapter:
        """The adapter behind ``memory``, which may have been assigned anew or replaced in a copy."""
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
            # The first query embeds a few texts to check the embedding model, and a new model is read from disk.
            vector = await run_in_executor(None, self._transform, vector, embeddings)
        with self._not_implemented():
            return self._above(threshold, await self._call(name, vector, **options))

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        """A method of the store, in its own async where it has that."""
        # A PGVector that was opened without async_mode refuses its own async methods.
        if getattr(self.vectorstore, "async_mode", True) and hasattr(self.vectorstore, f"a{name}"):
            return await getattr(self.vectorstore, f"a{name}")(*args, **options)
        return await run_in_executor(None, getattr(self.vectorstore, name), *args, **options)

    def _request(self, kwargs: dict[str, Any]) -> tuple[Embeddings | None, bool, dict[str, Any]]:
        """The model to embed the query with, whether to transform it, and what goes to the store.

        No model where the store's own search by text gives what is asked for.
        """
        options = {"k": self.k, "deep_memory": self.deep_memory, **self.search_kwargs, **kwargs}
        deep_memory = options.pop("deep_memory")
        if options["k"] is None:
            del options["k"]
        if not deep_memory and (self.vectorstore.embeddings is None or not hasattr(self.vectorstore.embeddings, "untransformed")):
            return None, False, options
        return embeddings_of(self.vectorstore), deep_memory, options

    def _by_vector(self, options: dict[str, Any]) -> tuple[str, dict[str, Any], float | None]:
        """The store's method, its options, and the least relevance score.

        Raises:
            StoreError: The store's searches are not by vector alone, or by vector it gives no scores.
        """
        store, kind = self.vectorstore, type(self.vectorstore).__name__
        instead = f"Make the {kind} with DeepMemoryEmbeddings(embeddings, memory) as its embedding model instead"
        mode = getattr(store, "retrieval_mode", "dense")
        hybrid = getattr(getattr(store, "_PGVectorStore__vs", store), "hybrid_search_config", None)
        if getattr(mode, "value", mode) != "dense" or hybrid is not None:
            raise StoreError(
                f"This {kind} does not search by vector alone (it is set up for hybrid or sparse search), and a search by the "
                f"transformed vector would leave the rest out. {instead}: its search_type stays as it is."
            )
        name = next((name for name in _SEARCHES[self.search_type] if hasattr(store, name)), None)
        if name is None:
            raise StoreError(
                f"{kind} gives no scores when it searches by vector, so nothing can be compared with score_threshold. {instead}, "
                'and take its own as_retriever(search_type="similarity_score_threshold").'
            )
        threshold = options.pop("score_threshold") if self.search_type == "similarity_score_threshold" else None
        return name, options, threshold

    def _above(self, threshold: float | None, found: list[Any]) -> list[Document]:
        """The documents themselves; of scored ones, those with enough of the store's own relevance (0 to 1)."""
        if threshold is None:
            return found
        # InMemoryVectorStore has no relevance scores of its own; what it has are cosine similarities.
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
                f"{type(self.vectorstore).__name__} cannot be searched by vector like this ({error!r}). Make it with "
                "DeepMemoryEmbeddings(embeddings, memory) as its embedding model, and take its own retriever."
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
