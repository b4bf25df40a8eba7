"""The retriever for LangChain: any vector store, searched with transformed queries and ranked by all evidence."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables.config import RunnableConfig, run_in_executor
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore, VectorStoreRetriever
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from deepmem_integrations.corpora.langchain_search import VectorCalls, acall
from deepmem_integrations.corpora.langchain_stores import embeddings_of
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import DeepMemoryError, StoreError
from deepmem_integrations.feedback import FeedbackLog, Shown, ids_in_metadata
from deepmem_integrations.langchain.searches import SearchType, cannot, is_hybrid
from deepmem_integrations.langchain.stores import store_access
from deepmem_integrations.langchain.vector_search import (
    RankedSearch,
    VectorSearch,
    channel_of,
    check_spelling,
    shown_by_store,
)
from deepmem_integrations.ranking import Metadata, Ranker
from deepmem_integrations.serving import HasModels, MemoryLike, OnBroken, Untrained
from deepmem_integrations.tracing import describe, recording_span
from deepmem_integrations.words import LexicalSearch

_RETRIEVING = (
    *("_get_relevant_documents", "_aget_relevant_documents", "invoke", "ainvoke"),
    *("batch", "abatch", "stream", "astream", "transform", "atransform"),
)
"""The methods in which a class of retrievers may search in its own way."""
_OWN = ("k", "deep_memory", "words", "answers", "evidence")
"""The options that are fields and may be given in ``search_kwargs`` or for one call as well."""
_NO_FILTERS = frozenset({"fetch_k", "score_threshold", "lambda_mult"})
"""The options of searches that forbid no document."""

_WHOSE = {
    "session": ("session_id", "thread_id", "conversation_id"),
    "user": ("user_id",),
    "tenant": ("tenant", "tenant_id"),
}
"""Under which keys of a call's metadata applications of LangChain keep what a feedback log records."""


@dataclass(frozen=True)
class _Request:
    """What one call asks for.

    Attributes:
        embeddings: The embedding model for the query; None where the store's own search by text gives the right results.
        own: The options in `_OWN`.
        options: The options of the store's search, ``fetch_k`` among them.
    """

    embeddings: Embeddings | None
    own: Mapping[str, Any]
    options: dict[str, Any]

    @property
    def asked(self) -> dict[str, Any]:
        """The options of the store's search and ``k``, if it is given."""
        return self.options if self.own["k"] is None else {"k": self.own["k"], **self.options}


