"""The two ways to search a vector store with a query vector: its search by vector, and its search by text.

Retrievers of LangChain call a store's search by text. That search alone is sure to apply the store's filters, its relevance score
and its search by words: the search by vector of LanceDB drops the filter where it returns scores, and that of Weaviate drops the
words. So a store that is not known in detail is searched by text, with a copy of the store whose embedding model returns the
query vector.
"""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore

from deepmem_integrations._weak import WeakCache
from deepmem_integrations.corpora.filters import forbids, ignored, impossible
from deepmem_integrations.corpora.langchain_embedding import OneQuery, embedding_places, with_embedding
from deepmem_integrations.corpora.langchain_search import ALSO_SCORED, BY_VECTOR, SCORED, VectorCalls, acall
from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain.stores import StoreAccess

SearchType = Literal["similarity", "mmr", "similarity_score_threshold"]

_BY_VECTOR: Mapping[str, tuple[str, ...]] = {
    "similarity": (BY_VECTOR, *SCORED, *ALSO_SCORED),
    "mmr": ("max_marginal_relevance_search_by_vector",),
    "similarity_score_threshold": SCORED,
}
_BY_TEXT: Mapping[str, tuple[str, ...]] = {
    "similarity": ("similarity_search",),
    "mmr": ("max_marginal_relevance_search",),
    "similarity_score_threshold": (
        "similarity_search_with_relevance_scores",
        "_similarity_search_with_relevance_scores",
        "similarity_search_with_score",
    ),
}
_HONOURED: WeakCache[set[tuple[str, type]]] = WeakCache()
"""The options of each store that were seen to forbid documents."""


class Way(Protocol):
    """A way to search a store with one query vector."""

    store: VectorStore
    scored: bool
    """Whether the search returns scores, from which the relevance of a document is still to be computed."""

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the store's method."""
        ...

    def find(self, options: Mapping[str, Any]) -> list[Any]:
        """Search: documents, or pairs of a document and its score, best first."""
        ...

    async def afind(self, options: Mapping[str, Any]) -> list[Any]:
        """Do the same as `find` without blocking the event loop."""
        ...


class ByVector:
    """Searches with the method for a search by vector.

    Args:
        calls: The store's searches by vector.
        method: The name of the method.
        vector: The query vector.
        text: The query.
    """

    def __init__(self, calls: VectorCalls, method: str, vector: Sequence[float], text: str) -> None:
        self.calls, self.store, self.method, self.vector, self.text = calls, calls.store, method, vector, text
        self.scored = method in SCORED

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the method."""
        return self.calls.parameters(self.method)

    def find(self, options: Mapping[str, Any]) -> list[Any]:
        """Search."""
        return self.calls.find(self.method, self.vector, self.text, **options)

    async def afind(self, options: Mapping[str, Any]) -> list[Any]:
        """Do the same as `find` without blocking the event loop."""
        return await self.calls.afind(self.method, self.vector, self.text, **options)


class ByText:
    """Searches as the store's own retriever does, with the query vector in place of the query's embedding.

    Args:
        access: The access to the store.
        search_type: How the store searches.
        text: The query.
        vector: The query vector.

    Raises:
        StoreError: The store's embedding model is nowhere to be found in the store.
    """

    scored = False

    def __init__(self, access: StoreAccess, search_type: SearchType, text: str, vector: Sequence[float]) -> None:
        self.store, self.search_type, self.text, self.vector = access.store, search_type, text, vector
        self.model, self.places = embedding_places(self.store, access.calls.embeddings)
        if not self.places:
            raise cannot(self.store, "its embedding model, which would have to return the transformed vector, is not found in it")

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the store's method."""
        return inspect.signature(getattr(self.store, _BY_TEXT[self.search_type][0])).parameters

    def find(self, options: Mapping[str, Any]) -> list[Any]:
        """Search."""
        embedding = OneQuery(self.model, self.text, self.vector)
        found: list[Any] = with_embedding(self.store, self.places, embedding).search(self.text, self.search_type, **options)
        return self._checked(found, embedding)

    async def afind(self, options: Mapping[str, Any]) -> list[Any]:
        """Do the same as `find` without blocking the event loop."""
        embedding = OneQuery(self.model, self.text, self.vector)
        store = with_embedding(self.store, self.places, embedding)
        try:
            found = await acall(store, "search", self.text, self.search_type, **options)
        except NotImplementedError:  # a class may override the one method of two that is not async
            found = await run_in_executor(None, lambda: store.search(self.text, self.search_type, **options))
        return self._checked(found, embedding)

    def _checked(self, found: list[Any], embedding: "OneQuery") -> list[Any]:
        if not embedding.asked:
            raise cannot(self.store, "this search did not ask the embedding model for the query's vector, as a search by words")
        return found


# ---- which way -------------------------------------------------------------------------------------------------------


