import copy
import gc
import os
import pickle
import stat
import threading
import time
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from deepmem_integrations.errors import DeepMemoryError, FeedbackError, StorageError
from deepmem_integrations.feedback import FeedbackLog, LoggedQuery, Shown, unrecorded

SHOWN = [Shown("doc-1", 0.9, {"vector": 1, "words": 4}), Shown("doc-2", 0.5, {"answers": 1}), None, Shown("doc-3")]


def asked(log, days_ago, query_id, **more):
    """Record a query of the past."""
    query = LoggedQuery(query_id, f"question {query_id}", None, time.time() - 86400 * days_ago, (Shown("doc-1"),), **more)
    log._writer.put(query)
    log.flush()


def test_a_query_comes_back_as_it_was_recorded(log):
    before = time.time()
    query_id = log.record("how do I undo a commit?", SHOWN, model="m-1", tenant="acme", session="s-1", user="u-9", run_id="run-1")
    query = log.get(query_id)
    assert query.shown == tuple(SHOWN)
    assert query.document_ids == ["doc-1", "doc-2", "doc-3"]
    assert (query.text, query.model, query.tenant, query.session, query.user) == (
        "how do I undo a commit?",
        "m-1",
        "acme",
        "s-1",
        "u-9",
    )
    assert before <= query.time <= time.time()
    assert log.get("run-1") == query, "the run's id is as good"


def test_what_is_shown_may_be_pairs_and_a_time_a_text(log):
    """As searches with scores return them, and as shells and JSON write times."""
    query_id = log.record("undo", [("doc-1", np.float32(0.5)), ["doc-2", None], "doc-3", None])
    assert log.get(query_id).shown == (Shown("doc-1", 0.5), Shown("doc-2"), Shown("doc-3"))
    log.thumb(query_id, "doc-1", up=True)
    assert len(log.labels("judged", since="2026-01-01T00:00:00Z", until=time.time() + 60)) == 1
    assert not len(log.labels("judged", until="2026-01-01"))


def test_scores_may_be_numbers_of_any_kind(log):
    assert [one.score for one in log.get(log.record("a question", {"b": np.float32(0.25), "c": 1}.items())).shown] == [0.25, 1.0]
    assert log.get(log.record("a question", [Shown("a", Decimal("0.5"))])).shown[0].score == 0.5
    shown = [Shown("a", np.array(0.5)), Shown("b", float("nan")), Shown("c", "high")]
    assert [one.score for one in log.get(log.record("a question", shown)).shown] == [0.5, None, None]


def test_feedback_comes_back_with_its_query_by_either_id(log):
    query_id = log.record("a question", ["doc-1", "doc-2"], run_id="run-1")
    log.thumb(query_id, "doc-2", up=True, source="support agent", user="u-1")
    log.click("run-1", "doc-1", position=2)
    log.cite(query_id, ["doc-1", "doc-2"])
    log.grade("run-1", {"doc-1": 3})
    log.thumb(query_id, up=False)
    events = log.get(query_id).events
    assert [(event.kind, event.document_id, event.value, event.position) for event in events] == [
        ("thumb", "doc-2", 1.0, None),
        ("click", "doc-1", 1.0, 2),
        *sorted(
            [("cite", "doc-1", 1.0, None), ("cite", "doc-2", 1.0, None)],
            key=lambda e: [x.document_id for x in events].index(e[1], 2),
        ),
        ("grade", "doc-1", 3.0, None),
        ("thumb", None, -1.0, None),
    ]
    assert (events[0].source, events[0].user) == ("support agent", "u-1")


def test_feedback_may_be_there_before_its_query(place):
    with FeedbackLog(place) as first, FeedbackLog(place) as second:
        query_id = first.record("a question", ["doc-1"])
        second.thumb(query_id, "doc-1", up=True)
        second.flush()
        first.flush()
        assert second.labels("judged").labels == ((("doc-1", 1.0),),)


