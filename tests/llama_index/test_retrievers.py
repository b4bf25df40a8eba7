import asyncio
import copy
import json
import threading

import numpy as np
import pytest
from llama_index.core import QueryBundle, Settings, SummaryIndex, VectorStoreIndex
from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever, RouterRetriever, VectorIndexAutoRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import IndexNode, MetadataMode, TextNode
from llama_index.core.tools import RetrieverTool
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreInfo

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError, NotTrainedError, StoreError
from deepmem_integrations.llama_index import (
    DeepLakeVectorStore,
    DeepMemoryEmbedding,
    DeepMemoryQueryTransform,
    DeepMemoryRetriever,
)
from deepmem_integrations.llama_index.queries import TransformedQueryBundle
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.words import WordIndex
from tests.llama_index.helpers import Lookup, Scripted, expected, ids, nodes_of, remembering


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


async def test_results_are_plain_until_a_model_is_in_use(problem, any_index, embed_model, adapter, tmp_path, caplog):
    folder = ModelFolder(tmp_path / "not yet")
    WordIndex.build(folder.words_path, [(problem.ids, problem.ids)])
    several = QueryBundle("q", custom_embedding_strs=list(problem.test.queries[:2]))
    for options in ({}, {"similarity_top_k": 7}, {"similarity_top_k": 3, "vector_store_query_mode": "mmr"}):
        plain = any_index.as_retriever(**options)
        ours = DeepMemoryRetriever(any_index, memory=str(folder.path), evidence=True, **options)
        for query in (QueryBundle(problem.test.queries[0]), several):
            right = [(node.node_id, pytest.approx(node.score, abs=1e-6)) for node in plain.retrieve(copy.copy(query))]
            assert [(node.node_id, node.score) for node in ours.retrieve(copy.copy(query))] == right
            assert [(node.node_id, node.score) for node in await ours.aretrieve(copy.copy(query))] == right
    assert caplog.text.count("There is no trained model yet") == 1
    with pytest.raises(NotTrainedError):
        DeepMemoryRetriever(any_index, memory=str(folder.path), untrained="error")
    folder.save_model("one", adapter)
    folder.use("one")
    moved = expected(problem, adapter.transform(problem.test_queries[0]), 5)
    ours = DeepMemoryRetriever(any_index, memory=folder, similarity_top_k=5)
    assert ids(ours.retrieve(problem.test.queries[0])) == moved
    folder.model_path("one").write_bytes(b"damaged")
    ours = DeepMemoryRetriever(any_index, memory=ModelFolder(folder.path), similarity_top_k=5, on_broken="plain")
    plain = expected(problem, problem.test_queries[0], 5)
    assert ids(ours.retrieve(problem.test.queries[0])) == ids(await ours.aretrieve(problem.test.queries[0])) == plain


async def test_the_embeddings_and_the_transform_are_plain_until_a_model_is_in_use(problem, embed_model, adapter, tmp_path):
    folder = ModelFolder(tmp_path / "not yet")
    wrapped = DeepMemoryEmbedding(embed_model, memory=folder.path)
    transform = DeepMemoryQueryTransform(memory=folder, embed_model=embed_model)
    queries = list(problem.test.queries[:2])
    base = embed_model.get_query_embedding(queries[0])
    assert wrapped.get_query_embedding(queries[0]) == await wrapped.aget_query_embedding(queries[0]) == base
    mean = embed_model.get_agg_embedding_from_queries(queries)
    assert wrapped.get_agg_embedding_from_queries(queries) == pytest.approx(mean)
    assert transform(QueryBundle(queries[0])).embedding == base
    assert transform(QueryBundle("q", custom_embedding_strs=queries)).embedding == pytest.approx(mean)
    folder.save_model("one", adapter)
    folder.use("one")
    moved = adapter.transform(base).tolist()
    assert wrapped.get_query_embedding(queries[0]) == transform(QueryBundle(queries[0])).embedding == moved


