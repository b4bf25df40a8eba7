import asyncio
import copy
import pickle
import re

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore, VectorStoreRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.errors import AdapterFileError, EmbeddingMismatchError, NotTrainedError, StoreError
from deepmem_integrations.langchain import DeepLake, DeepMemoryEmbeddings, DeepMemoryRetriever
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.words import Found, WordIndex
from tests.langchain.helpers import Lookup, documents_of, expected, ids, remembering


class TestRetrieverStandard(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _store(self, tmp_path):
        embedding = DeterministicFakeEmbedding(size=8)
        self.store = DeepLake.from_texts(
            [f"text {i}" for i in range(12)], embedding, dataset_path=tmp_path / "dataset", ids=[f"id {i}" for i in range(12)]
        )
        turn = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
        QueryAdapter(8, linear=turn).save(tmp_path / "adapter.safetensors")
        self.file = tmp_path / "adapter.safetensors"

    @property
    def retriever_constructor(self):
        return DeepMemoryRetriever

    @property
    def retriever_constructor_params(self):
        return {"vectorstore": self.store, "memory": self.file}

    @property
    def retriever_query_example(self):
        return "text 3"


@pytest.fixture(params=["DeepLake", "InMemoryVectorStore"])
def any_store(request, db, problem):
    if request.param == "DeepLake":
        return db
    store = InMemoryVectorStore(Lookup(problem))
    store.add_documents(documents_of(problem))
    return store


def test_train_from_a_store_and_swap_one_retriever(any_store, problem, tmp_path):
    memory = DeepMemory.from_langchain(any_store, path=tmp_path / "models")
    memory.train(problem.train)
    retriever = DeepMemoryRetriever(vectorstore=any_store, memory=memory, k=7)
    for row in range(3):
        moved = memory.transform(problem.test_queries[row])
        query = problem.test.queries[row]
        assert ids(retriever.invoke(query)) == expected(problem, moved, 7)
        assert ids(retriever.invoke(query, k=2)) == expected(problem, moved, 2)
        assert ids(retriever.invoke(query, deep_memory=False)) == expected(problem, problem.test_queries[row], 7)
    assert retriever.batch(list(problem.test.queries[:3])) == [retriever.invoke(query) for query in problem.test.queries[:3]]


async def test_the_async_twin_gives_the_same(any_store, problem, adapter):
    memory = adapter
    for search_type in ("similarity", "mmr"):
        retriever = DeepMemoryRetriever(vectorstore=any_store, memory=memory, k=5, search_type=search_type)
        for query in problem.test.queries[:3]:
            assert ids(await retriever.ainvoke(query)) == ids(retriever.invoke(query))
        assert ids(await retriever.ainvoke(query, k=2, deep_memory=False)) == ids(retriever.invoke(query, k=2, deep_memory=False))


def test_mmr_reranks_with_the_transformed_query(any_store, problem, adapter):
    options = {"search_type": "mmr", "search_kwargs": {"lambda_mult": 1.0, "fetch_k": 30}}
    retriever = DeepMemoryRetriever(vectorstore=any_store, memory=adapter, k=5, **options)
    moved = adapter.transform(problem.test_queries[0])
    assert ids(retriever.invoke(problem.test.queries[0])) == expected(problem, moved, 5)


def test_filters_reach_the_store(db, problem, adapter):
    retriever = DeepMemoryRetriever(vectorstore=db, memory=adapter, k=5, search_kwargs={"filter": {"half": 1}})
    moved = adapter.transform(problem.test_queries[0])
    assert ids(retriever.invoke(problem.test.queries[0])) == expected(problem, moved, 5, keep=lambda row: row % 2 == 1)


def test_a_new_model_serves_the_next_query(trained, problem):
    retriever = DeepMemoryRetriever(vectorstore=trained, memory=trained.deep_memory, k=10)
    first = trained.deep_memory.get_model()
    query = problem.test.queries[0]
    before = ids(retriever.invoke(query))
    trained.deep_memory.set_model(trained.deep_memory.train(problem.train.take(range(5))))
    assert ids(retriever.invoke(query)) == expected(problem, problem.test_queries[0], 10), "five queries give the identity"
    trained.deep_memory.set_model(first)
    assert ids(retriever.invoke(query)) == before


async def test_parallel_calls_while_the_model_changes_get_one_or_the_other(trained, problem):
    memory = trained.deep_memory
    models = [memory.get_model(), memory.train(problem.train.take(range(5)))]
    retriever = DeepMemoryRetriever(vectorstore=trained, memory=memory, k=10)
    query = problem.test.queries[0]
    answers = []
    for model in models:
        memory.set_model(model)
        answers.append(ids(retriever.invoke(query)))
    assert answers[0] != answers[1]

    async def switch():
        for turn in range(20):
            await asyncio.to_thread(memory.set_model, models[turn % 2])

    *found, _ = await asyncio.gather(*(retriever.ainvoke(query) for _ in range(50)), switch())
    assert all(ids(documents) in answers for documents in found)


def test_another_embedding_model_is_refused(trained, problem):
    class Other(Lookup):
        def embed_query(self, text):
            return list(np.roll(super().embed_query(text), 1))

    other = InMemoryVectorStore(Other(problem))
    with pytest.raises(EmbeddingMismatchError, match="different vectors"):
        DeepLake(trained.store.path, embedding=Other(problem)).similarity_search("q", deep_memory=True)
    with pytest.raises(EmbeddingMismatchError, match="different vectors"):
        DeepMemoryRetriever(vectorstore=other, memory=trained.deep_memory).invoke("q")
    small = InMemoryVectorStore(DeterministicFakeEmbedding(size=5))
    with pytest.raises(EmbeddingMismatchError, match="5 dimensions"):
        DeepMemoryRetriever(vectorstore=small, memory=QueryAdapter(32)).invoke("q")


def test_what_cannot_work_says_what_can(problem, tmp_path):
    class Bare(InMemoryVectorStore):
        @property
        def embeddings(self):
            return None

    class Unlisted(VectorStore):
        embeddings = Lookup(problem)
        from_texts = similarity_search = None

    bare = Bare(Lookup(problem))
    with pytest.raises(StoreError, match="does not return it"):
        DeepMemoryRetriever(vectorstore=bare, memory=QueryAdapter(32)).invoke("q")
    with pytest.raises(StoreError, match="has no embedding model"):
        DeepMemory.from_langchain(bare, path=tmp_path)
    with pytest.raises(
        StoreError, match=r"Pass the documents, from_langchain\(…, documents=\[…\]\), or train with the store.s search alone"
    ):
        DeepMemory.from_langchain(Unlisted(), path=tmp_path)
    with pytest.raises(StoreError, match="Say where the models live"):
        DeepMemory.from_langchain(InMemoryVectorStore(Lookup(problem)))


def test_a_copy_with_another_memory_serves_that(db, problem, adapter):
    retriever = DeepMemoryRetriever(vectorstore=db, memory=adapter, k=10)
    query, plain = problem.test.queries[0], expected(problem, problem.test_queries[0], 10)
    assert ids(retriever.invoke(query)) != plain
    assert ids(retriever.model_copy(update={"memory": QueryAdapter(32)}).invoke(query)) == plain
    retriever.memory = QueryAdapter(32)
    assert ids(retriever.invoke(query)) == plain


def test_mistakes_show_at_once(db, tmp_path):
    with pytest.raises(ValidationError, match="top_k"):
        DeepMemoryRetriever(vectorstore=db, memory=QueryAdapter(32), top_k=7)
    (tmp_path / "bad.safetensors").write_bytes(b"no adapter")
    with pytest.raises(AdapterFileError, match=r"bad\.safetensors: not a whole"):
        DeepMemoryRetriever(vectorstore=db, memory=tmp_path / "bad.safetensors")
    with pytest.raises(TypeError, match="memory is a DeepMemory"):
        DeepMemoryRetriever(vectorstore=db, memory=None)
    for bad in ("doc-1", b"x"):
        with pytest.raises(StoreError, match="Ids come as a list"):
            db.delete(bad)


async def test_results_are_plain_until_a_model_is_in_use(any_store, problem, adapter, tmp_path):
    folder = ModelFolder(tmp_path / "not yet")
    WordIndex.build(folder.words_path, [(problem.ids, problem.ids)])
    queries = problem.test.queries[:3]
    for search_type, options in (
        ("similarity", {"k": 7}),
        ("similarity", {}),
        ("similarity", {"filter": {"half": 1}} if isinstance(any_store, DeepLake) else {}),
        ("mmr", {"k": 3, "fetch_k": 9}),
        ("similarity_score_threshold", {"score_threshold": 0.1, "k": 5}),
    ):
        if search_type == "similarity_score_threshold" and not isinstance(any_store, DeepLake):
            continue  # the store has no relevance scores of its own
        plain = any_store.as_retriever(search_type=search_type, search_kwargs=options)
        ours = DeepMemoryRetriever(vectorstore=any_store, memory=str(folder.path), search_type=search_type, search_kwargs=options)
        for query in queries:
            assert ids(ours.invoke(query)) == ids(await ours.ainvoke(query)) == ids(plain.invoke(query))
    told = DeepMemoryRetriever(vectorstore=any_store, memory=folder, k=2, evidence=True).invoke(queries[0])
    assert [document.metadata["deepmem"]["vector"]["rank"] for document in told] == [1, 2]
    folder.save_model("one", adapter)
    folder.use("one")
    ours = DeepMemoryRetriever(vectorstore=any_store, memory=folder, k=7)
    assert ids(ours.invoke(queries[0])) == expected(problem, adapter.transform(problem.test_queries[0]), 7)


async def test_a_broken_model_may_leave_plain_results(any_store, problem, adapter, tmp_path):
    folder = ModelFolder(tmp_path)
    folder.save_model("one", adapter)
    folder.use("one")
    folder.model_path("one").write_bytes(b"damaged")
    query, plain = problem.test.queries[0], expected(problem, problem.test_queries[0], 4)
    broken = DeepMemoryRetriever(vectorstore=any_store, memory=folder, k=4)
    with pytest.raises(AdapterFileError):
        await broken.ainvoke(query)
    broken.on_broken = "plain"
    assert ids(broken.invoke(query)) == ids(await broken.ainvoke(query)) == plain
    other = DeepMemoryRetriever(vectorstore=any_store, memory=QueryAdapter(5), k=4, on_broken="plain")
    assert ids(other.invoke(query)) == ids(await other.ainvoke(query)) == plain, "a model for other vectors"


def test_from_langchain_shares_the_stores_own_deep_memory(problem, tmp_path):
    db = DeepLake(tmp_path / "dataset", embedding=Lookup(problem), deep_memory_path=tmp_path / "elsewhere")
    assert DeepMemory.from_langchain(db) is db.deep_memory
    assert DeepMemory.from_langchain(db).folder.path == tmp_path / "elsewhere"


# ---- per call, and from what is there --------------------------------------------------------------------------------


def test_k_and_deep_memory_are_configurable_without_reading_or_probing_again(db, problem, adapter, tmp_path):
    file = adapter.save(tmp_path / "adapter.safetensors")
    retriever = DeepMemoryRetriever(vectorstore=db, memory=file, k=5)
    configurable = retriever.configurable_fields(
        k=ConfigurableField(id="k"), deep_memory=ConfigurableField(id="deep_memory"), search_type=ConfigurableField(id="type")
    )
    query, vector = problem.test.queries[0], problem.test_queries[0]
    moved = adapter.transform(vector)
    asked = []
    original = db.embeddings.embed_query
    db.embeddings.embed_query = lambda text: asked.append(text) or original(text)
    assert ids(configurable.invoke(query)) == expected(problem, moved, 5)
    file.unlink()
    asked.clear()
    assert ids(configurable.invoke(query, config={"configurable": {"k": 2}})) == expected(problem, moved, 2)
    assert ids(configurable.with_config(configurable={"deep_memory": False}).invoke(query)) == expected(problem, vector, 5)
    assert len(configurable.with_config(configurable={"type": "mmr"}).invoke(query)) == 5
    assert asked == [query] * 3, "only the queries are embedded, no probes again"
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        configurable.invoke(query, config={"configurable": {"k": 0}})


def test_search_kwargs_of_a_configured_call_win(db, problem, adapter):
    query, vector = problem.test.queries[0], problem.test_queries[0]
    for options in ({"k": 2}, {"search_kwargs": {"k": 2}}, {}):
        retriever = DeepMemoryRetriever(vectorstore=db, memory=adapter, **options).configurable_fields(
            search_kwargs=ConfigurableField(id="search_kwargs")
        )
        for asked, moved in ((5, adapter.transform(vector)), (5, vector)):
            given = {"k": asked, "deep_memory": moved is not vector, "words": False, "answers": False, "evidence": False}
            found = retriever.invoke(query, config={"configurable": {"search_kwargs": given}})
            assert ids(found) == expected(problem, moved, asked)
    with pytest.raises(ValidationError, match="k is given twice"):
        DeepMemoryRetriever(vectorstore=db, memory=adapter, k=2, search_kwargs={"k": 3})


def test_without_the_model_nothing_switches_it_on(db, problem, adapter):
    retriever = DeepMemoryRetriever(vectorstore=db, memory=adapter, k=3)
    retriever.search_kwargs["deep_memory"] = True  # as in v3
    query, vector = problem.test.queries[0], problem.test_queries[0]
    assert ids(retriever.without_model().invoke(query)) == expected(problem, vector, 3)
    assert ids(retriever.invoke(query)) == expected(problem, adapter.transform(vector), 3)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"words": "no"}, "words is True, False or a search by words; got 'no'"),
        ({"words": None}, "words is True, False or a search by words; got None"),
        ({"evidence": "yes"}, "evidence is True or False"),
        ({"k": True}, "k is a number of documents, 1 or more; got True"),
        ({"search_type": "mmr"}, "The search type is the retriever's own"),
    ],
)
def test_an_option_of_a_call_that_would_do_nothing_is_refused(db, problem, adapter, options, told):
    retriever = DeepMemoryRetriever(vectorstore=db, memory=adapter)
    with pytest.raises(StoreError, match=told):
        retriever.invoke(problem.test.queries[0], **options)


def test_search_kwargs_may_hold_k_and_deep_memory(db, problem, adapter):
    retriever = DeepMemoryRetriever(vectorstore=db, memory=adapter, search_kwargs={"k": 3, "deep_memory": False})
    assert (retriever.k, retriever.deep_memory, retriever.search_kwargs) == (3, False, {})
    query = problem.test.queries[0]
    assert ids(retriever.invoke(query)) == expected(problem, problem.test_queries[0], 3)
    retriever.search_kwargs["deep_memory"] = True
    assert ids(retriever.invoke(query)) == expected(problem, adapter.transform(problem.test_queries[0]), 3)
    with pytest.raises(ValidationError, match="k is given twice"):
        DeepMemoryRetriever(vectorstore=db, memory=adapter, k=3, search_kwargs={"k": 3})


def test_without_k_the_stores_own_default_holds(db, problem, adapter):
    assert len(DeepMemoryRetriever(vectorstore=db, memory=adapter).invoke(problem.test.queries[0])) == 4


def test_an_existing_retriever_keeps_its_settings(db, problem, adapter):
    before = db.as_retriever(
        search_type="mmr",
        search_kwargs={"k": 5, "lambda_mult": 1.0, "filter": {"half": 1}},
        tags=["support"],
        metadata={"team": "a"},
        name="support search",
    )
    after = DeepMemoryRetriever.from_retriever(before, adapter)
    assert (after.k, after.search_type, after.tags, after.metadata) == (5, "mmr", ["support"], {"team": "a"})
    assert after.get_name() == "support search"
    moved = adapter.transform(problem.test_queries[0])
    assert ids(after.invoke(problem.test.queries[0])) == expected(problem, moved, 5, keep=lambda row: row % 2 == 1)
    assert before.search_kwargs["k"] == 5, "the old one is left alone"

    class Own(VectorStoreRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            return []

    def of_async_callers(self, query, *, run_manager):
        return []

    others = [
        type("Own", (VectorStoreRetriever,), {name: of_async_callers})(vectorstore=db)
        for name in ("_aget_relevant_documents", "invoke", "ainvoke", "batch", "astream")
    ]
    for other in (Own(vectorstore=db), *others, after, db):
        with pytest.raises(StoreError, match=r"takes a retriever of vectorstore\.as_retriever\(\); a .* DeepMemoryEmbeddings"):
            DeepMemoryRetriever.from_retriever(other, adapter)


# ---- search types ----------------------------------------------------------------------------------------------------


async def test_thresholds_are_the_stores_own_relevance_scores(any_store, problem, adapter):
    query, moved = problem.test.queries[0], adapter.transform(problem.test_queries[0])
    order = expected(problem, moved, 10)
    cosines = [float(problem.corpus[problem.ids.index(name)] @ moved) for name in order]
    retriever = DeepMemoryRetriever(
        vectorstore=any_store,
        memory=adapter,
        k=10,
        search_type="similarity_score_threshold",
        search_kwargs={"score_threshold": (cosines[2] + cosines[3]) / 2},
    )
    assert ids(retriever.invoke(query)) == order[:3]
    assert ids(await retriever.ainvoke(query)) == order[:3]
    assert ids(retriever.invoke(query, score_threshold=(cosines[4] + cosines[5]) / 2)) == order[:5]
    assert retriever.invoke(query, score_threshold=1.0) == []


class Unscored(InMemoryVectorStore):
    """A store whose search by vector gives no scores, like most."""

    @property
    def similarity_search_with_score_by_vector(self):
        raise AttributeError


class Unembedded(VectorStore):
    """A store that can be searched by vector alone, with scores that may be anything."""

    from_texts = similarity_search = None

    def __init__(self, embeddings) -> None:
        self._lent = [embeddings]

    @property
    def embeddings(self):
        return self._lent[0]

    def similarity_search_by_vector_with_relevance_scores(self, embedding, k=4, **kwargs):
        raise AssertionError("nobody knows what these scores are")


def test_a_search_that_the_store_cannot_do_points_to_what_works(db, problem, adapter):
    threshold = {"search_type": "similarity_score_threshold", "search_kwargs": {"score_threshold": np.float32(0.5)}}
    with pytest.raises(StoreError, match=r"Unscored cannot be searched .* DeepMemoryEmbeddings\(embeddings, memory\)"):
        DeepMemoryRetriever(vectorstore=Unscored(Lookup(problem)), memory=adapter, **threshold).invoke("q")
    with pytest.raises(StoreError, match=r"Unembedded gives no scores .* DeepMemoryEmbeddings\(embeddings, memory\)"):
        DeepMemoryRetriever(vectorstore=Unembedded(Lookup(problem)), memory=adapter, **threshold).invoke("q")
    with pytest.raises(ValidationError, match='needs search_kwargs={"score_threshold": a number}'):
        DeepMemoryRetriever(vectorstore=db, memory=adapter, search_type="similarity_score_threshold")

    class TextOnly(VectorStore):
        embeddings = Lookup(problem)
        from_texts = None

        def similarity_search(self, query, k=4, **kwargs):
            return [Document(page_content=f"{k} by text")]

    retriever = DeepMemoryRetriever(vectorstore=TextOnly(), memory=adapter, k=2)
    with pytest.raises(StoreError, match="TextOnly cannot be searched by vector .* DeepMemoryEmbeddings"):
        retriever.invoke("q")
    assert retriever.invoke("q", deep_memory=False) == [Document(page_content="2 by text")], "the store's own search"


async def test_a_text_only_store_is_told_apart_in_async_calls_too(problem, adapter):
    class TextOnly(VectorStore):
        embeddings = Lookup(problem)
        from_texts = similarity_search = None

    with pytest.raises(StoreError, match="cannot be searched by vector"):
        await DeepMemoryRetriever(vectorstore=TextOnly(), memory=adapter).ainvoke("q")


# ---- applied once ----------------------------------------------------------------------------------------------------


async def test_over_a_store_with_wrapped_embeddings_a_query_is_transformed_once(problem, adapter, db):
    wrapped = DeepMemoryEmbeddings(db.embeddings, adapter)
    query, vector = problem.test.queries[0], problem.test_queries[0]
    moved = adapter.transform(vector)
    assert expected(problem, adapter.transform(moved), 10) != expected(problem, moved, 10), "twice would show"
    store = DeepLake(db.store.path, embedding=wrapped)
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=10)
    for found in (retriever.invoke(query), await retriever.ainvoke(query)):
        assert ids(found) == expected(problem, moved, 10)
    for found in (retriever.invoke(query, deep_memory=False), await retriever.ainvoke(query, deep_memory=False)):
        assert ids(found) == expected(problem, vector, 10)


# ---- tracing ---------------------------------------------------------------------------------------------------------


class Recorder(BaseCallbackHandler):
    """What callbacks hear."""

    def __init__(self):
        self.started, self.ended, self.failed = [], [], []

    def on_retriever_start(self, serialized, query, *, metadata=None, tags=None, **kwargs):
        self.started.append((query, metadata, tags))

    def on_retriever_end(self, documents, **kwargs):
        self.ended.append(documents)

    def on_retriever_error(self, error, **kwargs):
        self.failed.append(error)


def test_traces_name_the_store_the_embedding_model_and_the_adapter(trained, problem, adapter, tmp_path):
    file = adapter.save(tmp_path / "adapter.safetensors")
    recorder = Recorder()
    memory = trained.deep_memory
    for given, name in ((memory, f"before in {memory.folder.path}"), (adapter, repr(adapter)), (file, str(file))):
        retriever = DeepMemoryRetriever(vectorstore=trained, memory=given, tags=["a"])
        documents = retriever.invoke(problem.test.queries[0], config={"callbacks": [recorder]})
        query, metadata, tags = recorder.started.pop()
        assert (query, tags) == (problem.test.queries[0], ["a"])
        assert metadata["ls_vector_store_provider"] == "DeepLake"
        assert metadata["ls_embedding_provider"] == "Lookup"
        assert metadata["embedding_model"] == "lookup"
        assert metadata["deep_memory"] == name
        assert recorder.ended.pop() == documents
    retriever.invoke("q", config={"callbacks": [recorder]}, deep_memory=False)
    assert recorder.started.pop()[1]["deep_memory"] == "off"


def test_errors_reach_the_callbacks(db, problem):
    recorder = Recorder()
    retriever = DeepMemoryRetriever(vectorstore=db, memory=QueryAdapter(5))
    with pytest.raises(EmbeddingMismatchError):
        retriever.invoke("q", config={"callbacks": [recorder]})
    assert isinstance(recorder.failed[0], EmbeddingMismatchError)


# ---- ranking ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def learned(problem):
    """An adapter that ranks by vectors and answers, whose remembered query asks for a document far from it, and that document."""
    (far,) = expected(problem, -problem.test_queries[0], 1)
    vector = problem.test_queries[:1] / np.linalg.norm(problem.test_queries[0])
    return remembering(vector, [{far: 1.0}], Ranking(words=1.0, answers=9.0, search="Words")), far


class Words:
    """A search by words that finds one document."""

    def __init__(self, found):
        self.found = found

    def search(self, text, k, filter=None):
        return Found([self.found], np.array([99.0], dtype=np.float32))


async def test_every_option_of_the_ranking_holds_for_one_call_and_for_all(any_store, problem, learned):
    adapter, far = learned
    query, plain = problem.test.queries[0], expected(problem, problem.test_queries[0], 3)
    (other,) = expected(problem, -problem.test_queries[1], 1)
    for options, right in (
        ({}, [far, *plain[:2]]),
        ({"answers": False}, plain),
        ({"words": Words(other)}, [other, far, plain[0]]),
        ({"words": Words(other), "answers": False}, [other, *plain[:2]]),
        ({"words": False, "answers": False}, plain),
        ({"fetch_k": 1}, [far, *plain[:2]]),
        ({"deep_memory": False}, plain),
        ({"k": 1}, [far]),
    ):
        at_all = DeepMemoryRetriever(vectorstore=any_store, memory=adapter, **{"k": 3, **options})
        in_search = DeepMemoryRetriever(vectorstore=any_store, memory=adapter, search_kwargs={"k": 3, **options})
        assert ids(at_all.invoke(query)) == ids(in_search.invoke(query)) == right
        once = DeepMemoryRetriever(vectorstore=any_store, memory=adapter, k=3)
        assert ids(once.invoke(query, **options)) == ids(await once.ainvoke(query, **options)) == right
        assert ids(once.invoke(query)) == [far, *plain[:2]]
        told = once.invoke(query, evidence=True, **options)
        assert ids(told) == right
        assert ["deepmem" in document.metadata for document in told] == [options.get("deep_memory", True)] * len(right)
    with pytest.raises(ValidationError, match="words is given twice"):
        DeepMemoryRetriever(vectorstore=any_store, memory=adapter, words=False, search_kwargs={"words": True})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        DeepMemoryRetriever(vectorstore=any_store, memory=adapter, fetch_k=0)
    with pytest.raises(ValidationError, match="words"):
        DeepMemoryRetriever(vectorstore=any_store, memory=adapter, words=object())


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ({"fech_k": 50}, "fetch_k"),
        ({"evidance": True}, "evidence"),
        ({"answer": False}, "answers"),
        ({"filters": {"half": 1}}, "filter"),
        ({"score_treshold": 0.5}, "score_threshold"),
    ],
)
async def test_a_misspelt_option_is_told(problem, adapter, slip, meant):
    store = InMemoryVectorStore(Lookup(problem))  # ignores options that it does not know
    store.add_documents(documents_of(problem))
    query, right = problem.test.queries[0], f"{next(iter(slip))} is no option of this search. Did you mean {meant}?"
    with pytest.raises(StoreError, match=re.escape(right)):
        DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3).invoke(query, **slip)
    with pytest.raises(StoreError, match=re.escape(right)):
        await DeepMemoryRetriever(vectorstore=store, memory=adapter, search_kwargs=slip).ainvoke(query)


def test_options_that_only_the_store_knows_go_to_the_store(problem, adapter):
    class Store(InMemoryVectorStore):
        def similarity_search_with_score_by_vector(self, embedding, k=4, filter=None, **kwargs):
            asked.append(kwargs)
            return super().similarity_search_with_score_by_vector(embedding, k, filter)

        def similarity_search_by_vector(self, embedding, k=4, prefetch_k=None, **kwargs):
            return [found for found, _ in self.similarity_search_with_score_by_vector(embedding, k, **kwargs)]

    asked = []
    store = Store(Lookup(problem))
    store.add_documents(documents_of(problem))
    options = {"bucket": "a", "efficient_filter": {}, "pre_filter": {}, "top_k": 3, "where_document": {}, "search_params": 1}
    DeepMemoryRetriever(vectorstore=store, memory=adapter, search_kwargs=options).invoke(problem.test.queries[0])
    assert asked == [options]


def test_evidence_where_the_vectors_alone_count(db, problem, adapter):
    retriever = DeepMemoryRetriever(vectorstore=db, memory=adapter, k=3, evidence=True)
    moved = adapter.transform(problem.test_queries[0])
    found = retriever.invoke(problem.test.queries[0])
    assert ids(found) == expected(problem, moved, 3)
    for rank, document in enumerate(found, start=1):
        cosine = float(problem.corpus[problem.ids.index(document.id)] @ moved)
        told = document.metadata["deepmem"]
        assert told["score"] == told["vector"]["score"] == pytest.approx(cosine, abs=1e-5)
        assert told["vector"]["rank"] == rank
        assert told["words"] == told["answers"] == {"score": 0.0, "rank": None}


def test_mmr_takes_the_transform_alone_and_keeps_its_own_fetch_k(db, problem):
    turn = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    adapter = QueryAdapter(32, linear=turn, ranking=Ranking(words=1.0, search="Words"))
    moved = adapter.transform(problem.test_queries[0])
    options = {"lambda_mult": 1.0, "fetch_k": 5}
    mmr = DeepMemoryRetriever(
        vectorstore=db, memory=adapter, k=5, search_type="mmr", search_kwargs=options, words=Words("doc-1"), evidence=True
    )
    found = mmr.invoke(problem.test.queries[0])
    assert ids(found) == expected(problem, moved, 5)
    assert all("deepmem" not in document.metadata for document in found)
    asked = []
    original = db.max_marginal_relevance_search_by_vector
    db.max_marginal_relevance_search_by_vector = lambda vector, **options: asked.append(options) or original(vector, **options)
    mmr.invoke(problem.test.queries[0])
    mmr.invoke(problem.test.queries[0], fetch_k=9)
    DeepMemoryRetriever(vectorstore=db, memory=adapter, search_type="mmr", fetch_k=50).invoke(problem.test.queries[0])
    assert asked == [{"k": 5, **options}, {"k": 5, **options, "fetch_k": 9}, {}]


def test_the_ranking_is_configurable_without_reading_again(db, problem, learned, tmp_path):
    adapter, far = learned
    file = adapter.save(tmp_path / "adapter.safetensors")
    query, plain = problem.test.queries[0], expected(problem, problem.test_queries[0], 2)
    retriever = DeepMemoryRetriever(vectorstore=db, memory=file, k=2)
    fields = {name: ConfigurableField(id=name) for name in ("words", "answers", "evidence", "fetch_k")}
    configurable = retriever.configurable_fields(**fields)
    file.unlink()
    assert ids(configurable.invoke(query)) == [far, plain[0]]
    assert ids(configurable.invoke(query, config={"configurable": {"answers": False}})) == plain
    assert ids(configurable.with_config(configurable={"words": Words(plain[1])}).invoke(query)) == [plain[1], far]
    told = configurable.with_config(configurable={"evidence": True, "fetch_k": 7}).invoke(query)
    assert [document.metadata["deepmem"]["answers"]["rank"] for document in told] == [1, None]
    for other in (copy.copy(retriever), retriever.model_copy()):
        assert ids(other.invoke(query)) == [far, plain[0]]
    retriever.answers = False
    assert ids(retriever.invoke(query)) == plain
    retriever.memory = QueryAdapter(32)
    retriever.answers = True
    assert ids(retriever.invoke(query)) == plain


