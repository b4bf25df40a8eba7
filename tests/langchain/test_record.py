"""``record=log`` on LangChain's retriever."""

import asyncio
import pickle
from uuid import UUID

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from deepmem_integrations import DeepMemory
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.feedback import FeedbackLog, unrecorded
from deepmem_integrations.judging import RelevanceJudge
from deepmem_integrations.langchain import DeepMemoryRetriever
from deepmem_integrations.words import Found
from tests.feedback.test_writer import locked
from tests.langchain.helpers import Lookup, documents_of, expected, ids, remembering


@pytest.fixture
def log(tmp_path):
    with FeedbackLog(tmp_path / "feedback.db") as log:
        yield log


@pytest.fixture
def store(problem):
    store = InMemoryVectorStore(Lookup(problem))
    store.add_documents(documents_of(problem))
    return store


class Words:
    """A search by words that finds two documents."""

    def __init__(self, *found):
        self.found = list(found)

    def search(self, text, k, filter=None):
        return Found(self.found, np.array([99.0, 98.0], dtype=np.float32))


class Runs(BaseCallbackHandler):
    """Keeps the ids of the retrievers' runs, as a tracer does."""

    def __init__(self):
        self.ids = []

    def on_retriever_start(self, serialized, query, *, run_id, **kwargs):
        self.ids.append(str(run_id))


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Ask a retriever, in either way."""
    if request.param == "sync":
        return lambda retriever, *given, **options: retriever.invoke(*given, **options)
    return lambda retriever, *given, **options: asyncio.run(retriever.ainvoke(*given, **options))


def test_documents_lead_to_their_query_and_callbacks_to_the_same(store, problem, adapter, log, ask):
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3, record=log)
    runs, query = Runs(), problem.test.queries[0]
    documents = ask(retriever, query, {"callbacks": [runs], "metadata": {"session_id": "s-1", "user_id": 7, "tenant_id": "acme"}})
    (told,) = {tuple(document.metadata["deepmem"].items()) for document in documents}
    assert dict(told).keys() == {"query_id", "run_id"}
    assert [dict(told)["run_id"]] == runs.ids == [str(UUID(runs.ids[0]))]
    recorded = log.get(dict(told)["query_id"])
    assert log.get(runs.ids[0]) == recorded
    assert recorded.text == query
    assert recorded.document_ids == ids(documents) == expected(problem, adapter.transform(problem.test_queries[0]), 3)
    assert [one.channels for one in recorded.shown] == [{"vector": 1}, {"vector": 2}, {"vector": 3}]
    cosines = problem.corpus[[problem.ids.index(name) for name in ids(documents)]] @ adapter.transform(problem.test_queries[0])
    np.testing.assert_allclose([one.score for one in recorded.shown], cosines, atol=1e-4)
    assert (recorded.session, recorded.user, recorded.tenant, recorded.model) == ("s-1", "7", "acme", str(adapter))


def test_without_a_log_nothing_changes(store, problem, adapter, log):
    plain = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3).invoke(problem.test.queries[0])
    assert all("deepmem" not in document.metadata for document in plain)
    recorded = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3, record=log).invoke(problem.test.queries[0])
    assert recorded == plain, "the ids are no part of the documents when they are compared"
    assert all("deepmem" not in document.metadata for document in store.get_by_ids(ids(plain))), "the store's own objects stay"


def test_the_channels_and_scores_of_a_ranking_are_kept(store, problem, log, ask):
    query, vector = problem.test.queries[0], problem.test_queries[0] / np.linalg.norm(problem.test_queries[0])
    *_, far, other = expected(problem, vector, len(problem.ids))
    model = remembering(vector[None], [{far: 1.0}], Ranking(words=1.0, answers=1000.0, search="Words"))
    (first,) = expected(problem, vector, 1)
    retriever = DeepMemoryRetriever(vectorstore=store, memory=model, k=3, words=Words(other, first), record=log, evidence=True)
    documents = ask(retriever, query)
    recorded = log.get(documents[0].metadata["deepmem"]["query_id"])
    assert [one.document_id for one in recorded.shown] == ids(documents)
    channels = {one.document_id: dict(one.channels) for one in recorded.shown}
    assert channels == {far: {"answers": 1}, first: {"vector": 1, "words": 2}, other: {"words": 1}}
    assert [one.score for one in recorded.shown] == [document.metadata["deepmem"]["score"] for document in documents]


@pytest.mark.parametrize(
    ("options", "channel"),
    [
        ({"deep_memory": False}, "vector"),
        ({"search_type": "mmr"}, "mmr"),
        ({"search_type": "similarity_score_threshold", "search_kwargs": {"score_threshold": -1.0}}, "vector"),
        ({"search_type": "mmr", "deep_memory": False}, "mmr"),
    ],
)
def test_every_kind_of_search_is_recorded(store, problem, adapter, log, ask, options, channel):
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3, record=log, **options)
    documents = ask(retriever, problem.test.queries[0])
    recorded = log.get(documents[0].metadata["deepmem"]["query_id"])
    assert recorded.document_ids == ids(documents)
    assert [one.channels for one in recorded.shown] == [{channel: 1}, {channel: 2}, {channel: 3}]
    assert recorded.model == (None if options.get("deep_memory") is False else str(adapter))


def test_the_model_in_use_is_recorded_and_none_before_the_first(store, problem, adapter, log, tmp_path, ask):
    memory = DeepMemory.from_langchain(store, path=tmp_path / "models")
    retriever = DeepMemoryRetriever(vectorstore=store, memory=memory, k=3, record=log)
    first = ask(retriever, problem.test.queries[0])
    memory.folder.save_model("m-1", adapter)
    memory.set_model("m-1")
    second = ask(retriever, problem.test.queries[0])
    models = [log.get(found[0].metadata["deepmem"]["query_id"]).model for found in (first, second)]
    assert models == [None, f"m-1 in {tmp_path / 'models'}"]


def test_a_query_that_finds_nothing_is_recorded(problem, adapter, log, ask):
    retriever = DeepMemoryRetriever(vectorstore=InMemoryVectorStore(Lookup(problem)), memory=adapter, record=log)
    assert ask(retriever, problem.test.queries[0]) == []
    (recorded,) = log.queries()
    assert (recorded.text, recorded.shown) == (problem.test.queries[0], ())


def test_documents_without_ids_keep_their_rank(store, problem, adapter, log, ask, monkeypatch):
    class Nameless(InMemoryVectorStore):
        def similarity_search_by_vector(self, embedding, k=4, **kwargs):
            found = super().similarity_search_by_vector(embedding, k, **kwargs)
            return [Document(page_content=found[0].page_content), *found[1:]]

    half = Nameless(Lookup(problem))
    half.add_documents(documents_of(problem))
    documents = ask(DeepMemoryRetriever(vectorstore=half, memory=adapter, k=3, record=log), problem.test.queries[0])
    recorded = log.get(documents[0].metadata["deepmem"]["query_id"])
    assert [one and one.document_id for one in recorded.shown] == ids(documents)
    assert recorded.shown[0] is None


def test_a_chain_in_a_context_knows_whose_query_it_is(store, problem, adapter, log, ask):
    chain = RunnableLambda(str) | DeepMemoryRetriever(vectorstore=store, memory=adapter, k=1, record=log)
    with log.context(session="s-9", user="u-9"):
        documents = ask(chain, problem.test.queries[0])
    recorded = log.get(documents[0].metadata["deepmem"]["query_id"])
    assert (recorded.session, recorded.user) == ("s-9", "u-9")


def test_parallel_queries_are_told_apart(store, problem, adapter, log):
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3, record=log)
    queries = list(problem.test.queries[:20])
    for found in (retriever.batch(queries), asyncio.run(retriever.abatch(queries))):
        for query, documents in zip(queries, found, strict=True):
            recorded = log.get(documents[0].metadata["deepmem"]["query_id"])
            assert (recorded.text, recorded.document_ids) == (query, ids(documents))


def test_a_log_that_cannot_be_written_fails_no_query(store, problem, adapter, log, tmp_path, ask):
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3, record=log)
    with locked(tmp_path / "feedback.db"):
        documents = [ask(retriever, query) for query in problem.test.queries[:5]]
    log.flush(60)
    for found in documents:
        assert log.get(found[0].metadata["deepmem"]["query_id"]).document_ids == ids(found)


def test_what_measures_and_judges_is_not_recorded(store, problem, adapter, log, tmp_path, ask):
    memory = DeepMemory.from_langchain(store, tmp_path / "memory")
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    retriever = DeepMemoryRetriever(vectorstore=store, memory=memory, k=3, record=log)
    test = problem.test.take(range(8))
    memory.measure(test, retriever=retriever | RunnableLambda(list), plain=retriever)
    asyncio.run(memory.ameasure(test, retriever=retriever))
    RelevanceJudge(lambda messages, schema: '{"grade": 3}', rankings=[retriever.invoke], progress=False)(test.queries[:2])
    with unrecorded():
        ask(retriever, test.queries[0])
    assert log.stats()["queries"] == 0
    ask(retriever, test.queries[0])
    assert log.stats()["queries"] == 1


def test_a_log_is_a_field_like_any_other(store, problem, adapter, log, tmp_path):
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=1).configurable_fields(
        record=ConfigurableField(id="record")
    )
    retriever.invoke(problem.test.queries[0])
    retriever.with_config(configurable={"record": log}).invoke(problem.test.queries[1])
    assert [query.text for query in log.queries()] == [problem.test.queries[1]]
    with pytest.raises(ValidationError, match="record"):
        DeepMemoryRetriever(vectorstore=store, memory=adapter, record=str(tmp_path / "feedback.db"))


def test_a_retriever_with_a_log_can_be_pickled(trained, problem, log):
    retriever = DeepMemoryRetriever(vectorstore=trained, memory=trained.vectorstore.deep_memory.folder, k=1, record=log)
    again = pickle.loads(pickle.dumps(retriever))
    again.invoke(problem.test.queries[0])
    again.record.close()
    assert len(list(log.queries())) == 1


def test_a_model_is_trained_on_what_users_thought(store, problem, log, tmp_path):
    """Users give a thumb to what answers them, where it is shown; the labels train as labels of any source do."""
    memory = DeepMemory.from_langchain(store, path=tmp_path / "models")
    retriever = DeepMemoryRetriever(vectorstore=store, memory=memory, k=20, record=log)
    for query, labels in zip(problem.train.queries, problem.train.labels, strict=True):
        for document in retriever.invoke(query):
            if document.id in dict(labels):
                log.thumb(document.metadata["deepmem"]["run_id"], document.id, up=True)
    labels = log.labels("judged")
    true = {query: dict(found) for query, found in zip(problem.train.queries, problem.train.labels, strict=True)}
    assert len(labels) > 50
    assert all(dict(found).keys() <= true[query].keys() for query, found in zip(labels.queries, labels.labels, strict=True))
    job = memory.train(labels)
    report = memory.status(job).report
    assert report["queries"] + report["near_duplicates"] == len(labels)
    assert 0 < report["shown"] <= 20, "the training knows labels of what was shown, and compares candidates by it"
