import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations._store import Store
from deepmem_integrations.errors import GenerationError, StorageError
from deepmem_integrations.generation import Answer, Extractive, QueryGenerator
from deepmem_integrations.generation import checkpoint as module
from deepmem_integrations.generation.checkpoint import Checkpoint
from tests.generation.helpers import documents

MINE = {"prompt": "p1", "model": "m1"}
ANSWER = Answer({"queries": [{"kind": "question", "text": "wörd\u2028\n"}]}, input_tokens=3)


def fill(path, count=3):
    with Checkpoint(path, MINE) as checkpoint:
        for row in range(count):
            checkpoint.add(f"key {row}", ANSWER)


FULL_DISK = """
import resource, signal, sys
from deepmem_integrations.errors import StorageError
from tests.generation.test_checkpoint import fill
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
try:
    fill(sys.argv[1], 100)
except StorageError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="no limits on files")
def test_a_full_disk_is_told(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, tmp_path / "run.jsonl"]
    found = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True, text=True)
    assert (found.stdout.startswith("Cannot write the checkpoint"), found.stderr) == (True, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_holds_no_lock_of_a_run_that_ended(tmp_path):
    with Checkpoint(tmp_path / "run.jsonl", MINE):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        fill(tmp_path / "run.jsonl")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_answers_come_back_as_they_were(tmp_path):
    path = tmp_path / "deep" / "run.jsonl"
    fill(path)
    with Checkpoint(path, MINE) as checkpoint:
        assert len(checkpoint) == 3
        assert "key 1" in checkpoint
        assert checkpoint.get("key 1") == ANSWER
        assert checkpoint.get("key 9") is None
        checkpoint.add("key 9", Answer.of_error(ValueError("x")))
        assert checkpoint.get("key 9") == Answer(fault="malformed", detail="ValueError: x")
    with Checkpoint(None, {}) as nothing:
        nothing.add("key", ANSWER)
        assert nothing.get("key") is None


@pytest.mark.parametrize("name", MINE)
def test_what_belongs_to_another_run_is_refused(tmp_path, name):
    fill(tmp_path / "run.jsonl")
    before = (tmp_path / "run.jsonl").read_bytes()
    with pytest.raises(GenerationError, match=f"belongs to another {name}, .* pass another file as checkpoint="):
        Checkpoint(tmp_path / "run.jsonl", MINE | {name: "other"})
    assert (tmp_path / "run.jsonl").read_bytes() == before


@given(st.data())
def test_a_file_cut_off_anywhere_loses_only_its_last_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "run.jsonl"
    fill(path)
    whole = path.read_bytes()
    left = whole[: data.draw(st.integers(0, len(whole)))]
    path.write_bytes(left)
    complete = max(0, left.count(b"\n") - 1)
    with Checkpoint(path, MINE) as checkpoint:
        assert len(checkpoint) == complete
        checkpoint.add("after", ANSWER)
    with Checkpoint(path, MINE) as checkpoint:
        assert len(checkpoint) == complete + 1
        assert checkpoint.get("after") == ANSWER


def test_files_of_other_kinds_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    for content in (b"my notes\n", b'{"query": "a"}\n', b"[1]\n"):
        path.write_bytes(content)
        with pytest.raises(GenerationError, match=r"not a checkpoint of this version|line 1, is not a line of a checkpoint"):
            Checkpoint(path, MINE)
        assert path.read_bytes() == content
    fill(path := tmp_path / "run.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"key 1"', b'key 1"'))
    with pytest.raises(GenerationError, match=r"run.jsonl, line 3, is not a line of a checkpoint"):
        Checkpoint(path, MINE)
    with pytest.raises(StorageError, match="Cannot write the checkpoint"):
        Checkpoint(tmp_path, MINE)


def test_two_runs_do_not_share_a_file(tmp_path):
    with Checkpoint(tmp_path / "run.jsonl", MINE):
        with pytest.raises(GenerationError, match="Another run is writing to the checkpoint"):
            Checkpoint(tmp_path / "run.jsonl", MINE)
    fill(tmp_path / "run.jsonl")


@pytest.mark.parametrize(
    "content", [b"x", b'{"a": 1}', b"my only copy", b"\0" * 100, b'{"deepmem', b'{"deepmem checkpoint": 1, "p']
)
def test_a_file_of_one_line_without_an_end_is_kept_unless_it_is_a_checkpoint(tmp_path, content):
    """Before, a file that is no checkpoint was emptied where its first line has no newline."""
    path = tmp_path / "file"
    path.write_bytes(content)
    if content.startswith(b'{"deepmem'):
        fill(path)
        assert path.read_bytes().startswith(b'{"deepmem checkpoint": 1, "prompt"')
        return
    with pytest.raises(GenerationError, match="is not a checkpoint"):
        Checkpoint(path, MINE)
    assert path.read_bytes() == content


def test_pipes_and_devices_are_no_checkpoints(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(StorageError, match="no regular file"):
            Checkpoint(path, MINE)


ODD = ["5", "[]", '{"key": 5, "answer": {}}', '{"key": "k", "answer": 5}', '{"key": "k", "answer": {"input_tokens": "x"}}']


@pytest.mark.parametrize("line", [*ODD, '{"key": "k", "answer": {"unknown": 1}}', "[" * 10_000, '{"key": "k"}', "null"])
def test_odd_lines_are_errors_that_name_the_line(tmp_path, line):
    path = tmp_path / "run.jsonl"
    fill(path, 1)
    before = path.read_text() + line[:5000] + "\n"
    path.write_text(before)
    with pytest.raises(GenerationError, match="line 3, is not a line of a checkpoint"):
        Checkpoint(path, MINE)
    assert path.read_text() == before


def test_a_checkpoint_is_its_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        fill(tmp_path / "new" / "run.jsonl")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "run.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_half_of_a_surrogate_pair_ends_no_run_and_no_later_one(tmp_path):
    path = tmp_path / "run.jsonl"
    answer = Answer({"queries": [{"kind": "question", "text": "half \ud800"}]})
    with Checkpoint(path, MINE) as checkpoint:
        checkpoint.add("key \udfff", answer)
    for _ in range(2):
        with Checkpoint(path, MINE) as checkpoint:
            assert checkpoint.get("key \udfff") == answer


# ---- in an object store ----------------------------------------------------------------------------------------------


@pytest.fixture
def url():
    """A folder in the memory of this process, which fsspec reads as it does an object store."""
    store = fsspec.filesystem("memory")
    yield "memory://bucket/run"
    store.rm("/bucket", recursive=True)


def parts(url):
    return sorted(fsspec.filesystem("memory").ls(url.removeprefix("memory:/"), detail=False))


def test_answers_in_an_object_store_come_back_as_they_were(url):
    fill(url)
    assert len(parts(url)) == 1
    with Checkpoint(url, MINE) as checkpoint:
        assert len(checkpoint) == 3 and checkpoint.get("key 1") == ANSWER and checkpoint.get("key 9") is None
        checkpoint.add("key 9", ANSWER)
        assert checkpoint.get("key 9") == ANSWER
    assert len(parts(url)) == 2, "each run writes parts of its own"
    with Checkpoint(url, MINE) as checkpoint:
        assert len(checkpoint) == 4 and "key 9" in checkpoint
    with pytest.raises(GenerationError, match="memory://bucket/run belongs to another prompt"):
        Checkpoint(url, MINE | {"prompt": "other"})


def test_an_answer_is_there_when_it_is_added(url):
    """Whoever is killed then has lost nothing."""
    with Checkpoint(url, MINE) as checkpoint:
        for row in range(3):
            checkpoint.add(f"key {row}", ANSWER)
            with Checkpoint(url, MINE) as other:
                assert len(other) == row + 1


def test_full_parts_are_not_written_again(url, monkeypatch):
    monkeypatch.setattr(module, "_PART", 500)
    fill(url, 12)
    assert len(parts(url)) == 3
    with Checkpoint(url, MINE) as checkpoint:
        assert len(checkpoint) == 12


def test_threads_write_together(url, monkeypatch):
    written, write = [], Store.write

    def slow(self, name, data):
        time.sleep(0.05)
        written.append(name)
        write(self, name, data)

    monkeypatch.setattr(Store, "write", slow)
    with Checkpoint(url, MINE) as checkpoint, ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda row: checkpoint.add(f"key {row}", ANSWER), range(20)))
    assert len(written) < 10
    with Checkpoint(url, MINE) as checkpoint:
        assert len(checkpoint) == 20


def test_a_store_that_fails_ends_the_run_and_loses_nothing(url, monkeypatch):
    write, asked = Store.write, []

    def failing(self, name, data):
        if len(asked) >= 3:
            raise StorageError("the store is out of reach")
        write(self, name, data)

    def model(messages, schema):
        asked.append(1)
        return ["How do I set up the unit of the guide?"]

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", failing)
        with pytest.raises(StorageError, match="out of reach"):
            QueryGenerator(model, 1, concurrency=1, checkpoint=url, progress=False)(documents(6))
    asked.clear()
    result = QueryGenerator(model, 1, concurrency=1, checkpoint=url, progress=False).generate(documents(6))
    assert (len(asked), result.recorded) == (4, 2)


def test_async_runs_write_there_too(url):
    pairs = documents(6)
    asyncio.run(QueryGenerator(Extractive(), 1, checkpoint=url, progress=False).agenerate(pairs))
    assert QueryGenerator(Extractive(), 1, checkpoint=url, progress=False).generate(pairs).recorded == 6


def test_a_url_of_a_disk_is_a_path(tmp_path):
    path = tmp_path / "run.jsonl"
    fill(f"file://{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Checkpoint(path, MINE) as checkpoint, pytest.raises(GenerationError, match="Another run is writing"):
        assert len(checkpoint) == 3
        Checkpoint(f"file://{path}", MINE)


@pytest.mark.parametrize("url", ["s3://", "memory:///"])
def test_a_url_without_a_place_writes_nothing_on_this_disk(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="names no place in the object store"):
        fill(url)
    assert list(tmp_path.iterdir()) == []


def test_a_url_of_no_known_kind_is_refused():
    with pytest.raises(StorageError, match="Cannot open nowhere://bucket"):
        Checkpoint("nowhere://bucket/run", MINE)
