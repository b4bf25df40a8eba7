"""The problem of the shared fixtures in LangChain's terms: an embedding model, a Deep Lake store, a trained adapter."""

import pytest

from deepmem_integrations import train_adapter
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.langchain import DeepLake
from tests.langchain.helpers import Lookup, documents_of


@pytest.fixture
def db(problem, tmp_path):
    db = DeepLake(tmp_path / "dataset", embedding=Lookup(problem))
    db.add_documents(documents_of(problem))
    return db


@pytest.fixture(scope="session")
def adapter(problem):
    fingerprint = Embedder(Lookup(problem)).fingerprint()
    return train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, fingerprint=fingerprint).adapter


@pytest.fixture
def trained(db, adapter):
    """A store with a model that was trained before, so that not every test trains one."""
    db.vectorstore.deep_memory.folder.save_model("before", adapter)
    db.vectorstore.deep_memory.set_model("before")
    return db
