"""Data folders from elsewhere run no code, hang nobody, and end in one line; and no message repeats a password."""

import os
import pickle
import shutil
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations._pickles import DOCUMENTS, Record, read_records
from deepmem_integrations._redaction import redact, redact_all, redacted
from deepmem_integrations.errors import StoreError
from tests.cli.helpers import EMBEDDING, deepmem
from tests.cli.test_stores import filled_chroma, filled_faiss, filled_qdrant


class Exploit:
    """What an intruder puts into a pickle: unpickling it makes a folder."""

    def __init__(self, proof):
        self.proof = str(proof)

    def __reduce__(self):
        return os.mkdir, (self.proof,)


def doctor(uri):
    done = deepmem("doctor", "--store", uri, "--embedding", EMBEDDING)
    assert done.code == 1
    assert "Traceback" not in done.err, done.err
    return done.out + done.err


@pytest.fixture
def texts(shop):
    return [document.id for document in shop.documents[:20]], [document.text for document in shop.documents[:20]]


# ---- Qdrant ----------------------------------------------------------------------------------------------------------


def storage(folder):
    (path,) = folder.rglob("storage.sqlite")
    return path


def test_a_qdrant_folder_runs_no_code(tmp_path, texts):
    """Before, the client unpickled each row of ``storage.sqlite``."""
    uri, proof = filled_qdrant(tmp_path / "db", *texts), tmp_path / "the code ran"
    with sqlite3.connect(storage(tmp_path / "db")) as rows:
        rows.execute("update points set point = ?", (pickle.dumps(Exploit(proof)),))
    rows.close()
    assert "a pickle may run any code" in doctor(uri)
    assert not proof.exists()


@pytest.mark.parametrize("point", [b"", b"\x80\x04N.", b"garbage", pickle.dumps({"id": 1}), pickle.dumps([1] * 9)], ids=repr)
def test_a_damaged_qdrant_folder_is_one_line(tmp_path, texts, point):
    uri = filled_qdrant(tmp_path / "db", *texts)
    with sqlite3.connect(storage(tmp_path / "db")) as rows:
        rows.execute("update points set point = ?", (point,))
    rows.close()
    done = deepmem("search", "x", "--store", uri, "--embedding", EMBEDDING, "--path", tmp_path / "m")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1, done.err


def test_a_qdrant_folder_leads_nowhere_else(tmp_path, texts):
    uri = filled_qdrant(tmp_path / "db", *texts)
    meta = tmp_path / "db" / "meta.json"
    text = meta.read_text()
    meta.write_text(text.replace('"docs": {', '"../../../victim": {', 1))
    assert "does not list collections as Qdrant does" in doctor(uri)
    assert not list(tmp_path.rglob("victim*"))
    meta.write_text(text)
    path = storage(tmp_path / "db")
    os.replace(path, tmp_path / "elsewhere.sqlite")
    path.symlink_to(tmp_path / "elsewhere.sqlite")
    assert "is no file in" in doctor(uri)
    path.unlink()
    os.mkfifo(path)
    assert "is no file in" in doctor(uri)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no meta.json" in doctor(f"qdrant:{empty}#docs")
    assert list(empty.iterdir()) == []


# ---- FAISS -----------------------------------------------------------------------------------------------------------


def test_a_faiss_folder_changes_no_class_and_runs_no_code(tmp_path, texts):
    """Before, a refused pickle had already set attributes of ``InMemoryDocstore``, for the whole process."""
    from langchain_community.docstore.in_memory import InMemoryDocstore

    uri, proof = filled_faiss(tmp_path / "db", *texts), tmp_path / "the code ran"
    path = tmp_path / "db" / "index.pkl"
    path.write_bytes(pickle.dumps(Exploit(proof)))
    assert "a pickle may run any code" in doctor(uri)
    assert not proof.exists()
    before = dict(vars(InMemoryDocstore))
    # The class itself is the target of BUILD, and its state the pair (None, attributes).
    path.write_bytes(b"\x80\x04clangchain_community.docstore.in_memory\nInMemoryDocstore\nN}X\x06\x00\x00\x00searchNs\x86b0N.")
    doctor(uri)
    assert dict(vars(InMemoryDocstore)) == before


def test_a_pipe_or_damage_in_a_faiss_folder_is_one_line(tmp_path, texts):
    uri, path = filled_faiss(tmp_path / "db", *texts), tmp_path / "db" / "index.pkl"
    for content in (b"", b"garbage", pickle.dumps((1, 2)), pickle.dumps(({}, {})), path.read_bytes()[:-20]):
        path.write_bytes(content)
        doctor(uri)
    path.unlink()
    os.mkfifo(path)
    assert "has no index.faiss and index.pkl" in doctor(uri)


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_a_store_error(data):
    for content in (data, b"\x80\x04" + data, pickle.dumps({"a": [1, "x", {2.0, None}]})[: len(data)] + data):
        try:
            read_records(content, DOCUMENTS, "index.pkl")
        except StoreError:
            continue


