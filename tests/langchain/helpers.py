"""The problem of the shared fixtures in LangChain's terms, and exact search to compare with."""

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.adapter.remembered import RememberedQueries, ValueSpace
from deepmem_integrations.labels import LabelRows
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


def remembering(queries, answers, ranking):
    """An adapter by hand that remembers queries, (n, d) unit rows, and the documents that they asked for, id → weight each."""
    dimension = queries.shape[1]
    names = sorted({name for one in answers for name in one})
    places = np.zeros((len(names), dimension), dtype=np.float32)
    space = ValueSpace(np.zeros(dimension, dtype=np.float32), np.eye(dimension, dtype=np.float32), 1.0)
    remembered = RememberedQueries(
        query_ids=tuple(f"query {row}" for row in range(len(queries))),
        texts=None,
        owners=np.arange(len(queries)),
        labels=LabelRows.of_rows([{names.index(name): weight for name, weight in one.items()} for one in answers]),
        document_ids=tuple(names),
        documents=places,
        space=space,
        trained=len(queries),
        trained_in_all=len(queries),
    )
    attention = Attention(queries.astype(np.float32), np.zeros_like(queries, dtype=np.float32), temperature=0.1, strength=0.0)
    return QueryAdapter(dimension, ranking=ranking, attention=attention, remembered_queries=remembered)
