import asyncio
import gc
import os
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter, Relevance, opened
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.cli import stores
from deepmem_integrations.errors import StoreError
from deepmem_integrations.models import ModelFolder
from tests.cli.helpers import EMBEDDING, deepmem, langchain_embeddings, process
from tests.faults import FaultyProxy
from tests.openai_server import DIMENSION, embed
from tests.servers import chroma_server


def filled_faiss(folder, ids, texts):
    from langchain_community.vectorstores import FAISS

    FAISS.from_texts(texts, langchain_embeddings(), ids=ids, metadatas=[{"n": 1}] * len(ids)).save_local(str(folder))
    return f"faiss:{folder}"


def filled_chroma(folder, ids, texts):
    import chromadb
    from langchain_chroma import Chroma

    client = chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))
    Chroma("docs", langchain_embeddings(), client=client).add_texts(texts, ids=ids)
    return f"chroma:{folder}#docs"


def filled_qdrant(folder, ids, texts):
    import uuid

    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, VectorParams

    client = QdrantClient(path=str(folder))
    client.create_collection("docs", VectorParams(size=DIMENSION, distance=Distance.COSINE))
    names = [str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in ids]
    QdrantVectorStore(client, "docs", langchain_embeddings()).add_texts(texts, ids=names)
    client.close()
    return f"qdrant:{folder}#docs"


@pytest.mark.parametrize("fill", [filled_faiss, filled_chroma, filled_qdrant])
@pytest.mark.slow
def test_other_stores_are_trained_and_searched(shop, tmp_path, fill):
    ids = [document.id for document in shop.documents]
    uri = fill(tmp_path / "db", ids, [document.text for document in shop.documents])
    check_store(shop, tmp_path, uri)
    place, _, name = uri.rpartition("#") if "#" in uri else (uri, "", "")
    rest = ("--embedding", EMBEDDING, "--path", tmp_path)
    missing = deepmem("search", "x", "--store", f"{place}x#{name}" if name else f"{uri}x", *rest)
    assert missing.code == 1
    assert "There is no folder" in missing.err
    assert not (tmp_path / "dbx").exists(), "nothing is made"
    if name:
        for wrong in (f"{place}#nope", place):
            unknown = deepmem("search", "x", "--store", wrong, *rest)
            assert unknown.code == 1
            assert len(unknown.err.splitlines()) == 1, unknown.err


@pytest.mark.slow
def test_parquet_files_are_trained_and_searched(shop, tmp_path):
    import pyarrow
    from pyarrow import parquet

    texts = [document.text for document in shop.documents]
    columns = {"name": [document.id for document in shop.documents], "embedding": [embed(text) for text in texts], "text": texts}
    parquet.write_table(pyarrow.table(columns), tmp_path / "pages.parquet")
    uri = f"parquet:{tmp_path / 'pages.parquet'}"
    check_store(shop, tmp_path, f"{uri}#id=name&vector=embedding")
    rest = ("--embedding", EMBEDDING, "--path", tmp_path)
    assert "has no column 'id'" in deepmem("search", "x", "--store", uri, *rest).err
    assert "'ids' is none of the columns" in deepmem("search", "x", "--store", f"{uri}#ids=name", *rest).err
    assert "is no Ray cluster" in deepmem("train", tmp_path / "labels.jsonl", "--store", uri, *rest, "--ray", "here").err


@pytest.mark.slow
def test_a_lance_data_set_is_trained_and_searched(shop, tmp_path):
    lance, pyarrow = pytest.importorskip("lance"), pytest.importorskip("pyarrow")
    texts = [document.text for document in shop.documents]
    columns = {"name": [document.id for document in shop.documents], "embedding": [embed(text) for text in texts], "text": texts}
    lance.write_dataset(pyarrow.table(columns), tmp_path / "pages.lance")
    check_store(shop, tmp_path, f"lance:{tmp_path / 'pages.lance'}#id=name&vector=embedding")
    done = deepmem("search", "x", "--store", f"lance:{tmp_path / 'no.lance'}", "--embedding", EMBEDDING, "--path", tmp_path / "m")
    assert (done.code, "no.lance" in done.err) == (1, True)
    assert not (tmp_path / "no.lance").exists()


