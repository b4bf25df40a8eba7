import os
import socket
import subprocess
import sys
import threading
import uuid

import numpy as np
import pytest

from deepmem_integrations.deeplake import DeepLakeStore, import_deeplake, patience
from deepmem_integrations.deeplake.patience import patient
from deepmem_integrations.deeplake.tql import Condition
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError, StoreError

X = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
EVIL = "a' OR 1=1 --"


def path_of(kind, tmp_path):
    return f"mem://{uuid.uuid4().hex}" if kind == "mem" else str(tmp_path / "dataset")


@pytest.fixture(params=["local", "mem"])
def store(request, tmp_path):
    return DeepLakeStore(path_of(request.param, tmp_path))


@pytest.fixture
def filled(store):
    store.add(list("abcdef"), X, [f"text {i}" for i in range(6)], [{"k": i % 2, "name": f"n{i}"} for i in range(6)])
    return store


def cosines(query):
    return (X @ query) / np.linalg.norm(X, axis=1) / np.linalg.norm(query)


def test_a_new_store_is_empty_and_answers(store):
    assert len(store) == 0
    assert store.dimension is None
    assert store.search(X[0]) == []
    assert store.get(["a"]) == []
    assert store.find() == []
    assert store.ids() == []
    assert list(store.vectors()) == []
    assert store.delete(["a"]) == 0
    store.clear()


def test_a_relative_path_stays_where_the_process_changes_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = DeepLakeStore("dataset")
    monkeypatch.chdir("/")
    store.add(["a"], X[:1])
    assert store.path == str(tmp_path / "dataset")
    assert [found.id for found in DeepLakeStore(tmp_path / "dataset").search(X[0])] == ["a"]


def test_search_is_exact_cosine_search_best_first(filled):
    query = np.random.default_rng(1).normal(size=8)
    found = filled.search(query, 4, with_vectors=True)
    expected = np.argsort(-cosines(query))[:4]
    assert [document.id for document in found] == ["abcdef"[row] for row in expected]
    np.testing.assert_allclose([document.score for document in found], cosines(query)[expected], atol=1e-5)
    np.testing.assert_array_equal(found[0].vector, X[expected[0]])
    assert found[0].text == f"text {expected[0]}"
    assert len(filled.search(query, 100)) == 6


def test_filters(filled):
    found = filled.search(X[0], 10, filter={"k": 1})
    assert {document.id for document in found} == {"b", "d", "f"}
    assert [document.id for document in found] == [d.id for d in filled.search(X[0], 10) if d.metadata["k"] == 1]
    assert {d.id for d in filled.find({"k": 0, "name": ["n0", "n1", "n4"]})} == {"a", "e"}
    assert filled.find({"k": 7}) == []
    assert len(filled.find({"missing": None})) == 6
    assert len(filled.find(limit=2)) == 2
    assert len(filled.find({"k": [True, False]})) == 6
    for bad, message in (
        ("k == 1", "A filter is a dict"),
        ({"k": {}}, "compares with"),
        ({"k": []}, "lists no allowed value"),
        ({3: 1}, "keys of a filter are strings"),
    ):
        with pytest.raises(StoreError, match=message):
            filled.find(bad)


def test_adding_an_id_again_replaces_the_document(filled):
    filled.add(["b", "g"], X[:2] + 1, ["new b", "g"])
    assert len(filled) == 7
    assert filled.get(["b"], with_vectors=True)[0].text == "new b"
    np.testing.assert_array_equal(filled.get(["b"], with_vectors=True)[0].vector, X[0] + 1)
    assert filled.get(["b"])[0].metadata == {}
    filled.add(["h", "h"], X[:2], ["first", "last"])
    assert [d.text for d in filled.get(["h"])] == ["last"]


def test_get_keeps_the_order_asked_for_and_leaves_out_unknown_ids(filled):
    assert [d.id for d in filled.get(["e", "nope", "a", "e"])] == ["e", "a"]
    either = Condition("metadata['k'] = 1 OR metadata['name'] = 'n4'")
    assert [d.id for d in filled.get(["e", "a", "b"], filter=either)] == ["e", "b"]
    assert [d.id for d in filled.get(["e", "a", "b"], filter={"k": 0, "name": ["n0", "n1"]})] == ["a"]


def test_delete(filled):
    assert filled.delete(["a", "nope", "e"]) == 2
    assert filled.ids() == ["b", "c", "d", "f"]
    filled.clear()
    assert len(filled) == 0
    filled.add(["z"], np.ones((1, 3)))
    assert filled.dimension == 3