def way_of(access: StoreAccess, search_type: SearchType, text: str, vector: Sequence[float], options: Mapping[str, Any]) -> Way:
    """Return the way to search a store.

    A store of a known kind is searched by vector, unless it searches words as well. A store of any other kind is searched by
    text, unless a class overrides its search by vector alone, to add a filter of its own for example.

    Args:
        access: The access to the store.
        search_type: How the store searches.
        text: The query.
        vector: The query vector.
        options: The options of the search.

    Raises:
        StoreError: The store cannot be searched in either way.
    """
    store = access.store
    hybrid = is_hybrid(store, options)
    similar = search_type == "similarity"
    method = access.calls.name if similar else next((name for name in _BY_VECTOR[search_type] if hasattr(store, name)), None)
    if access.kind and not hybrid:
        return ByVector(access.calls, method or _BY_VECTOR[search_type][0], vector, text)
    by_vector, by_text = (_above(store, methods[search_type]) for methods in (_BY_VECTOR, _BY_TEXT))
    if hybrid or by_text < by_vector or (by_text == by_vector and embedding_places(store, access.calls.embeddings)[1]):
        if search_type == "similarity_score_threshold":
            _check_relevance(store)
        return ByText(access, search_type, text, vector)
    if method is None or (search_type == "similarity_score_threshold" and method != SCORED[0]):
        raise StoreError(
            f"{type(store).__name__} gives no scores when it searches by vector, or nobody knows which, so nothing can be "
            'compared with score_threshold. Use the search type "similarity", or make the store with '
            "DeepMemoryEmbeddings(embeddings, memory) as its embedding model, and use its own retriever."
        )
    return ByVector(access.calls, method, vector, text)


def is_hybrid(store: VectorStore, options: Mapping[str, Any]) -> bool:
    """Tell whether a store is known to search words beside vectors, so that a search by vector would leave the words out."""
    mode = getattr(store, "retrieval_mode", "dense")  # Qdrant
    tables = getattr(store, "_PGVectorStore__vs", store)
    return (
        getattr(mode, "value", mode) != "dense"
        or getattr(tables, "hybrid_search_config", None) is not None  # PGVectorStore
        or getattr(store, "hybrid_search", None) is True  # AstraDB
        or any(base.__name__ == "WeaviateVectorStore" for base in type(store).__mro__)
        or options.get("query_type", "vector") != "vector"  # LanceDB
    )


def cannot(store: VectorStore, why: str) -> StoreError:
    """Return the error for a store that cannot be searched with a transformed vector."""
    return StoreError(
        f"{type(store).__name__} cannot be searched by vector in this way ({why}). Make it with "
        "DeepMemoryEmbeddings(embeddings, memory) as its embedding model, and use its own retriever."
    )


def _above(store: VectorStore, names: Sequence[str]) -> int:
    """Return how far up the first class stands that defines one of some methods: 0 for the store's class, -1 for the store."""
    names = [*names, *(f"a{name}" for name in names)]
    owners = [vars(store), *(vars(base) for base in type(store).__mro__)]
    return next((row for row, owner in enumerate(owners) if any(callable(owner.get(name)) for name in names)), len(owners)) - 1


def _check_relevance(store: VectorStore) -> None:
    """Refuse LangChain's relevance score of inner products, which is 0 for the best document of most stores."""
    with contextlib.suppress(NotImplementedError):
        if store._select_relevance_score_fn() is VectorStore._max_inner_product_relevance_score_fn:
            raise StoreError(
                f"{type(store).__name__} ranks by inner product, for which LangChain's relevance score may be lower the better a "
                "document is, so a score_threshold would drop the best documents. Make the store with cosine distance, or give "
                "it a relevance function of your own, if it takes one."
            )


# ---- filters ---------------------------------------------------------------------------------------------------------


def check_filters(way: Way, access: StoreAccess, options: Mapping[str, Any]) -> None:
    """Refuse a search that found something and ignores a filter. Each filter of each store is tried once.

    Args:
        way: How the store was searched.
        access: The access to the store.
        options: The options of the search.

    Raises:
        StoreError: The store ignores one of the options that forbid documents.
    """
    for name, changed in _untried(access, options):
        found: list[Any] = []
        with contextlib.suppress(Exception):
            found = way.find(changed)
        _note(access.store, name, options[name], found)


async def acheck_filters(way: Way, access: StoreAccess, options: Mapping[str, Any]) -> None:
    """Do the same as `check_filters` without blocking the event loop."""
    for name, changed in _untried(access, options):
        found: list[Any] = []
        with contextlib.suppress(Exception):
            found = await way.afind(changed)
        _note(access.store, name, options[name], found)


def _untried(access: StoreAccess, options: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each option that forbids documents, with the options of a search that has to find nothing."""
    honoured = _HONOURED.get(access.store, set)
    for name, value in options.items():
        known = name in access.harmless or (name in access.applied and (name != "filter" or access.understands(value)))
        if not known and forbids(name, value) and (name, type(value)) not in honoured:
            yield name, {**options, name: impossible(value), "k": 1}


def _note(store: VectorStore, name: str, value: Any, found: Sequence[Any]) -> None:
    if found:
        raise ignored(store, name, value)
    _HONOURED.get(store, set).add((name, type(value)))