def test_records_are_plain_values():
    from langchain_core.documents import Document

    found = read_records(pickle.dumps(Document("text", metadata={"a": [1]})), DOCUMENTS, "x")
    assert isinstance(found, Record) and type(found).__module__ == Record.__module__
    assert found.fields["metadata"] == {"a": [1]}


# ---- Chroma ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_damaged_chroma_folder_is_one_line(tmp_path, texts):
    """Before, ``doctor`` showed chromadb's traceback. Each copy has a path of its own, since the client keeps folders open."""
    filled_chroma(tmp_path / "whole", *texts)
    whole = (tmp_path / "whole" / "chroma.sqlite3").read_bytes()
    for number, content in enumerate((b"", b"garbage", whole[: len(whole) // 2], whole[:100] + bytes(4000) + whole[4100:])):
        folder = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "whole", folder)
        (folder / "chroma.sqlite3").write_bytes(content)
        doctor(f"chroma:{folder}#docs")
    for number, statement in enumerate(
        (
            "update collections set config_json_str = '{\"hnsw\": 5}'",
            "update collections set dimension = 7",
            "delete from segments",
            "drop table embedding_metadata",
            "drop table embeddings",
        )
    ):
        folder = tmp_path / f"table{number}"
        shutil.copytree(tmp_path / "whole", folder)
        with sqlite3.connect(folder / "chroma.sqlite3") as database:
            database.execute(statement)
        database.close()
        done = deepmem("doctor", "--store", f"chroma:{folder}#docs", "--embedding", EMBEDDING)
        assert "Traceback" not in done.err, (statement, done.err)


# ---- passwords -------------------------------------------------------------------------------------------------------

PASSWORD = "s3cret-p"
URIS = [
    "pgvector:postgresql+psycopg://me:{}@127.0.0.1:1/db#docs",
    "pgvector:postgresql+psycopg://me:{}@127.0.0.1:1/db",
    "pgvector:postgresql+psycopg://me:a@{}@127.0.0.1:1/db#docs",
    "pgvector:postgresql+psycopg://me:a:{}/b@127.0.0.1:1/db#docs",
    "pgvector:postgresql+psycopg://me:a#{}@127.0.0.1:1/db",
    "pgvector:postgresql+psycopg://127.0.0.1:1/db?user=me&password={}#docs",
    "pgvector:postgresql+psycopg://127.0.0.1:1/db?user=me&password={}",
    "pgvector:postgresql+psycopg://me:x{}y@127.0.0.1:x1/db?sslkey={}#docs",
    "pgvector:nothing://me:{}@127.0.0.1/db#docs",
    "pgvector:me:{}@127.0.0.1/db#docs",
    "postgresql://me:{}@127.0.0.1:1/db#docs",
    "postgres:me:{}@host",
    "qdrant:http://me:{}@127.0.0.1:1#docs",
    "qdrant:http://me:{}@127.0.0.1:1",
    "qdrant:http://127.0.0.1:1?api_key={}#docs",
    "chroma:http://{}@127.0.0.1:1#docs",
    "chroma:http://{}@127.0.0.1:x#docs",
    "deeplake:s3://key:{}@bucket/data",
    "deeplake:s3://bucket/data?aws_secret_access_key={}",
]


@pytest.mark.slow  # clients try servers that are not there more than once
@pytest.mark.parametrize("form", URIS)
def test_no_message_and_no_json_repeats_a_password(form, tmp_path):
    uri = form.replace("{}", PASSWORD)
    for arguments in (("doctor", "--json"), ("search", "x", "--path", tmp_path)):
        done = deepmem(*arguments, "--store", uri, "--embedding", EMBEDDING)
        assert done.code != 0
        assert PASSWORD not in done.out + done.err, (arguments, done.out, done.err)
        assert "Traceback" not in done.err


@pytest.mark.parametrize("form", [*URIS, "s3://key:{}@bucket/data", "ftp://me:{}@host/models"])
def test_passwords_are_found_in_every_form_of_uri(form):
    uri = form.replace("{}", PASSWORD)
    assert PASSWORD not in redacted(uri)
    assert PASSWORD not in redact(f"could not connect to {uri!r}: '{PASSWORD}' is refused", uri)
    assert PASSWORD not in redact_all(f"no {PASSWORD} in {uri}", ["doctor", f"--store={uri}"])


@pytest.mark.parametrize(
    "uri", ["chroma:/home/me@work/db#docs", "faiss:./a@b", "deeplake:./x@y", "qdrant:C:/me@home#x", "C:/me@home/x", "/me@home"]
)
def test_folders_with_an_at_sign_are_shown(uri):
    assert redacted(uri) == uri
    assert redact(f"There is no folder {uri}", uri).endswith(uri)