def test_a_folder_that_is_not_chromas_stays_as_it_is(shop, tmp_path):
    done = deepmem("search", "x", "--store", f"chroma:{tmp_path}#docs", "--embedding", EMBEDDING, "--path", tmp_path / "m")
    assert done.code == 1
    assert "no chroma.sqlite3" in done.err
    assert list(tmp_path.iterdir()) == []


def check_store(shop, folder, uri, deepmem=deepmem):
    where = ("--store", uri, "--embedding", EMBEDDING, "--path", folder / "models")
    found = deepmem("search", shop.documents[7].text, *where, "-k", 1, "--without", "--json")
    assert found.code == 0, found.err
    (hit,) = found.json["without"]
    assert hit["text"] == shop.documents[7].text
    labels = folder / "labels.jsonl"
    Relevance([f"question {n}" for n in range(5)], [[(hit["id"], 1.0)]] * 5).to_jsonl(labels)
    assert deepmem("train", labels, *where, "--json").json["state"] == "completed"
    assert deepmem("evaluate", labels, *where, "-k", 1, "--json").json["queries"] == 5
    assert deepmem("doctor", *where).code == 0
    assert deepmem("doctor", *where[:4]).code == 0, "without a folder of models, too"
    narrow = deepmem("search", "x", "--store", uri, "--embedding", "openai:narrow", *where[4:], "--without")
    assert narrow.code == 1
    assert "Traceback" not in narrow.err
    assert "cannot be searched with a vector of 8 dimensions" in narrow.err
    assert list(deepmem("search", "x", *where, "--json").json) == ["query", "without", "with"]


@pytest.mark.parametrize("fill", [filled_faiss, filled_chroma, filled_qdrant])
def test_documents_that_words_bring_are_looked_up_by_id(shop, tmp_path, fill, monkeypatch):
    uri = fill(tmp_path / "db", [document.id for document in shop.documents], [document.text for document in shop.documents])
    where = ("--store", uri, "--embedding", EMBEDDING, "--path", tmp_path / "m")
    assert deepmem("refresh", *where).code == 0
    folder = ModelFolder(tmp_path / "m")
    folder.save_model("model", QueryAdapter(DIMENSION, ranking=Ranking(words=100.0)))
    folder.write_in_use("model")
    monkeypatch.setattr(opened, "FETCHED", 1)
    found = deepmem("search", shop.test.queries[0], *where, "-k", 1, "--evidence", "--json")
    assert found.code == 0, found.err
    (without,), (best,) = found.json["without"], found.json["with"]
    assert best["id"] != without["id"]
    assert (best["evidence"]["words"]["rank"], best["evidence"]["vector"]["rank"]) == (1, None)
    assert best["text"] in [document.text for document in shop.documents]
    monkeypatch.undo()
    query = shop.documents[7].text
    exact = deepmem("search", query, *where, "-k", 60, "--no-words", "--evidence", "--json").json["with"]
    assert exact[0]["text"] == query
    for hit in exact[::20]:
        cosine = float(np.dot(embed(query), embed(hit["text"])))
        assert hit["evidence"]["vector"]["score"] == pytest.approx(cosine, abs=1e-4)


def by_itself(statement):
    """In a process of its own, since clients of servers leave sockets open."""
    script = (
        "import os, sys\n"
        "from deepmem_integrations.demo.documents import api_documents\n"
        "from tests.cli.helpers import langchain_embeddings\n"
        "from tests.openai_server import DIMENSION\n"
        f"texts, address = [d.text for d in api_documents()[:60]], sys.argv[1]\n{statement}"
    )
    return lambda address: subprocess.run([sys.executable, "-c", script, address], check=True)


