"""Searches by words that a store or an application has already, behind the one interface `LexicalSearch`.

`DeepLakeWords` searches the text index of a Deep Lake data set. `RetrieverWords` takes a BM25 retriever of LangChain or
LlamaIndex. Other stores (Postgres, Qdrant, Milvus, Elasticsearch) have no class here: a class with their ``search`` is ten lines,
or `WordIndex` indexes their texts. No framework is imported: a retriever is known by its methods.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.deeplake import Filter as MetadataFilter
from deepmem_integrations.deeplake.tql import literal, where
from deepmem_integrations.errors import StoreError
from deepmem_integrations.words.lexical_search import Filter, Found, allows, check_search

_MORE = 4
"""By how much a search fetches more documents where a filter left too few."""


class DeepLakeWords:
    """The BM25 search of a Deep Lake v4 data set. Documents that are added later are found, too.

    Deep Lake ranks by BM25 and keeps the scores to itself, so a document's score is 1 / rank.

    Args:
        store: A `DeepLakeStore`, or a vector store of LangChain or LlamaIndex that has one as ``store``.
        metadata: Metadata that documents must have, which Deep Lake checks itself.

    Raises:
        StoreError: ``store`` is no Deep Lake store.
    """

    def __init__(self, store: Any, metadata: MetadataFilter | None = None) -> None:
        inner = store if isinstance(store, DeepLakeStore) else getattr(store, "store", None)
        if not isinstance(inner, DeepLakeStore):
            raise StoreError(
                f"A search by words needs a Deep Lake store of deepmem_integrations; got {type(store).__name__}. "
                "For other stores, index the texts: WordIndex.build(folder, documents)."
            )
        self.store = inner
        self.metadata = metadata

    def search(self, text: str, k: int, filter: Filter | None = None) -> Found:
        """Return the k best documents for a text.

        Args:
            text: The words to look for.
            k: At least 1.
            filter: Which documents may be found, by id.

        Raises:
            StoreError: The data set has no text index; `DeepLakeStore.create_text_index` makes one.
        """
        check_search(text, k)
        return _filtered(self._fetch, text, k, filter)

    def _fetch(self, text: str, limit: int) -> list[tuple[str, float]]:
        layout = self.store.layout
        order = f"ORDER BY BM25_SIMILARITY({layout.text}, {literal(text)}) DESC LIMIT {int(limit)}"
        found = self.store.query(f"SELECT * {where(self.metadata, layout.metadata)} {order}")
        return [(document.id, 1 / rank) for rank, document in enumerate(found, start=1)]


class RetrieverWords:
    """A BM25 retriever of LangChain or LlamaIndex, or any retriever that searches by words.

    - LangChain's ``BM25Retriever`` (langchain-community): its own BM25 scores.
    - LlamaIndex's ``BM25Retriever`` (llama-index-retrievers-bm25): the scores of its nodes.
    - Any other retriever with ``invoke`` or ``retrieve``: the scores of its results, or 1 / rank where results have no score.

    The retriever is never changed: more documents than it returns by itself are fetched through a copy with another ``k``. A
    retriever without ``k``, ``similarity_top_k`` or ``search_kwargs`` returns what it returns.

    Args:
        retriever: The retriever.
        id_of: A function from a document or node to its id. By default, a document's ``id`` or a node's ``node_id``.

    Raises:
        StoreError: The object is no retriever.

    Example:
        >>> class Document:
        ...     def __init__(self, id, text):
        ...         self.id, self.page_content = id, text
        >>> class Retriever:
        ...     def invoke(self, text):
        ...         return [Document("a", "first"), Document("b", "second")]
        >>> RetrieverWords(Retriever()).search("words", k=10, filter={"b"}).ids
        ['b']
    """

    def __init__(self, retriever: Any, id_of: Callable[[Any], str | None] | None = None) -> None:
        if not any(callable(getattr(retriever, method, None)) for method in ("invoke", "retrieve")):
            raise StoreError(
                f"A retriever has invoke(text) (LangChain) or retrieve(text) (LlamaIndex); {type(retriever).__name__} has "
                "neither."
            )
        self.retriever = retriever
        self._id_of = id_of or _own_id

    def search(self, text: str, k: int, filter: Filter | None = None) -> Found:
        """Return the k best documents for a text.

        Args:
            text: The words to look for.
            k: At least 1.
            filter: Which documents may be found, by id.

        Raises:
            StoreError: A document has no id.
        """
        check_search(text, k)
        return _filtered(self._fetch, text, k, filter)

    def _fetch(self, text: str, limit: int) -> list[tuple[str, float]]:
        retriever = self.retriever
        if _has_bm25_scores(retriever):
            scores = np.asarray(retriever.vectorizer.get_scores(retriever.preprocess_func(text)), dtype=np.float64)
            best = np.argsort(-scores, kind="stable")[:limit]
            return [(self._id(retriever.docs[row]), float(scores[row])) for row in best.tolist() if scores[row]]
        retriever = _with_limit(retriever, limit)
        if hasattr(retriever, "invoke"):
            return [(self._id(found), 1 / rank) for rank, found in enumerate(retriever.invoke(text), start=1)]
        nodes = retriever.retrieve(text)
        return [
            (self._id(found.node), 1 / rank if found.score is None else float(found.score))
            for rank, found in enumerate(nodes, start=1)
        ]

    def _id(self, document: Any) -> str:
        name = self._id_of(document)
        if not isinstance(name, str) or not name:
            raise StoreError(
                f"A document that the retriever found has no id: {str(document)[:80]!r}. Give the documents the ids of the "
                "vector store (LangChain: Document(id=…) or BM25Retriever.from_texts(texts, ids=…)), or pass id_of=."
            )
        return name


def _filtered(fetch: Callable[[str, int], list[tuple[str, float]]], text: str, k: int, filter: Filter | None) -> Found:
    """Fetch documents until k of them pass the filter, or no more come."""
    allowed, before, limit = allows(filter), -1, int(k)
    while True:
        fetched = fetch(text, limit)
        passing = list(_distinct((name, score) for name, score in fetched if allowed(name)))
        if len(passing) >= k or len(fetched) < limit or len(fetched) == before:
            break
        before, limit = len(fetched), limit * _MORE
    # Documents without any word of the query have a score of 0.
    best = [(name, score) for name, score in passing if score != 0][:k]
    return Found([name for name, _ in best], np.array([score for _, score in best], dtype=np.float32))


def _distinct(found: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """Yield the first of each id."""
    seen = set()
    for name, score in found:
        if name not in seen:
            seen.add(name)
            yield name, score


def _has_bm25_scores(retriever: Any) -> bool:
    """Tell whether a retriever is LangChain's BM25Retriever, which has the scores of all documents at hand."""
    return all(hasattr(retriever, name) for name in ("docs", "preprocess_func")) and hasattr(
        getattr(retriever, "vectorizer", None), "get_scores"
    )


def _with_limit(retriever: Any, limit: int) -> Any:
    """Return a copy of a retriever that returns up to ``limit`` documents, where the retriever has a limit to set."""
    corpus = getattr(retriever, "corpus", None)
    if isinstance(corpus, Sequence):
        limit = min(limit, len(corpus))  # LlamaIndex's BM25Retriever fails beyond
    changes: dict[str, Any] = {
        name: limit for name in ("k", "similarity_top_k", "_similarity_top_k") if isinstance(getattr(retriever, name, None), int)
    }
    if isinstance(getattr(retriever, "search_kwargs", None), dict):
        changes["search_kwargs"] = {**retriever.search_kwargs, "k": limit}
    if not changes:
        return retriever
    if hasattr(retriever, "model_copy"):
        return retriever.model_copy(update=changes)
    clone = copy.copy(retriever)
    for name, value in changes.items():
        setattr(clone, name, value)
    return clone


def _own_id(document: Any) -> str | None:
    for name in ("node_id", "id"):
        if isinstance(found := getattr(document, name, None), str):
            return found
    return None
