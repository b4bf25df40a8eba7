import asyncio

import numpy as np
import pytest
from llama_index.core import QueryBundle, Settings, SummaryIndex, VectorStoreIndex
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import VectorIndexAutoRetriever
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreInfo

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError, ModelNotFoundError, StoreError
from deepmem_integrations.llama_index import DeepLakeVectorStore, DeepMemoryEmbedding, DeepMemoryRetriever
from deepmem_integrations.llama_index.queries import TransformedQueryBundle
from tests.llama_index.helpers import Lookup, expected, ids, nodes_of


@pytest.fixture(params=["SimpleVectorStore", "DeepLakeVectorStore"])
def any_index(request):
    return request.getfixturevalue("index" if request.param == "SimpleVectorStore" else "deeplake_index")


async def test_an_index_a_retriever_and_an_adapter_file_give_exact_search_with_the_transformed_query(
    problem, any_index, adapter, tmp_path
):
    index = any_index
    file = adapter.save(tmp_path / "adapter.safetensors")
    for retriever in (
        DeepMemoryRetriever(index, memory=adapter, similarity_top_k=7),
        DeepMemoryRetriever(index.as_retriever(similarity_top_k=7), memory=file),
    ):
        for row in range(3):
            moved = adapter.transform(problem.test_queries[row])
            query = problem.test.queries[row]
            found = retriever.retrieve(query)
            assert ids(found) == expected(problem, moved, 7)
            assert ids(await retriever.aretrieve(query)) == ids(found)
            rows = [problem.ids.index(name) for name in ids(found)]
            np.testing.assert_allclose([node.score for node in found], problem.corpus[rows] @ moved, atol=1e-4)


def test_filters_stay_and_deep_memory_can_be_switched_off(problem, index, adapter):
    filters = MetadataFilters(filters=[MetadataFilter(key="half", value=1)])
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=5, filters=filters)
    moved = adapter.transform(problem.test_queries[0])
    assert ids(retriever.retrieve(problem.test.queries[0])) == expected(problem, moved, 5, keep=lambda row: row % 2 == 1)
    retriever.deep_memory = False
    plain = expected(problem, problem.test_queries[0], 5, keep=lambda row: row % 2 == 1)
    assert ids(retriever.retrieve(problem.test.queries[0])) == plain


async def test_the_callers_bundle_is_never_changed(problem, index, adapter):
    for deep_memory in (True, False):
        retriever = DeepMemoryRetriever(index, memory=adapter, deep_memory=deep_memory)
        bundle = QueryBundle(problem.test.queries[0])
        retriever.retrieve(bundle)
        await retriever.aretrieve(bundle)
        assert bundle == QueryBundle(problem.test.queries[0])
        assert bundle.embedding is None


def test_an_embedding_is_transformed_exactly_once(problem, index, adapter):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=6)
    vector = problem.test_queries[0]
    moved = adapter.transform(vector)
    right = expected(problem, moved, 6)
    assert ids(retriever.retrieve(QueryBundle("q", embedding=vector.tolist()))) == right
    assert ids(retriever.retrieve(TransformedQueryBundle("q", embedding=moved.tolist()))) == right


async def test_several_embedding_strings_are_transformed_each(problem, index, adapter):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=6)
    texts = list(problem.test.queries[:3])
    bundle = QueryBundle("q", custom_embedding_strs=texts)
    right = expected(problem, adapter.transform(problem.test_queries[:3]).mean(axis=0), 6)
    assert ids(retriever.retrieve(bundle)) == right
    assert ids(await retriever.aretrieve(bundle)) == right


async def test_a_bare_vector_store_is_searched_with_the_memorys_embedding_model(problem, deeplake_index, adapter, embed_model):
    memory = DeepMemory.from_llama_index(deeplake_index)
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    store = deeplake_index.vector_store
    right = expected(problem, adapter.transform(problem.test_queries[1]), 5)
    for retriever in (
        DeepMemoryRetriever(store, memory=memory, similarity_top_k=5),
        DeepMemoryRetriever(store, memory=adapter, similarity_top_k=5, embed_model=embed_model),
    ):
        assert ids(retriever.retrieve(problem.test.queries[1])) == right
        assert ids(await retriever.aretrieve(problem.test.queries[1])) == right
    Settings.embed_model = embed_model
    try:
        assert ids(DeepMemoryRetriever(store, memory=adapter, similarity_top_k=5).retrieve(problem.test.queries[1])) == right
    finally:
        Settings._embed_model = None


async def test_the_wrapped_retrievers_settings_hold(problem, any_index, adapter):
    query, moved = problem.test.queries[0], adapter.transform(problem.test_queries[0])
    some = problem.ids[10:90]
    inside = DeepMemoryRetriever(any_index, memory=adapter, similarity_top_k=5, node_ids=some)
    assert ids(inside.retrieve(query)) == expected(problem, moved, 5, keep=lambda row: 10 <= row < 90)
    assert ids(await inside.aretrieve(query)) == ids(inside.retrieve(query))
    inside.similarity_top_k = 3
    assert inside.similarity_top_k == len(inside.retrieve(query)) == 3
    diverse = DeepMemoryRetriever(
        any_index,
        memory=adapter,
        similarity_top_k=5,
        vector_store_query_mode="mmr",
        vector_store_kwargs={"mmr_threshold": 1.0},
    )
    assert ids(diverse.retrieve(query)) == ids(await diverse.aretrieve(query)) == expected(problem, moved, 5)