fill_pgvector = by_itself("""
from langchain_postgres import PGVector
PGVector(langchain_embeddings(), connection=address, collection_name="docs").add_texts(texts)
""")


fill_pgvectorstore = by_itself("""
from langchain_postgres import PGEngine, PGVectorStore
engine = PGEngine.from_connection_string(address)
engine.init_vectorstore_table("docs_table", DIMENSION)
PGVectorStore.create_sync(engine, langchain_embeddings(), "docs_table").add_texts(texts)
os._exit(0)  # its thread would go on
""")


fill_chroma_server = by_itself("""
import chromadb
from langchain_chroma import Chroma
client = chromadb.HttpClient("127.0.0.1", int(address), settings=chromadb.Settings(anonymized_telemetry=False))
Chroma("docs", langchain_embeddings(), client=client).add_texts(texts)
""")


@pytest.fixture(scope="module")
def filled(postgres):
    """The address of a Postgres database with a store of each kind."""
    address = postgres.replace("postgresql://", "postgresql+psycopg://")
    fill_pgvector(address)
    fill_pgvectorstore(address)
    return postgres


@pytest.mark.slow
def test_postgres(shop, tmp_path, filled):
    address = filled.replace("postgresql://", "postgresql+psycopg://")
    for name in ("docs", "docs_table"):
        (tmp_path / name).mkdir()
        check_store(shop, tmp_path / name, f"pgvector:{address}#{name}", process)
    rest = ("--embedding", EMBEDDING, "--path", tmp_path)
    unknown = process("search", "x", "--store", f"pgvector:{address}#nope", *rest)
    assert unknown.code == 1
    assert "no collection and no table 'nope' in this database. There: docs, docs_table" in unknown.err
    down = process("search", "x", "--store", "pgvector:postgresql+psycopg://user:secret@127.0.0.1:1/db#docs", *rest)
    assert down.code == 1
    assert "cannot be opened" in down.err
    assert "secret" not in down.err


def close_postgres(store):
    """Close the connections of a store, which would otherwise be blamed on a later test."""
    engine = store.memory.corpus.store._engine
    if hasattr(engine, "dispose"):
        engine.dispose()
    else:  # the engine of a PGVectorStore has an event loop of its own
        engine._run_as_sync(engine.close())


@pytest.mark.slow
def test_a_postgres_table_that_somebody_locks(shop, tmp_path, filled, monkeypatch):
    import psycopg

    monkeypatch.setattr(stores, "TIMEOUT", 1)
    address = filled.replace("postgresql://", "postgresql+psycopg://")
    for name, table in (("docs", "langchain_pg_embedding"), ("docs_table", "docs_table")):
        store = stores.open_store(f"pgvector:{address}#{name}", EMBEDDING, tmp_path / name)
        with psycopg.connect(filled) as other:
            other.execute(f"lock table {table} in access exclusive mode")
            with pytest.raises(StoreError, match="gave no answer for 1 seconds"):
                store.search([1.0] * DIMENSION, 3, True, {})
        assert len(store.search([1.0] * DIMENSION, 3, True, {})) == 3
        close_postgres(store)
    gc.collect()  # a connection that is still open raises here


@pytest.mark.slow
def test_a_chroma_server(shop, tmp_path):
    with chroma_server(tmp_path / "db") as port:
        fill_chroma_server(port)
        uri = f"chroma:http://127.0.0.1:{port}#docs"
        check_store(shop, tmp_path, uri, process)
        unknown = process("search", "x", "--store", uri + "x", "--embedding", EMBEDDING, "--path", tmp_path)
        assert unknown.code == 1
        assert "docsx" in unknown.err


def test_a_server_that_does_not_answer(shop, tmp_path):
    for uri in ("qdrant:http://127.0.0.1:1#docs", "chroma:http://127.0.0.1:1#docs"):
        done = deepmem("search", "x", "--store", uri, "--embedding", EMBEDDING, "--path", tmp_path)
        assert done.code == 1
        assert len(done.err.splitlines()) == 1, done.err