def test_all_vectors_come_in_batches(filled, monkeypatch):
    monkeypatch.setattr("deepmem_integrations.deeplake.store._BATCH", 4)
    batches = list(filled.vectors())
    assert [len(ids) for ids, _ in batches] == [4, 2]
    np.testing.assert_array_equal(np.concatenate([vectors for _, vectors in batches]), X)


def test_an_id_is_just_an_id(filled):
    filled.add([EVIL, "'", '"', "\\", "a\nb", "%"], X, [EVIL] * 6, [{EVIL: EVIL}] * 6)
    assert [d.id for d in filled.get([EVIL])] == [EVIL]
    assert {d.id for d in filled.find({EVIL: EVIL})} == {EVIL, "'", '"', "\\", "a\nb", "%"}
    assert filled.find({EVIL: "' OR 1=1 --"}) == []
    assert filled.delete([EVIL]) == 1
    assert len(filled) == 11
    assert filled.delete(["x' OR '1'='1"]) == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"vectors": X[:2] * np.nan}, InvalidVectorsError, r"Vector 0 \(id 'x'\) holds NaN"),
        ({"vectors": X[:2] * 0}, InvalidVectorsError, r"Vector 0 \(id 'x'\) is all zeros"),
        ({"vectors": X[:2, :5]}, EmbeddingMismatchError, "vectors of 8 dimensions; got 5"),
        ({"vectors": X[:1]}, StoreError, "2 ids, 1 vectors"),
        ({"texts": ["one"]}, StoreError, "1 texts"),
        ({"ids": ["x", ""]}, StoreError, "Row 1: the id ''"),
        ({"ids": ["x", 3]}, StoreError, "Row 1: the id 3"),
        ({"metadatas": [{}, {"v": float("nan")}]}, StoreError, "document 'y' cannot be stored"),
        ({"metadatas": [{}, {"v": object()}]}, StoreError, "document 'y' cannot be stored"),
        ({"metadatas": [{}, {"v": (1, 2)}]}, StoreError, "'y' cannot be stored: under the key 'v' stands a tuple"),
        ({"metadatas": [{}, {1: 2}]}, StoreError, "the key 1 is no string"),
        ({"vectors": [[1.0, 2.0], [1.0]]}, InvalidVectorsError, "not a matrix of numbers"),
        ({"texts": ["x", 3]}, StoreError, "text of document 'y' is not a string but int"),
        ({"texts": ["x", "\ud800"]}, StoreError, "'y' is no valid Unicode"),
        ({"ids": "xy"}, StoreError, r"ids is a list: \['xy'\]"),
    ],
)
def test_a_refused_write_changes_nothing(filled, change, error, message):
    arguments = {"ids": ["x", "y"], "vectors": X[:2], "texts": ["x", "y"], "metadatas": [{}, {}], **change}
    with pytest.raises(error, match=message):
        filled.add(**arguments)
    assert filled.ids() == list("abcdef")
    assert len(filled.search(X[0], 10, filter={"k": 1})) == 3, "queries on metadata still work"


def test_bad_searches_are_named(filled):
    with pytest.raises(EmbeddingMismatchError, match="3 dimensions where 8"):
        filled.search(np.ones(3))
    with pytest.raises(InvalidVectorsError, match="all zeros"):
        filled.search(np.zeros(8))
    with pytest.raises(StoreError, match="1 or more; got 0"):
        filled.search(X[0], 0)


def test_a_bare_string_is_not_a_list_of_ids(filled):
    for call in (filled.get, filled.delete):
        with pytest.raises(StoreError, match=r"Ids come as a list: \['ab'\]"):
            call("ab")
    assert len(filled) == 6


@pytest.mark.parametrize("step", ["_delete_rows", "_rows_of"])
def test_a_write_that_fails_half_way_is_taken_back(filled, monkeypatch, step):
    def fail(*_):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(filled, step, fail)
    with pytest.raises(StoreError, match="cannot write .*the disk is gone"):
        filled.add(["a", "new"], X[:2])
    monkeypatch.undo()
    assert filled.ids() == list("abcdef")
    filled.add(["a", "other"], X[:2], ["changed", "other"])
    assert sorted(filled.ids()) == [*"abcdef", "other"]
    assert filled.get(["a"])[0].text == "changed"


def test_a_first_write_that_fails_leaves_no_data_set(store, monkeypatch):
    monkeypatch.setattr(store, "_rows_of", lambda *_: 1 / 0)
    with pytest.raises(StoreError):
        store.add(["a"], X[:1])
    monkeypatch.undo()
    store.add(["a"], np.ones((1, 3)))
    assert store.dimension == 3


