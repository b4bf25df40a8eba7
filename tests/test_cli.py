"""Every command as a user types it, in this process for speed; a few in processes of their own."""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter, Relevance
from deepmem_integrations.cli import main
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.demo.documents import api_documents
from deepmem_integrations.demo.run import load_questions
from tests.openai_server import DIMENSION, embed, openai_server

SCRIPT = Path(sys.executable).parent / "deepmem"
EMBEDDING = "openai:text-embedding-3-small"


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def deepmem(*arguments):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code or 0
    return Ended(code, out.getvalue(), err.getvalue())


def process(*arguments, **environment):
    """As a shell runs it."""
    done = subprocess.run(
        [SCRIPT, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, "COLUMNS": "120", **environment}
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass
class Shop:
    """A store with documents, labels in every form, and a model."""

    folder: Path
    documents: list
    train: Relevance
    test: Relevance

    @property
    def store(self):
        return ("--store", f"deeplake:{self.folder / 'ds'}", "--embedding", EMBEDDING)

    @property
    def jobs(self):
        return ("--path", self.folder / "ds.deepmemory")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    documents = api_documents()[:60]
    train, test = load_questions("train", documents), load_questions("test", documents)
    DeepLakeStore(folder / "ds").add(
        [document.id for document in documents],
        np.array([embed(document.text) for document in documents]),
        [document.text for document in documents],
    )
    train.to_jsonl(folder / "train.jsonl")
    test.to_jsonl(folder / "test.jsonl")
    train.to_beir(folder / "beir", "train")
    test.to_llama_index(folder / "test.json", {document.id: document.text for document in documents})
    with pytest.MonkeyPatch.context() as patch, openai_server() as server:
        patch.setenv("OPENAI_BASE_URL", server.url)
        patch.setenv("OPENAI_API_KEY", "good-key")
        patch.setenv("COLUMNS", "120")
        for name in ("DEEPMEM_STORE", "DEEPMEM_EMBEDDING", "DEEPMEM_PATH"):
            patch.delenv(name, raising=False)
        shop = Shop(folder, documents, train, test)
        done = deepmem("train", folder / "train.jsonl", *shop.store, "--keep-texts", "--json")
        assert done.code == 0, done.err
        shop.job = done.json
        yield shop


# ---- train, and what became of it ------------------------------------------------------------------------------------


def test_train_answers_with_the_job(shop):
    assert shop.job["state"] == "completed"
    assert shop.job["report"]["queries"] == len(shop.train)
    assert shop.job["recall_gain"] > 0
    assert QueryAdapter.load(shop.folder / "ds.deepmemory" / "models" / f"{shop.job['id']}.safetensors").remembered_queries.texts


def test_status_shows_v3s_table_or_json(shop):
    for where in (shop.jobs, ("--store", f"deeplake:{shop.folder / 'ds'}")):
        shown = deepmem("status", shop.job["id"], *where)
        assert shown.code == 0
        assert "| completed" in shown.out
        assert deepmem("status", shop.job["id"], *where, "--wait", "--json").json == {**shop.job, "eta": 0.0}
    missing = deepmem("status", "0" * 24, *shop.jobs)
    assert (missing.code, missing.out) == (1, "")
    assert missing.err.startswith("deepmem: There is no training job '000")
    missing = deepmem("status", "0" * 24, *shop.jobs, "--json")
    assert missing.json["type"] == "JobNotFoundError"
    nowhere = deepmem("status", shop.job["id"])
    assert nowhere.code == 2
    assert "--path FOLDER" in nowhere.err


def test_the_environment_names_the_store(shop, monkeypatch):
    monkeypatch.setenv("DEEPMEM_STORE", f"deeplake:{shop.folder / 'ds'}")
    monkeypatch.setenv("DEEPMEM_EMBEDDING", EMBEDDING)
    assert deepmem("jobs", "--json").json[0]["id"] == shop.job["id"]
    assert deepmem("evaluate", shop.folder / "test.jsonl", "-k", 10).code == 0


def test_jobs_models_use_and_delete(shop, tmp_path):
    models = tmp_path / "models"
    where = (*shop.store, "--path", models)
    few = tmp_path / "few.jsonl"
    shop.train.take(range(5)).to_jsonl(few)
    empty = deepmem("jobs", "--path", models)
    assert (empty.code, empty.out) == (0, f"No training job was found in {models}.\n")
    assert deepmem("models", "--path", models).out == f"No model was found in {models}.\n"
    assert deepmem("status", "--path", models).code == 1
    for command in ("jobs", "models"):
        assert "is no folder" in deepmem(command, "--path", shop.folder / "train.jsonl").err
    first, second = (deepmem("train", few, *where, "--seed", seed, "--json").json["id"] for seed in (1, 2))
    listed = deepmem("jobs", "--path", models)
    assert [line.split()[0] for line in listed.out.splitlines()] == ["ID", first, second]
    assert [job["id"] for job in deepmem("jobs", "--path", models, "--json").json] == [first, second]
    assert deepmem("status", "--path", models, "--json").json["id"] == second, "the newest"

    assert [info["in_use"] for info in deepmem("models", "--path", models, "--json").json] == [True, False]
    used = deepmem("use", second, "--path", models)
    assert (used.code, used.out) == (0, f"{second} is in use.\n")
    assert deepmem("models", "--path", models).out.splitlines()[1].startswith(f"* {second}")
    assert deepmem("use", first, "--path", models, "--json").json == {"name": first, "in_use": True}
    wrong = deepmem("use", "nope", "--path", models)
    assert (wrong.code, "Please choose from the following models" in wrong.err) == (1, True)

    refused = deepmem("delete", first, "--path", models, "--model")
    assert (refused.code, f"set_model() another one first: {second}" in refused.err) == (1, True)
    gone = deepmem("delete", second, "--path", models, "--model", "--json")
    assert gone.json == {"id": second, "deleted": True}
    assert [info["name"] for info in deepmem("models", "--path", models, "--json").json] == [first]
    assert deepmem("delete", first, "--path", models).out == f"{first} is deleted.\n"
    assert deepmem("jobs", "--path", models, "--json").json == []
    assert [info["name"] for info in deepmem("models", "--path", models, "--json").json] == [first], "the model stays"
    assert deepmem("delete", first, "--path", models).code == 1


def test_train_in_the_background_status_and_cancel(shop, tmp_path):
    where = ("--path", tmp_path / "models")
    started = deepmem("train", shop.folder / "train.jsonl", *shop.store, *where, "--background", "--json")
    assert started.code == 0
    assert started.json["state"] == "pending"
    stopped = deepmem("cancel", started.json["id"], *where)
    assert (stopped.code, stopped.out) == (0, f"{started.json['id']} is cancelled.\n")
    # A process that is just starting sees the wish at its first look.
    shown = deepmem("status", started.json["id"], *where, "--wait")
    assert (shown.code, "| cancelled" in shown.out) == (3, True)
    again = deepmem("cancel", started.json["id"], *where, "--json")
    assert again.json == {"id": started.json["id"], "cancelled": False}
    assert deepmem("cancel", "nope", *where).code == 1

    few = tmp_path / "few.jsonl"
    shop.train.take(range(5)).to_jsonl(few)
    started = deepmem("train", few, *shop.store, *where, "--background")
    done = deepmem(*re.search(r"The training goes on in the background: deepmem (.*)", started.out)[1].split())
    assert (done.code, "| completed" in done.out) == (0, True)


def test_train_takes_labels_of_every_form_and_judges(shop, tmp_path):
    few = tmp_path / "few"
    shop.train.take(range(5)).to_beir(few, "mine")
    judged = deepmem(
        "train",
        few,
        *shop.store,
        "--split",
        "mine",
        "--validation",
        shop.folder / "test.json",
        "--max-unseen-loss",
        "3",
        "--path",
        tmp_path / "m",
        "--json",
    )
    assert judged.code == 0, judged.err
    assert judged.json["report"]["queries"] == 5
    assert judged.json["report"]["max_unseen_loss"] == 3


def test_train_holds_queries_out_and_measures_on_them(shop, tmp_path):
    arguments = ("train", shop.folder / "train.jsonl", *shop.store, "--path", tmp_path, "--hold-out", "0.25")
    shown = deepmem(*arguments)
    assert (shown.code, "| completed" in shown.out, "95% interval" in shown.out) == (0, True, True)
    answer = deepmem(*arguments, "--json").json
    held = round(len(shop.train) / 4)
    assert answer["report"]["queries"] == len(shop.train) - held
    assert answer["evaluation"]["queries"] == held
    assert answer["evaluation"]["with model"]["recall@10"] > answer["evaluation"]["without model"]["recall@10"]
    assert deepmem(*arguments, "--background").code == 2
    nothing = deepmem(*arguments[:-1], "1.0")
    assert (nothing.code, "leaves one side empty" in nothing.err) == (1, True)
    assert deepmem(*arguments[:-1], "2").code == 2

    in_use = answer["id"]
    shop.train.take(range(8)).to_jsonl(tmp_path / "few.jsonl")
    few = deepmem("train", tmp_path / "few.jsonl", *shop.store, "--path", tmp_path, "--hold-out", "0.25", "--json").json
    assert few["report"]["chosen"] == "identity"
    assert few["evaluation"]["with model"] == few["evaluation"]["without model"], "what was trained, not what is in use"
    assert deepmem("models", "--path", tmp_path, "--json").json[1]["in_use"] and in_use != few["id"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["{labels}", "--store", "deeplake:{folder}/nope", "--embedding", EMBEDDING], 1, "no Deep Lake data set"),
        (["{labels}", "--store", "ds", "--embedding", EMBEDDING], 1, "'ds' names no vector store. Write deeplake:PATH; or"),
        (["{labels}", "--store", "oracle:x", "--embedding", EMBEDDING], 1, "names no vector store"),
        (["{labels}", "--store", "{store}", "--embedding", "bert"], 1, "'bert' names no embedding model"),
        (["{labels}", "--store", "{store}", "--embedding", "sentence-transformers:/nope"], 1, "There is no folder '/nope'"),
        pytest.param(
            ["{labels}", "--store", "{store}", "--embedding", "sentence-transformers:{folder}"],
            1,
            "cannot be loaded",
            marks=pytest.mark.slow,
        ),
        (["{folder}/nope.jsonl", "--store", "{store}", "--embedding", EMBEDDING], 1, "Cannot read"),
        (["{folder}/beir", "--store", "{store}", "--embedding", EMBEDDING, "--split", "nope"], 1, "nope.tsv"),
        (["{bad}", "--store", "{store}", "--embedding", EMBEDDING], 1, "line 2: needs the keys query and relevance"),
        (["{unknown}", "--store", "{store}", "--embedding", EMBEDDING], 1, "'elsewhere' is not in the corpus"),
        (["{labels}", "--store", "{store}"], 2, "--embedding"),
        (["--store", "{store}", "--embedding", EMBEDDING], 2, "LABELS"),
        (["{labels}", "--store", "{store}", "--embedding", EMBEDDING, "--max-unseen-loss", "-1"], 2, "--max-unseen-loss"),
        (["{labels}", "--store", "{store}", "--embedding", EMBEDDING, "--seed", "x"], 2, "--seed"),
        (["{labels}", "--store", "chroma:{folder}/db#docs", "--embedding", EMBEDDING], 2, "--path FOLDER"),
        (["{labels}", "--store", "{store}", "--embedding", EMBEDDING, "--path", "{labels}"], 2, "is no folder"),
    ],
)
def test_training_on_what_cannot_be_trained_on(shop, tmp_path, arguments, code, told):
    bad, unknown = tmp_path / "bad.jsonl", tmp_path / "unknown.jsonl"
    bad.write_text('{"query": "a", "relevance": ["b"]}\n{"query": "c"}\n')
    unknown.write_text('{"query": "a", "relevance": ["elsewhere"]}\n')
    names = {
        "labels": shop.folder / "train.jsonl",
        "folder": shop.folder,
        "store": f"deeplake:{shop.folder / 'ds'}",
        "bad": bad,
        "unknown": unknown,
    }
    done = deepmem("train", *(argument.format(**names) for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert told in done.err
    assert "Traceback" not in done.err
    if code == 1:
        assert len(done.err.splitlines()) == 1, "one line"


# ---- searching -------------------------------------------------------------------------------------------------------


def test_evaluate(shop):
    shown = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store)
    assert shown.code == 0
    assert "recall@100" in shown.out
    assert "took part in the training" not in shown.err
    learnt = process("evaluate", shop.folder / "train.jsonl", *shop.store, "--model", shop.job["id"])
    assert f"{len(shop.train)} of the {len(shop.train)} queries took part in the training of {shop.job['id']}" in learnt.err
    unknown = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "--model", "nope")
    assert (unknown.code, "Please choose from the following models" in unknown.err) == (1, True)
    answer = deepmem("evaluate", shop.folder / "test.json", *shop.store, "-k", 3, "-k", 1, "--log", "--json").json
    assert answer["queries"] == len(shop.test)
    assert [name for name in answer["with model"] if name.startswith("recall")] == ["recall@1", "recall@3"]
    assert answer["with model"]["recall@3"] > answer["without model"]["recall@3"]
    assert (shop.folder / "ds_eval_queries").is_dir()
    wrong = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "-k", 0)
    assert wrong.code == 2
    untrained = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "--path", shop.folder / "none")
    assert (untrained.code, "no trained model" in untrained.err) == (1, True)


