"""The search of a real Qdrant by sparse vectors, through the stores of both frameworks. Qdrant runs in this process."""

import re
import uuid
import zlib

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from deepmem_integrations.errors import StoreError
from deepmem_integrations.words import QdrantWords, lexical_search_of
from tests.words.searches import TEXTS, check_search_by_words

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning"),
]

EMBEDDING = DeterministicFakeEmbedding(size=4)
IDS = [str(uuid.UUID(int=number + 1)) for number in range(len(TEXTS) - 1)] + [str(2**63)]  # a point's id may be a number


def counted(text):
    """A dimension for each word; a word's weight grows with its count."""
    words = [zlib.crc32(word.encode()) for word in re.findall(r"[\w-]+", text.lower())]
    distinct = sorted(set(words))
    return distinct, [words.count(word) / (words.count(word) + 1) for word in distinct]


@pytest.fixture(scope="module")
def client():
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    yield client
    client.close()


def langchain_store(client, name="langchain", mode="hybrid", **options):
    from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector
    from qdrant_client import models

    class Words(SparseEmbeddings):
        def embed_query(self, text):
            indices, values = counted(text)
            return SparseVector(indices=indices, values=values)

        def embed_documents(self, texts):
            return [self.embed_query(text) for text in texts]

    if not client.collection_exists(name):
        dense = models.VectorParams(size=4, distance=models.Distance.COSINE)
        client.create_collection(name, {"": dense}, sparse_vectors_config={"my words": models.SparseVectorParams()})
    settings = {"sparse_embedding": Words(), "sparse_vector_name": "my words", "validate_embeddings": False, **options}
    return QdrantVectorStore(client, name, EMBEDDING, retrieval_mode=RetrievalMode(mode), **settings)


def llama_index_store(client, name="llama_index", **options):
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    def encode(texts):
        encoded = [counted(text) for text in texts]
        return [indices for indices, _ in encoded], [values for _, values in encoded]

    settings = {"enable_hybrid": True, "sparse_doc_fn": encode, "sparse_query_fn": encode, **options}
    return QdrantVectorStore(name, client=client, **settings)


@pytest.mark.parametrize("mode", ["hybrid", "sparse"])
def test_langchains_store_searches_words(client, mode):
    from qdrant_client import models

    store = langchain_store(client, f"langchain {mode}", mode)
    halves = [{"half": number % 2} for number in range(len(TEXTS))]
    store.add_texts(TEXTS, halves, ids=[name if "-" in name else int(name) for name in IDS])
    search = lexical_search_of(store)
    assert isinstance(search, QdrantWords)
    check_search_by_words(search, IDS)
    assert search.search("東京", 5, {IDS[-1], "0" + IDS[-1], IDS[-1] + "0" * 20}).ids == [IDS[-1]]
    half = models.Filter(must=[models.FieldCondition(key="metadata.half", match=models.MatchValue(value=1))])
    odd = QdrantWords(store, metadata=half)
    assert set(odd.search("router table error documents", 10).ids) == {IDS[1], IDS[5]}
    assert odd.search("router table error documents", 10, filter={IDS[0], IDS[5]}).ids == [IDS[5]]


def test_llama_indexs_store_searches_words(client):
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

    store = llama_index_store(client)
    assert lexical_search_of(store) is None, "the collection is made with the first nodes"
    ids = [*IDS[:-1], str(uuid.uuid4())]
    vectors = EMBEDDING.embed_documents(TEXTS)
    store.add(
        [
            TextNode(id_=name, text=text, embedding=vector, metadata={"half": number % 2})
            for number, (name, text, vector) in enumerate(zip(ids, TEXTS, vectors, strict=True))
        ]
    )
    search = lexical_search_of(store)
    assert isinstance(search, QdrantWords)
    check_search_by_words(search, ids)
    odd = QdrantWords(store, metadata=MetadataFilters(filters=[MetadataFilter(key="half", value=1)]))
    assert set(odd.search("router table error documents", 10).ids) == {ids[1], ids[5]}


def test_stores_that_cannot_search_words_are_refused(client):
    from qdrant_client import AsyncQdrantClient, models

    dense = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection("dense", dense)
    for store in (
        langchain_store(client, "dense", "dense", sparse_embedding=None),
        llama_index_store(client, "dense", enable_hybrid=False),
    ):
        assert lexical_search_of(store) is None
        with pytest.raises(StoreError, match=r"has no sparse embedding.* sparse_embedding=.* enable_hybrid=True"):
            QdrantWords(store)
    assert lexical_search_of(langchain_store(client, "dense", "dense")) is None, "the collection has no sparse vector"
    alone = llama_index_store(None, "dense", aclient=AsyncQdrantClient(":memory:"))
    with pytest.raises(StoreError, match="has only an async client"):
        QdrantWords(alone)
    with pytest.raises(StoreError, match=r"needs a store among langchain_qdrant\..*; got int\. .*WordIndex"):
        QdrantWords(1)
