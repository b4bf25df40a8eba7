"""The problem of the shared fixtures in the stores of both frameworks."""

import pytest
from llama_index.core import StorageContext, VectorStoreIndex

from deepmem_integrations.langchain import DeepLake
from deepmem_integrations.llama_index import DeepLakeVectorStore
from tests.langchain.helpers import Lookup as LangChainLookup
from tests.langchain.helpers import documents_of
from tests.llama_index.helpers import Lookup as LlamaIndexLookup
from tests.llama_index.helpers import nodes_of


@pytest.fixture
def db(problem, tmp_path):
    db = DeepLake(tmp_path / "dataset", embedding=LangChainLookup(problem))
    db.add_documents(documents_of(problem))
    return db


@pytest.fixture
def embed_model(problem):
    return LlamaIndexLookup(problem)


@pytest.fixture
def index(problem, embed_model):
    """Over LlamaIndex's own store in memory."""
    return VectorStoreIndex(nodes_of(problem), embed_model=embed_model)


@pytest.fixture
def deeplake_index(problem, embed_model, tmp_path):
    context = StorageContext.from_defaults(vector_store=DeepLakeVectorStore(tmp_path / "dataset"))
    return VectorStoreIndex(nodes_of(problem), storage_context=context, embed_model=embed_model)
