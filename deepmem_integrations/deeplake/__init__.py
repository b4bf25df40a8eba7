"""A store over Deep Lake v4 data sets, for both frameworks. The ``deeplake`` package is imported when a store is opened."""

from deepmem_integrations.deeplake.package import import_deeplake
from deepmem_integrations.deeplake.store import DeepLakeStore, Metric, StoredDocument
from deepmem_integrations.deeplake.tql import Filter

__all__ = ["DeepLakeStore", "Filter", "Metric", "StoredDocument", "import_deeplake"]
