"""One search of a vector store with a query vector: `VectorSearch` in the store's order, `RankedSearch` by all evidence."""

import asyncio
import difflib
import inspect
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore

from deepmem_integrations.corpora.langchain_search import SCORED
from deepmem_integrations.errors import StoreError
from deepmem_integrations.feedback import Shown
from deepmem_integrations.langchain.searches import ByVector, SearchType, acheck_filters, check_filters, way_of
from deepmem_integrations.langchain.stores import StoreAccess, store_access
from deepmem_integrations.ranking import EVIDENCE, NAMELESS, Metadata, RankedQuery, Shortlist
from deepmem_integrations.words import Found

_DEFAULT_K = 4
"""LangChain's own number of documents."""
_FARTHER = 4
"""By how much a search or a look-up reaches farther down the list where documents were gone or forbidden."""
_LEAST_FETCHED = 80
"""How many documents a store filters at least that filters what its search has found, once too few have passed."""
_ALIKE = 0.85
"""The similarity, between 0 and 1, of names that are the same but for a slip: one letter of five, two of ten."""


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
    own = "max_marginal_relevance_search_by_vector" if search_type == "mmr" else "similarity_search_by_vector"
    methods = [getattr(store, name, None) for name in (own, *SCORED, "similarity_search")]
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
        text: The query, which a store may search as well.
        vector: The query vector.
        options: The options of the store's search, without ``k`` and ``fetch_k``.
        k: How many documents to return; None leaves the number to the store.
        fetch_k: What ``fetch_k`` the caller gave with the options. Stores that know such an option receive it.
        access: The access to the store; by default that of its kind.

    Attributes:
        shown: What the last run returned, for a feedback log; None in the place of a document without an id.

    Raises:
        StoreError: See `way_of`.
    """

    def __init__(
        self,
        store: VectorStore,
        search_type: SearchType,
        text: str,
        vector: Sequence[float],
        options: Mapping[str, Any],
        k: int | None = None,
        fetch_k: int | None = None,
        access: StoreAccess | None = None,
    ) -> None:
        self._access = access or store_access(store)
        self.store, self.vector, self.options, self.k = store, vector, dict(options), k
        self.shown: list[Shown | None] = []
        self._channel = channel_of(search_type)
        self.way = way_of(self._access, search_type, text, vector, options)
        self.threshold = self.options.pop("score_threshold") if search_type == "similarity_score_threshold" else None
        self._own_fetch_k = fetch_k is not None
        self._ask(k, fetch_k)

    def _ask(self, k: int | None, fetch_k: int | None) -> None:
        """Set the numbers of documents that the store is asked for."""
        self._asked = dict(self.options)
        if self.threshold is not None and not self.way.scored:
            self._asked["score_threshold"] = self.threshold  # which the store compares itself
        if k is not None:
            self._asked["k"] = k
        if fetch_k is not None and "fetch_k" in self.way.parameters:  # FAISS filters as many documents as this
            self._asked["fetch_k"] = fetch_k

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
        found = self.way.find(self._asked)
        while self._reaches_farther(len(found)):
            found = self.way.find(self._asked)
        if found:
            check_filters(self.way, self._access, self._asked)
        return found

    async def _asearch(self) -> list[Any]:
        found = await self.way.afind(self._asked)
        while self._reaches_farther(len(found)):
            found = await self.way.afind(self._asked)
        if found:
            await acheck_filters(self.way, self._access, self._asked)
        return found

    def _reaches_farther(self, count: int) -> bool:
        """Let a store that filters what its search has found, as FAISS does, fetch more, until as many pass as are asked for.

        A caller who gives the store's own ``fetch_k`` decides by that how many documents are filtered.
        """
        size, asked = self._access.filters_after_search, self._asked
        if size is None or asked.get("filter") is None or self._own_fetch_k or self._channel == "mmr":
            return False
        wanted, fetched = asked.get("k", _DEFAULT_K), asked.get("fetch_k", 0)
        if count >= wanted or fetched >= size:
            return False
        asked["fetch_k"] = min(max(_FARTHER * fetched, wanted, _LEAST_FETCHED), size)
        return True

    def _read(self, found: Sequence[Any]) -> list[tuple[Document, float | None]]:
        """Return documents with their scores, as far as there are scores, and those alone that reach the threshold."""
        pairs = [one if isinstance(one, tuple) else (one, None) for one in found]
        if self.threshold is None or not self.way.scored or not pairs:
            return pairs
        relevances = self._access.relevances([score for _, score in pairs], self.options, self._length)
        return [pair for pair, relevance in zip(pairs, relevances, strict=True) if relevance >= self.threshold]

    @property
    def _length(self) -> float:
        return float(np.linalg.norm(self.vector))


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
        vector: The query's vector in another length than 1.
        access: See `VectorSearch`.

    Raises:
        StoreError: See `way_of`.
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
        vector: Sequence[float] | None = None,
        access: StoreAccess | None = None,
    ) -> None:
        super().__init__(store, search_type, query.text, vector or query.vector, options, k, fetch_k, access)
        self.query, self.evidence, self.candidates, self._reach = query, evidence, candidates, 0
        self._others = self.threshold is None and self._access.obeys(self.options)
        if self.threshold is None and isinstance(self.way, ByVector) and self._access.kind:
            self.way = ByVector(self._access.calls, self._access.search_method, self.vector, query.text)
        if not query.vectors_alone:
            self.k = self._default_k() if k is None else k
            self.candidates = max(self.k, candidates)
            self._ask(self.candidates, self.candidates)

    def _default_k(self) -> int:
        k = self.way.parameters.get("k")
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
        cosines = self._access.cosines([score for _, score in pairs], self.options, self._length)
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
            document.model_copy(
                update={"metadata": Metadata.with_evidence({**document.metadata, EVIDENCE: None}, choice.to_json())}
            )
            for document, choice in best
        ]
