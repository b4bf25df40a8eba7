import numpy as np
import pytest
from llama_index.core import QueryBundle
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.retrievers import TransformRetriever

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.errors import EmbeddingMismatchError, StoreError
from deepmem_integrations.llama_index import DeepMemoryEmbedding, DeepMemoryQueryTransform, DeepMemoryRetriever
from deepmem_integrations.llama_index.queries import TransformedQueryBundle
from tests.embeddings import LookupEmbeddings
from tests.llama_index.helpers import Lookup, Scripted, expected, ids


def test_a_query_in_and_a_marked_bundle_out(problem, embed_model, adapter, tmp_path):
    right = adapter.transform(problem.test_queries[0]).tolist()
    query = problem.test.queries[0]
    for memory in (adapter, adapter.save(tmp_path / "adapter.safetensors")):
        transform = DeepMemoryQueryTransform(memory=memory, embed_model=embed_model)
        given = QueryBundle(query, image_path="a.png")
        for bundle in (
            transform(query),
            transform.run(given),
            transform(QueryBundle("q", embedding=problem.test_queries[0].tolist())),
        ):
            assert isinstance(bundle, TransformedQueryBundle)
            assert bundle.embedding == right
        assert transform(given).image_path == "a.png"
        assert given == QueryBundle(query, image_path="a.png"), "the caller's bundle is left alone"


def test_it_is_applied_once(problem, index, embed_model, adapter):
    transform = DeepMemoryQueryTransform(memory=adapter, embed_model=embed_model)
    query, right = problem.test.queries[0], adapter.transform(problem.test_queries[0])
    assert transform(transform(query)).embedding == right.tolist()
    over = DeepMemoryQueryTransform(memory=adapter, embed_model=DeepMemoryEmbedding(embed_model, memory=adapter))
    assert over(query).embedding == right.tolist()
    ours = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=5)
    assert ids(TransformRetriever(ours, transform).retrieve(query)) == expected(problem, right, 5)
    assert ids(TransformRetriever(TransformRetriever(ours, transform), transform).retrieve(query)) == expected(problem, right, 5)


async def test_in_a_retriever_and_in_a_query_engine(problem, index, embed_model, adapter):
    transform = DeepMemoryQueryTransform(memory=adapter, embed_model=embed_model)
    query, right = problem.test.queries[1], expected(problem, adapter.transform(problem.test_queries[1]), 4)
    plain = index.as_retriever(similarity_top_k=4)
    retriever = TransformRetriever(plain, transform)
    assert ids(retriever.retrieve(query)) == ids(await retriever.aretrieve(query)) == right
    engine = TransformQueryEngine(RetrieverQueryEngine.from_args(plain, llm=MockLLM()), transform)
    for answer in (engine.query(query), await engine.aquery(query)):
        assert ids(answer.source_nodes) == right
    assert ids(engine.retrieve(QueryBundle(query))) == right


def test_after_hyde_each_text_is_transformed(problem, index, embed_model, adapter):
    transform = DeepMemoryQueryTransform(memory=adapter, embed_model=embed_model)
    asked, imagined = problem.test.queries[0], problem.test.queries[7]
    hyde = HyDEQueryTransform(llm=Scripted(script=[imagined]))
    assert hyde.run(asked).embedding_strs == [imagined, asked]
    moved = adapter.transform(problem.test_queries[[7, 0]]).mean(axis=0)
    moved /= np.linalg.norm(moved)
    np.testing.assert_allclose(transform(hyde(asked)).embedding, moved, atol=1e-6)
    retriever = TransformRetriever(DeepMemoryRetriever(index, memory=adapter, similarity_top_k=6), hyde)
    assert ids(retriever.retrieve(asked)) == expected(problem, moved, 6)


def test_fit_trains_and_the_result_is_in_use(problem, index, tmp_path):
    memory = DeepMemory.from_llama_index(index, path=tmp_path)
    transform = DeepMemoryQueryTransform(memory=memory)
    assert transform.fit(list(problem.train.queries), problem.train.relevance, seed=0) is transform
    assert not memory.adapter.is_identity
    np.testing.assert_allclose(transform(problem.test.queries[0]).embedding, memory.transform(problem.test_queries[0]), atol=1e-6)
    with pytest.raises(TypeError, match="epochs"):
        transform.fit(problem.train, epochs=3)


def test_any_embedding_model_of_a_memory_serves_texts(problem, adapter, tmp_path):
    memory = DeepMemory(None, LookupEmbeddings(problem), tmp_path)
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    bundle = DeepMemoryQueryTransform(memory)(problem.test.queries[0])
    assert bundle.embedding == memory.transform(problem.test_queries[0]).tolist()


def test_what_cannot_work_says_what_can(problem, adapter):
    bare = DeepMemoryQueryTransform(memory=adapter)
    with pytest.raises(StoreError, match=r"an adapter or a path has none\. Make the transform with .*from_llama_index"):
        bare.fit(problem.train)
    with pytest.raises(StoreError, match=r"A text needs an embedding model: .*embed_model=…"):
        bare("q")
    vector = problem.test_queries[0]
    assert bare(QueryBundle("q", embedding=vector.tolist())).embedding == adapter.transform(vector).tolist()
    with pytest.raises(EmbeddingMismatchError, match="3 dimensions where 32"):
        bare(QueryBundle("q", embedding=[1.0, 2.0, 3.0]))
    with pytest.raises(EmbeddingMismatchError, match="different vectors"):
        DeepMemoryQueryTransform(memory=adapter, embed_model=Lookup(problem, shift=1))("q")
    with pytest.raises(TypeError, match="memory is a DeepMemory"):
        DeepMemoryQueryTransform(memory=None)
    assert DeepMemoryQueryTransform(memory=QueryAdapter(32)).get_prompts() == {}
