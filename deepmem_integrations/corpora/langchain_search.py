"""`VectorCalls`: the search of a LangChain vector store by vector, under whatever name the store has it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from langchain_core.vectorstores import VectorStore

from deepmem_integrations.corpora.langchain_embedding import OneQuery, embedding_places, with_embedding
from deepmem_integrations.corpora.langchain_stores import KINDS
from deepmem_integrations.corpora.langchain_tables import TableCorpus
from deepmem_integrations.corpora.stores import kind_of, kind_of_class
from deepmem_integrations.errors import StoreError

BY_VECTOR = "similarity_search_by_vector"
SCORED = ("similarity_search_with_score_by_vector", "similarity_search_by_vector_with_relevance_scores")
"""LangChain has no common name for a search by vector that returns scores; stores use one of these two names."""
ALSO_SCORED = ("similarity_search_by_vector_with_score", "similarity_search_by_vector_with_scores")
"""Names of such searches whose scores nobody knows."""
_BY_TEXT = {
    BY_VECTOR: "similarity_search",
    "max_marginal_relevance_search_by_vector": "max_marginal_relevance_search",
    **dict.fromkeys(SCORED, "similarity_search_with_score"),
}
"""The search by text that does the same as a search by vector."""


async def acall(store: VectorStore, name: str, *args: Any, **options: Any) -> Any:
    """Call a method of a store: its async method where there is one, otherwise the method in a thread."""
    # A PGVector that was opened without async_mode refuses its own async methods.
    if getattr(store, "async_mode", True) and hasattr(store, f"a{name}"):
        return await getattr(store, f"a{name}")(*args, **options)
    return await run_in_executor(None, getattr(store, name), *args, **options)


def own_searches(store: VectorStore, known: type) -> bool:
    """Tell whether a store, or a class between it and one of its bases, searches in its own way."""
    mro = type(store).__mro__
    methods = [name for name, value in vars(store).items() if callable(value)]  # and no attribute, such as Milvus' search_params
    return any("search" in name for names in (methods, *map(vars, mro[: mro.index(known)])) for name in names)


class VectorCalls:
    """Searches a store by vector.

    - A store may return scores with every search by vector, as Elasticsearch does: then that search is the one.
    - A store may search by text alone, as USearch does: then a copy of the store, whose embedding model returns the query vector
      for every text, searches by the text.
    - A store may return no ids, as LanceDB and SQLiteVec do: then its table is searched, which has them.

    Args:
        store: The store.
        embeddings: The store's embedding model, which a store that searches by text alone holds somewhere.
    """

    def __init__(self, store: VectorStore, embeddings: Embeddings | None = None) -> None:
        self.store = store
        self.embeddings = embeddings
        kind = kind_of(store, KINDS)
        corpus = KINDS[kind](store) if kind else None
        known = next((base for base in type(store).__mro__ if kind_of_class(base) == kind), None)
        is_table = isinstance(corpus, TableCorpus) and known is not None and not own_searches(store, known)
        self.table: TableCorpus | None = corpus if is_table else None  # type: ignore[assignment]

    @property
    def transforms(self) -> bool:
        """Whether the store was made with this package's wrapper of an embedding model, so that its search by text transforms."""
        held = [self.store.embeddings, *(value for value in vars(self.store).values() if isinstance(value, Embeddings))]
        return any(hasattr(model, "untransformed") for model in held)

    @property
    def name(self) -> str:
        """The name of the store's search by vector. It may return scores."""
        names = (BY_VECTOR, *SCORED, *ALSO_SCORED)
        return next((name for name in names if _has(self.store, name) or _has(self.store, f"a{name}")), BY_VECTOR)

    def parameters(self, name: str) -> Mapping[str, inspect.Parameter]:
        """Return the parameters of a search.

        Args:
            name: The name of a search by vector.
        """
        if self.table is not None and name in (BY_VECTOR, *SCORED):
            return inspect.signature(self.table.find).parameters
        own = name if _has(self.store, name) else _BY_TEXT.get(name, name)
        method = getattr(self.store, own, None) or getattr(self.store, f"a{own}")
        return inspect.signature(method).parameters

    def find(self, name: str, vector: Sequence[float], text: str = "", **options: Any) -> list[Any]:
        """Search by vector.

        Args:
            name: The name of a search by vector: `name`, one of `SCORED`, or LangChain's name of the search by MMR.
            vector: (d,), the query vector.
            text: The query, which a store that searches by text alone may search by words as well.
            options: Options of the store's search.

        Returns:
            Documents, or pairs of a document and its score.

        Raises:
            NotImplementedError: The store does not search so.
            StoreError: The store would ignore an option that restricts the search.
        """
        if self.table is not None and name in (BY_VECTOR, *SCORED):
            return list(self.table.find(vector, **options))
        store, own, query = self._call(name, vector, text, options)
        if not hasattr(store, own):
            raise NotImplementedError(f"{type(store).__name__} has only a{own}, for async calls")
        found: list[Any] = getattr(store, own)(query, **options)
        return found

    async def afind(self, name: str, vector: Sequence[float], text: str = "", **options: Any) -> list[Any]:
        """Do the same as `find`, off the event loop."""
        if self.table is not None and name in (BY_VECTOR, *SCORED):
            return await run_in_executor(None, lambda: self.find(name, vector, text, **options))
        store, own, query = self._call(name, vector, text, options)
        found: list[Any] = await acall(store, own, query, **options)
        return found

    def _call(self, name: str, vector: Sequence[float], text: str, options: Mapping[str, Any]) -> tuple[VectorStore, str, Any]:
        """Return the store to search, the name of the search, and the query."""
        by_text = _BY_TEXT.get(name)
        if by_text is None or _has(self.store, name) or _has(self.store, f"a{name}") or not _has(self.store, by_text):
            return self.store, name, vector
        model, places = embedding_places(self.store, self.embeddings)
        if not places:
            return self.store, name, vector
        other = with_embedding(self.store, places, OneQuery(model, text, vector))
        if options.get("filter") is not None and "filter" not in inspect.signature(getattr(other, by_text)).parameters:
            raise StoreError(
                f"The search of a {type(self.store).__name__} has no option named filter, and might ignore it. A store for each "
                "tenant, or another kind of store, keeps tenants apart."
            )
        return other, by_text, text


def _has(store: VectorStore, name: str) -> bool:
    """Tell whether a store has a method of its own: that of LangChain's base class raises an error or calls another method."""
    method = getattr(store, name, None)
    return method is not None and getattr(method, "__func__", method) is not getattr(VectorStore, name, None)
