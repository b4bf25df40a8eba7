"""LangChain parts: the retriever to swap in, and the Deep Lake v4 vector store."""

from deepmem_integrations._extras import require

require("langchain_core", extra="langchain")

from deepmem_integrations.langchain.retrievers import DeepMemoryRetriever  # noqa: E402 - after the check above
from deepmem_integrations.langchain.vectorstores import DeepLake  # noqa: E402

__all__ = ["DeepLake", "DeepMemoryRetriever"]
