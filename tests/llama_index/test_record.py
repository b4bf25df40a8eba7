"""``record=log`` on LlamaIndex's retriever."""

import asyncio

import numpy as np
import pytest
from llama_index.core import QueryBundle, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import MetadataMode

from deepmem_integrations import DeepMemory
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.llama_index import DeepMemoryRetriever
from deepmem_integrations.words import WordIndex
from tests.feedback.test_writer import locked
from tests.llama_index.helpers import expected, ids, nodes_of, remembering


@pytest.fixture
def log(tmp_path):
    with FeedbackLog(tmp_path / "feedback.db") as log:
        yield log


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Ask a retriever, in either way."""
    if request.param == "sync":
        return lambda retriever, query: retriever.retrieve(query)
    return lambda retriever, query: asyncio.run(retriever.aretrieve(query))


def query_id_of(nodes):
    (query_id,) = {node.node.metadata["deepmem"]["query_id"] for node in nodes}
    return query_id


def test_nodes_lead_to_their_query_and_callbacks_to_the_same(problem, embed_model, adapter, log, ask):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    index = VectorStoreIndex(nodes_of(problem), embed_model=embed_model, callback_manager=CallbackManager([debug]))
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=3, record=log)
    query = problem.test.queries[0]
    with log.context(session="s-1", user="u-9", tenant="acme"):
        nodes = ask(retriever, query)
    recorded = log.get(query_id_of(nodes))
    (run,) = [event.id_ for event in debug.get_events(CBEventType.RETRIEVE)[:1]]
    assert nodes[0].node.metadata["deepmem"] == {"query_id": recorded.query_id, "run_id": run}
    assert log.get(run) == recorded
    assert recorded.text == query
    assert recorded.document_ids == ids(nodes) == expected(problem, adapter.transform(problem.test_queries[0]), 3)
    assert [one.channels for one in recorded.shown] == [{"vector": 1}, {"vector": 2}, {"vector": 3}]
    assert [one.score for one in recorded.shown] == pytest.approx([node.score for node in nodes])
    assert (recorded.session, recorded.user, recorded.tenant, recorded.model) == ("s-1", "u-9", "acme", str(adapter))


def test_no_model_sees_the_ids_and_the_indexs_own_nodes_stay(problem, index, adapter, log, ask):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=3)
    plain = ask(retriever, problem.test.queries[0])
    assert all("deepmem" not in node.node.metadata for node in plain)
    retriever.record = log
    recorded = ask(retriever, problem.test.queries[0])
    for before, after in zip(plain, recorded, strict=True):
        assert (after.score, after.node.hash) == (before.score, before.node.hash), "what fuses nodes of several queries"
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert after.node.get_content(mode) == before.node.get_content(mode)
    assert all("deepmem" not in node.metadata for node in index.docstore.get_nodes(ids(plain)))


def test_the_channels_and_scores_of_a_ranking_are_kept(problem, index, log, ask, tmp_path):
    texts = [f"number{row} ten{row // 10}" for row in range(len(problem.ids))]
    words = WordIndex.build(tmp_path / "words", [(problem.ids, texts)], language="en")
    model = remembering(Ranking(1.0, words=1.0, answers=5.0), 32, problem.test_queries[:1], [["doc-200"]])
    retriever = DeepMemoryRetriever(index, memory=model, words=words, similarity_top_k=3, fetch_k=3, record=log, evidence=True)
    near = expected(problem, problem.test_queries[0], 1)[0]
    nodes = ask(retriever, QueryBundle("number250", embedding=problem.test_queries[0].tolist()))
    recorded = log.get(query_id_of(nodes))
    assert {one.document_id: dict(one.channels) for one in recorded.shown} == {
        "doc-200": {"answers": 1},
        "doc-250": {"words": 1},
        near: {"vector": 1},
    }
    assert [one.score for one in recorded.shown] == [node.node.metadata["deepmem"]["score"] for node in nodes]


@pytest.mark.parametrize(
    ("options", "channel"), [({"deep_memory": False}, "vector"), ({"vector_store_query_mode": "mmr"}, "mmr")]
)
def test_every_kind_of_search_is_recorded(problem, index, adapter, log, ask, options, channel):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=3, record=log, **options)
    nodes = ask(retriever, problem.test.queries[0])
    recorded = log.get(query_id_of(nodes))
    assert recorded.document_ids == ids(nodes)
    assert [one.channels for one in recorded.shown] == [{channel: 1}, {channel: 2}, {channel: 3}]
    assert recorded.model == (None if options.get("deep_memory") is False else str(adapter))


def test_the_model_in_use_is_recorded_and_none_before_the_first(problem, index, adapter, log, tmp_path, ask):
    memory = DeepMemory.from_llama_index(index, path=tmp_path / "models")
    retriever = DeepMemoryRetriever(index, memory=memory, similarity_top_k=3, record=log)
    first = ask(retriever, problem.test.queries[0])
    memory.folder.save_model("m-1", adapter)
    memory.set_model("m-1")
    second = ask(retriever, problem.test.queries[0])
    models = [log.get(query_id_of(nodes)).model for nodes in (first, second)]
    assert models == [None, f"m-1 in {tmp_path / 'models'}"]


def test_parallel_queries_are_told_apart(problem, index, adapter, log):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=3, record=log)

    async def one(row):
        with log.context(session=f"s-{row}"):
            return await retriever.aretrieve(problem.test.queries[row])

    async def all_of_them():
        return await asyncio.gather(*(one(row) for row in range(20)))

    for row, nodes in enumerate(asyncio.run(all_of_them())):
        recorded = log.get(query_id_of(nodes))
        assert (recorded.text, recorded.session, recorded.document_ids) == (problem.test.queries[row], f"s-{row}", ids(nodes))


def test_a_log_that_cannot_be_written_fails_no_query(problem, index, adapter, log, tmp_path, ask):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=3, record=log)
    with locked(tmp_path / "feedback.db"):
        found = [ask(retriever, query) for query in problem.test.queries[:5]]
    log.flush(60)
    for nodes in found:
        assert log.get(query_id_of(nodes)).document_ids == ids(nodes)


def test_what_is_built_of_retrievers_passes_the_ids_on(problem, index, adapter, log):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=3, record=log)
    answer = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query(problem.test.queries[0])
    log.cite(query_id_of(answer.source_nodes), [node.node_id for node in answer.source_nodes[:1]])
    assert log.labels("cited").labels == (((answer.source_nodes[0].node_id, 1.0),),)
    assert "query_id" not in answer.response
    fused = QueryFusionRetriever(
        [retriever, retriever],
        mode=FUSION_MODES.RECIPROCAL_RANK,
        num_queries=1,
        similarity_top_k=3,
        llm=MockLLM(),
        use_async=False,
    )
    assert len(set(ids(fused.retrieve(problem.test.queries[1])))) == 3
    assert len([query for query in log.queries() if query.text == problem.test.queries[1]]) == 2


def test_what_measures_is_not_recorded(problem, index, adapter, log, tmp_path, ask):
    memory = DeepMemory.from_llama_index(index, tmp_path / "memory")
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    retriever = DeepMemoryRetriever(index, memory=memory, similarity_top_k=3, record=log)
    test = problem.test.take(range(8))
    memory.measure(test, retriever=RetrieverQueryEngine.from_args(retriever, llm=MockLLM()), plain=retriever)
    asyncio.run(memory.ameasure(test, retriever=retriever))
    assert log.stats()["queries"] == 0
    ask(retriever, test.queries[0])
    assert log.stats()["queries"] == 1


def test_another_thing_than_a_log_is_refused(index, adapter):
    with pytest.raises(TypeError, match="record is a FeedbackLog, such as .*; got str"):
        DeepMemoryRetriever(index, memory=adapter, record="feedback.db")


def test_both_frameworks_write_into_one_log(problem, index, adapter, log):
    from langchain_core.vectorstores import InMemoryVectorStore

    from deepmem_integrations.langchain import DeepMemoryRetriever as LangChainRetriever
    from tests.langchain.helpers import Lookup as LangChainLookup
    from tests.langchain.helpers import documents_of

    store = InMemoryVectorStore(LangChainLookup(problem))
    store.add_documents(documents_of(problem))
    query = problem.test.queries[0]
    DeepMemoryRetriever(index, memory=adapter, similarity_top_k=3, record=log).retrieve(query)
    LangChainRetriever(vectorstore=store, memory=adapter, k=3, record=log).invoke(query)
    one, other = log.queries()
    assert (one.text, one.document_ids, one.model) == (other.text, other.document_ids, other.model)
    np.testing.assert_allclose([place.score for place in one.shown], [place.score for place in other.shown], atol=1e-4)
