"""The queue, on real storage that is slow, away, or refuses an entry; forks, and the ends of processes."""

import gc
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from deepmem_integrations.errors import StorageError
from deepmem_integrations.feedback import FeedbackLog, Shown, writer

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "feedback.db"


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin immediate")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path):
    """Another process that writes and does not end."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield
        process.kill()


def ids(path):
    with FeedbackLog(path) as log:
        return [query.query_id for query in log.queries()]


def test_neither_queries_nor_verbs_wait_for_the_storage_and_what_waited_is_written(path):
    with FeedbackLog(path) as log:
        with locked(path):
            query_id = log.record("a question", ["doc-1"])
            log.thumb(query_id, "doc-1", up=True)
            with pytest.raises(
                StorageError, match=r"2 entries of the feedback log .* were not written in 0.2 seconds.*stay queued"
            ):
                log.flush(timeout=0.2)
        log.flush(timeout=60)
        assert log.get(query_id).events[0].value == 1.0


def test_a_log_closes_in_time_where_a_write_hangs(path, monkeypatch):
    """As at a server that does not answer any more."""
    log, over = FeedbackLog(path), threading.Event()
    monkeypatch.setattr(log._database, "_add", lambda connection, rows: over.wait(30))
    log.record("a question", ["doc-1"])
    time.sleep(0.2)  # the write has begun
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"not written in 0\.2 seconds"):
        log.close(timeout=0.2)
    assert time.monotonic() - started < 20
    over.set()


def test_a_full_queue_drops_counts_and_says_so_once(path, caplog):
    with FeedbackLog(path, queue_size=5) as log:
        with locked(path):
            kept = [log.record(f"question {row}", ["doc-1"]) for row in range(9)][:5]
        assert log.dropped == 4
        with pytest.raises(StorageError, match="4 entries .* were dropped since the last flush"):
            log.flush(60)
        log.flush(60)  # and no word of it again
        assert sorted(query.query_id for query in log.queries()) == sorted(kept)
        assert log.stats()["dropped"] == 4
    messages = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(messages) == 1
    assert "drops entries (the queue is full)" in messages[0]


def test_an_entry_that_cannot_be_stored_takes_no_other_along(path, caplog):
    with FeedbackLog(path) as log:
        with locked(path):  # so that all are in one batch
            good = [log.record("a question", ["doc-1"]) for _ in range(3)]
            log.record("a search with broken ranks", [Shown("doc-1", 0.5, {"vector": object()})])
            good.append(log.record("a question", ["doc-1"]))
        with pytest.raises(StorageError, match="1 entries .* were dropped"):
            log.flush(60)
        assert sorted(query.query_id for query in log.queries()) == sorted(good)
        assert log.dropped == 1


@pytest.mark.slow
def test_a_connection_that_breaks_is_made_anew(postgres, postgres_server):
    with FeedbackLog(postgres.replace("postgresql://", "postgresql+psycopg://")) as log:
        first = log.record("a question", ["doc-1"])
        log.flush()
        postgres_server.psql(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname is not null;"
        )
        second = log.record("another", ["doc-1"])
        log.thumb(first, "doc-1", up=True)
        log.flush(60)
        assert {query.query_id for query in log.queries()} == {first, second}
        assert len(log.get(first).events) == 1


@pytest.mark.slow
def test_storage_that_is_away_for_long_is_told_once_and_what_waited_is_written(path, caplog, monkeypatch):
    with FeedbackLog(path) as log:
        with locked(path):
            log.record("a question", ["doc-1"])
            with pytest.raises(StorageError):
                log.flush(timeout=0.8)
        log.flush(60)
        assert caplog.messages == [], "other processes may write for a moment"
        monkeypatch.setattr(writer, "_TELL_AFTER", 0.1)
        with locked(path):
            query_id = log.record("another", ["doc-1"])
            with pytest.raises(StorageError, match="database is locked"):
                log.flush(timeout=2)
        log.flush(60)
        assert log.get(query_id).text == "another"
    assert len(caplog.messages) == 2
    assert "database is locked. Feedback waits in memory" in caplog.messages[0]
    assert "is written again" in caplog.messages[1]


def test_a_closed_log_opens_again(path):
    log = FeedbackLog(path)
    first = log.record("a question", ["doc-1"])
    log.close()
    assert not any(thread.name == "deepmem feedback" and thread.is_alive() for thread in threading.enumerate())
    assert not path.with_name("feedback.db-wal").exists(), "the connection is closed"
    second = log.record("another", ["doc-1"])
    log.close()
    log.close()
    assert set(ids(path)) == {first, second}


def test_what_cannot_be_written_before_the_log_closes_is_dropped_and_counted(path):
    log = FeedbackLog(path)
    with locked(path):
        log.record("a question", ["doc-1"])
        with pytest.raises(StorageError, match="were not written in 0.1 seconds"):
            log.close(timeout=0.1)
        assert log.dropped == 1
    assert ids(path) == []


def test_the_end_of_a_process_writes_what_is_queued(path):
    script = f"""
from deepmem_integrations.feedback import FeedbackLog
log = FeedbackLog({str(path)!r})
for row in range(700):
    log.record(f"question {{row}}", ["doc-1"])
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert len(ids(path)) == 700


@FORKS
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.slow
def test_forked_processes_write_for_themselves(path):
    """A server that loads the application, answers a query, and then forks its workers."""
    log = FeedbackLog(path)
    log.record("before the fork", ["doc-1"])
    log.flush()
    with locked(path):
        log.record("queued at the fork", ["doc-1"])

        def work(worker):
            log.record(f"in the child {worker}", ["doc-1"])

        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=work, args=(worker,)) for worker in range(3)]
        for worker in workers:
            worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    log.record("after the fork", ["doc-1"])
    log.close(60)
    with FeedbackLog(path) as again:
        assert sorted(query.text for query in again.queries()) == [
            "after the fork",
            "before the fork",
            *(f"in the child {worker}" for worker in range(3)),
            "queued at the fork",
        ]


@FORKS
def test_a_process_forked_by_hand_writes_at_its_end_too(path):
    script = f"""
import os
from deepmem_integrations.feedback import FeedbackLog
log = FeedbackLog({str(path)!r})
log.record("parent", ["doc-1"])
if os.fork() == 0:
    log.record("child", ["doc-1"])
else:
    assert os.wait()[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)
    with FeedbackLog(path) as log:
        assert sorted(query.text for query in log.queries()) == ["child", "parent"]


def test_what_others_put_while_a_log_is_closed_is_written(path):
    """Tasks of one process share a pickled log, and one of them closes it."""
    with FeedbackLog(path) as log:
        stop, recorded = threading.Event(), []

        def record():
            while not stop.is_set():
                recorded.append(log.record("a question", ["doc-1"]))
                time.sleep(0.0005)

        recorder = threading.Thread(target=record)
        recorder.start()
        for _ in range(60):
            log.close()
        stop.set()
        recorder.join()
        log.flush()
        assert log.dropped == 0
        assert log.stats()["queries"] == len(recorded)


def test_a_log_is_freed_by_a_thread_that_holds_any_lock(path):
    """The garbage collector may run anywhere. Before, it waited for the writer, which waited to log a message."""
    log = FeedbackLog(path)
    writer = log._writer
    holding, free = threading.Event(), threading.Event()

    def hold():
        with writer._condition:
            holding.set()
            free.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    assert holding.wait(30)
    del log
    gc.collect()
    assert writer._retired
    free.set()
    other.join()