def test_a_scan_is_a_snapshot(filled, monkeypatch):
    monkeypatch.setattr("deepmem_integrations.deeplake.store._BATCH", 2)
    batches = filled.vectors()
    ids = list(next(batches)[0])
    filled.delete(["a", "f"])
    filled.add(["c", "g"], X[:2])
    for names, _ in batches:
        ids += names
    assert ids == list("abcdef")
    assert sorted(filled.ids()) == ["b", "c", "d", "e", "g"]


def test_a_data_set_that_another_writer_creates_later_is_found(tmp_path):
    first, second = DeepLakeStore(tmp_path / "dataset"), DeepLakeStore(tmp_path / "dataset")
    assert len(second) == 0
    first.add(["a"], X[:1])
    assert second.ids() == ["a"]
    second.add(["b"], X[1:2])
    first.refresh()
    assert first.ids() == ["a", "b"]


def test_documents_survive_and_readers_see_what_others_commit(tmp_path):
    path = tmp_path / "dataset"
    writer = DeepLakeStore(path)
    writer.add(["a"], X[:1], ["one"], [{"list": [1, 2], "none": None}])
    reader = DeepLakeStore(path, read_only=True)
    assert reader.get(["a"])[0].metadata == {"list": [1, 2], "none": None}
    writer.add(["b"], X[1:2])
    reader.refresh()
    assert reader.ids() == ["a", "b"]
    for write in (lambda: reader.add(["c"], X[:1]), lambda: reader.delete(["a"]), reader.clear):
        with pytest.raises(StoreError, match="read-only"):
            write()
    assert len(DeepLakeStore(path, overwrite=True)) == 0
    assert not path.exists()


def test_paths_that_cannot_be_opened(tmp_path):
    with pytest.raises(StoreError, match="Deep Lake v3 path.*al://"):
        DeepLakeStore("hub://organisation/name")
    with pytest.raises(StoreError, match="exclude each other"):
        DeepLakeStore(tmp_path / "none", read_only=True, overwrite=True)
    with pytest.raises(StoreError, match="token is a string; got list. An embedding model is passed as embedding="):
        DeepLakeStore(tmp_path / "none", token=[])
    with pytest.raises(StoreError, match="no Deep Lake data set at .* read-only"):
        DeepLakeStore(tmp_path / "none", read_only=True)


def test_the_layouts_met_in_the_wild(tmp_path):
    deeplake = import_deeplake()
    types = deeplake.types
    for number, (name, vector, metadata, text) in enumerate(
        [("ids", "embeddings", "metadata", "documents"), ("id", "embedding", "metadata", "text")]
    ):
        path = str(tmp_path / str(number))
        schema = {name: types.Text(), vector: types.Embedding(8), metadata: types.Dict(), text: types.Text()}
        dataset = deeplake.create(path, schema=schema)
        dataset.append(
            {name: ["a", "b"], vector: X[:2], metadata: [{"k": 1, "s": "x", "deep": {"l": ["y"]}}, {}], text: ["A", "B"]}
        )
        dataset.commit()
        store = DeepLakeStore(path)
        assert store.get(["a"])[0].metadata == {"k": 1, "s": "x", "deep": {"l": ["y"]}}
        assert store.search(X[1], 1)[0].text == "B"
        store.add(["b", "c"], X[2:4], ["new", "C"], [{"k": 2}, {}])
        assert store.ids() == ["a", "b", "c"]
        assert [d.text for d in store.find({"k": 2})] == ["new"]
        assert store.delete(["a"]) == 1
        for lossy in ({"n": None}, {"l": [1, 2]}, {"deep": {"big": 2**70}}):
            with pytest.raises(StoreError, match="'d' would not come back as it is: this data set was made by another tool"):
                store.add(["d"], X[:1], ["D"], [lossy])

    strange = deeplake.create(str(tmp_path / "strange"), schema={"foo": types.Text()})
    strange.commit()
    with pytest.raises(StoreError, match=r"has the columns \['foo'\]; expected ids, embeddings"):
        DeepLakeStore(tmp_path / "strange")

    schema = {n: types.Text() for n in ("ids", "documents", "mine")} | {
        "embeddings": types.Embedding(8),
        "metadata": types.Dict(),
    }
    deeplake.create(str(tmp_path / "more"), schema=schema).commit()
    with pytest.raises(StoreError, match=r"cannot fill: \['mine'\]"):
        DeepLakeStore(tmp_path / "more").add(["a"], X[:1])


