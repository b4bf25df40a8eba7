"""Readers of the documents to search: their ids and vectors, from arrays or from a store.

The readers of LangChain's and LlamaIndex's stores are in modules of their own, so that this package needs neither framework.
"""

from deepmem_integrations.corpora.corpus import (
    Batch,
    Corpus,
    CorpusVectors,
    GivenCorpus,
    HasCorpus,
    ListedCorpus,
    read_corpus,
    unit_batches,
)
from deepmem_integrations.corpora.deeplake import DeepLakeCorpus

__all__ = [
    "Batch",
    "Corpus",
    "CorpusVectors",
    "DeepLakeCorpus",
    "GivenCorpus",
    "HasCorpus",
    "ListedCorpus",
    "read_corpus",
    "unit_batches",
]