def test_search_side_by_side(shop):
    query = shop.test.queries[0]
    shown = deepmem("search", query, *shop.store, "-k", 2)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert re.fullmatch(r" +without Deep Memory +with Deep Memory", lines[0])
    assert [line[:2] for line in lines if line[:2].strip()] == [" 1", " 2"]
    answer = deepmem("search", query, *shop.store, "-k", 60, "--json").json
    assert {hit["id"] for hit in answer["with"]} == {hit["id"] for hit in answer["without"]} == {d.id for d in shop.documents}
    assert answer["with"] != answer["without"], "in another order"
    assert answer["with"][0]["text"]
    assert lines[2].split()[1:] == [answer["without"][0]["id"], answer["with"][0]["id"]]
    alone = deepmem("search", query, *shop.store, "-k", 3, "--without", "--json").json
    assert alone == {"query": query, "without": answer["without"][:3]}
    untrained = deepmem("search", query, *shop.store, "-k", 3, "--path", shop.folder / "none", "--json")
    assert (untrained.code, untrained.json) == (0, alone)
    assert "no trained model yet" in untrained.err
    assert deepmem("search", query, *shop.store, "-k", "many").code == 2
    assert deepmem("search", " ", *shop.store).code == 2


def test_explain(shop):
    shown = deepmem("explain", shop.train.queries[3], *shop.store)
    assert (shown.code, shown.out.startswith("moved by ")) == (0, True)
    answer = deepmem("explain", shop.train.queries[3], *shop.store, "--top", 2, "--json").json
    assert len(answer["influences"]) <= 2
    if answer["influences"]:
        assert answer["influences"][0]["texts"] == [shop.train.queries[3]]
    assert deepmem("explain", "x", *shop.store, "--path", shop.folder / "none").code == 1
    assert deepmem("explain", *shop.store).code == 2


