"""Models in object stores: fsspec's store in memory, and S3 as moto's server speaks it, on this machine."""

import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, QueryAdapter, Tenants
from deepmem_integrations._locks import FileLock
from deepmem_integrations._store import Store
from deepmem_integrations.adapter import Fingerprint, Ranking
from deepmem_integrations.adapter import file as adapter_file
from deepmem_integrations.errors import EmbeddingMismatchError, NotTrainedError, StorageError
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.remote import RemoteModels, publish
from deepmem_integrations.serving import ServedAdapter
from deepmem_integrations.words import WordIndex
from tests.peak import peak_of

X = [3.0, 4.0]


def turned(by):
    """An adapter that adds a multiple of the turned vector."""
    turn = by * np.array([[0.0, 1.0], [-1.0, 0.0]], dtype=np.float32)
    return QueryAdapter(2, linear=turn, ranking=Ranking(words=1.0))


@pytest.fixture(autouse=True)
def copies(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPMEM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def url():
    return f"memory://{uuid.uuid4()}/support.deepmemory"


@pytest.fixture
def trained(tmp_path):
    """A folder with a model in use and a word index."""
    folder = ModelFolder(tmp_path / "trained")
    folder.save_model("one", turned(0.1))
    folder.use("one")
    WordIndex.build(folder.words_path, [(["a", "b"], ["one word", "another text"])])
    return folder


def files(url):
    import fsspec

    store, path = fsspec.core.url_to_fs(url)
    return sorted(name.partition("support.deepmemory/")[2] for name in store.find(path))


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.02)


def test_what_is_published_serves(trained, url):
    served = ServedAdapter(url)
    assert served.transform(X) == X, "nothing is published yet"
    with pytest.raises(NotTrainedError, match=r"No model was published to memory://.*memory\.publish\("):
        RemoteModels(url).in_use()
    publish(trained, url)
    remote = RemoteModels(url)
    assert remote.in_use_name() == "one"
    served = ServedAdapter(remote)
    assert served.name == f"one in {url}"
    assert served.transform(X) == trained.in_use()[1].transform(X).tolist()
    assert Ranker(remote).query("word", X).words(2).ids == ["a"]
    assert pickle.loads(pickle.dumps(remote)).in_use()[0] == "one"


def test_a_model_that_is_published_later_is_found(trained, url):
    publish(trained, url)
    remote = RemoteModels(url, every=0.05)
    served, ranker = ServedAdapter(remote), Ranker(remote)
    assert served.transform(X) == turned(0.1).transform(X).tolist()
    before = files(url)
    for turn in (2, 3):
        trained.save_model(f"model {turn}", turned(turn / 10))
        trained.use(f"model {turn}")
        trained.lexical_search.refresh([(["c"], [f"word {turn}"])])
        publish(trained, url)
        until(lambda turn=turn: served.transform(X) == turned(turn / 10).transform(X).tolist())
        assert ranker.query(f"word {turn}", X).words(2).ids == ["c"]
    assert [name for name in files(url) if name.startswith("models/")] == [
        "models/model 2.safetensors",
        "models/model 3.safetensors",
    ]
    assert len(files(url)) <= len(before) + 3, "what no reader needs is deleted"
    assert [path.name for path in remote.path.glob("models/*")] == ["model 3.safetensors"]


def test_where_the_store_cannot_be_reached_the_copy_serves(trained, url, monkeypatch, caplog):
    publish(trained, url)
    remote = RemoteModels(url, every=0.01)
    right = turned(0.1).transform(X).tolist()
    assert ServedAdapter(remote).transform(X) == right

    def down(self, name):
        raise StorageError("the network is down")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(Store, "find", down)
        for _ in range(10):
            time.sleep(0.02)
            assert ServedAdapter(remote).transform(X) == right
        until(lambda: "serves on" in caplog.text)
        until(lambda: not remote._looking.locked())  # its last look holds the copy's lock, and another process leaves it to that
        assert ServedAdapter(RemoteModels(url)).transform(X) == right, "a process that starts while the store is away"
        with pytest.raises(StorageError, match="network is down"):
            ServedAdapter(RemoteModels(f"{url}/other")).transform(X)
        assert ServedAdapter(RemoteModels(f"{url}/other"), on_broken="plain").transform(X) == X
        assert caplog.text.count("serves on") == 2, "once for each"
    trained.save_model("two", turned(0.2))
    trained.use("two")
    publish(trained, url)
    until(lambda: ServedAdapter(remote).transform(X) == turned(0.2).transform(X).tolist())


