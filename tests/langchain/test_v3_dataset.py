"""What a Deep Lake v3 program says, line by line."""

import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain import DeepLake
from tests.langchain.helpers import Lookup, expected, ids


def test_constructor_arguments_by_position_in_v3s_order(problem, tmp_path):
    embedding = Lookup(problem)
    with pytest.warns(UserWarning) as caught:
        db = DeepLake(str(tmp_path / "a"), None, embedding, None, False, 1000, 4, True, "python", {"tensor_db": True}, {"m": 1})
    (warning,) = caught
    for name in ("ingestion_batch_size", "num_workers", "verbose", "exec_option", "runtime", "index_params"):
        assert f"{name}: " in str(warning.message)
    assert "runtime: Deep Memory trains on this machine" in str(warning.message)
    assert warning.filename == __file__
    assert db.embeddings is embedding
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeepLake(tmp_path / "a", embedding=embedding, runtime=None)
    with pytest.raises(StoreError, match=r"'hub://org/name' is a Deep Lake v3 path.* al://.*local path"):
        DeepLake("hub://org/name", embedding=embedding)


def test_overwrite_is_honoured(db, problem):
    assert len(DeepLake(db.store.path, embedding=Lookup(problem)).dataset) == 300
    assert len(DeepLake(db.store.path, embedding=Lookup(problem), overwrite=True).dataset) == 0


def test_creds_reach_the_storage(problem):
    """The storage, a server that has nothing, is asked by the given key."""
    asked = []

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Authorization"])
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        creds = {"aws_access_key_id": "mine", "aws_secret_access_key": "secret", "aws_region": "us-east-1"}
        creds["endpoint_url"] = f"http://127.0.0.1:{server.server_port}"
        try:
            db = DeepLake("s3://bucket/dataset", embedding=Lookup(problem), creds=creds, deep_memory_path="unused")
            assert len(db.dataset) == 0
        finally:
            server.shutdown()
            thread.join()
    assert asked, "the endpoint was not asked"
    assert all("Credential=mine/" in authorization for authorization in asked)


def test_the_tutorials_lines(db, problem):
    docs = db.vectorstore.dataset.text.data(fetch_chunks=True, aslist=True)["value"]
    names = db.vectorstore.dataset.id.data(fetch_chunks=True, aslist=True)["value"]
    assert docs == names == problem.ids
    assert db.vectorstore.dataset.metadata.data(aslist=True)["value"][:2] == [{"half": 0}, {"half": 1}]
    array = db.vectorstore.dataset.embedding.data()["value"]
    np.testing.assert_allclose(array, problem.corpus, atol=1e-6)

    queries, relevance = list(problem.train.queries), problem.train.relevance
    job_id = db.vectorstore.deep_memory.train(queries=queries, relevance=relevance)
    db.vectorstore.deep_memory.status(job_id)
    recall = db.vectorstore.deep_memory.evaluate(queries=list(problem.test.queries), relevance=problem.test.relevance)
    assert recall["with model"]["recall@1"] > recall["without model"]["recall@1"]
    retriever = db.as_retriever()
    retriever.search_kwargs["deep_memory"] = True
    retriever.search_kwargs["k"] = 10
    moved = db.deep_memory.transform(problem.test_queries[0])
    assert ids(retriever.invoke(problem.test.queries[0])) == expected(problem, moved, 10)


def test_ds_is_the_v4_data_set(db, problem, tmp_path):
    assert len(db.ds()) == 300
    assert len(db.ds().query("SELECT * WHERE metadata['half'] = 1")) == 150
    assert db.ds()["ids"][0:2] == ["doc-0", "doc-1"]
    assert "embeddings" in {column.name for column in db.ds().schema.columns}
    with pytest.raises(AttributeError, match="nope"):
        db.ds().nope  # noqa: B018 - the access is the test
    empty = DeepLake(tmp_path / "empty", embedding=Lookup(problem))
    assert len(empty.ds()) == 0
    assert empty.ds().text.data(aslist=True) == {"value": []}
    with pytest.raises(StoreError, match="There is no data set"):
        empty.ds().schema  # noqa: B018


def test_delete_by_position_and_delete_dataset(db):
    assert db.delete(["doc-0"], None, None)
    assert db.delete(None, {"half": 1}, None)
    assert len(db.store) == 149
    db.delete_dataset()
    assert len(db.store) == 0


def test_add_texts_by_position(db):
    assert db.add_texts(["doc-0", "doc-1"], [{"a": 1}, {"a": 2}], ["x", "y"]) == ["x", "y"]
    assert db.get_by_ids(["y"])[0].metadata == {"a": 2}


# ---- what a search takes ---------------------------------------------------------------------------------------------