@pytest.mark.slow
def test_a_server_that_accepts_and_says_nothing(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for uri in (
            f"qdrant:http://{address}#docs",
            f"chroma:http://{address}#docs",
            f"pgvector:postgresql+psycopg://me@{address}/db#docs",
        ):
            done = deepmem("search", "x", "--store", uri, "--embedding", EMBEDDING, "--path", tmp_path)
            assert done.code == 1
            assert "gave no answer for 1 seconds" in done.err and "Traceback" not in done.err, done.err


@pytest.mark.slow
def test_a_chroma_server_that_falls_silent(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "TIMEOUT", 1)
    with chroma_server(tmp_path / "db") as port:
        fill_chroma_server(port)
        proxy = FaultyProxy(lambda: asyncio.open_connection("127.0.0.1", int(port)))
        store = stores.open_store(f"chroma:http://127.0.0.1:{proxy.port}#docs", EMBEDDING, tmp_path / "m")
        expected = store.search([1.0] * DIMENSION, 3, True, {})
        proxy.fail("silence")
        for call in (lambda: store.search([1.0] * DIMENSION, 3, True, {}), lambda: store.get(["doc-1"], {})):
            with pytest.raises(StoreError, match="gave no answer for 1 seconds"):
                call()
        labels = Relevance(["a question"], [[(expected[0].id, 1.0)]])
        with pytest.raises(StoreError, match="timed out"):
            store.memory.train(labels)
        assert not [path for path in store.memory.jobs.path.glob("*") if path.is_dir()], "inputs are left behind"
        proxy.fail("pass")
        assert store.search([1.0] * DIMENSION, 3, True, {}) == expected
        store.memory.train(labels)


def test_a_faiss_folder_never_runs_code(shop, tmp_path):
    uri = filled_faiss(tmp_path / "db", ["a", "b"], ["one", "two"])

    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    (tmp_path / "db" / "index.pkl").write_bytes(pickle.dumps((Malicious(), {})))
    done = deepmem("search", "x", "--store", uri, "--embedding", EMBEDDING, "--path", tmp_path)
    assert done.code == 1
    assert "a pickle may run any code" in done.err
    assert not (tmp_path / "was here").exists()
    (tmp_path / "db" / "index.pkl").unlink()
    done = deepmem("search", "x", "--store", uri, "--embedding", EMBEDDING, "--path", tmp_path)
    assert "has no index.faiss and index.pkl" in done.err


def test_the_models_are_not_kept_in_the_data_set(shop):
    for command in (("jobs",), ("models",), ("train", shop.folder / "train.jsonl"), ("search", "x")):
        options = shop.store if command[0] in ("train", "search") else shop.store[:2]
        done = deepmem(*command, *options, "--path", shop.folder / "ds" / "models")
        assert (done.code, done.out) == (1, "")
        assert "lies in the data set" in done.err


def test_a_path_may_start_with_the_home_folder(shop, monkeypatch, tmp_path):
    """A shell hands ``--path=~/x`` and ``deeplake:~/ds`` on as they are."""
    monkeypatch.setenv("HOME", str(shop.folder))
    monkeypatch.chdir(tmp_path)
    assert deepmem("models", "--store", "deeplake:~/ds").code == 0
    monkeypatch.setenv("DEEPMEM_PATH", "~/ds.deepmemory")
    assert shop.job["id"] in deepmem("models").out
    measured = deepmem("evaluate", "~/test.jsonl", "--store", "deeplake:~/ds", "--embedding", EMBEDDING)
    assert measured.code == 0, measured.err
    written = deepmem(
        *("generate", "~/written.jsonl", "--store", "deeplake:~/ds", "--embedding", EMBEDDING, "--llm", "extractive"),
        *("--max-documents", 2, "--checkpoint=~/checkpoint.jsonl"),
    )
    assert written.code == 0, written.err
    assert (shop.folder / "written.jsonl").is_file()
    assert (shop.folder / "checkpoint.jsonl").is_file()
    assert list(tmp_path.iterdir()) == []