def test_threads_may_search_and_write_at_once(tmp_path):
    stores = [DeepLakeStore(tmp_path / name) for name in "pq"]
    for store in stores:
        store.add([f"d{i}" for i in range(200)], np.random.default_rng(0).normal(size=(200, 16)))
    failures = []

    def work(store, writes):
        try:
            for step in range(15):
                if writes:
                    store.add([f"new {threading.get_ident()} {step}"], np.ones((1, 16)))
                else:
                    assert len(store.search(np.random.default_rng(step).normal(size=16), 5)) == 5
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(s, w), daemon=True) for s in stores for w in (True, False, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=50)
    assert not any(thread.is_alive() for thread in threads), "a deadlock"
    assert not failures
    assert [len(store) for store in stores] == [215, 215]


FORKS = """
import os, sys
from deepmem_integrations.deeplake import DeepLakeStore

store = DeepLakeStore(sys.argv[1])
store.add(["a", "b"], [[1.0, 0.0], [0.0, 1.0]], ["first", "second"])
store.create_text_index()
assert store.search([0.1, 0.9], 1)[0].id == "b"
children = []
for _ in range(4):
    if not (child := os.fork()):
        try:
            assert store.search([0.1, 0.9], 1)[0].id == "b"
            assert store.get(["a"])[0].text == "first"
            assert store.hybrid_search("first", [0.1, 0.9], 1, alpha=0)[0].id == "a"
            assert [sorted(ids) for ids, _ in store.vectors()] == [["a", "b"]]
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], len(store))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_data_set_that_was_opened_before_a_fork_is_read_in_the_child(tmp_path):
    """Servers load an application and fork afterwards, gunicorn with --preload for one."""
    done = subprocess.run([sys.executable, "-c", FORKS, tmp_path / "ds"], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[0, 0, 0, 0] 2\n", done.stderr


def test_filters_hold_whatever_documents_there_are(tmp_path):
    """Before, a list under a key broke the filter on its absence, and a negative number every list of allowed values."""
    store = DeepLakeStore(tmp_path / "ds")
    values = {"one": 1, "minus": -3, "half": -0.5, "text": "x", "null": None, "true": True}

    def found(filter):
        ids = {document.id for document in store.find(filter)}
        assert {document.id for document in store.search(np.ones(8), 50, filter=filter)} == ids
        assert {document.id for document in store.get([*values, "list", "none"], filter=filter)} == ids
        return ids

    store.add(["none"], np.eye(8)[:1], metadatas=[{}])
    store.add(list(values), np.eye(8)[1:7], metadatas=[{"a": value, "b": 1} for value in values.values()])
    for _ in range(2):
        assert found({"a": None}) == {"none", "null"}
        assert found({"a": None, "b": 1}) == {"null"}
        assert found({"a": None, "b": None}) == {"none"}
        assert found({"a": None, "b": 2}) == set()
        assert found({"metadata": {"a": None}}) == {"none", "null"}
        assert found({"a": [-3]}) == {"minus"}
        assert found({"a": [1, -3, -0.5]}) >= {"one", "minus", "half"}
        assert found({"a": ["x", -3]}) == {"text", "minus"}
        store.add(["list"], np.eye(8)[7:], metadatas=[{"a": [1, 2], "b": 1}])


@pytest.fixture
def silent():
    """The address of a server that accepts connections and answers nothing."""
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: [held.append(server.accept()) for _ in range(1_000)], daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    for connection, _ in held:
        connection.close()


SILENT = """
import sys, time
from deepmem_integrations.deeplake import DeepLakeStore, patience
from deepmem_integrations.errors import StoreError

patience.READ = 2.0
creds = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "endpoint_url": sys.argv[1], "aws_region": "us-east-1"}
try:
    DeepLakeStore("s3://bucket/pages", creds=creds)
except StoreError as error:
    print(error)
"""


def test_an_object_store_that_does_not_answer_is_an_error_and_no_process_waits_for_it(silent):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", SILENT, silent], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "s3://bucket/pages has not answered for 2 seconds.\n", done.stderr


def test_a_patient_call_gives_what_the_method_gives(monkeypatch):
    class Far:
        path = "s3://bucket/pages"

        @patient(writes=True)
        def call(self, what):
            if isinstance(what, BaseException):
                raise what
            if isinstance(what, threading.Event):
                what.wait(20)
            return what, self.inner(), threading.current_thread() is threading.main_thread()

        @patient()
        def inner(self):
            return threading.current_thread().name

    assert Far().call(7) == (7, "deepmem Deep Lake", False)
    with pytest.raises(TimeoutError, match="its own"):
        Far().call(TimeoutError("its own"))
    monkeypatch.setattr(Far, "path", "here")
    assert Far().call(7)[2]
    monkeypatch.setattr(Far, "path", "s3://bucket/pages")
    monkeypatch.setattr(patience, "WRITE", 0.0)
    with pytest.raises(StoreError, match=r"has not answered for 0 seconds\. What was to be written may still be written\."):
        Far().call(threading.Event())
