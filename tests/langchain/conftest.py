"""The problem of the shared fixtures in LangChain's terms: an embedding model, a Deep Lake store, a trained adapter."""

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from deepmem_integrations import train_adapter
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.langchain import DeepLake
from tests.conftest import LookupEmbeddings


class Lookup(LookupEmbeddings, Embeddings):
    """The lookup model as a LangChain embedding model; its async calls are counted."""

    async_queries = 0

    async def aembed_query(self, text: str) -> list[float]:
        self.async_queries += 1
        return self.embed_query(text)


def documents_of(problem):
    return [Document(id=name, page_content=name, metadata={"half": row % 2}) for row, name in enumerate(problem.ids)]


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


def expected(problem, vector, k, keep=lambda row: True):
    """Exact search with an already transformed query."""
    order = np.argsort(-(problem.corpus @ vector), kind="stable")
    return [problem.ids[row] for row in order if keep(row)][:k]


def ids(documents):
    return [document.id for document in documents]
