import asyncio
import gc
import weakref

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from deepmem_integrations import DeepMemory
from deepmem_integrations.errors import ModelNotFoundError, StoreError
from deepmem_integrations.langchain import DeepLake
from tests.langchain.helpers import Lookup, documents_of, expected, ids


class TestDeepLakeStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path) -> VectorStore:
        return DeepLake(tmp_path / "dataset", embedding=self.get_embeddings())


def test_deep_memory_through_as_retriever_as_in_v3(trained, problem):
    query = problem.test.queries[0]
    plain = trained.as_retriever(search_kwargs={"k": 10})
    assert ids(plain.invoke(query)) == expected(problem, problem.test_queries[0], 10)
    deep = trained.as_retriever(search_kwargs={"deep_memory": True, "k": 10})
    moved = trained.deep_memory.transform(problem.test_queries[0])
    assert ids(deep.invoke(query)) == expected(problem, moved, 10)
    plain.search_kwargs["deep_memory"] = True
    assert ids(plain.invoke(query)) == expected(problem, moved, 10)
    assert ids(plain.invoke(query)) != expected(problem, problem.test_queries[0], 10)


def test_every_search_takes_deep_memory_and_filters(trained, problem):
    query, vector = problem.test.queries[1], problem.test_queries[1].tolist()
    moved = trained.deep_memory.transform(vector)
    right = expected(problem, moved, 6, keep=lambda row: row % 2 == 1)
    options = {"k": 6, "filter": {"half": 1}, "deep_memory": True}
    assert ids(trained.similarity_search(query, **options)) == right
    assert ids(trained.similarity_search_by_vector(vector, **options)) == right
    scored = trained.similarity_search_with_score(query, **options)
    assert ids(document for document, _ in scored) == right
    rows = [problem.ids.index(name) for name in right]
    np.testing.assert_allclose([score for _, score in scored], problem.corpus[rows] @ moved, atol=1e-5)
    assert ids(trained.max_marginal_relevance_search(query, lambda_mult=1.0, **options)) == right
    threshold = scored[2][1]
    found = trained.similarity_search_with_relevance_scores(query, score_threshold=threshold - 1e-4, **options)
    assert ids(document for document, _ in found) == right[:3]


async def test_async_searches_use_the_models_own_async(trained, problem):
    query = problem.test.queries[2]
    options = {"k": 5, "deep_memory": True}
    right = ids(trained.similarity_search(query, **options))
    assert ids(await trained.asimilarity_search(query, **options)) == right
    assert ids(document for document, _ in await trained.asimilarity_search_with_score(query, **options)) == right
    assert ids(await trained.amax_marginal_relevance_search(query, lambda_mult=1.0, **options)) == right
    assert ids(await trained.as_retriever(search_kwargs=options).ainvoke(query)) == right
    assert trained.embeddings.async_queries == 4


def test_without_a_model_deep_memory_is_an_error_that_says_how_to_train(db):
    with pytest.raises(ModelNotFoundError, match=r"deep_memory\.train\(queries, relevance\)"):
        db.as_retriever(search_kwargs={"deep_memory": True}).invoke("anything")
    assert len(db.as_retriever(search_kwargs={"deep_memory": False}).invoke("anything")) == 4


def test_options_of_a_search_in_v3_are_ignored_or_have_another_name(trained, problem):
    with pytest.warns(UserWarning, match="These arguments of Deep Lake v3 are ignored. exec_option: .*; runtime: "):
        trained.similarity_search(problem.test.queries[0], exec_option="compute_engine", runtime={"tensor_db": True})
    for option in ({"fetch_k": 20}, {"maximal_marginal_relevance": True}):
        with pytest.raises(StoreError, match='as_retriever\\(search_type="mmr"'):
            trained.similarity_search(problem.test.queries[0], **option)
    as_v3 = trained.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 9, "maximal_marginal_relevance": True})
    assert len(as_v3.invoke(problem.test.queries[0])) == 2
    with pytest.raises(StoreError, match="similarity_search_by_vector"):
        trained.vectorstore.search(embedding_data="a question", deep_memory=True)
    as_community = {"k": 2, "fetch_k": 9, "use_maximal_marginal_relevance": True}
    assert ids(trained.as_retriever(search_type="mmr", search_kwargs=as_community).invoke(problem.test.queries[0]))
    with pytest.raises(StoreError, match='use_maximal_marginal_relevance: .*search_type="mmr"'):
        trained.similarity_search(problem.test.queries[0], use_maximal_marginal_relevance=True)


@pytest.mark.parametrize("name", ["exec_option", "runtime", "num_workers", "verbose"])
async def test_every_search_ignores_the_options_of_v3_with_one_warning(trained, problem, name):
    query, vector = problem.test.queries[0], problem.test_queries[0].tolist()
    option = {name: "v3's"}
    retriever = trained.as_retriever()
    retriever.search_kwargs |= {"deep_memory": True, **option}
    for search in (
        lambda: trained.similarity_search(query, **option),
        lambda: trained.similarity_search(tql="SELECT * LIMIT 4", **option),
        lambda: trained.similarity_search_by_vector(vector, **option),
        lambda: trained.similarity_search_with_score(query, **option),
        lambda: trained.max_marginal_relevance_search(query, **option),
        lambda: retriever.invoke(query),
        lambda: trained.similarity_search_with_relevance_scores(query, **option),
    ):
        with pytest.warns(UserWarning, match=f"ignored. {name}: ") as caught:
            assert len(search()) == 4
        assert len(caught) == 1
    with pytest.warns(UserWarning, match=f"ignored. {name}: "):
        assert len(await retriever.ainvoke(query)) == 4


async def test_texts_are_added_as_by_programs_for_v3(db):
    with pytest.warns(UserWarning, match="ignored. num_workers: ") as caught:
        db.add_documents([Document("one more")], num_workers=2)
        await db.aadd_texts(["another"], num_workers=2)
    assert len(caught) == 2


def test_an_unknown_option_is_an_error_not_ignored(db):
    with pytest.raises(TypeError, match="distance"):
        db.similarity_search("q", distance="l2")
    with pytest.raises(TypeError, match="deepmemory"):
        db.as_retriever(search_kwargs={"deepmemory": True}).invoke("q")


def test_deleting(db):
    assert db.delete(["doc-0", "doc-1"])
    assert db.delete(filter={"half": 1})
    assert len(db.store) == 149
    for nothing in ({}, {"ids": ["a"], "delete_all": True}, {"filter": {}}):
        with pytest.raises(StoreError, match="Pass exactly one of: ids, a filter"):
            db.delete(**nothing)
    db.delete(delete_all=True)
    assert db.similarity_search("q") == []


def test_constructor_arguments(problem, tmp_path):
    embedding = Lookup(problem)
    assert DeepLake(tmp_path / "a", None, None, embedding).embeddings is embedding
    with pytest.raises(StoreError, match="two names"):
        DeepLake(tmp_path / "a", embedding=embedding, embedding_function=embedding)
    with pytest.raises(StoreError, match="embedding is a LangChain Embeddings; got str"):
        DeepLake(tmp_path / "a", embedding="minilm")
    with pytest.raises(StoreError, match="An embedding model is passed as embedding="):
        DeepLake(tmp_path / "a", embedding)
    with pytest.raises(StoreError, match="takes a LangChain vector store; got Lookup"):
        DeepMemory.from_langchain(embedding)
    bare = DeepLake(tmp_path / "a")
    with pytest.raises(StoreError, match="no embedding model"):
        bare.add_texts(["x"])
    with pytest.raises(StoreError, match="deep_memory_path="):
        _ = DeepLake("mem://x", embedding=embedding).deep_memory
    remote = DeepLake("mem://y", embedding=embedding, deep_memory_path=tmp_path / "models")
    assert remote.deep_memory.folder.path == tmp_path / "models"
    assert remote.deep_memory is remote.deep_memory