async def test_parallel_calls_while_the_model_changes_get_one_or_the_other(problem, deeplake_index, adapter):
    memory = DeepMemory.from_llama_index(deeplake_index)
    memory.folder.save_model("one", adapter)
    memory.folder.save_model("none", QueryAdapter(32, fingerprint=adapter.fingerprint))
    retriever = DeepMemoryRetriever(deeplake_index, memory=memory, similarity_top_k=10)
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
    for name in ("_aretrieve", "retrieve", "aretrieve"):
        own = type("Own", (VectorIndexRetriever,), {name: lambda self, query: []})
        with pytest.raises(StoreError, match="Own does not search by query vector"):
            DeepMemoryRetriever(own(index), adapter)

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
    with pytest.raises(StoreError, match=r"Unknown options: k\. The options are: .*similarity_top_k"):
        DeepMemoryRetriever(index, memory=adapter, k=5)
    for option, value in (("fetch_k", -3), ("similarity_top_k", 0), ("similarity_top_k", None), ("words", "no")):
        with pytest.raises(StoreError, match=f"^{option} is .*; got {value!r}"):
            DeepMemoryRetriever(index, memory=adapter, **{option: value})
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


# ---- ranking by all the evidence -----------------------------------------------------------------------------------


@pytest.fixture
def asked_of(monkeypatch):
    """A function that records which number of nodes, and which mode, an index's store is asked for."""

    def record(index):
        calls = []
        query = type(index.vector_store).query

        def recorded(self, asked, **options):
            calls.append((asked.similarity_top_k, asked.mode.value))
            return query(self, asked, **options)

        monkeypatch.setattr(type(index.vector_store), "query", recorded)
        return calls

    return record


@pytest.fixture
def words(problem, tmp_path):
    """Each document has its number as a word, and a word for every ten of them."""
    texts = [f"number{row} ten{row // 10}" for row in range(len(problem.ids))]
    return WordIndex.build(tmp_path / "models" / "words", [(problem.ids, texts)], language="en")


@pytest.fixture
def ranking_model(problem):
    """Words and answers count for much; the first test query asked for doc-200 before."""
    return remembering(Ranking(1.0, words=1.0, answers=5.0), 32, problem.test_queries[:1], [["doc-200"]])


def asking(problem, text, number=1):
    return QueryBundle(text, embedding=problem.test_queries[number].tolist())


async def test_words_and_answers_bring_what_the_vectors_did_not_find(problem, any_index, words, ranking_model):
    retriever = DeepMemoryRetriever(any_index, memory=ranking_model, words=words, similarity_top_k=3, fetch_k=3)
    bundle = asking(problem, "number250", number=0)
    near = expected(problem, problem.test_queries[0], 3)
    assert not {"doc-250", "doc-200"} & set(near)
    found = retriever.retrieve(bundle)
    assert set(ids(found)[:2]) == {"doc-250", "doc-200"}
    assert ids(found)[2] == near[0]
    again = await retriever.aretrieve(bundle)
    assert [(one.node_id, one.score) for one in again] == [(one.node_id, one.score) for one in found]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    # The attributes may be changed at any time.
    retriever.words = False
    assert ids(retriever.retrieve(bundle)) == ["doc-200", *near[:2]]
    retriever.words, retriever.answers = words, False
    assert ids(retriever.retrieve(bundle)) == ["doc-250", *near[:2]]
    retriever.deep_memory = False
    assert ids(retriever.retrieve(bundle)) == near
    retriever.deep_memory, retriever.answers, retriever.similarity_top_k = True, True, 1
    assert ids(retriever.retrieve(bundle)) == ids(found)[:1]


async def test_where_vectors_alone_count_the_store_is_asked_as_without_a_ranking(
    problem, any_index, words, ranking_model, adapter, asked_of
):
    calls = asked_of(any_index)
    bundle = asking(problem, "number250")
    near = expected(problem, problem.test_queries[1], 4)
    cases = [
        ({"memory": ranking_model, "words": False, "answers": False}, "default", near),
        ({"memory": ranking_model, "words": words, "vector_store_query_mode": "mmr"}, "mmr", None),
        ({"memory": adapter, "words": words}, "default", expected(problem, adapter.transform(problem.test_queries[1]), 4)),
        ({"memory": remembering(Ranking(1.0, words=1.0), 32)}, "default", near),
        ({"memory": remembering(Ranking(0.0, words=1.0), 32), "words": False, "answers": False}, "default", near),
    ]
    for options, mode, right in cases:
        retriever = DeepMemoryRetriever(any_index, similarity_top_k=4, **options)
        calls.clear()
        found = retriever.retrieve(bundle)
        assert ids(await retriever.aretrieve(bundle)) == ids(found)
        assert calls == [(4, mode)] * 2
        if right is not None:
            assert ids(found) == right
            vector = next(iter(options["memory"].for_ranking().transform(problem.test_queries[1:2])))
            exact = problem.corpus[[problem.ids.index(name) for name in right]] @ vector
            np.testing.assert_allclose([one.score for one in found], exact, atol=1e-5)
    calls.clear()
    DeepMemoryRetriever(any_index, similarity_top_k=4, memory=ranking_model, words=words, fetch_k=2).retrieve(bundle)
    assert calls[0] == (4, "default"), "fetch_k is at least similarity_top_k"
    calls.clear()
    DeepMemoryRetriever(any_index, similarity_top_k=4, memory=ranking_model, words=words).retrieve(bundle)
    assert calls[0] == (100, "default")