async def test_distance_metrics(db, problem, trained):
    db.add_texts(["doc-0"], ids=["far"])
    db.store.add(["far"], 5 * problem.corpus[:1])
    query, vector = problem.test.queries[0], problem.test_queries[0]
    stored = np.concatenate([problem.corpus, 5 * problem.corpus[:1]])
    names = [*problem.ids, "far"]
    distances = np.linalg.norm(stored - vector, axis=1)
    for metric in ("l2", "L2"):
        scored = db.similarity_search_with_score(query, 300, distance_metric=metric)
        order = np.argsort(distances, kind="stable")[:300]
        assert [document.id for document, _ in scored] == [names[row] for row in order]
        np.testing.assert_allclose([score for _, score in scored], distances[order], atol=1e-4)
    for metric in ("cos", "COS", None):
        assert ids(db.similarity_search(query, 5, distance_metric=metric)) == ids(db.similarity_search(query, 5))
    found = await db.asimilarity_search(query, 3, distance_metric="l2", filter={"half": 0})
    assert [document.metadata for document in found] == [{"half": 0}] * 3
    for metric in ("l1", "max", "dot", "deepmemory_distance", 3):
        with pytest.raises(StoreError, match="cannot rank by distance_metric=.*'cos' or 'l2'"):
            db.similarity_search(query, distance_metric=metric)
    with pytest.raises(StoreError, match=r"leave distance_metric='l2' out .* or search with deep_memory=False"):
        db.similarity_search(query, distance_metric="l2", deep_memory=True)
    with pytest.raises(StoreError, match="Relevance scores are cosine similarities"):
        db.similarity_search_with_relevance_scores(query, distance_metric="l2")
    with pytest.raises(StoreError, match="Relevance scores are cosine similarities"):
        await db.asimilarity_search_with_relevance_scores(query, distance_metric="l2")


def test_v3s_filters(db, problem):
    query = problem.test.queries[0]
    right = ids(db.similarity_search(query, filter={"half": 1}))
    assert ids(db.similarity_search(query, filter={"metadata": {"half": 1}})) == right
    db.add_texts(["doc-1"], [{"metadata": "a word"}], ["named so"])
    assert ids(db.similarity_search(query, filter={"metadata": "a word"})) == ["named so"]


async def test_tql(db):
    tql = "SELECT * WHERE metadata['half'] = 1 LIMIT 3"
    right = ["doc-1", "doc-3", "doc-5"]
    assert ids(db.similarity_search(tql=tql)) == right
    assert ids(await db.asimilarity_search(tql=tql, deep_memory=False)) == right
    assert ids(db.as_retriever(search_kwargs={"tql": tql}).invoke("anything")) == right
    with pytest.raises(StoreError, match="write deep_memory, filter into it"):
        db.similarity_search("q", tql=tql, deep_memory=True, filter={"half": 1})
    with pytest.raises(StoreError, match=r"does not select documents, metadata.*SELECT \*"):
        db.similarity_search(tql="SELECT ids")
    with pytest.raises(StoreError, match="Deep Lake cannot query"):
        db.similarity_search(tql="not a query")
    with pytest.raises(StoreError, match="Pass a query, or tql"):
        db.similarity_search()
    with pytest.raises(StoreError, match="Pass a query, or tql"):
        await db.asimilarity_search()


# ---- hybrid search ---------------------------------------------------------------------------------------------------


def test_hybrid_search_fuses_words_and_vectors(db, problem, trained):
    query = problem.test.queries[0]
    db.add_texts(["doc-0"] * 3, [{"half": 1}, {"half": 0}, {"half": 1}], ["w1", "w2", "w3"])
    words = ["zebra zebra crossing", "a zebra", "zebra"]
    db.store.add(["w1", "w2", "w3"], -problem.test_queries[:3], words, [{"half": 1}, {"half": 0}, {"half": 1}])
    with pytest.raises(StoreError, match=r"no text index .*db\.store\.create_text_index\(\)"):
        db.hybrid_search(query)
    db.store.create_text_index()
    db.store.create_text_index()
    text = "zebra"
    vector = problem.test_queries[0]
    db.embeddings.vectors[text] = vector
    found = ids(db.hybrid_search(text, 6))
    assert set(found) == {"w1", "w2", "w3", *expected(problem, vector, 3)}
    assert {*found[:2]} & {"w1", "w2", "w3"} and found[0 if found[0].startswith("doc") else 1] == expected(problem, vector, 1)[0]
    half = ids(db.hybrid_search(text, 4, filter={"half": 1}))
    assert set(half) == {"w1", "w3", *expected(problem, vector, 2, keep=lambda row: row % 2 == 1)}
    moved = db.deep_memory.transform(vector)
    deep = ids(db.hybrid_search(text, 6, deep_memory=True))
    assert set(deep) == {"w1", "w2", "w3", *expected(problem, moved, 3)}


async def test_hybrid_search_is_a_search_type(db, problem):
    db.store.create_text_index()
    right = ids(db.hybrid_search("doc-7", 5))
    assert ids(await db.ahybrid_search("doc-7", 5)) == right
    assert ids(db.search("doc-7", "hybrid", k=5)) == right
    assert ids(await db.asearch("doc-7", "hybrid", k=5)) == right
    retriever = db.as_retriever(search_type="hybrid", search_kwargs={"k": 5}, tags=["mine"])
    assert ids(retriever.invoke("doc-7")) == ids(await retriever.ainvoke("doc-7")) == right
    assert retriever.tags == ["mine"]
    assert db.as_retriever(search_type="hybrid").tags == db.as_retriever().tags
    with pytest.raises(ValueError, match="search_type of nope not allowed"):
        db.as_retriever(search_type="nope")
    for strange in ("", 'it\'s (AND) "x" *', "\\", "日本語", "a" * 5000):
        assert ids(db.hybrid_search(strange, 3)) == ids(db.similarity_search(strange, 3))


def test_a_document_in_both_rankings_comes_first(db, problem):
    text = problem.ids[7]
    db.store.create_text_index()
    db.add_texts(["elephant"], ids=["both"])
    db.store.add(["both"], problem.corpus[7:8], ["elephant"])
    db.embeddings.vectors["elephant"] = problem.corpus[7]
    assert ids(db.hybrid_search("elephant", 1)) == ["both"], f"{text} has the same vector, and other words"
