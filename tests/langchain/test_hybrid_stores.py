"""Stores whose own retriever searches words beside vectors: it goes on searching words, with the transformed vector.

Qdrant is real. Weaviate and Astra DB have no server that a test can start: there the stores' own classes are real, and a client
or a local web server in the place of the server keeps what it is asked for.
"""

import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from langchain_core.documents import Document

from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain import DeepMemoryEmbeddings, DeepMemoryRetriever
from tests.langchain.helpers import Lookup, documents_of, expected

pytestmark = pytest.mark.slow


# ---- Qdrant ----------------------------------------------------------------------------------------------------------


def in_qdrant(client, embeddings):
    from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector

    class Words(SparseEmbeddings):
        """One dimension a word."""

        def embed_query(self, text):
            words = sorted({zlib.crc32(word.encode()) for word in text.split()})
            return SparseVector(indices=words, values=[1.0] * len(words))

        def embed_documents(self, texts):
            return [self.embed_query(text) for text in texts]

    return QdrantVectorStore(
        client,
        "both",
        embeddings,
        retrieval_mode=RetrievalMode.HYBRID,
        sparse_embedding=Words(),
        validate_embeddings=False,
    )


@pytest.fixture
def qdrant(problem):
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    dense = models.VectorParams(size=32, distance=models.Distance.COSINE)
    client.create_collection("both", {"": dense}, sparse_vectors_config={"langchain-sparse": models.SparseVectorParams()})
    store = in_qdrant(client, Lookup(problem))
    store.add_documents([Document(page_content=one.page_content, metadata=one.metadata) for one in documents_of(problem)])
    yield store
    client.close()


def texts_of(documents):
    return [document.page_content for document in documents]


async def test_a_hybrid_search_finds_words_and_the_transformed_vector(qdrant, problem, adapter):
    far = expected(problem, -problem.test_queries[0], 1)[0]
    query = f"{far} as a word"
    vector = np.array(qdrant.embeddings.embed_query(query))
    moved = expected(problem, adapter.transform(vector), 8)
    assert far not in moved, "only the word finds it"
    assert moved != expected(problem, vector, 8)
    retriever = DeepMemoryRetriever(vectorstore=qdrant, memory=adapter, k=8)
    wrapped = in_qdrant(qdrant.client, DeepMemoryEmbeddings(Lookup(problem), adapter))
    right = texts_of(wrapped.as_retriever(search_kwargs={"k": 8}).invoke(query))
    assert far in right
    assert set(right) - {far} <= set(moved)
    for found in (retriever.invoke(query), await retriever.ainvoke(query)):
        assert texts_of(found) == right
    plain = texts_of(qdrant.as_retriever(search_kwargs={"k": 8}).invoke(query))
    assert texts_of(retriever.invoke(query, deep_memory=False)) == plain != right
    odd = retriever.invoke(query, filter=half(1))
    assert {document.metadata["half"] for document in odd} == {1}


def half(value):
    from qdrant_client import models

    return models.Filter(must=[models.FieldCondition(key="metadata.half", match=models.MatchValue(value=value))])


def test_a_search_by_words_alone_has_nothing_to_transform(qdrant, problem, adapter):
    from langchain_qdrant import RetrievalMode

    qdrant.retrieval_mode = RetrievalMode.SPARSE
    with pytest.raises(StoreError, match=r"did not ask the embedding model .* words.* DeepMemoryEmbeddings"):
        DeepMemoryRetriever(vectorstore=qdrant, memory=adapter).invoke("doc-7 as a word")


# ---- Weaviate --------------------------------------------------------------------------------------------------------