# ---- other stores ----------------------------------------------------------------------------------------------------


class Texts:
    """The server's vectors as LangChain wants them."""

    model_name = "text-embedding-3-small"

    def embed_query(self, text):
        return embed(text)

    def embed_documents(self, texts):
        return [embed(text) for text in texts]


def langchain_embeddings():
    from langchain_core.embeddings import Embeddings

    return type("Model", (Texts, Embeddings), {})()


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
def test_other_stores_are_trained_and_searched(shop, tmp_path, fill):
    ids = [document.id for document in shop.documents]
    uri = fill(tmp_path / "db", ids, [document.text for document in shop.documents])
    check_store(shop, tmp_path, uri)
    place, _, name = uri.rpartition("#") if "#" in uri else (uri, "", "")
    rest = ("--embedding", EMBEDDING, "--path", tmp_path)
    missing = deepmem("search", "x", "--store", f"{place}x#{name}" if name else f"{uri}x", *rest)
    assert (missing.code, "There is no folder" in missing.err) == (1, True)
    assert not (tmp_path / "dbx").exists(), "nothing is made"
    if name:
        for wrong in (f"{place}#nope", place):
            unknown = deepmem("search", "x", "--store", wrong, *rest)
            assert (unknown.code, len(unknown.err.splitlines())) == (1, 1)


def test_a_folder_that_is_not_chromas_stays_as_it_is(shop, tmp_path):
    done = deepmem("search", "x", "--store", f"chroma:{tmp_path}#docs", "--embedding", EMBEDDING, "--path", tmp_path / "m")
    assert (done.code, "no chroma.sqlite3" in done.err, list(tmp_path.iterdir())) == (1, True, [])


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
    assert (narrow.code, "Traceback" in narrow.err) == (1, False)
    assert "cannot be searched with a vector of 8 dimensions" in narrow.err
    assert list(deepmem("search", "x", *where, "--json").json) == ["query", "without", "with"]


def by_itself(statement):
    """In a process of its own, since clients of servers leave sockets open."""
    script = f"from tests.test_cli import *\ntexts, address = [d.text for d in api_documents()[:60]], sys.argv[1]\n{statement}"
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


@pytest.mark.slow
def test_postgres(shop, tmp_path, postgres):
    address = postgres.replace("postgresql://", "postgresql+psycopg://")
    fill_pgvector(address)
    fill_pgvectorstore(address)
    for name in ("docs", "docs_table"):
        (tmp_path / name).mkdir()
        check_store(shop, tmp_path / name, f"pgvector:{address}#{name}", process)
    rest = ("--embedding", EMBEDDING, "--path", tmp_path)
    unknown = process("search", "x", "--store", f"pgvector:{address}#nope", *rest)
    assert unknown.code == 1
    assert "no collection and no table 'nope' in this database. There: docs, docs_table" in unknown.err
    down = process("search", "x", "--store", "pgvector:postgresql+psycopg://user:secret@127.0.0.1:1/db#docs", *rest)
    assert (down.code, "cannot be opened" in down.err, "secret" in down.err) == (1, True, False)


