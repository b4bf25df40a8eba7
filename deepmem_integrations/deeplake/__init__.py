"""A store for documents in Deep Lake v4 data sets, which the vector stores for LangChain and LlamaIndex use.

The ``deeplake`` package is imported only when a store is opened.
"""

from deepmem_integrations.deeplake.package import import_deeplake
from deepmem_integrations.deeplake.store import DeepLakeStore, Metric, StoredDocument
from deepmem_integrations.deeplake.tql import Filter

__all__ = ["DeepLakeStore", "Filter", "Metric", "StoredDocument", "import_deeplake"]