async def test_mmr_reranks_with_the_transformed_query(problem, any_index, adapter):
    query, moved = problem.test.queries[3], adapter.transform(problem.test_queries[3])
    options = {"similarity_top_k": 6, "vector_store_query_mode": "mmr", "vector_store_kwargs": {"mmr_threshold": 0.4}}
    if isinstance(any_index.vector_store, DeepLakeVectorStore):
        options["vector_store_kwargs"]["mmr_prefetch_k"] = 300
    plain = any_index.as_retriever(**options)
    right = ids(plain.retrieve(QueryBundle("q", embedding=moved.tolist())))
    assert right != expected(problem, moved, 6)
    retriever = DeepMemoryRetriever(plain, memory=adapter)
    assert ids(retriever.retrieve(query)) == ids(await retriever.aretrieve(query)) == right


async def test_over_an_index_with_wrapped_embeddings_the_query_is_transformed_once(problem, adapter, embed_model):
    wrapped = DeepMemoryEmbedding(embed_model, memory=adapter)
    index = VectorStoreIndex(nodes_of(problem), embed_model=wrapped)
    query, vector = problem.test.queries[0], problem.test_queries[0]
    right = expected(problem, adapter.transform(vector), 6)
    ours = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=6)
    for retriever in (ours, index.as_retriever(similarity_top_k=6)):
        assert ids(retriever.retrieve(query)) == ids(await retriever.aretrieve(query)) == right
    given = QueryBundle(query, embedding=wrapped.get_query_embedding(query))
    assert ids(ours.retrieve(given)) == ids(await ours.aretrieve(given)) == right
    ours.deep_memory = False
    assert ids(ours.retrieve(query)) == ids(await ours.aretrieve(query)) == expected(problem, vector, 6)


async def test_async_uses_the_models_own_async(problem, any_index, embed_model, adapter):
    retriever = DeepMemoryRetriever(any_index, memory=adapter, similarity_top_k=5)
    await retriever.aretrieve(problem.test.queries[0])
    assert embed_model.calls["aquery"] == 1


async def test_parallel_calls_while_the_model_changes_get_one_or_the_other(problem, deeplake_index, adapter):
    memory = DeepMemory.from_llama_index(deeplake_index)
    memory.folder.save_model("one", adapter)
    memory.folder.save_model("none", QueryAdapter(32, fingerprint=adapter.fingerprint))
    retriever = DeepMemoryRetriever(deeplake_index, memory=memory, similarity_top_k=10)
    with pytest.raises(ModelNotFoundError, match="Train one"):
        retriever.retrieve("q")
    bundle = QueryBundle("q", custom_embedding_strs=list(problem.test.queries[:2]))
    answers = []
    for model in ("one", "none"):
        memory.set_model(model)
        answers.append(ids(retriever.retrieve(bundle)))
    assert answers[0] != answers[1]

    async def switch():
        for turn in range(20):
            await asyncio.to_thread(memory.set_model, ("one", "none")[turn % 2])

    *found, _ = await asyncio.gather(*(retriever.aretrieve(bundle) for _ in range(50)), switch())
    assert all(ids(nodes) in answers for nodes in found)


def test_what_cannot_work_is_refused(problem, index, adapter):
    class Own(VectorIndexRetriever):
        def _retrieve(self, query_bundle):
            return []

    everything = SummaryIndex([TextNode(text="a")])
    auto = VectorIndexAutoRetriever(index, VectorStoreInfo(content_info="", metadata_info=[]), llm=MockLLM())
    ours = DeepMemoryRetriever(index, memory=adapter)
    for source in (everything.as_retriever(), everything, object(), auto, Own(index), ours):
        with pytest.raises(StoreError, match="does not search by query vector"):
            DeepMemoryRetriever(source, memory=adapter)
    with pytest.raises(StoreError, match="brings its own settings: set similarity_top_k"):
        DeepMemoryRetriever(index.as_retriever(), memory=adapter, similarity_top_k=3)
    with pytest.raises(StoreError, match=r"Unknown options: k\. There are: .*similarity_top_k"):
        DeepMemoryRetriever(index, memory=adapter, k=5)
    sparse = DeepMemoryRetriever(index, memory=adapter, vector_store_query_mode="sparse")
    with pytest.raises(StoreError, match="'sparse' of SimpleVectorStore searches without a query vector"):
        sparse.retrieve("q")
    with pytest.raises(StoreError, match="A SimpleVectorStore keeps vectors without texts: pass the VectorStoreIndex"):
        DeepMemoryRetriever(SimpleVectorStore(), memory=adapter)
    with pytest.raises(InvalidVectorsError, match="neither a text nor an embedding"):
        ours.retrieve("")
    other = Lookup(problem, shift=1, model_name="other")
    with pytest.raises(EmbeddingMismatchError, match="used with other"):
        DeepMemoryRetriever(index.as_retriever(embed_model=other), memory=adapter).retrieve("q")
    with pytest.raises(EmbeddingMismatchError, match="dimension"):
        DeepMemoryRetriever(index, memory=QueryAdapter(7, linear=np.eye(7, dtype=np.float32))).retrieve("q")
