"""The retriever to swap in: any LangChain vector store, searched with transformed queries."""

from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict, Field, PrivateAttr

from deepmem_integrations.errors import StoreError
from deepmem_integrations.memory import ServedAdapter


class DeepMemoryRetriever(BaseRetriever):
    """Retrieve with Deep Memory from any vector store that searches by vector. The store is never changed.

    The query is embedded with the store's own embedding model, transformed, and searched by vector. A model that is put in
    use meanwhile serves the next query.

    Args:
        vectorstore: The store.
        memory: A `DeepMemory`, a `QueryAdapter`, or the path of an adapter file.
        k: How many documents to return.
        search_type: ``"similarity"``, or ``"mmr"`` (re-ranked with the transformed query).
        search_kwargs: Passed to the store's search: ``filter``, ``fetch_k``, … ``deep_memory=False`` gives plain results.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    vectorstore: VectorStore
    memory: Any
    k: int = 4
    search_type: Literal["similarity", "mmr"] = "similarity"
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    _served: ServedAdapter | None = PrivateAttr(default=None)

    def __init__(self, **options: Any) -> None:
        """Check the options and read the adapter file, if it is one, so that mistakes show at once."""
        super().__init__(**options)
        self._serve()

    def _serve(self) -> ServedAdapter:
        """The adapter behind ``memory``, which may have been assigned anew or replaced in a copy."""
        if self._served is None or self._served.memory is not self.memory:
            self._served = ServedAdapter(self.memory)
        return self._served

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        **kwargs: Any,
    ) -> list[Document]:
        embeddings = self._embeddings()
        deep_memory, options = self._options(kwargs)
        vector = embeddings.embed_query(query)
        if deep_memory:
            vector = self._transform(vector, embeddings)
        if self.search_type == "similarity":
            return self.vectorstore.similarity_search_by_vector(vector, **options)
        return self.vectorstore.max_marginal_relevance_search_by_vector(vector, **options)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        **kwargs: Any,
    ) -> list[Document]:
        embeddings = self._embeddings()
        deep_memory, options = self._options(kwargs)
        vector = await embeddings.aembed_query(query)
        if deep_memory:
            # The first query embeds a few texts to check the embedding model, and a new model is read from disk.
            vector = await run_in_executor(None, self._transform, vector, embeddings)
        if self.search_type == "similarity":
            return await self.vectorstore.asimilarity_search_by_vector(vector, **options)
        return await self.vectorstore.amax_marginal_relevance_search_by_vector(vector, **options)

    def _options(self, kwargs: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        """Whether to transform, and what goes to the store; a call's arguments win over the retriever's."""
        options = {"k": self.k, **self.search_kwargs, **kwargs}
        return options.pop("deep_memory", True), options

    def _embeddings(self) -> Embeddings:
        embeddings = self.vectorstore.embeddings
        if embeddings is None:
            raise StoreError(
                f"{type(self.vectorstore).__name__} does not tell its embedding model (its `embeddings` is None), so queries "
                "cannot be embedded: create the store with one."
            )
        return embeddings

    def _transform(self, vector: list[float], embeddings: Embeddings) -> list[float]:
        served = self._serve()
        adapter = served.adapter
        served.check(adapter, embeddings)
        return list(map(float, adapter.transform(vector)))

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        parameters = super()._get_ls_params(**kwargs)
        parameters["ls_vector_store_provider"] = type(self.vectorstore).__name__
        if self.vectorstore.embeddings is not None:
            parameters["ls_embedding_provider"] = type(self.vectorstore.embeddings).__name__
        return parameters