async def test_a_query_that_comes_transformed_is_not_ranked_anew(problem, index, words, ranking_model):
    retriever = DeepMemoryRetriever(index, memory=ranking_model, words=words, similarity_top_k=3)
    vector = problem.test_queries[0].tolist()
    bundle = TransformedQueryBundle("number250", embedding=vector)
    assert ids(retriever.retrieve(bundle)) == ids(await retriever.aretrieve(bundle)) == expected(problem, vector, 3)


def test_the_word_index_beside_the_model_is_taken(problem, index, words, ranking_model, embed_model, tmp_path):
    memory = DeepMemory.from_llama_index(index, path=tmp_path / "models")
    memory.folder.save_model("one", ranking_model)
    memory.set_model("one")
    for given in (memory, tmp_path / "models"):
        retriever = DeepMemoryRetriever(index, memory=given, similarity_top_k=2)
        assert retriever.retrieve(asking(problem, "number250"))[0].node_id == "doc-250"


async def test_several_strings_are_transformed_each_and_the_users_own_text_is_searched_for(problem, index, words):
    model = remembering(Ranking(1.0, words=1.0), 32)
    retriever = DeepMemoryRetriever(index, memory=model, words=words, similarity_top_k=4)
    texts = list(problem.test.queries[:3])
    bundle = QueryBundle("number250", custom_embedding_strs=texts)
    unit = problem.test_queries[:3] / np.linalg.norm(problem.test_queries[:3], axis=1, keepdims=True)
    right = ["doc-250", *expected(problem, unit.mean(axis=0), 3)]
    assert ids(retriever.retrieve(bundle)) == ids(await retriever.aretrieve(bundle)) == right


async def test_evidence_is_put_into_a_copy_of_the_node(problem, any_index, words, ranking_model):
    retriever = DeepMemoryRetriever(any_index, memory=ranking_model, words=words, similarity_top_k=3, evidence=True)
    bundle = asking(problem, "number250", number=0)
    for found in (retriever.retrieve(bundle), await retriever.aretrieve(bundle)):
        by_id = {one.node_id: one for one in found}
        evidence = by_id["doc-250"].metadata["deepmem"]
        assert set(evidence) == {"score", "vector", "words", "answers"}
        assert evidence["score"] == by_id["doc-250"].score
        assert evidence["words"]["rank"] == 1
        assert evidence["vector"]["rank"] is None
        assert by_id["doc-200"].metadata["deepmem"]["answers"]["rank"] == 1
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert all("deepmem" not in one.node.get_content(metadata_mode=mode) for one in found)
        assert all(one.metadata["half"] in (0, 1) for one in found)
        json.dumps(evidence)
    retriever.evidence = False
    assert all("deepmem" not in one.metadata for one in retriever.retrieve(bundle))
    assert all("deepmem" not in node.metadata for node in any_index.docstore.docs.values())