class DeepMemoryRetriever(BaseRetriever):
    """Retrieve with Deep Memory from any vector store that searches by vector. The store is never changed.

    The retriever embeds the query with the store's own embedding model, transforms the query vector, and searches the store by
    vector. It ranks what was found by all that the model has learned: by vectors, by words, and by remembered answers. Words and
    answers bring documents of their own, unless a filter forbids them or the store cannot look them up under its filter. A model
    that is put in use later serves the next query. ``k``, ``deep_memory``, ``fetch_k``, ``words``, ``answers``, ``evidence`` and
    the options of the store's search can be given for one call, ``retriever.invoke(query, k=3)``. In a chain,
    ``retriever.configurable_fields(k=ConfigurableField(id="k"))`` does the same.

    Args:
        vectorstore: The vector store to search.
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        k: How many documents to return. None leaves the number to the store, which is mostly 4.
        deep_memory: False returns plain results, as the store's own retriever would.
        fetch_k: How many candidates the search by vector and the search by words find for the ranking, at least k.
        words: Whether words count. True takes the memory's own search by words. A `LexicalSearch` takes its place, if the model
            was trained with one of the same kind.
        answers: Whether remembered answers count. Where neither words nor answers count, the order of the store's search stands.
        evidence: Whether each document says in ``metadata["deepmem"]`` why it has its place: its score, and its score and rank
            by each kind of evidence. Documents that differ in their evidence alone are equal, so that chains which join the
            results of several queries find each document once.
        search_type: ``"similarity"``; ``"mmr"``, which re-ranks by the transformed vector alone and tells no evidence; or
            ``"similarity_score_threshold"``, which compares the store's own relevance score of the transformed vector. Under a
            threshold, documents that only words or answers found are left out, and the rest is ranked by all evidence.
        search_kwargs: Options of the store's search: ``filter``, ``score_threshold``, … ``fetch_k`` is the store's own option
            with ``"mmr"``, and else the field. The other fields may be given here, too. Many stores ignore an option that they
            do not know, so a name that is nearly that of a known option is refused when the retriever searches.
        untrained: ``"plain"`` returns plain results until a model is in use, and logs a warning once. ``"error"`` raises an
            error. By default, a `DeepMemory` and a folder serve plain results, also a folder that is not there yet, and the path
            of an adapter file that is missing is an error.
        embeddings: The embedding model of a store that does not tell it, such as SQLiteVec, Annoy and USearch. By default, the
            model of the store, or else that of the `DeepMemory`.
        id_key: The metadata key that names documents, where the store's ids do not. By default, as the model was trained. The
            documents come with that name as their ``id``.
        on_broken: ``"plain"`` returns plain results where the model is damaged or belongs to another embedding model, and logs an
            error once for each state of the model's file. ``"error"`` raises the error.
        record: A `FeedbackLog`, which keeps each query and the documents that it returned. Each document then says in
            ``metadata["deepmem"]`` by which ``query_id`` and ``run_id`` the log knows the query. The session, the user and the
            tenant are those of ``log.context(…)``, or of the call's own metadata: ``session_id``, ``thread_id`` or
            ``conversation_id``, ``user_id``, and ``tenant`` or ``tenant_id``. None records nothing.

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
    fetch_k: int = Field(default=100, ge=1)
    words: bool | LexicalSearch = True
    answers: bool = True
    evidence: bool = False
    search_type: SearchType = "similarity"
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    embeddings: Embeddings | None = None
    id_key: str | None = None
    untrained: Untrained | None = None
    on_broken: OnBroken = "error"
    record: FeedbackLog | None = None
    # This is a field and no private attribute, because LangChain makes a new retriever from the fields for each configured call.
    ranker: Ranker | None = Field(default=None, exclude=True, repr=False, description="The ranker of memory.")
    _stands_in: bool = PrivateAttr(default=False)  # for the same retriever without its model: see without_model

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._serve(self.words, self.answers)

    @model_validator(mode="before")
    @classmethod
    def _from_search_kwargs(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Move the retriever's own options from ``search_kwargs`` to the fields, so that they can be configured."""
        if not isinstance(options := values.get("search_kwargs"), dict):
            return values
        # A configured call makes a new retriever of all fields, the ranker among them, and of what the call gives.
        configured = values.get("ranker") is not None
        for name in _OWN:
            if name in options:
                if values.get(name) is not None and not configured:
                    raise ValueError(f"{name} is given twice, directly and in search_kwargs: leave one of them out.")
                options = {key: value for key, value in options.items() if key != name}
                values = {**values, name: values["search_kwargs"][name], "search_kwargs": options}
        return values

    @model_validator(mode="after")
    def _has_a_threshold(self) -> "DeepMemoryRetriever":
        threshold = self.search_kwargs.get("score_threshold")
        if self.search_type == "similarity_score_threshold" and not isinstance(threshold, Real):
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
        kind = type(retriever)
        if not isinstance(retriever, VectorStoreRetriever) or any(
            getattr(kind, name) is not getattr(VectorStoreRetriever, name) for name in _RETRIEVING
        ):
            raise StoreError(
                f"from_retriever takes a retriever of vectorstore.as_retriever(); a {kind.__name__} searches in its own way. "
                "Give its store DeepMemoryEmbeddings(embeddings, memory) as its embedding model instead."
            )
        kept = {name: getattr(retriever, name) for name in ("search_type", "name", "tags", "metadata")}
        return cls(vectorstore=retriever.vectorstore, memory=memory, search_kwargs=dict(retriever.search_kwargs), **kept)

    def without_model(self) -> "DeepMemoryRetriever":
        """Return the same retriever without the model: the same store, filter, search type and k, and plain results.

        `DeepMemory.evaluate` compares the retriever with this one.
        """
        kept = {name: value for name, value in self.search_kwargs.items() if name != "deep_memory"}
        plain = self.model_copy(update={"deep_memory": False, "search_kwargs": kept})
        plain._stands_in = True
        return plain

    def _serve(self, words: bool | LexicalSearch, answers: bool) -> Ranker:
        """Return the ranker of ``memory``, which may have been assigned anew, or replaced in a copy of the retriever."""
        ranker = self.ranker
        options: dict[str, Any] = {"untrained": self.untrained, "on_broken": self.on_broken}
        if ranker is None or ranker.served.memory is not self.memory or ranker.served.options != options:
            ranker = self.ranker = Ranker(self.memory, words=self.words, answers=self.answers, **options)
        return ranker.using(words=words, answers=answers)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        **kwargs: Any,
    ) -> list[Document]:
        request = self._request(kwargs)
        if request.embeddings is None:
            found = self.vectorstore.search(query, self.search_type, **request.asked)
            return self._recorded_plain(query, found, run_manager)
        search, model = self._search(request, query, request.embeddings.embed_query(query))
        with self._not_implemented():
            documents = search.run()
        return self._recorded(query, documents, search.shown, run_manager, model)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        **kwargs: Any,
    ) -> list[Document]:
        request = self._request(kwargs)
        if request.embeddings is None:
            found: list[Document] = await acall(self.vectorstore, "search", query, self.search_type, **request.asked)
            return self._recorded_plain(query, found, run_manager)
        vector = await request.embeddings.aembed_query(query)
        # The first query embeds a few texts to check the embedding model, and a model that was put in use is read from disk.
        search, model = await run_in_executor(None, self._search, request, query, vector)
        with self._not_implemented():
            documents = await search.arun()
        return self._recorded(query, documents, search.shown, run_manager, model)

    def _recorded_plain(
        self,
        query: str,
        documents: list[Document],
        run_manager: CallbackManagerForRetrieverRun | AsyncCallbackManagerForRetrieverRun,
    ) -> list[Document]:
        """Do the same as `_recorded` with what the store's own search by text returned, and name the documents."""
        access = store_access(self.vectorstore, id_key=self._id_key)
        documents = [access.named(document) for document in documents]
        shown = shown_by_store(documents, access, channel_of(self.search_type)) if self._tells else []
        return self._recorded(query, documents, shown, run_manager, None)

    def _recorded(
        self,
        query: str,
        documents: list[Document],
        shown: list[Shown | None],
        run_manager: CallbackManagerForRetrieverRun | AsyncCallbackManagerForRetrieverRun,
        model: str | None,
    ) -> list[Document]:
        """Record a query where a log is given, and return copies of the documents that say by which ids the log knows it.

        A span of OpenTelemetry that is being recorded is told as well.
        """
        if (span := recording_span()) is not None:
            describe(span, query, shown, store=self.vectorstore, model=model)
        if self.record is None:
            return documents
        run_id = str(run_manager.run_id)
        whose = {name: _first_of(run_manager.metadata, keys) for name, keys in _WHOSE.items()}
        ids = ids_in_metadata(self.record.record(query, shown, model=model, run_id=run_id, **whose), run_id)
        return [
            document.model_copy(update={"metadata": Metadata.with_evidence(document.metadata, ids)}) for document in documents
        ]

    @property
    def _tells(self) -> bool:
        """Whether a feedback log or a span is told what was shown."""
        return self.record is not None or recording_span() is not None

    def _request(self, kwargs: dict[str, Any]) -> _Request:
        """Return what a call asks for, by the fields, by ``search_kwargs``, and by the options of the call."""
        options = {**self.search_kwargs, **kwargs}
        own = {name: options.pop(name, getattr(self, name)) for name in _OWN}
        _check_call(own, kwargs)
        calls = VectorCalls(self.vectorstore)
        # InMemoryVectorStore has a threshold by vector alone: see VectorSearch.
        no_threshold = self.search_type == "similarity_score_threshold" and isinstance(self.vectorstore, InMemoryVectorStore)
        by_text = not own["deep_memory"] and not calls.transforms and not no_threshold
        if by_text and self._stands_in and self._finds_others_by_text(options):
            by_text = False
        if by_text and self.search_type == "similarity" and calls.table is not None:
            by_text = False  # the store's own search would return no ids
        return _Request(None if by_text else self._embeddings(), own, options)

    def _finds_others_by_text(self, options: dict[str, Any]) -> bool:
        """Tell whether the store's own search by text finds other documents than a search by vector of this retriever.

        Thresholds are compared with relevances as `StoreAccess.relevances` has them, and a store that filters what its search
        has found reaches farther. What stands in for the retriever without its model searches in the same way, for the model
        to be all that tells the two apart.
        """
        if self.search_type == "similarity_score_threshold":
            return True
        return (
            options.get("filter") is not None
            and store_access(self.vectorstore, id_key=self._id_key).filters_after_search is not None
        )

    @property
    def _id_key(self) -> str | None:
        return self.id_key or getattr(self.memory, "id_key", None)

    def _embeddings(self) -> Embeddings:
        """Return the embedding model of the store, as the store, the user or the `DeepMemory` tells it."""
        told: Any = self.embeddings or self.vectorstore.embeddings
        if told is None and isinstance(self.memory, HasModels) and isinstance(self.memory.embedder.model, Embeddings):
            told = self.memory.embedder.model
        return embeddings_of(self.vectorstore, told)

    def _search(self, request: _Request, text: str, vector: list[float]) -> tuple[VectorSearch, str | None]:
        """Transform the query vector, and return the search of the store with it, and the model's name for the feedback log."""
        store, search_type, own, options = self.vectorstore, self.search_type, request.own, request.options
        told: dict[str, Any] = {"embeddings": request.embeddings, "metric": getattr(self.memory, "metric", None)}
        if not own["deep_memory"]:
            access = store_access(store, id_key=self._id_key, **told)
            return VectorSearch(store, search_type, text, vector, request.asked, access=access), None
        for name in ("k", "fetch_k"):  # of a single call, which nothing has checked
            given = request.asked.get(name)
            if given is not None and (not isinstance(given, int | np.integer) or isinstance(given, bool) or given < 1):
                raise StoreError(f"{name} is a number of documents, 1 or more; got {given!r}.")
        check_spelling(store, search_type, options, (*_OWN, "fetch_k"))
        store_access(store, **told).check_lengths(options)
        mmr, hybrid = search_type == "mmr", is_hybrid(store, options)
        ranker = self._serve(own["words"], own["answers"])
        if getattr(self.memory, "filtered", False) and _NO_FILTERS.issuperset(options):
            ranker.say_unfiltered('search_kwargs={"filter": …}')
        query = ranker.query(text, vector, request.embeddings, vectors_alone=mmr or hybrid)
        access = store_access(store, id_key=self._id_key or query.id_key, **told)
        model = query.model if self._tells else None
        if mmr:
            return VectorSearch(store, search_type, text, query.vector, request.asked, access=access), model
        searched: list[float] = query.vector
        if search_type == "similarity_score_threshold":
            # The scores by which stores rank depend on the query's length, where they rank by L2 distance or inner product.
            searched = (np.asarray(searched) * (np.linalg.norm(vector) / np.linalg.norm(searched))).tolist()
        fetch_k = options.get("fetch_k")
        options = {name: value for name, value in options.items() if name != "fetch_k"}
        if hybrid or (query.vectors_alone and not own["evidence"] and not self._tells):  # all want scores
            return VectorSearch(store, search_type, text, searched, options, own["k"], fetch_k, access), model
        candidates = self.fetch_k if fetch_k is None else fetch_k
        search = RankedSearch(
            *(store, search_type, query, options, own["k"], fetch_k),
            candidates=candidates,
            evidence=own["evidence"],
            vector=searched,
            access=access,
        )
        return search, model

    @contextlib.contextmanager
    def _not_implemented(self) -> Iterator[None]:
        try:
            yield
        except NotImplementedError as error:
            raise cannot(self.vectorstore, repr(error)) from error

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        parameters: dict[str, Any] = {**super()._get_ls_params(**kwargs)}
        parameters["ls_vector_store_provider"] = type(self.vectorstore).__name__
        with contextlib.suppress(StoreError):
            embeddings = self._embeddings()
            parameters["ls_embedding_provider"] = type(embeddings).__name__
            parameters["embedding_model"] = Embedder(embeddings).name
        own = self._request(kwargs).own
        parameters["deep_memory"] = "off"
        if own["deep_memory"]:
            ranker = self._serve(own["words"], own["answers"])
            parameters["deep_memory"] = ranker.served.name
            with contextlib.suppress(DeepMemoryError):  # which the retrieval itself raises, where callbacks hear it
                parameters["ranking"] = "mmr" if self.search_type == "mmr" else ranker.describe()
        return parameters  # type: ignore[return-value]

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Do the same as `invoke`, asynchronously."""
        with contextlib.suppress(DeepMemoryError):  # as above
            # The trace describes the ranking, for which a model that was put in use and the word index are read from disk.
            await run_in_executor(None, lambda: self._serve(self.words, self.answers).describe())
        return await super().ainvoke(input, config, **kwargs)


def _check_call(own: Mapping[str, Any], kwargs: Mapping[str, Any]) -> None:
    """Check the options of a single call, which nothing has checked.

    Raises:
        StoreError: A switch is neither true nor false, ``words`` is no search by words, or the call names a search type.
    """
    if "search_type" in kwargs:
        raise StoreError(
            "The search type is the retriever's own: make a second retriever, or one with a configurable search_type."
        )
    for name in ("deep_memory", "words", "answers", "evidence"):
        value = own[name]
        if not isinstance(value, bool | np.bool_) and not (name == "words" and isinstance(value, LexicalSearch)):
            kinds = "True, False or a search by words" if name == "words" else "True or False"
            raise StoreError(f"{name} is {kinds}; got {value!r:.60}.")


def _first_of(metadata: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((str(metadata[key]) for key in keys if metadata.get(key) is not None), None)