def test_a_damaged_model_takes_no_working_ones_place(trained, url, caplog):
    publish(trained, url)
    remote = RemoteModels(url, every=0.01)
    right = turned(0.1).transform(X).tolist()
    assert ServedAdapter(remote).transform(X) == right
    store = Store(url, {})
    for current, model in ((b"bad", b"damaged"), (b"gone", None), (b"../bad", b"damaged")):
        if model is not None:
            store.write("models/bad.safetensors", model)
        store.write("current", current)
        time.sleep(0.03)
        for _ in range(3):
            assert ServedAdapter(remote).transform(X) == right
            time.sleep(0.02)
    until(lambda: "serves on" in caplog.text)


def test_publishing_keeps_blue_and_green_apart(trained, url, tmp_path):
    publish(trained, url)
    other = ModelFolder(tmp_path / "other")
    other.save_model("three", QueryAdapter(3, fingerprint=Fingerprint(3, "another")))
    other.use("three")
    with pytest.raises(EmbeddingMismatchError, match="memory://.* serves the model one of .*change_embedding=True"):
        publish(other, url)
    assert RemoteModels(url).in_use()[0] == "one"
    publish(other, url, change_embedding=True)
    assert RemoteModels(url).in_use()[0] == "three"


def test_what_cannot_be_done_with_a_url_says_what_can(trained, url, memory):
    publish(trained, url)
    remote = RemoteModels(url)
    remote.in_use()
    for use in (
        lambda: remote.save_model("x", QueryAdapter(2)),
        lambda: remote.use("one"),
        lambda: remote.delete_model("one"),
        lambda: ModelFolder(url),
        lambda: DeepMemory(None, lambda texts: np.ones((len(texts), 2)), url),
    ):
        with pytest.raises(StorageError, match=r"memory\.publish\("):
            use()
    with pytest.raises(StorageError, match="on this machine"):
        Tenants("s3://bucket/{tenant}")
    with pytest.raises(StorageError, match="Cannot open nosuch://bucket"):
        ServedAdapter("nosuch://bucket/models")
    with pytest.raises(NotTrainedError):
        memory.publish(url)


def test_a_large_model_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(adapter_file, "MAPPED", 2**20)
    folder, url = ModelFolder(tmp_path / "trained"), f"file://{tmp_path}/published/support.deepmemory"
    for name in ("one", "two"):
        large = np.random.default_rng(0).normal(size=(2_000, 2_000)).astype(np.float32)
        folder.save_model(name, QueryAdapter(2_000, linear=large))
    for name in ("one", "two"):
        folder.use(name)
        assert peak_of(lambda: publish(folder, url))[1] < 4_000_000
        assert peak_of(RemoteModels(url).look)[1] < 4_000_000
        assert RemoteModels(url).in_use()[0] == name


def test_a_word_index_that_lacks_a_file_is_told(trained, url):
    for segment in trained.words_path.glob("*.safetensors"):
        segment.unlink()
    with pytest.raises(StorageError, match=r"Cannot write memory://.*words/"):
        publish(trained, url)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_during_a_look_leaves_no_lock(trained, url):
    publish(trained, url)
    remote = RemoteModels(url)
    with remote._looking:  # as a thread that looks holds it
        child = os.fork()
        if not child:
            os._exit(0 if remote.in_use_name() == "one" else 1)
    found = []
    until(lambda: found.append(os.waitpid(child, os.WNOHANG)) or found[-1][0])
    assert found[-1] == (child, 0)


