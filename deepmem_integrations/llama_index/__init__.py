"""LlamaIndex parts: the retriever to swap in."""

from deepmem_integrations._extras import require

require("llama_index.core", extra="llama-index")

from deepmem_integrations.llama_index.generation import SyntheticQueryGenerator  # noqa: E402 - after the check above
from deepmem_integrations.llama_index.retrievers import DeepMemoryRetriever  # noqa: E402

__all__ = ["DeepMemoryRetriever", "SyntheticQueryGenerator"]