def test_a_store_with_a_deep_memory_is_let_go_at_once(trained, problem):
    """By reference counting: a store in a circle would keep its files until the garbage is collected."""
    db = DeepLake(trained.store.path, embedding=Lookup(problem))
    assert len(db.similarity_search(problem.test.queries[0], deep_memory=True)) == 4
    let_go = weakref.ref(db), weakref.ref(db.store), weakref.ref(db.deep_memory)
    gc.disable()
    try:
        del db
        assert [reference() for reference in let_go] == [None] * 3
    finally:
        gc.enable()


# ---- LangChain's indexing API --------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["index", "aindex"])
@pytest.mark.parametrize("cleanup", [None, "incremental", "full", "scoped_full"])
async def test_langchains_indexing_api_works_in_every_mode(problem, tmp_path, run, cleanup):
    db, records = DeepLake(tmp_path / "ds", embedding=Lookup(problem)), InMemoryRecordManager("pages")
    records.create_schema()
    options = {"cleanup": cleanup, "source_id_key": "source", "key_encoder": "sha256", "batch_size": 2}

    async def ingest(documents, **more):
        if run == "index":
            return index(documents, records, db, **options, **more)
        return await aindex(documents, records, db, **options, **more)

    pages = [Document(name, metadata={"source": f"page-{row // 2}"}) for row, name in enumerate(problem.ids[:6])]
    assert await ingest(pages) == {"num_added": 6, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    assert len(db.store) == 6
    again = await ingest(pages, force_update=True)
    assert (again["num_added"], again["num_updated"], again["num_deleted"]) == (0, 6, 0)
    assert len(db.store) == 6, "documents replace those of the same id"
    changed = [Document("changed", metadata={"source": "page-0"}), *pages[1:4]]
    after = await ingest(changed)
    gone = {None: 0, "incremental": 1, "scoped_full": 1, "full": 3}[cleanup]
    assert after == {"num_added": 1, "num_updated": 0, "num_skipped": 3, "num_deleted": gone}
    assert len(db.store) == 7 - gone
    assert [found.page_content for found in db.similarity_search("changed", k=1)] == ["changed"]
    if cleanup == "full":
        assert (await ingest([]))["num_deleted"] == 4
        assert len(db.store) == 0


async def test_the_batch_size_is_that_of_the_embedding_model(problem, tmp_path):
    class Counting(Lookup):
        sizes = []

        def embed_documents(self, texts):
            self.sizes.append(len(texts))
            return super().embed_documents(texts)

    db = DeepLake(tmp_path / "ds", embedding=Counting(problem))
    db.add_documents(documents_of(problem)[:5], batch_size=2)
    await db.aadd_documents(documents_of(problem)[:5], batch_size=3)
    assert Counting.sizes == [2, 2, 1, 3, 2]
    assert len(db.store) == 5
    for call in (db.add_texts, lambda texts, **options: asyncio.run(db.aadd_texts(texts, **options))):
        with pytest.raises(StoreError, match="batch_size is a number of texts, 1 or more; got 0"):
            await asyncio.to_thread(call, ["x"], batch_size=0)


async def test_texts_that_cannot_be_paired_are_refused(problem, tmp_path):
    db = DeepLake(tmp_path / "ds", embedding=Lookup(problem))
    for call in (db.add_texts, lambda *given, **options: asyncio.run(db.aadd_texts(*given, **options))):
        for texts, options, message in (
            ({"doc-1": "one"}, {}, "texts is a list, .* got a dict"),
            ({"one", "two"}, {"ids": ["1", "2"]}, "texts is a list; got a set, whose items would be paired at random"),
            (["one", "two"], {"ids": {"1", "2"}}, "ids is a list; got a set"),
            (["one"], {"metadatas": {"a": 1}}, "metadatas is a list, .* got a dict"),
            ("one", {}, r"texts is a list: \['one'\], not 'one'"),
        ):
            with pytest.raises(StoreError, match=message):
                await asyncio.to_thread(call, texts, **options)
    assert len(db.store) == 0