@pytest.mark.parametrize("block", [lambda log: log.context(user="u-9"), lambda log: unrecorded()])
def test_a_block_that_is_left_in_another_thread_is_told(log, caplog, block):
    """FastAPI runs the halves of a generator in threads of its own."""

    def dependency():
        with block(log):
            yield

    generator = dependency()
    copy_context().run(next, generator)
    assert next(generator, "the end") == "the end"
    assert "entered in one thread or task and left in another" in caplog.text
    assert log.get(log.record("a question", ["doc-1"])).user is None


def test_the_context_says_whose_query_it_is_in_this_thread_alone(log):
    seen = []
    with log.context(session="s-1", user="u-1"), log.context(user="u-2", tenant="acme"):
        inner = log.record("a question", ["doc-1"])
        log.thumb(inner, "doc-1", up=True)
        explicit = log.record("a question", ["doc-1"], user="u-3")
        thread = threading.Thread(target=lambda: seen.append(log.record("another", ["doc-1"])))
        thread.start()
        thread.join()
    outer = log.record("a question", ["doc-1"])
    assert [(log.get(name).session, log.get(name).user, log.get(name).tenant) for name in (inner, explicit, *seen, outer)] == [
        ("s-1", "u-2", "acme"),
        ("s-1", "u-3", "acme"),
        (None, None, None),
        (None, None, None),
    ]
    assert log.get(inner).events[0].user == "u-2"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda log: log.thumb("", up=True), "query_id is a string that is not empty"),
        (lambda log: log.thumb(7, up=True), r"got 7 \(int\)"),
        (lambda log: log.thumb("q", 7, up=True), "document_id is a string"),
        (lambda log: log.thumb("q", None, up=True), r"The document has no id.*leave document_id out"),
        (lambda log: log.thumb("q", up=1), "up is True, False or None; got 1"),
        (lambda log: log.click("q", "doc-1", position=0), "position is the rank of the document, 1 for the first; got 0"),
        (lambda log: log.click("q", "doc-1", position=True), "got True"),
        (lambda log: log.click("q", "doc-1", position="2"), "got '2'"),
        (lambda log: log.click("q", "doc-1", position=2**40), "position is the rank"),
        (lambda log: log.cite("q", "doc-1"), r"write \['doc-1'\]"),
        (lambda log: log.cite("q", ["doc-1", None]), "document_ids is a string that is not empty; got None"),
        (lambda log: log.grade("q", {"doc-1": float("nan")}), "'doc-1' has nan"),
        (lambda log: log.grade("q", {"doc-1": True}), "'doc-1' has True"),
        (lambda log: log.grade("q", [("doc-1", 1)]), "grades maps document ids to weights, .*; got list"),
        (lambda log: log.grade("q", {"doc-1": "3"}), "'doc-1' has '3'"),
        (lambda log: log.grade("q", {"doc-1": 10**400}), "A grade is a finite number"),
        (lambda log: log.thumb("q" * 501, up=True), "query_id has at most 500 characters; got 501"),
        (lambda log: log.labels("all"), "policy is one of 'cited', 'first', 'shared', 'judged', 'clicks'; got 'all'"),
        (lambda log: log.get("nobody"), "holds no query with the id 'nobody'"),
        (lambda log: log.forget(), "one of query_ids, user, session and older_than"),
        (lambda log: log.forget(user="u", session="s"), "one of query_ids, user, session and older_than"),
        (lambda log: log.forget("q"), r"write \['q'\]"),
        (lambda log: log.forget(older_than=30), r"an age, such as timedelta\(days=30\)"),
        (lambda log: log.labels("judged", since="yesterday"), "A time is a datetime, .*; got 'yesterday'"),
        (lambda log: log.labels("judged", texts="a question"), r"write \['a question'\]"),
        (lambda log: log.record("q", [7]), r"shown holds ids, which are strings, .*; got 7 \(int\)"),
        (lambda log: log.record("q", [("doc-1", "0.9")]), "shown holds ids"),
        (lambda log: log.record("q", "doc-1"), r"shown is a list of ids.*; got 'doc-1' \(str\)"),
        (lambda log: log.record("q", {"doc-1", "doc-2"}), r"best first; got .* \(set\)"),
        (lambda log: log.record("q", frozenset({"doc-1"})), r"best first; got .* \(frozenset\)"),
        (lambda log: log.record("q", {"doc-1": 0.9}), r"\(id, score\) pairs.*\(dict\)"),
        (lambda log: log.record(["doc-1"], "q"), r"query is the text of a query; got \['doc-1'\]"),
        (lambda log: log.record(None, ["doc-1"]), "query is the text of a query; got None"),
        (lambda log: log.labels("judged", tenant=["acme"]), r"tenant is a string that is not empty; got \['acme'\]"),
        (lambda log: list(log.queries(tenant=7)), "tenant is a string that is not empty; got 7"),
        (lambda log: log.forget(user=["u-1"]), r"user is a string that is not empty; got \['u-1'\]"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, call, message):
    with FeedbackLog(tmp_path / "feedback.db") as log:
        with pytest.raises(FeedbackError, match=message):
            call(log)
        assert log.stats()["queries"] == log.stats()["thumbs_up_on_answers"] == 0


