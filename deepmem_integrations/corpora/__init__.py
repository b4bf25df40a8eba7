"""Readers of a corpus: the ids, the vectors and the texts of the documents to search, from arrays or from a store.

The readers of LangChain's and LlamaIndex's stores are in separate modules (``corpora.langchain``, ``corpora.llama_index``),
so that importing this package needs neither framework.
"""

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
from deepmem_integrations.corpora.deeplake import DeepLakeCorpus
from deepmem_integrations.corpora.parents import CorpusAtLevel
from deepmem_integrations.corpora.parquet import ParquetCorpus
from deepmem_integrations.corpora.selection import Lots, Selected, Selection
from deepmem_integrations.corpora.shards import Shard, ShardedCorpus
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
    "parent_of",
    "passes",
    "read_corpus",
    "unit_batches",
]