class WeaviateClient:
    """A client of Weaviate, as far as a store calls it, that keeps what it is asked for, and a collection of one document."""

    def __init__(self) -> None:
        from weaviate.exceptions import WeaviateInvalidInputError

        self.asked = []
        found = SimpleNamespace(
            properties={"text": "found", "half": 1}, metadata=SimpleNamespace(score=0.75), vector={}, uuid="doc-1"
        )

        def hybrid(*, query, vector, limit, filters=None, **options):
            from weaviate.collections.classes.filters import _Filters

            if not isinstance(filters, _Filters | None):
                raise WeaviateInvalidInputError("filters")
            self.asked.append({"query": query, "vector": vector, "limit": limit, "filters": filters, **options})
            return SimpleNamespace(objects=[SimpleNamespace(**{**vars(found), "properties": dict(found.properties)})])

        tenants = SimpleNamespace(multi_tenancy_config=SimpleNamespace(enabled=False))
        collection = SimpleNamespace(query=SimpleNamespace(hybrid=hybrid), config=SimpleNamespace(get=lambda simple: tenants))
        self.collections = SimpleNamespace(exists=lambda name: True, get=lambda name: collection)
        self.integrations = SimpleNamespace(configure=lambda integration: None)
        self._connection = SimpleNamespace(set_integrations=lambda integrations: None)


async def test_weaviate_gets_the_words_and_the_transformed_vector(problem, adapter):
    from langchain_weaviate import WeaviateVectorStore
    from weaviate.classes.query import Filter

    client = WeaviateClient()
    store = WeaviateVectorStore(client, "Documents", "text", Lookup(problem))
    query = problem.test.queries[0]
    moved = adapter.transform(problem.test_queries[0]).tolist()
    filters = Filter.by_property("half").equal(1)
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3)
    assert texts_of(retriever.invoke(query, filters=filters, alpha=0.25)) == ["found"]
    (asked,) = client.asked
    assert (asked["query"], asked["limit"], asked["filters"], asked["alpha"]) == (query, 3, filters, 0.25)
    assert asked["vector"] == pytest.approx(moved)
    plain = store.as_retriever(search_kwargs={"k": 3, "alpha": 0.25, "filters": filters})
    plain.invoke(query)
    assert {**client.asked[-1], "vector": None} == {**asked, "vector": None}, "nothing but the vector is another one"
    for threshold, texts in ((0.6, ["found"]), (0.7, [])):  # Weaviate's class turns the score 0.75 into 0.679
        search = {"search_type": "similarity_score_threshold", "search_kwargs": {"score_threshold": threshold}}
        by_threshold = DeepMemoryRetriever(vectorstore=store, memory=adapter, **search)
        assert texts_of(by_threshold.invoke(query)) == texts == texts_of(store.as_retriever(**search).invoke(query))
        assert client.asked[-2]["query"] == query


# ---- Astra DB --------------------------------------------------------------------------------------------------------


@pytest.fixture
def astra():
    """The address of a web server that answers like Astra DB's Data API, and what the server was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            document = {"_id": "doc-1", "content": "found", "metadata": {"half": 1}}
            scores = [{"scores": {"$rerank": 0.9, "$vector": 0.8, "$lexical": 0.7}}]
            answer = {"data": {"documents": [document], "nextPageState": None}, "status": {"documentResponses": scores}}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


async def test_astra_db_gets_the_words_and_the_transformed_vector(astra, problem, adapter):
    from langchain_astradb import AstraDBVectorStore
    from langchain_astradb.utils.astradb import HybridSearchMode, SetupMode

    address, asked = astra
    store = AstraDBVectorStore(
        collection_name="documents",
        embedding=Lookup(problem),
        token="token",
        api_endpoint=address,
        environment="dse",
        namespace="space",
        setup_mode=SetupMode.OFF,
        collection_lexical="standard",
        hybrid_search=HybridSearchMode.ON,
    )
    query = problem.test.queries[0]
    moved = adapter.transform(problem.test_queries[0])
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3)
    for found in (retriever.invoke(query), await retriever.ainvoke(query)):
        assert texts_of(found) == ["found"]
        (command,) = asked.pop().values()
        assert command["sort"]["$hybrid"]["$lexical"] == query
        assert command["options"]["limit"] == 3
        np.testing.assert_allclose(vector_of(command["sort"]["$hybrid"]["$vector"]), moved, atol=1e-6)


def vector_of(written):
    """Read a vector as Astra DB's client writes it: as numbers, or as base64 of big-endian floats."""
    import base64

    return np.frombuffer(base64.b64decode(written["$binary"]), dtype=">f4") if isinstance(written, dict) else written