@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        ("mysql://host/database", {}, "SQLite file or a Postgres database; got mysql"),
        (":memory:", {}, "is a file, such as feedback.db"),
        ("sqlite://", {}, "is a file, such as feedback.db"),
        ("postgresql+nodriver://host/database", {}, "knows no driver postgresql.nodriver"),
        ("://secret-password", {}, "This is no URL of a database"),
        ("{folder}/f.db", {"keep_days": 0}, "keep_days is a number of days above 0"),
        ("{folder}/f.db", {"queue_size": 0}, "queue_size is a number of entries"),
        ("{folder}/f.db", {"hash_key": "x" * 65}, "at most 64 bytes"),
    ],
)
def test_places_and_options_that_cannot_be_are_refused(tmp_path, place, options, message):
    with pytest.raises(FeedbackError, match=message) as caught:
        FeedbackLog(place.format(folder=tmp_path), **options)
    assert "secret-password" not in str(caught.value)


def test_a_place_that_cannot_be_opened_is_told(tmp_path):
    (tmp_path / "file").write_text("x" * 5000)
    with pytest.raises(StorageError, match="Cannot open the feedback log .*file.*not a database"):
        FeedbackLog(tmp_path / "file")
    with pytest.raises(StorageError, match="Cannot open the feedback log"):
        FeedbackLog(tmp_path / "file" / "feedback.db")


def test_a_server_that_does_not_answer_is_told_without_its_password():
    pytest.importorskip("psycopg")
    with pytest.raises(StorageError, match=r"Cannot open the feedback log postgresql\+psycopg://u:\*\*\*@") as caught:
        FeedbackLog("postgresql+psycopg://u:secret-password@127.0.0.1:1/database")
    assert "secret-password" not in str(caught.value)


