"""One search of a vector store with a query vector: `VectorSearch` in the store's order, `RankedSearch` by all evidence."""

import asyncio
import difflib
import inspect
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from deepmem_integrations.corpora.langchain_search import SCORED, VectorCalls
from deepmem_integrations.errors import StoreError
from deepmem_integrations.feedback import Shown
from deepmem_integrations.langchain.stores import StoreAccess, store_access
from deepmem_integrations.ranking import EVIDENCE, NAMELESS, Metadata, RankedQuery, Shortlist
from deepmem_integrations.words import Found

SearchType = Literal["similarity", "mmr", "similarity_score_threshold"]

_DEFAULT_K = 4
"""LangChain's own number of documents."""
_FARTHER = 4
"""By how much a look-up reaches farther down the list where documents were gone or forbidden."""
_ALIKE = 0.85
"""The similarity, between 0 and 1, of names that are the same but for a slip: one letter of five, two of ten."""


def search_method(store: VectorStore, search_type: SearchType) -> str:
    """Return the name of the store's method for a search by vector alone.

    Raises:
        StoreError: The store does not search by vector alone, or it returns no scores when it searches by vector.
    """
    kind = type(store).__name__
    instead = f"Make the {kind} with DeepMemoryEmbeddings(embeddings, memory) as its embedding model instead"
    mode = getattr(store, "retrieval_mode", "dense")
    hybrid = getattr(getattr(store, "_PGVectorStore__vs", store), "hybrid_search_config", None)
    if getattr(mode, "value", mode) != "dense" or hybrid is not None:
        raise StoreError(
            f"This {kind} does not search by vector alone (it is set up for hybrid or sparse search), and a search by the "
            f"transformed vector would leave the rest out. {instead}, and keep its search_type."
        )
    if search_type == "similarity":
        return VectorCalls(store).name
    if search_type == "mmr":
        return "max_marginal_relevance_search_by_vector"
    name = next((name for name in SCORED if hasattr(store, name)), None)
    if name is None:
        raise StoreError(
            f"{kind} gives no scores when it searches by vector, so nothing can be compared with score_threshold. {instead}, "
            'and use its own as_retriever(search_type="similarity_score_threshold").'
        )
    return name


def check_spelling(store: VectorStore, search_type: SearchType, options: Iterable[str], known: Collection[str]) -> None:
    """Refuse a misspelt option, which a store that takes any option would ignore. Other unknown options are the store's affair.

    Args:
        store: The store.
        search_type: How the store searches.
        options: The names of the options.
        known: The names of the retriever's own options.

    Raises:
        StoreError: An option is no parameter of the store's search, and nearly has the name of one, or of an option in ``known``.
    """
    methods = [getattr(store, name, None) for name in (search_method(store, search_type), *SCORED, "similarity_search")]
    parameters = (inspect.signature(method).parameters for method in methods if method is not None)
    known = [*known, "score_threshold", *itertools.chain.from_iterable(parameters)]
    for name in options:
        if name not in known and (meant := difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)):
            raise StoreError(f"{name} is no option of this search. Did you mean {meant[0]}?")


def channel_of(search_type: SearchType) -> str:
    """Return the name of what finds documents in a search of the store alone."""
    return "mmr" if search_type == "mmr" else "vector"


def shown_by_store(
    documents: Sequence[Document], access: StoreAccess, channel: str, scores: Sequence[float | None] | None = None
) -> list[Shown | None]:
    """Return documents in the store's own order as a feedback log takes them.

    Args:
        documents: The documents, best first.
        access: The access to the store.
        channel: The name of what found them.
        scores: The store's scores, as far as it gives any.
    """
    names = [access.name_of(document) for document in documents]
    return [
        None if name is None else Shown(name, None if scores is None else scores[rank - 1], {channel: rank})
        for rank, name in enumerate(names, start=1)
    ]


class VectorSearch:
    """One search of a store with a query vector, in the store's own order.

    Args:
        store: The store.
        search_type: How the store searches.
        vector: The query vector.
        options: The options of the store's search, without ``k`` and ``fetch_k``.
        k: How many documents to return; None leaves the number to the store.
        fetch_k: What ``fetch_k`` the caller gave with the options. Stores that know such an option receive it.
        access: The access to the store; by default that of its kind.
        text: The query, which a store that searches by text alone needs as well.

    Attributes:
        shown: What the last run returned, for a feedback log; None in the place of a document without an id.

    Raises:
        StoreError: See `search_method`.
    """

    def __init__(
        self,
        store: VectorStore,
        search_type: SearchType,
        vector: Sequence[float],
        options: Mapping[str, Any],
        k: int | None = None,
        fetch_k: int | None = None,
        access: StoreAccess | None = None,
        text: str = "",
    ) -> None:
        self._access, self._text = access or store_access(store), text
        self.store, self.vector, self.options, self.k = store, vector, dict(options), k
        self.shown: list[Shown | None] = []
        self._channel = channel_of(search_type)
        self.method = search_method(store, search_type)
        self.threshold = self.options.pop("score_threshold") if search_type == "similarity_score_threshold" else None
        self._ask(k, fetch_k)

    def _ask(self, k: int | None, fetch_k: int | None) -> None:
        """Set the numbers of documents that the store is asked for."""
        self._asked = dict(self.options)
        if k is not None:
            self._asked["k"] = k
        if fetch_k is not None and "fetch_k" in self._parameters():  # FAISS filters as many documents as this
            self._asked["fetch_k"] = fetch_k

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return self._access.calls.parameters(self.method)

    def run(self) -> list[Document]:
        """Search."""
        return self._taken(self._read(self._search()))

    async def arun(self) -> list[Document]:
        """Do the same as `run` without blocking the event loop."""
        return self._taken(self._read(await self._asearch()))

    def _taken(self, pairs: Sequence[tuple[Document, float | None]]) -> list[Document]:
        documents = [self._access.named(document) for document, _ in pairs]
        self.shown = shown_by_store(documents, self._access, self._channel, [score for _, score in pairs])
        return documents

    def _search(self) -> list[Any]:
        return self._access.calls.find(self.method, self.vector, self._text, **self._asked)

    async def _asearch(self) -> list[Any]:
        return await self._access.calls.afind(self.method, self.vector, self._text, **self._asked)

    def _read(self, found: Sequence[Any]) -> list[tuple[Document, float | None]]:
        """Return documents with their scores, as far as there are scores, and those alone that reach the threshold."""
        pairs = [one if isinstance(one, tuple) else (one, None) for one in found]
        if self.threshold is None:
            return pairs
        # InMemoryVectorStore has no function for relevance scores; its scores are cosine similarities and are taken as they are.
        same = isinstance(self.store, InMemoryVectorStore)
        relevance = float if same else self.store._select_relevance_score_fn()
        return [(document, score) for document, score in pairs if relevance(score) >= self.threshold]


