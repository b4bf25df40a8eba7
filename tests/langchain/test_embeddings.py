import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import EmbeddingsFilter
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.adapter import PROBES
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import AdapterFileError, EmbeddingError, EmbeddingMismatchError, NotTrainedError
from deepmem_integrations.langchain import DeepLake, DeepMemoryEmbeddings, DeepMemoryQueryTransform, DeepMemoryRetriever
from deepmem_integrations.models import ModelFolder
from tests.langchain.helpers import Lookup, documents_of, expected, ids


class Standard:
    @property
    def embeddings_class(self):
        return DeepMemoryEmbeddings

    @property
    def embedding_model_params(self):
        turn = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
        return {"embeddings": DeterministicFakeEmbedding(size=8), "memory": QueryAdapter(8, linear=turn)}


class TestUnit(Standard, EmbeddingsUnitTests):
    pass


class TestIntegration(Standard, EmbeddingsIntegrationTests):
    pass


async def test_queries_are_transformed_and_documents_are_not(problem, adapter):
    base = Lookup(problem)
    wrapped = DeepMemoryEmbeddings(embeddings=base, memory=adapter)
    query = problem.test.queries[0]
    right = adapter.transform(problem.test_queries[0])
    for vector in (wrapped.embed_query(query), await wrapped.aembed_query(query)):
        np.testing.assert_allclose(vector, right, atol=1e-6)
        assert type(vector[0]) is float
    assert base.async_queries == 1
    texts = problem.ids[:3]
    assert wrapped.embed_documents(texts) == await wrapped.aembed_documents(texts) == base.embed_documents(texts)


def test_it_works_inside_a_store_and_follows_the_model_in_use(problem, trained):
    memory = trained.deep_memory
    store = InMemoryVectorStore(DeepMemoryEmbeddings(Lookup(problem), memory))
    store.add_documents(documents_of(problem))
    query, vector = problem.test.queries[0], problem.test_queries[0]
    assert ids(store.similarity_search(query, k=6)) == expected(problem, memory.transform(vector), 6)
    memory.folder.save_model("nothing", QueryAdapter(32, fingerprint=memory.adapter.fingerprint))
    memory.set_model("nothing")
    assert ids(store.similarity_search(query, k=6)) == expected(problem, vector, 6)


async def test_queries_are_plain_until_a_model_is_in_use(problem, adapter, tmp_path):
    folder, base, query = ModelFolder(tmp_path / "not yet"), Lookup(problem), problem.test.queries[0]
    wrapped = DeepMemoryEmbeddings(base, folder.path)
    transform = DeepMemoryQueryTransform(folder, base)
    ways = (wrapped.embed_query, transform.invoke)
    plain = base.embed_query(query)
    assert [way(query) for way in ways] == [plain, plain]
    assert await wrapped.aembed_query(query) == await transform.ainvoke(query) == plain
    assert transform.invoke(plain) == plain
    folder.save_model("one", adapter)
    folder.use("one")
    assert [way(query) for way in ways] == [adapter.transform(plain).tolist()] * 2


def test_training_looks_through_it(problem, adapter, tmp_path):
    base = Lookup(problem)
    wrapped = DeepMemoryEmbeddings(DeepMemoryEmbeddings(base, QueryAdapter(32)), adapter)
    assert wrapped.untransformed is base, "a wrapped model is unwrapped, not doubled"
    assert Embedder(wrapped).model is base
    np.testing.assert_allclose(
        wrapped.embed_query(problem.test.queries[0]), adapter.transform(problem.test_queries[0]), atol=1e-6
    )
    store = InMemoryVectorStore(wrapped)
    store.add_documents(documents_of(problem))
    memory = DeepMemory.from_langchain(store, path=tmp_path)
    assert memory.embedder.model is base
    queries = problem.test.queries[:2]
    np.testing.assert_allclose(memory.embedder.embed_queries(queries), problem.test_queries[:2], atol=1e-6)


def test_a_deep_lake_store_with_wrapped_embeddings_transforms_once(problem, trained):
    store = DeepLake(trained.store.path, embedding=DeepMemoryEmbeddings(Lookup(problem), trained.deep_memory))
    query = problem.test.queries[0]
    right = expected(problem, trained.deep_memory.transform(problem.test_queries[0]), 8)
    assert ids(store.similarity_search(query, 8)) == right
    assert ids(store.similarity_search(query, 8, deep_memory=True)) == right
    vector = store.embeddings.embed_query(query)
    assert ids(store.similarity_search_by_vector(vector, 8, deep_memory=True)) == right


