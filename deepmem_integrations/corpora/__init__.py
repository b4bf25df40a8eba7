"""Readers of a corpus: the ids, the vectors and the texts of the documents to search, from arrays or from a store.

The readers of LangChain's and LlamaIndex's stores are in separate modules (``corpora.langchain``, ``corpora.llama_index``),
so that importing this package needs neither framework.
"""

from typing import Any

from deepmem_integrations._texts import id_and_text, parent_of
from deepmem_integrations.corpora.corpus import (
    Batch,
    Corpus,
    CorpusVectors,
    CorpusView,
    GivenCorpus,
    HasCorpus,
    ListedCorpus,
    check_metric,
    digest,
    read_corpus,
    unit_batches,
)
from deepmem_integrations.corpora.deeplake import DeepLakeCorpus, DeepLakeShards
from deepmem_integrations.corpora.lance import LanceCorpus
from deepmem_integrations.corpora.parents import CorpusAtLevel
from deepmem_integrations.corpora.parquet import ParquetCorpus
from deepmem_integrations.corpora.selection import Lots, Selected, Selection
from deepmem_integrations.corpora.shards import Shard, ShardedCorpus, in_shards
from deepmem_integrations.corpora.where import Where, passes

__all__ = [
    "Batch",
    "Corpus",
    "CorpusAtLevel",
    "CorpusVectors",
    "CorpusView",
    "DeepLakeCorpus",
    "GivenCorpus",
    "HasCorpus",
    "LanceCorpus",
    "ListedCorpus",
    "Lots",
    "ParquetCorpus",
    "Selected",
    "Selection",
    "Shard",
    "ShardedCorpus",
    "Where",
    "check_metric",
    "digest",
    "id_and_text",
    "in_shards",
    "open_shards",
    "parent_of",
    "passes",
    "read_corpus",
    "unit_batches",
]


def open_shards(kind: str, arguments: dict[str, Any]) -> ShardedCorpus:
    """Open a corpus in shards that another process named.

    Args:
        kind: The corpus's ``kind``.
        arguments: What its ``to_json`` returned.

    Raises:
        StoreError: The corpus is not there any more.
    """
    kinds: dict[str, type[ShardedCorpus]] = {one.kind: one for one in (DeepLakeShards, LanceCorpus, ParquetCorpus)}
    return kinds[kind](**arguments)