def test_a_retriever_can_be_copied_and_pickled(problem, learned):
    adapter, far = learned
    store = InMemoryVectorStore(Lookup(problem))
    store.add_documents(documents_of(problem))
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=1)
    for other in (copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))):
        assert ids(other.invoke(problem.test.queries[0])) == [far]


async def test_traces_say_by_what_results_are_ranked(db, problem, learned, trained):
    recorder = Recorder()
    retriever = DeepMemoryRetriever(vectorstore=db, memory=learned[0], k=1)
    query, config = problem.test.queries[0], {"callbacks": [recorder]}
    for options, right in (
        ({}, "vector + 9 answers(τ=0.1)"),
        ({"words": Words("doc-1")}, "vector + words + 9 answers(τ=0.1)"),
        ({"words": False, "answers": False}, "vector"),
    ):
        retriever.invoke(query, config=config, **options)
        await retriever.ainvoke(query, config=config, **options)
        assert [recorder.started.pop()[1]["ranking"] for _ in range(2)] == [right] * 2
    retriever.invoke(query, config=config, deep_memory=False)
    assert "ranking" not in recorder.started.pop()[1]
    DeepMemoryRetriever(vectorstore=db, memory=learned[0], search_type="mmr").invoke(query, config=config)
    assert recorder.started.pop()[1]["ranking"] == "mmr"


async def test_a_model_that_is_not_there_is_an_error_that_callbacks_hear(db, problem, tmp_path):
    recorder = Recorder()
    retriever = DeepMemoryRetriever(vectorstore=db, memory=ModelFolder(tmp_path), untrained="error")
    with pytest.raises(NotTrainedError):
        retriever.invoke("q", config={"callbacks": [recorder]})
    with pytest.raises(NotTrainedError):
        await retriever.ainvoke("q", config={"callbacks": [recorder]})
    assert [type(error) for error in recorder.failed] == [NotTrainedError] * 2


@pytest.mark.parametrize("option", [{"k": 0}, {"k": -1}, {"k": "3"}, {"fetch_k": 0}, {"fetch_k": "9"}])
async def test_numbers_of_documents_are_checked_for_a_single_call_too(any_store, adapter, option):
    retriever = DeepMemoryRetriever(vectorstore=any_store, memory=adapter)
    with pytest.raises(StoreError, match=r"k is a number of documents, 1 or more; got"):
        retriever.invoke("question", **option)
    with pytest.raises(StoreError, match=r"k is a number of documents, 1 or more; got"):
        await retriever.ainvoke("question", **option)