def test_inside_another_wrapper_it_is_refused_where_it_would_be_applied_twice(problem, adapter, tmp_path):
    wrapped = DeepMemoryEmbeddings(Lookup(problem), adapter)
    cached = CacheBackedEmbeddings(wrapped, InMemoryByteStore())
    store = InMemoryVectorStore(cached)
    message = r"CacheBackedEmbeddings holds a DeepMemoryEmbeddings.* DeepMemoryEmbeddings\(CacheBackedEmbeddings\(…\)\)"
    for use in (
        lambda: DeepMemory.from_langchain(store, path=tmp_path),
        lambda: DeepMemoryRetriever(vectorstore=store, memory=adapter).invoke("q"),
        lambda: DeepMemoryEmbeddings(cached, adapter),
        lambda: DeepMemory(InMemoryVectorStore, cached, tmp_path),
    ):
        with pytest.raises(EmbeddingError, match=message):
            use()
    right = DeepMemoryEmbeddings(CacheBackedEmbeddings(Lookup(problem), InMemoryByteStore()), adapter)
    np.testing.assert_allclose(right.embed_query(problem.test.queries[0]), adapter.transform(problem.test_queries[0]), atol=1e-6)


class Retrying(Embeddings):
    """Somebody's wrapper of an embedding model."""

    def __init__(self, inner):
        self.inner, self.itself = inner, self

    def embed_query(self, text):
        return self.inner.embed_query(text)

    def embed_documents(self, texts):
        return self.inner.embed_documents(texts)


def test_deep_inside_other_wrappers_it_is_refused_too(problem, adapter):
    deep = CacheBackedEmbeddings(Retrying(Retrying(DeepMemoryEmbeddings(Lookup(problem), adapter))), InMemoryByteStore())
    with pytest.raises(EmbeddingError, match=r"a cache would keep the vectors of an earlier model.* DeepMemoryEmbeddings\(Cache"):
        DeepMemoryEmbeddings(deep, adapter)
    Embedder(CacheBackedEmbeddings(Retrying(Retrying(Lookup(problem))), InMemoryByteStore()))


def test_a_cache_of_queries_goes_inside(problem, adapter, tmp_path):
    """A cache finds a vector by its text alone, so it may only hold vectors that no model changes."""
    base, folder, kept = Lookup(problem), ModelFolder(tmp_path), InMemoryByteStore()
    folder.save_model("one", adapter)
    folder.save_model("none", QueryAdapter(32, fingerprint=adapter.fingerprint))
    query, vector = problem.test.queries[0], problem.test_queries[0]

    def cached(model):
        return CacheBackedEmbeddings.from_bytes_store(
            model, kept, namespace="n", query_embedding_cache=True, key_encoder="sha256"
        )

    right = DeepMemoryEmbeddings(cached(base), folder)
    for name in ("one", "none", "one"):
        folder.use(name)
        np.testing.assert_allclose(right.embed_query(query), folder.in_use()[1].transform(vector), atol=1e-6)
    assert len(list(kept.yield_keys())) == 1 + len(PROBES), "the cache works"


def test_a_filter_by_embeddings_takes_the_wrapped_model(problem, adapter):
    """With the plain model it ranks what the retriever found by the untransformed query, and the gain is lost."""
    base = Lookup(problem)
    store = InMemoryVectorStore(base)
    store.add_documents(documents_of(problem))
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=20)
    query, vector = problem.test.queries[0], problem.test_queries[0]
    moved = adapter.transform(vector)
    found = expected(problem, moved, 20)

    def first(embeddings):
        compressor = EmbeddingsFilter(embeddings=embeddings, k=4)
        filtered = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=retriever)
        return [document.page_content for document in filtered.invoke(query)]  # the filter drops ids

    def nearest(to):
        return sorted(found, key=lambda name: -(problem.corpus[problem.ids.index(name)] @ to))[:4]

    assert first(DeepMemoryEmbeddings(base, adapter)) == nearest(moved) == found[:4]
    assert first(base) == nearest(vector) != found[:4]


def test_mistakes_are_told(problem, db, adapter, tmp_path):
    (tmp_path / "bad").write_bytes(b"x")
    with pytest.raises(AdapterFileError):
        DeepMemoryEmbeddings(Lookup(problem), tmp_path / "bad")
    untrained = DeepMemoryEmbeddings(Lookup(problem), db.deep_memory, untrained="error")
    assert len(untrained.embed_documents(["a"])) == 1, "a store can be filled before anything is trained"
    with pytest.raises(NotTrainedError, match="Train one"):
        untrained.embed_query("q")
    with pytest.raises(EmbeddingMismatchError):
        DeepMemoryEmbeddings(DeterministicFakeEmbedding(size=32), adapter).embed_query("q")