class RankedSearch(VectorSearch):
    """One search of a store for a query whose ranking weighs vectors, words and answers.

    Args:
        store: The store.
        search_type: ``"similarity"``, or ``"similarity_score_threshold"``, under which no documents come that the search by
            vector did not find.
        query: The query.
        options: The options of the store's search, without ``k`` and ``fetch_k``.
        k: How many documents to return; by default as many as the store returns by itself.
        fetch_k: As for `VectorSearch`.
        candidates: How many documents the store's search and the search by words find, where words or answers count.
        evidence: Whether the documents carry their evidence in ``metadata["deepmem"]``.
        access: See `VectorSearch`.

    Raises:
        StoreError: See `search_method`.
    """

    def __init__(
        self,
        store: VectorStore,
        search_type: SearchType,
        query: RankedQuery,
        options: Mapping[str, Any],
        k: int | None,
        fetch_k: int | None,
        *,
        candidates: int,
        evidence: bool,
        access: StoreAccess | None = None,
    ) -> None:
        super().__init__(store, search_type, query.vector, options, k, fetch_k, access, query.text)
        self.query, self.evidence, self.candidates = query, evidence, candidates
        self._reach = 0
        self._others = self.threshold is None and self._access.obeys(self.options)
        if self.threshold is None:
            self.method = self._access.search_method
        if not query.vectors_alone:
            self.k = self._default_k() if k is None else k
            self.candidates = max(self.k, candidates)
            self._ask(self.candidates, self.candidates)

    def _default_k(self) -> int:
        k = self._parameters().get("k")
        return k.default if k is not None and isinstance(k.default, int) else _DEFAULT_K

    def run(self) -> list[Document]:
        """Search, rank, and return the best documents."""
        shortlist = self._rank(self._search(), self._words())
        while wanted := self._wanted(shortlist):
            shortlist.add(wanted, self._access.lookup(wanted, self.options))
        return self._best(shortlist)

    async def arun(self) -> list[Document]:
        """Do the same as `run`. The search by words runs beside the store's search, and nothing blocks the event loop."""
        found, words = await asyncio.gather(self._asearch(), run_in_executor(None, self._words))
        shortlist = await run_in_executor(None, self._rank, found, words)
        while wanted := self._wanted(shortlist):
            shortlist.add(wanted, await self._access.alookup(wanted, self.options))
        return self._best(shortlist)

    def _words(self) -> Found | None:
        return None if self.query.vectors_alone else self.query.words(self.candidates)

    def _rank(self, found: Sequence[Any], words: Found | None) -> Shortlist[Document]:
        pairs = self._read(found)
        documents: dict[str, Document] = {}
        others = self._others
        for row, (found_document, _) in enumerate(pairs):
            document = self._access.named(found_document)
            name = self._access.name_of(document)
            if name is None:
                others = False  # a document without an id could come back a second time
            documents[f"{NAMELESS}{row}" if name is None or name in documents else name] = document
        cosines = self._access.cosines([score for _, score in pairs], self.options)
        shortlist = self.query.rank(list(documents), cosines, words, documents, others=others)
        if self.query.vectors_alone:
            shortlist.ids = list(documents)  # rounded cosines must not change the store's order
        return shortlist

    def _wanted(self, shortlist: Shortlist[Document]) -> list[str]:
        """Return the ids to look up next. Where documents were gone or forbidden, the next look-up reaches farther."""
        if self.k is None or not shortlist.missing(self.k):
            return []
        self._reach = _FARTHER * self._reach if self._reach else self.k
        return shortlist.missing(self._reach)

    def _best(self, shortlist: Shortlist[Document]) -> list[Document]:
        best = shortlist.best(self.k or len(shortlist.ids))
        names = [self._access.name_of(document) for document, _ in best]
        self.shown = [
            None if name is None else Shown(name, choice.score, choice.channels)
            for name, (_, choice) in zip(names, best, strict=True)
        ]
        if not self.evidence:
            return [document for document, _ in best]
        # The store may have handed out its own objects.
        return [
            document.model_copy(update={"metadata": Metadata({**document.metadata, EVIDENCE: choice.to_json()})})
            for document, choice in best
        ]
