"""The searches by words of retrievers of LangChain and LlamaIndex. A retriever is known by its methods."""

import copy
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from deepmem_integrations.errors import StoreError
from deepmem_integrations.words.lexical_search import Filter, Found, check_search
from deepmem_integrations.words.stores.filtered import Scored, filtered


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
        return filtered(lambda limit: self._fetch(text, limit), k, filter)

    def _fetch(self, text: str, limit: int) -> Scored:
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


def _has_bm25_scores(retriever: Any) -> bool:
    """Tell whether a retriever is LangChain's BM25Retriever, which has the scores of all documents at hand.

    A class of one's own below it may retrieve in another way, and is asked itself.
    """
    below = takewhile(lambda base: base.__name__ != "BM25Retriever", type(retriever).__mro__)
    if any(name in vars(base) for base in below for name in ("_get_relevant_documents", "invoke")):
        return False
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