async def test_the_search_by_words_and_the_stores_search_run_side_by_side_off_the_event_loop(
    problem, index, words, ranking_model, monkeypatch
):
    both = threading.Barrier(2, timeout=20)
    loop, threads = threading.get_ident(), set()
    search, query = words.search, SimpleVectorStore.query

    def met(function, *arguments, **options):
        threads.add(threading.get_ident())
        if not met.once:
            both.wait()
        return function(*arguments, **options)

    met.once = False
    monkeypatch.setattr(words, "search", lambda *arguments: met(search, *arguments))

    def queried(self, asked, **options):
        met(query, self, asked, **options)
        met.once = True  # what follows are look-ups
        return query(self, asked, **options)

    monkeypatch.setattr(SimpleVectorStore, "query", queried)
    retriever = DeepMemoryRetriever(index, memory=ranking_model, words=words, similarity_top_k=2, fetch_k=2)
    found = await retriever.aretrieve(asking(problem, "number250", number=0))
    assert set(ids(found)) == {"doc-250", "doc-200"}
    assert loop not in threads


def test_many_forbidden_nodes_take_few_look_ups(problem, index, ranking_model, asked_of, tmp_path):
    words = WordIndex.build(tmp_path / "other", [(problem.ids, ["same words"] * len(problem.ids))], language="en")
    calls = asked_of(index)
    inside = problem.ids[10:13]
    retriever = DeepMemoryRetriever(index, memory=ranking_model, words=words, similarity_top_k=3, node_ids=inside)
    found = retriever.retrieve(asking(problem, "same words"))
    assert set(ids(found)) == set(inside)
    assert len(calls) == 1, "ids that node_ids forbid are not looked up"
    half = MetadataFilters(filters=[MetadataFilter(key="half", value=7)])
    retriever = DeepMemoryRetriever(index, memory=ranking_model, words=words, similarity_top_k=1, filters=half)
    calls.clear()
    assert retriever.retrieve(asking(problem, "same words")) == []
    assert len(calls) <= 6, "100 candidates in steps of 1, 4, 16, …"


async def test_what_is_built_of_retrievers_keeps_the_order(problem, index, words, ranking_model):
    bundle = asking(problem, "number250", number=0)
    ours = DeepMemoryRetriever(index, memory=ranking_model, words=words, similarity_top_k=4)
    found = ours.retrieve(bundle)
    cutoff = SimilarityPostprocessor(similarity_cutoff=found[1].score)
    assert ids(cutoff.postprocess_nodes(found)) == ids(found)[:2]
    engine = RetrieverQueryEngine.from_args(ours, llm=MockLLM(), node_postprocessors=[cutoff])
    assert ids(engine.query(bundle).source_nodes) == ids(found)[:2]
    fused = QueryFusionRetriever([ours], llm=MockLLM(), num_queries=1, similarity_top_k=4, use_async=False)
    text = problem.test.queries[0]
    assert ids(fused.retrieve(text)) == ids(ours.retrieve(text)) == ids(await ours.aretrieve(text))
    assert ids(await fused.aretrieve(text)) == ids(ours.retrieve(text))
    tool = RetrieverTool.from_defaults(ours, description="all")
    routed = RouterRetriever(selector=First(), retriever_tools=[tool], llm=MockLLM())
    assert ids(routed.retrieve(bundle)) == ids(found)
    node = IndexNode(text="points", index_id="ours", obj=ours, embedding=problem.corpus[0].tolist())
    outer = VectorStoreIndex(nodes=[], objects=[node], embed_model=index._embed_model).as_retriever(similarity_top_k=1)
    assert ids(outer.retrieve(bundle)) == ids(found)


@pytest.mark.parametrize("mode", FUSION_MODES)
def test_several_queries_find_a_node_once_with_evidence_too(problem, index, words, ranking_model, mode):
    fused = []
    for evidence in (False, True):
        ours = DeepMemoryRetriever(index, memory=ranking_model, words=words, similarity_top_k=40, evidence=evidence)
        llm = Scripted(script=["\n".join(problem.test.queries[1:3])])
        several = QueryFusionRetriever([ours], mode=mode, llm=llm, num_queries=3, similarity_top_k=60, use_async=False)
        found = several.retrieve(problem.test.queries[0])
        assert len(set(ids(found))) == len(found) > 40
        fused.append([(one.node_id, one.score) for one in found])
    assert fused[0] == fused[1]
    assert all("deepmem" in one.metadata for one in found)


class First(BaseSelector):
    """Chooses the first."""

    def _select(self, choices, query):
        return SelectorResult(selections=[SingleSelection(index=0, reason="")])

    async def _aselect(self, choices, query):
        return self._select(choices, query)

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass
