"""The problem of the shared fixtures in LlamaIndex's terms, a scripted language model, and exact search to compare with."""

import warnings

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import CompletionResponse, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.schema import TextNode
from pydantic import Field, PrivateAttr

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.adapter.remembered import RememberedQueries, ValueSpace
from deepmem_integrations.labels.rows import LabelRows
from tests.embeddings import LookupEmbeddings


class Lookup(BaseEmbedding):
    """The lookup model as a LlamaIndex embedding model; its calls are counted by kind."""

    shift: int = 0
    _lookup: LookupEmbeddings = PrivateAttr()
    _calls: dict = PrivateAttr()

    def __init__(self, problem, **options):
        super().__init__(**{"model_name": "lookup", "embed_batch_size": 100, **options})
        self._lookup = LookupEmbeddings(problem)
        self._calls = {"query": 0, "aquery": 0, "texts": 0, "atexts": 0}

    @classmethod
    def class_name(cls):
        return "Lookup"

    @property
    def calls(self):
        return self._calls

    def _vector(self, text):
        return [float(value) for value in np.roll(self._lookup.embed_query(text), self.shift)]

    def _get_query_embedding(self, query):
        self._calls["query"] += 1
        return self._vector(query)

    async def _aget_query_embedding(self, query):
        self._calls["aquery"] += 1
        return self._vector(query)

    def _get_text_embedding(self, text):
        return self._vector(text)

    def _get_text_embeddings(self, texts):
        self._calls["texts"] += 1
        return [self._vector(text) for text in texts]

    async def _aget_text_embeddings(self, texts):
        self._calls["atexts"] += 1
        return [self._vector(text) for text in texts]


class Scripted(CustomLLM):
    """Answers from a script, the last answer again and again, word by word where it is streamed; keeps what it was told."""

    script: list[str]
    told: list[str] = Field(default_factory=list)

    @property
    def metadata(self):
        return LLMMetadata()

    def _next(self, prompt):
        self.told.append(prompt)
        return self.script[min(len(self.told), len(self.script)) - 1]

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=self._next(prompt))

    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, **kwargs):
        text = ""
        for word in self._next(prompt).split(" "):
            delta = f" {word}" if text else word
            text += delta
            yield CompletionResponse(text=text, delta=delta)


def nodes_of(problem):
    """The corpus as embedded nodes, whose texts and ids are the documents' names."""
    return [
        TextNode(
            id_=name, text=name, metadata={"half": row % 2}, excluded_embed_metadata_keys=["half"], embedding=vector.tolist()
        )
        for row, (name, vector) in enumerate(zip(problem.ids, problem.corpus, strict=True))
    ]


def expected(problem, vector, k, keep=lambda row: True):
    """Exact search with an already transformed query."""
    order = np.argsort(-(problem.corpus @ vector), kind="stable")
    return [problem.ids[row] for row in order if keep(row)][:k]


def ids(nodes):
    """The ids of nodes, with scores or without."""
    return [getattr(node, "node", node).node_id for node in nodes]


def remembering(ranking, dimension, query_vectors=None, labels=()):
    """A model that ranks, and remembers that these queries asked for these documents (ids or id → weight)."""
    if query_vectors is None:
        return QueryAdapter(dimension, ranking=ranking)
    keys = np.asarray(query_vectors, dtype=np.float32)
    keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    rows = [row if isinstance(row, dict) else dict.fromkeys(row, 1.0) for row in labels]
    names = sorted({name for row in rows for name in row})
    count, place = len(rows), {name: number for number, name in enumerate(names)}
    remembered = RememberedQueries(
        query_ids=tuple(f"query {row}" for row in range(count)),
        texts=None,
        owners=np.arange(count),
        labels=LabelRows.of_rows([{place[name]: weight for name, weight in row.items()} for row in rows]),
        document_ids=tuple(names),
        documents=np.zeros((len(names), dimension), dtype=np.float32),
        space=ValueSpace(np.zeros(dimension, dtype=np.float32), np.eye(dimension, dtype=np.float32), 1.0),
        trained=count,
        trained_in_all=count,
    )
    attention = Attention(keys, np.zeros_like(keys), temperature=0.1, strength=0.0)
    return QueryAdapter(dimension, ranking=ranking, attention=attention, remembered_queries=remembered)


def in_milvus(folder, dimension, **options):
    """A store in Milvus Lite. Its client for async calls can be made only where an event loop runs."""
    from llama_index.vector_stores.milvus import MilvusVectorStore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Milvus's packages warn of one another
        index = {"index_type": "FLAT"}
        options = {"overwrite": True, "use_async_client": False, **options}
        return MilvusVectorStore(uri=str(folder / "milvus.db"), dim=dimension, index_config=index, **options)
