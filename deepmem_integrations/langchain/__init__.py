"""The parts for LangChain: retriever, embeddings wrapper, query transform, query generator, judge, Deep Lake vector store."""

from deepmem_integrations._extras import require

require("langchain_core", extra="langchain")

from deepmem_integrations.langchain.embeddings import DeepMemoryEmbeddings  # noqa: E402 - after the check above
from deepmem_integrations.langchain.generation import SyntheticQueryGenerator  # noqa: E402
from deepmem_integrations.langchain.judging import RelevanceJudge  # noqa: E402
from deepmem_integrations.langchain.retrievers import DeepMemoryRetriever  # noqa: E402
from deepmem_integrations.langchain.transforms import DeepMemoryQueryTransform  # noqa: E402
from deepmem_integrations.langchain.vectorstores import DeepLake  # noqa: E402

__all__ = [
    "DeepLake",
    "DeepMemoryEmbeddings",
    "DeepMemoryQueryTransform",
    "DeepMemoryRetriever",
    "RelevanceJudge",
    "SyntheticQueryGenerator",
]
