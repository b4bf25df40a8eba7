"""The problem of the shared fixtures in LangChain's terms, and exact search to compare with."""

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from tests.embeddings import LookupEmbeddings


class Lookup(LookupEmbeddings, Embeddings):
    """The lookup model as a LangChain embedding model; its async calls are counted."""

    async_queries = 0

    async def aembed_query(self, text: str) -> list[float]:
        self.async_queries += 1
        return self.embed_query(text)


def documents_of(problem):
    return [Document(id=name, page_content=name, metadata={"half": row % 2}) for row, name in enumerate(problem.ids)]


def expected(problem, vector, k, keep=lambda row: True):
    """Exact search with an already transformed query."""
    order = np.argsort(-(problem.corpus @ vector), kind="stable")
    return [problem.ids[row] for row in order if keep(row)][:k]


def ids(documents):
    return [document.id for document in documents]
