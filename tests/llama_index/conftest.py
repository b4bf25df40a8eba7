"""The problem of the shared fixtures in LlamaIndex's terms: an embedding model, indices, a trained adapter."""

import pytest
from llama_index.core import StorageContext, VectorStoreIndex

from deepmem_integrations import train_adapter
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.llama_index import DeepLakeVectorStore
from tests.embeddings import LookupEmbeddings
from tests.llama_index.helpers import Lookup, nodes_of


@pytest.fixture
def embed_model(problem):
    return Lookup(problem)


@pytest.fixture
def index(problem, embed_model):
    """Over LlamaIndex's own store in memory."""
    return VectorStoreIndex(nodes_of(problem), embed_model=embed_model)


@pytest.fixture
def deeplake_index(problem, embed_model, tmp_path):
    context = StorageContext.from_defaults(vector_store=DeepLakeVectorStore(tmp_path / "dataset"))
    return VectorStoreIndex(nodes_of(problem), storage_context=context, embed_model=embed_model)


@pytest.fixture(scope="session")
def adapter(problem):
    fingerprint = Embedder(LookupEmbeddings(problem)).fingerprint()
    return train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, fingerprint=fingerprint).adapter
