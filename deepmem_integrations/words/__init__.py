"""Searches by words: an index of the documents' words in a folder, and the lexical searches that stores bring.

`WordIndex` needs the extra ``words`` (PyStemmer) for languages with a stemmer, and numpy alone for others.
"""

from deepmem_integrations.words.analysis import Analysis
from deepmem_integrations.words.change import Documents, Refreshed
from deepmem_integrations.words.index import Statistics, WordIndex, check_searchable
from deepmem_integrations.words.lexical_search import Filter, Found, LexicalSearch, search_name, search_words
from deepmem_integrations.words.segment import text_hashes
from deepmem_integrations.words.shards import TextShard, TextShards
from deepmem_integrations.words.stores import (
    DeepLakeWords,
    MilvusWords,
    PostgresWords,
    QdrantWords,
    RetrieverWords,
    lexical_search_of,
)
from deepmem_integrations.words.strings import hashes as string_hashes

__all__ = [
    "Analysis",
    "DeepLakeWords",
    "Documents",
    "Filter",
    "Found",
    "LexicalSearch",
    "MilvusWords",
    "PostgresWords",
    "QdrantWords",
    "Refreshed",
    "RetrieverWords",
    "Statistics",
    "TextShard",
    "TextShards",
    "WordIndex",
    "check_searchable",
    "lexical_search_of",
    "search_name",
    "search_words",
    "string_hashes",
    "text_hashes",
]
