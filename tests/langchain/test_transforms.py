import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError, StoreError
from deepmem_integrations.langchain import DeepMemoryEmbeddings, DeepMemoryQueryTransform
from tests.langchain.helpers import Lookup, expected, ids


async def test_text_or_vector_in_and_vector_out(problem, adapter, tmp_path):
    model = Lookup(problem)
    file = adapter.save(tmp_path / "adapter.safetensors")
    right = adapter.transform(problem.test_queries[:4])
    queries, vectors = list(problem.test.queries[:4]), problem.test_queries[:4]
    for memory in (adapter, file):
        transform = DeepMemoryQueryTransform(memory=memory, embeddings=model)
        for given in (queries, vectors.tolist(), list(vectors)):
            np.testing.assert_allclose(transform.invoke(given[0]), right[0], atol=1e-6)
            np.testing.assert_allclose(await transform.ainvoke(given[0]), right[0], atol=1e-6)
            np.testing.assert_allclose(transform.batch(given), right, atol=1e-6)
            np.testing.assert_allclose(await transform.abatch(given), right, atol=1e-6)
        assert isinstance(transform.invoke(queries[0]), list)
        assert type(transform.invoke(queries[0])[0]) is float
        np.testing.assert_allclose(list(transform.stream(queries[0])), right[:1], atol=1e-6)
    assert model.async_queries == 2 * (1 + 4)


async def test_it_composes_and_is_applied_once(db, problem, adapter):
    transform = DeepMemoryQueryTransform(memory=adapter, embeddings=db.embeddings)
    search = RunnableLambda(lambda vector: db.similarity_search_by_vector(vector, k=7))
    query = problem.test.queries[0]
    right = expected(problem, adapter.transform(problem.test_queries[0]), 7)
    assert ids((transform | search).invoke(query)) == right
    assert ids(await (transform | search).ainvoke(query)) == right
    assert ids((transform | transform | search).invoke(query)) == right
    wrapped = DeepMemoryEmbeddings(db.embeddings, adapter)
    assert ids((RunnableLambda(wrapped.embed_query) | transform | search).invoke(query)) == right
    over = DeepMemoryQueryTransform(memory=adapter, embeddings=wrapped)
    assert ids((over | search).invoke(query)) == right


def test_fit_trains_and_the_result_is_in_use(db, problem):
    transform = DeepMemoryQueryTransform(memory=db.deep_memory)
    assert transform.fit(list(problem.train.queries), problem.train.relevance, seed=0) is transform
    assert not db.deep_memory.adapter.is_identity
    right = db.deep_memory.transform(problem.test_queries[0])
    np.testing.assert_allclose(transform.invoke(problem.test.queries[0]), right, atol=1e-6)
    with pytest.raises(TypeError, match="epochs"):
        transform.fit(problem.train, epochs=3)


def test_what_cannot_work_says_what_can(problem, adapter):
    with pytest.raises(StoreError, match=r"an adapter or a path has none\. Make the transform with .*DeepMemory\.from_langchain"):
        DeepMemoryQueryTransform(memory=adapter).fit(problem.train)
    with pytest.raises(StoreError, match="A text needs an embedding model"):
        DeepMemoryQueryTransform(memory=adapter).invoke("q")
    with pytest.raises(InvalidVectorsError, match=r"one query vector at a time.* got \(2, 32\)"):
        DeepMemoryQueryTransform(memory=adapter).invoke(problem.test_queries[:2])
    with pytest.raises(EmbeddingMismatchError, match="3 dimensions where 32"):
        DeepMemoryQueryTransform(memory=adapter).invoke([1.0, 2.0, 3.0])
    with pytest.raises(EmbeddingMismatchError, match="different vectors"):
        DeepMemoryQueryTransform(memory=adapter, embeddings=DeterministicFakeEmbedding(size=32)).invoke("q")
    with pytest.raises(TypeError, match="memory is a DeepMemory"):
        DeepMemoryQueryTransform(memory=None)


def test_any_embedding_model_of_a_memory_serves_texts(problem, adapter, tmp_path):
    plain = Lookup(problem)
    memory = DeepMemory(None, lambda texts: plain.embed_documents(texts), tmp_path)
    memory.folder.save_model("one", QueryAdapter(32, linear=adapter.linear))
    memory.set_model("one")
    vector = DeepMemoryQueryTransform(memory).invoke(problem.test.queries[0])
    np.testing.assert_allclose(vector, memory.transform(problem.test_queries[0]), atol=1e-6)