@pytest.mark.slow
def test_a_chroma_server(shop, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [Path(sys.executable).parent / "chroma", "run", "--path", tmp_path / "db", "--port", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                    break
            time.sleep(0.1)
        fill_chroma_server(port)
        uri = f"chroma:http://127.0.0.1:{port}#docs"
        check_store(shop, tmp_path, uri, process)
        unknown = process("search", "x", "--store", uri + "x", "--embedding", EMBEDDING, "--path", tmp_path)
        assert (unknown.code, "docsx" in unknown.err) == (1, True)
    finally:
        server.terminate()
        server.wait()


def test_a_server_that_does_not_answer(shop, tmp_path):
    for uri in ("qdrant:http://127.0.0.1:1#docs", "chroma:http://127.0.0.1:1#docs"):
        done = deepmem("search", "x", "--store", uri, "--embedding", EMBEDDING, "--path", tmp_path)
        assert (done.code, len(done.err.splitlines())) == (1, 1), done.err


def test_a_faiss_folder_never_runs_code(shop, tmp_path):
    uri = filled_faiss(tmp_path / "db", ["a", "b"], ["one", "two"])

    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    (tmp_path / "db" / "index.pkl").write_bytes(pickle.dumps((Malicious(), {})))
    done = deepmem("search", "x", "--store", uri, "--embedding", EMBEDDING, "--path", tmp_path)
    assert (done.code, "a pickle may run any code" in done.err) == (1, True)
    assert not (tmp_path / "was here").exists()
    (tmp_path / "db" / "index.pkl").unlink()
    done = deepmem("search", "x", "--store", uri, "--embedding", EMBEDDING, "--path", tmp_path)
    assert "has no index.faiss and index.pkl" in done.err


# ---- generate --------------------------------------------------------------------------------------------------------


def test_generate(shop, tmp_path):
    labels = tmp_path / "labels.jsonl"
    options = ("generate", labels, *shop.store, "--llm", "extractive", "--per-document", 2, "--max-documents", 20)
    expected = deepmem(*options, "--estimate", "--json")
    assert (expected.code, labels.exists()) == (0, False)
    assert expected.json["documents"] == 20
    done = deepmem(*options, "--json")
    assert done.code == 0, done.err
    written = Relevance.from_jsonl(labels)
    assert len(written) == done.json["queries"] > 0
    assert all(written.generated)
    assert deepmem("train", labels, *shop.store, "--path", tmp_path / "m").code == 0
    asked = deepmem(
        *("generate", labels, "--force", *shop.store, "--llm", "openai:gpt-4o-mini", "--max-documents", 5),
        *("--max-tokens", 100_000),
    )
    assert (asked.code, f"Written to {labels}." in asked.out) == (0, True), asked.err
    keep = ("--checkpoint", tmp_path / "answers.jsonl", "--seed", 3)
    sent = [deepmem(*options[:-6], "--force", "--llm", "openai:gpt-4o-mini", "--max-documents", 5, *keep).out for _ in range(2)]
    assert ["5 requests sent" in sent[0], "0 requests sent, 5 answers from the checkpoint" in sent[1]] == [True, True]
    again = deepmem("generate", labels, *shop.store, "--llm", "extractive")
    assert (again.code, "is there already" in again.err) == (2, True)
    options = ("generate", labels, "--force", *shop.store)
    wrong = deepmem(*options, "--llm", "gpt-5")
    assert (wrong.code, "'gpt-5' names no language model" in wrong.err) == (1, True)
    assert deepmem(*options).code == 2


@pytest.mark.slow
def test_demo(shop, tmp_path):
    done = deepmem("demo", "--embedding", EMBEDDING, "--path", tmp_path, "--json")
    assert done.code == 0, done.err
    assert done.json["gain"]["recall@10"]["low"] > 0
    assert "== 4." in done.err, "what it tells on the way"
    assert deepmem("models", "--store", f"deeplake:{tmp_path / 'dataset'}", "--json").json[0]["in_use"]
    assert deepmem("demo", "--seed", "x").code == 2


# ---- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor(shop, tmp_path, monkeypatch):
    alone = deepmem("doctor")
    assert alone.code == 0
    assert "extra train" in alone.out
    well = deepmem("doctor", *shop.store, "--json")
    assert well.code == 0, well.out
    checks = {check["name"]: check for check in well.json}
    assert checks["store"]["detail"] == f"reachable, {DIMENSION} dimensions"
    assert checks["model and embedding"]["ok"] is True
    assert shop.job["id"] in checks["model in use"]["detail"]
    assert deepmem("doctor", *shop.store[:2]).code == 2

    missing = deepmem("doctor", "--store", f"deeplake:{tmp_path / 'nope'}", "--embedding", EMBEDDING)
    assert missing.code == 1
    assert re.search(r"BAD +store +There is no Deep Lake data set", missing.out)

    DeepLakeStore(tmp_path / "other").add(["a"], np.eye(3)[:1])
    other = deepmem("doctor", "--store", f"deeplake:{tmp_path / 'other'}", "--embedding", EMBEDDING)
    assert (other.code, "but the store has 3: it was filled with another model" in other.out) == (1, True)

    models = tmp_path / "models"
    shutil.copytree(shop.folder / "ds.deepmemory", models)
    QueryAdapter(DIMENSION + 1).save(models / "models" / "wide.safetensors")
    (models / "current").write_text("wide")
    DeepLakeStore(tmp_path / "elsewhere").add(["a"], np.eye(DIMENSION)[:1], ["made by another model"])
    DeepLakeStore(tmp_path / "textless").add(["a"], np.eye(DIMENSION)[:1])
    for name, code, told in (("elsewhere", 1, "another model made these"), ("textless", 0, "has no texts to compare")):
        done = deepmem("doctor", "--store", f"deeplake:{tmp_path / name}", "--embedding", EMBEDDING)
        assert (done.code, told in done.out) == (code, True), done.out
    unfit = deepmem("doctor", *shop.store, "--path", models)
    assert (unfit.code, "The adapter was trained for" in unfit.out) == (1, True)
    (models / "models" / "wide.safetensors").write_bytes(b"damaged")
    damaged = deepmem("doctor", "--path", models)
    assert (damaged.code, "BAD" in damaged.out) == (1, True)

    monkeypatch.setenv("OPENAI_API_KEY", "bad-key")
    keyless = deepmem("doctor", *shop.store)
    assert (keyless.code, "Incorrect API key" in keyless.out) == (1, True)


def test_doctor_names_extras_that_are_missing(monkeypatch):
    import importlib.metadata

    from deepmem_integrations.cli import doctor

    def without_faiss(package):
        if package == "faiss-cpu":
            raise importlib.metadata.PackageNotFoundError(package)
        return importlib.metadata.version(package)

    monkeypatch.setattr(doctor, "version", without_faiss)
    done = deepmem("doctor")
    assert done.code == 0
    assert 'faiss-cpu is not installed; if you need it: pip install "deepmem-integrations[faiss]"' in done.out


# ---- in processes of their own ---------------------------------------------------------------------------------------


COMMANDS = (
    "demo", "generate", "train", "status", "jobs", "cancel", "delete", "models", "use", "evaluate", "search", "explain", "doctor",
)  # fmt: skip


def test_help_lists_every_command_and_shows_an_example_of_each():
    shown = deepmem("--help")
    assert shown.code == 0
    listed = re.search(r"Commands:\n(.*?)\n\n", shown.out, re.DOTALL)[1]
    assert [line.split()[0] for line in listed.splitlines()] == list(COMMANDS)
    assert "..." not in listed, "each fits on its line"
    assert "chroma:FOLDER#COLLECTION" in shown.out
    for command in COMMANDS:
        told = deepmem(command, "--help")
        assert re.search(rf"\n  Example:\n    deepmem {command}", told.out), told.out
        assert "--json" in told.out


def test_as_a_shell_runs_it(shop, tmp_path):
    assert process("--version").out == "deepmem-integrations 0.1.0\n"
    assert process("nope").code == 2
    assert process("status", shop.job["id"], *shop.jobs).out.startswith("-" * 62)
    answer = process("search", shop.test.queries[0], *shop.store, "--json")
    assert answer.code == 0, answer.err
    assert len(answer.json["with"]) == 5
    wrong = process("train", shop.folder / "nope.jsonl", *shop.store)
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err.startswith("deepmem: Cannot read")


def test_shells_complete_it():
    done = process(_DEEPMEM_COMPLETE="complete_bash", COMP_WORDS="deepmem ev", COMP_CWORD="1")
    assert done.out.split() == ["evaluate"]
    done = process(_DEEPMEM_COMPLETE="complete_bash", COMP_WORDS="deepmem train --val", COMP_CWORD="2")
    assert done.out.split() == ["--validation", "--validation-split"]
