"""Searches by words that a store or an application has already, behind the one interface `LexicalSearch`.

`lexical_search_of` finds the search of a store. `RetrieverWords` takes a BM25 retriever of LangChain or LlamaIndex. Other stores
(Elasticsearch, Weaviate) have no class here: a class with their ``search`` is ten lines, or `WordIndex` indexes their texts. No
framework is imported: a store is known by the name of its class, a retriever by its methods.
"""

from typing import Any

from deepmem_integrations.errors import StoreError
from deepmem_integrations.words.lexical_search import LexicalSearch
from deepmem_integrations.words.stores.deeplake import DeepLakeWords
from deepmem_integrations.words.stores.milvus import MilvusWords
from deepmem_integrations.words.stores.postgres import PostgresWords
from deepmem_integrations.words.stores.qdrant import QdrantWords
from deepmem_integrations.words.stores.retrievers import RetrieverWords

__all__ = ["DeepLakeWords", "MilvusWords", "PostgresWords", "QdrantWords", "RetrieverWords", "lexical_search_of"]


def lexical_search_of(store: Any) -> LexicalSearch | None:
    """Return the search by words that a vector store has itself, or None where it has none that can be used.

    - Deep Lake: if the data set has a text index.
    - Postgres (``PGVector``, ``PGVectorStore``): always, unless the store is opened for asynchronous calls alone.
    - Qdrant: if the store has a sparse embedding, and the collection a sparse vector.
    - Milvus: if the collection has a BM25 function.

    Args:
        store: A vector store of LangChain or LlamaIndex, or a `DeepLakeStore`.

    Example:
        >>> lexical_search_of(object()) is None
        True
    """
    for kind in (DeepLakeWords, PostgresWords, QdrantWords, MilvusWords):
        try:
            found = kind(store)
        except StoreError:
            continue
        return found if found.is_ready() else None
    return None
