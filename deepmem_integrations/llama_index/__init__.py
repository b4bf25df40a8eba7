"""The parts for LlamaIndex: retriever, embedding wrapper, query transform, query generator, judge, Deep Lake vector store."""

from deepmem_integrations._extras import require

require("llama_index.core", extra="llama-index")

from deepmem_integrations.llama_index.adapters import import_linear_adapter  # noqa: E402 - after the check above
from deepmem_integrations.llama_index.embeddings import DeepMemoryEmbedding  # noqa: E402
from deepmem_integrations.llama_index.generation import SyntheticQueryGenerator  # noqa: E402
from deepmem_integrations.llama_index.judging import RelevanceJudge  # noqa: E402
from deepmem_integrations.llama_index.retrievers import DeepMemoryRetriever  # noqa: E402
from deepmem_integrations.llama_index.transforms import DeepMemoryQueryTransform  # noqa: E402
from deepmem_integrations.llama_index.vectorstores import DeepLakeVectorStore  # noqa: E402

__all__ = [
    "DeepLakeVectorStore",
    "DeepMemoryEmbedding",
    "DeepMemoryQueryTransform",
    "DeepMemoryRetriever",
    "RelevanceJudge",
    "SyntheticQueryGenerator",
    "import_linear_adapter",
]