def test_where_no_thread_starts_the_copy_serves_and_looks_later(trained, url, monkeypatch):
    publish(trained, url)
    remote = RemoteModels(url, every=0.0)
    remote.in_use()
    trained.save_model("two", turned(0.2))
    trained.use("two")
    publish(trained, url)

    def none_left(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        assert remote.in_use_name() == "one"
    until(lambda: remote.in_use_name() == "two")


def test_what_a_killed_process_was_copying_is_deleted(trained, url):
    publish(trained, url)
    remote = RemoteModels(url)
    remote.in_use()
    halves = [remote.path / "models" / ".one.safetensors.0123abcd.tmp", remote.words_path / ".a.safetensors.0123abcd.tmp"]
    for half in halves:
        half.write_bytes(b"half of it")
    remote.look()
    assert not any(half.exists() for half in halves)
    assert remote.in_use()[0] == "one"


@pytest.mark.parametrize("moment", ["before the name is written", "after it"])
def test_of_two_publications_at_a_time_one_serves(trained, url, tmp_path, monkeypatch, moment):
    other = ModelFolder(tmp_path / "other")
    other.save_model("two", turned(0.2))
    other.use("two")
    write, done = Store.write, []

    def interrupted(store, name, data):
        if moment == "after it":
            write(store, name, data)
        if name == "current" and not done:
            done.append(True)
            publish(other, url)
        if moment != "after it":
            write(store, name, data)

    monkeypatch.setattr(Store, "write", interrupted)
    publish(trained, url)
    assert RemoteModels(url).in_use()[0] == ("two" if moment == "after it" else "one")


def test_no_message_repeats_a_password(trained, caplog):
    url = "ftp://me:pass%40word@127.0.0.1:9/support.deepmemory"
    with pytest.raises(StorageError, match=r"Cannot open ftp://\*\*\*@127\.0\.0\.1:9/support") as told:
        publish(trained, url)
    remote = RemoteModels(url)
    for message in (str(told.value), remote.place, str(remote.nothing_trained()), str(remote._only_read())):
        assert "word" not in message and "***@127.0.0.1:9" in message
    assert pickle.loads(pickle.dumps(remote)).url == url


SERVICE = """
import sys, time
from deepmem_integrations.remote import RemoteModels
from deepmem_integrations.serving import ServedAdapter
served = ServedAdapter(RemoteModels(sys.argv[1], every=0.2))
print(served.transform([3.0, 4.0]), flush=True)
for line in sys.stdin:
    print(served.transform([3.0, 4.0]), flush=True)
"""


@pytest.mark.slow
def test_services_follow_a_bucket(memory, problem, s3, monkeypatch):
    pytest.importorskip("s3fs")
    for name, key in (("AWS_ACCESS_KEY_ID", "aws_access_key_id"), ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key")):
        monkeypatch.setenv(name, s3[key])
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3["endpoint_url"])
    url = "s3://bucket/team/support.deepmemory"
    x = problem.test_queries[:5]
    served = ServedAdapter(url)
    np.testing.assert_array_equal(served.apply(x), x)
    memory.train(problem.train.take(range(60)))
    memory.publish(url)
    served = ServedAdapter(RemoteModels(url, every=0.2))
    np.testing.assert_allclose(served.apply(x, memory.embedder), memory.transform(x), atol=1e-6)
    assert served.lexical_search.search(problem.ids[0], 1).ids == [problem.ids[0]]
    memory.set_model(memory.train(problem.train))
    memory.publish(url)
    until(lambda: np.allclose(served.apply(x), memory.transform(x), atol=1e-6))
    bad = {"key": "nobody", "endpoint_url": "http://127.0.0.1:9", "client_kwargs": {}}
    with pytest.raises(StorageError, match="Cannot reach s3://bucket"):
        RemoteModels("s3://bucket/elsewhere", options=bad).in_use()


@pytest.mark.slow
def test_processes_of_a_machine_share_the_copy(s3, trained, monkeypatch):
    pytest.importorskip("s3fs")
    for name, key in (("AWS_ACCESS_KEY_ID", "aws_access_key_id"), ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key")):
        monkeypatch.setenv(name, s3[key])
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3["endpoint_url"])
    url = "s3://bucket/shared/support.deepmemory"
    publish(trained, url)
    start = [sys.executable, "-c", SERVICE, url]
    services = [
        subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(3)
    ]
    try:
        for service in services:
            assert service.stdout.readline().strip() == str(turned(0.1).transform(X).tolist())
        trained.save_model("two", turned(0.2))
        trained.use("two")
        publish(trained, url)

        def answer(service):
            service.stdin.write("\n")
            service.stdin.flush()
            return service.stdout.readline().strip()

        for service in services:
            until(lambda service=service: answer(service) == str(turned(0.2).transform(X).tolist()))
    finally:
        for service in services:
            service.kill()
            service.communicate()


def test_stores_at_two_addresses_have_a_copy_each(monkeypatch):
    url = "s3://bucket/support.deepmemory"
    stores = [{}, {"endpoint_url": "http://one:9000"}, {"client_kwargs": {"endpoint_url": "http://two:9000"}}]
    copies = [RemoteModels(url, options=options).path for options in stores]
    copies.append(RemoteModels(url, options={"key": "other"}).path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://three:9000")
    copies.append(RemoteModels(url).path)
    assert len(set(copies)) == 4
    assert copies[0] == copies[3], "the same store with another key"


def test_a_new_process_serves_the_copy_while_another_one_copies(trained, url, tmp_path):
    publish(trained, url)
    assert RemoteModels(url, copy=tmp_path / "copy").in_use_name() == "one"
    trained.save_model("two", turned(0.2))
    trained.use("two")
    publish(trained, url)
    with FileLock(tmp_path / "copy" / "lock"):
        assert RemoteModels(url, copy=tmp_path / "copy").in_use_name() == "one"
    assert RemoteModels(url, copy=tmp_path / "copy").in_use_name() == "two"
