import json
import os

import pytest

from deepmem_integrations.errors import FeedbackError, StorageError
from deepmem_integrations.feedback import FeedbackLog, Shown
from deepmem_integrations.feedback.exchange import read_file


def filled(log):
    query_id = log.record(
        "how do I undo ☃?", [Shown("doc-1", 0.5, {"vector": 1}), None, Shown("doc-2")], model="m", run_id="r", user="u"
    )
    log.thumb(query_id, "doc-2", up=True, source="agent")
    log.click("r", "doc-1", position=1)
    log.record("never judged", ["doc-1"], session="s", tenant="t")
    log.thumb("unknown", up=None)
    return query_id


def test_what_is_exported_comes_back_whole_and_once(log, tmp_path):
    filled(log)
    assert log.export(tmp_path / "log.jsonl") == 2
    with FeedbackLog(tmp_path / "other.db") as other:
        for _ in range(2):
            assert other.import_from(tmp_path / "log.jsonl") == 2
            assert list(other.queries()) == list(log.queries())
            assert {**other.stats(), "dropped": 0} == {**log.stats(), "dropped": 0}
        assert other.export(tmp_path / "again.jsonl") == 2
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "log.jsonl").read_text()
    assert log.import_from(tmp_path / "log.jsonl") == 2, "into itself"
    assert log.stats()["queries"] == 2


def test_a_log_with_hashes_takes_no_texts_in(tmp_path):
    with FeedbackLog(tmp_path / "feedback.db") as log:
        filled(log)
        log.export(tmp_path / "log.jsonl")
    with FeedbackLog(tmp_path / "hashes.db", texts=False) as other:
        other.import_from(tmp_path / "log.jsonl")
        assert [query.text for query in other.queries()] == [None, None]
        assert other.labels("judged", texts=["how do I undo ☃?"]).queries == ("how do I undo ☃?",)


GOOD = {"query_id": "q", "text": "a question", "time": 1.0, "shown": [{"document_id": "doc-1"}], "events": []}
EVENT = {"query_id": "q", "event_id": "e", "kind": "click", "document_id": "doc-1", "value": 1.0, "time": 2}


def test_a_line_may_leave_out_what_is_not_known(tmp_path):
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(GOOD)}\n\n{json.dumps({'events': [EVENT]})}\n")
    with FeedbackLog(tmp_path / "feedback.db") as log:
        assert log.import_from(tmp_path / "log.jsonl") == 1
        assert [name for name, _ in log.labels("clicks").labels[0]] == ["doc-1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: this is no line of a feedback log"),
        ("[]", "A line is an object"),
        ("{}", "has a query_id, or events"),
        (json.dumps({**GOOD, "time": None}), "has a query_id and a time"),
        (json.dumps({**GOOD, "time": "now"}), "time is a number of POSIX seconds; got 'now'"),
        (json.dumps({**GOOD, "text": 7}), "text is a string; got 7"),
        (json.dumps({**GOOD, "shown": {}}), "shown is a list"),
        (json.dumps({**GOOD, "shown": ["doc-1"]}), "is an object with a document_id; got 'doc-1'"),
        (json.dumps({**GOOD, "shown": [{"document_id": "doc-1", "channels": {"vector": "1"}}]}), "channels map names to ranks"),
        (json.dumps({**GOOD, "events": [7]}), "An event is an object; got 7"),
        (json.dumps({**GOOD, "events": [{**EVENT, "kind": "shout"}]}), "a kind of"),
        (
            json.dumps({"events": [{**EVENT, "position": True}]}),
            "is the rank of the document, 1 for the first; got True",
        ),
        (json.dumps({"events": [{**EVENT, "position": 2**70}]}), "position is the rank of the document"),
        (json.dumps({"events": [{**EVENT, "value": 10**400}]}), "value is a finite number; got 1000"),
        (json.dumps({**GOOD, "time": 1e300}), "time is a number of POSIX seconds"),
        (json.dumps({**GOOD, "shown": [{"document_id": "doc-1", "score": 10**400}]}), "score is a finite number; got 1000"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, line, message):
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with FeedbackLog(tmp_path / "feedback.db") as log, pytest.raises(FeedbackError, match=message) as caught:
        log.import_from(tmp_path / "log.jsonl")
    assert "line 2" in str(caught.value)


def test_files_that_cannot_be_read_or_written_are_told(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes('{"query_id": "ä"}'.encode("latin-1"))
    with FeedbackLog(tmp_path / "feedback.db") as log:
        with pytest.raises(StorageError, match=r"Cannot read .*gone\.jsonl"):
            log.import_from(tmp_path / "gone.jsonl")
        with pytest.raises(StorageError, match="not UTF-8"):
            log.import_from(tmp_path / "latin.jsonl")
        with pytest.raises(StorageError, match="Cannot write .*nowhere"):
            log.export(tmp_path / "nowhere" / "log.jsonl")
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_a_file_that_is_none_hangs_nobody_and_deep_nesting_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="regular file"):
        list(read_file(tmp_path / "pipe"))
    (tmp_path / "deep.jsonl").write_text('{"events": ' + "[" * 5000 + "]" * 5000 + "}")
    with pytest.raises(FeedbackError, match="line 1.*nested"):
        list(read_file(tmp_path / "deep.jsonl"))