def test_files_are_for_their_owner_alone(tmp_path):
    before = os.umask(0o022)
    try:
        with FeedbackLog(tmp_path / "new folder" / "feedback.db") as log:
            log.record("a question", ["doc-1"])
            log.flush()
            log.export(tmp_path / "new folder" / "export.jsonl")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new folder").iterdir()}
    finally:
        os.umask(before)
    assert {"feedback.db", "feedback.db-wal", "export.jsonl"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with FeedbackLog("~/feedback.db"):
        assert (tmp_path / "feedback.db").is_file()


def test_texts_that_no_database_holds_are_mended(log):
    query_id = log.record("half \ud83d and \0", [Shown("doc\0", float("nan"))], user="u\0")
    query = log.get(query_id)
    assert (query.text, query.document_ids, query.user, query.shown[0].score) == ("half � and �", ["doc�"], "u�", None)


def test_ids_that_no_index_holds_are_cut(log):
    query_id = log.record("a question" * 1000, ["doc-1" * 1000], user="ü" * 10_000, session="s" * 10_000, run_id="r" * 10_000)
    log.thumb(query_id, "doc-1" * 1000, up=True, user="ü" * 10_000)
    log.flush()
    assert log.get(query_id).user == "ü" * 500
    assert log.labels("judged").labels == ((("doc-1" * 1000, 1.0),),)


def test_a_log_may_keep_hashes_in_place_of_texts(place, caplog):
    with FeedbackLog(place, texts=False) as log:
        query_id = log.record("how do I undo a commit?", ["doc-1"])
        log.thumb(query_id, "doc-1", up=True)
        again = log.record("how do I undo a commit?", ["doc-1"])
        other = log.record("how do I stash?", ["doc-1"])
        hashes = [log.get(name).text_hash for name in (query_id, again, other)]
        assert hashes[0] == hashes[1] != hashes[2]
        assert log.get(query_id).text is None
        assert log.labels("judged").left_out == {"a query whose text the log does not keep": 1}
        labels = log.labels("judged", texts=["how do I stash?", "how do I undo a commit?"])
        assert (labels.queries, labels.labels) == (("how do I undo a commit?",), ((("doc-1", 1.0),),))
        keyed = FeedbackLog(place, texts=False, hash_key="secret")
        assert "1 of 1 queries with feedback give no label" in caplog.text and "--texts FILE" in caplog.text
        assert "hash_key" not in caplog.text
        assert len(keyed.labels("judged", texts=["how do I undo a commit?"])) == 0, "another key finds nothing"
        assert "open the log with the hash_key= that it was written with" in caplog.text
    if not place.startswith("postgres"):
        with open(place, "rb") as file:
            assert b"undo" not in file.read()


def test_what_is_forgotten_is_gone(log):
    def left():
        log.flush()
        return sorted(query.query_id for query in log.queries()), log.stats()

    asked(log, 0, "q-1", user="anna", session="s-1", run_id="run-1")
    asked(log, 0, "q-2", user="anna", session="s-2")
    asked(log, 0, "q-3", user="bert", session="s-2")
    asked(log, 100, "q-4", user="bert", session="s-3")
    asked(log, 0, "q-5")
    for query_id in ("run-1", "q-2", "q-3", "q-4", "q-5"):
        log.thumb(query_id, "doc-1", up=True, user="anna" if query_id == "q-5" else None)
        log.click(query_id, "doc-1")
    assert [query.query_id for query in log.queries(user="anna")] == ["q-1", "q-2"]
    assert [query.query_id for query in log.queries(session="s-2")] == ["q-2", "q-3"]
    assert log.forget(["run-1", "nobody"]) == 1
    assert left()[0] == ["q-2", "q-3", "q-4", "q-5"]
    assert (left()[1]["clicks"], left()[1]["documents_shown"]) == (4, 4), "with what was shown and thought"
    assert log.forget(older_than=timedelta(days=90)) == 1
    assert left()[0] == ["q-2", "q-3", "q-5"]
    assert log.forget(user="anna") == 1
    assert left()[0] == ["q-3", "q-5"]
    assert (left()[1]["thumbs_up_on_documents"], left()[1]["clicks"]) == (1, 2), "also what she thought of others' queries"
    assert log.forget(session="s-2") == 1
    assert log.forget(older_than=datetime.now(UTC) + timedelta(days=1)) == 1
    counts = left()[1]
    assert {name: count for name, count in counts.items() if count} == {}


def test_queries_of_one_run_are_forgotten_one_by_one(log):
    """A run of several queries, as of a retriever that asks sub-questions. Before, the first took the feedback of all with it."""
    first, second = (log.record(text, ["doc-1"], run_id="run-1") for text in ("first part", "second part"))
    log.thumb("run-1", "doc-1", up=True)
    assert log.forget([first]) == 1
    assert log.labels("judged").queries == ("second part",)
    assert log.forget([second]) == 1
    assert log.stats()["thumbs_up_on_documents"] == 0


def test_forgotten_bytes_are_overwritten(tmp_path):
    place = tmp_path / "feedback.db"
    with FeedbackLog(place) as log:
        for row in range(100):
            log.record(f"unspeakable question {row}", ["doc-1"], user="anna")
        log.flush()
        files = [path for path in tmp_path.iterdir() if b"unspeakable" in path.read_bytes()]
        assert files, "there is something to overwrite"
        log.forget(user="anna")
        assert [path for path in tmp_path.iterdir() if b"unspeakable" in path.read_bytes()] == []


def test_old_queries_are_forgotten_by_themselves(place):
    with FeedbackLog(place) as log:
        for days in (0, 10, 40):
            asked(log, days, f"q-{days}")
            log.thumb(f"q-{days}", "doc-1", up=True)
    with FeedbackLog(place, keep_days=30) as log:
        for _ in range(200):
            if len(list(log.queries())) == 2:
                break
            time.sleep(0.02)
        assert [query.query_id for query in log.queries()] == ["q-10", "q-0"]


def test_queries_are_read_in_pieces_in_the_order_of_time(log):
    now = time.time()
    for row in range(1203):  # many at the same time
        log._writer.put(
            LoggedQuery(f"q-{row:04}", f"question {row}", None, now + row // 7, (Shown("doc-1"),), tenant=f"t-{row % 2}")
        )
    log.flush()
    assert [query.query_id for query in log.queries()] == [f"q-{row:04}" for row in range(1203)]
    assert len(list(log.queries(tenant="t-1"))) == 601
    first, last = (datetime.fromtimestamp(now + offset, UTC) for offset in (49.5, 99.5))
    assert [query.query_id for query in log.queries(since=first, until=last)] == [f"q-{row:04}" for row in range(350, 700)]
    assert len(list(log.queries(since=first.replace(tzinfo=None)))) == 1203 - 350, "a time without a time zone is in UTC"


def test_a_copy_writes_into_the_same_log_and_a_pickle_opens_it_again(place):
    with FeedbackLog(place) as log:
        assert copy.copy(log) is copy.deepcopy(log) is log
        with pickle.loads(pickle.dumps(log)) as other:
            other.record("a question", ["doc-1"])
            other.flush()
        assert len(list(log.queries())) == 1


def test_a_process_opens_a_pickled_log_once(tmp_path):
    """Before, each task of a queue left a thread and open files behind."""
    with FeedbackLog(tmp_path / "feedback.db", keep_days=30) as log:
        pickled = pickle.dumps(log)
    pickle.loads(pickled).record("a question", ["doc-1"])
    threads = threading.active_count()
    for _ in range(5):
        again = pickle.loads(pickled)
        again.record("a question", ["doc-1"])
    assert threading.active_count() == threads
    assert again.stats()["queries"] == 6
    again.close()


@pytest.mark.parametrize("keep_days", [None, 30])
def test_a_log_that_nobody_holds_any_more_is_written_and_its_thread_ends(tmp_path, keep_days):
    before = set(threading.enumerate())
    for _ in range(3):
        FeedbackLog(tmp_path / "feedback.db", keep_days=keep_days).record("a question", ["doc-1"])
    gc.collect()
    deadline = time.monotonic() + 60
    while any(thread.name == "deepmem feedback" for thread in set(threading.enumerate()) - before):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with FeedbackLog(tmp_path / "feedback.db") as log:
        assert log.stats()["queries"] == 3


def test_a_pickle_opens_the_same_file_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with FeedbackLog("feedback.db") as log:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        with pickle.loads(pickle.dumps(log)) as other:
            other.record("a question", ["doc-1"])
        assert len(list(log.queries())) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_statistics_say_what_is_there(log):
    assert log.stats()["first"] is None
    query_id = log.record("a question", ["doc-1", "doc-2"], user="u", session="s")
    log.record("another", [])
    log.thumb(query_id, "doc-1", up=True)
    log.thumb(query_id, "doc-1", up=None)
    log.thumb(query_id, up=False)
    log.grade(query_id, {"doc-2": 2})
    counts = log.stats()
    assert datetime.fromisoformat(counts.pop("first")) <= datetime.fromisoformat(counts.pop("last")) <= datetime.now(UTC)
    assert {name: count for name, count in counts.items() if count} == {
        "queries": 2,
        "queries_with_feedback": 1,
        "documents_shown": 2,
        "thumbs_up_on_documents": 1,
        "thumbs_taken_back": 1,
        "thumbs_down_on_answers": 1,
        "grades": 1,
        "users": 1,
        "sessions": 1,
    }


def test_documents_without_ids_are_told_once(tmp_path, caplog):
    with FeedbackLog(tmp_path / "feedback.db") as log:
        log.record("a question", [None, Shown("doc-1")])
        log.record("a question", [])
        assert caplog.messages == []
        query_id = log.record("a question", [None, None])
        log.record("a question", [None])
        assert log.get(query_id).shown == ()
    assert len(caplog.messages) == 1
    assert "have no ids" in caplog.messages[0]


def test_many_threads_lose_nothing(log):
    def work(worker):
        for row in range(50):
            query_id = log.record(f"question {worker} {row}", ["doc-1", "doc-2"])
            log.click(query_id, "doc-2", position=2)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    counts = log.stats()
    assert (counts["queries"], counts["clicks"], counts["documents_shown"], log.dropped) == (400, 400, 800, 0)


def test_errors_are_of_the_tree():
    assert issubclass(FeedbackError, DeepMemoryError)


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no open file")
@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_a_log_whose_file_goes_away_goes_on_in_a_new_one(tmp_path, how, caplog):
    path = tmp_path / "feedback.db"
    with FeedbackLog(path) as log:
        log.record("before", ["doc-1"])
        log.flush()
        for file in sorted(tmp_path.iterdir()):
            file.unlink() if how == "deleted" else file.rename(tmp_path / f"old-{file.name}")
        assert log.stats()["queries"] == 0
        log.thumb(log.record("after", ["doc-2"]), "doc-2", up=True)
        log.flush()
        assert path.stat().st_mode & 0o077 == 0
        assert log.labels("judged").queries == ("after",)
    assert caplog.text.count("was deleted, moved or replaced. The log goes on in the file that is there now.") == 1
    with FeedbackLog(path) as again:
        assert again.labels("judged").queries == ("after",)
    if how == "moved":
        with FeedbackLog(tmp_path / "old-feedback.db") as old:
            assert [query.text for query in old.queries()] == ["before"]


@pytest.mark.skipif(os.name == "nt", reason="Windows moves no folder with an open file")
def test_a_log_whose_folder_is_away_for_a_while_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("deepmem_integrations.feedback.log._TIMEOUT", 0.3)
    (tmp_path / "disk").mkdir()
    with FeedbackLog(tmp_path / "disk" / "feedback.db") as log:
        log.record("before", ["doc-1"])
        log.flush()
        (tmp_path / "disk").rename(tmp_path / "elsewhere")
        log.record("meanwhile", ["doc-1"])
        with pytest.raises(StorageError, match="is gone"):
            log.stats()
        assert not (tmp_path / "disk").exists()
        (tmp_path / "elsewhere").rename(tmp_path / "disk")
        log.flush(20)
        assert [query.text for query in log.queries()] == ["before", "meanwhile"]
