import json
import os
import re

import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.feedback import FeedbackLog, LoggedQuery, Shown
from tests.cli.helpers import deepmem


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPMEM_FEEDBACK", raising=False)
    with FeedbackLog(tmp_path / "feedback.db") as log:
        query_id = log.record(
            "how do I undo a commit?", ["doc-1", "doc-2"], user="u-9", session="s-1", run_id="run-1", tenant="acme"
        )
        log.cite(query_id, ["doc-1"])
        log.thumb("run-1", "doc-2", up=False)
        log.thumb("unknown", up=True)
        log._writer.put(LoggedQuery("old", "an old question", None, 1e9, (Shown("doc-1"),)))
    return tmp_path / "feedback.db"


def test_statistics(place):
    shown = deepmem("feedback", "stats", "--log", place)
    assert shown.code == 0, shown.err
    assert "queries                   2\n" in shown.out
    assert "citations                 1\n" in shown.out
    counts = deepmem("feedback", "stats", "--log", place, "--json").json
    assert (counts["queries"], counts["queries_with_feedback"], counts["thumbs_down_on_documents"]) == (2, 1, 1)


def test_labels(place, tmp_path):
    done = deepmem("feedback", "labels", tmp_path / "labels.jsonl", "--log", place, "--policy", "cited")
    assert done.code == 0, done.err
    assert "Relevance(1 queries, 1 labels, 1 judged irrelevant)" in done.out
    assert "left out: 1 × feedback on a query that is not in the log" in done.out
    labels = Relevance.from_jsonl(tmp_path / "labels.jsonl")
    assert (labels.labels, labels.irrelevant) == (((("doc-1", 1.0),),), ((("doc-2", -1.0),),))
    counted = deepmem(
        "feedback", "labels", tmp_path / "none.jsonl", "-l", place, "--policy", "judged", "--until", "2020-01-01", "--json"
    )
    assert counted.json["queries"] == 0
    assert deepmem("feedback", "labels", tmp_path / "x.jsonl", "-l", place, "--policy", "all").code == 2
    assert deepmem("feedback", "labels", tmp_path / "x.jsonl", "-l", place).code == 2, "the policy is named"


def test_labels_at_a_level(shop, place, tmp_path):
    first, second = shop.documents[0].id, shop.documents[4].id
    with FeedbackLog(place) as log:
        log.grade(log.record("a question", [first, second]), {first: 1.0, second: 0.0})
    options = ("feedback", "labels", tmp_path / "labels.jsonl", "--log", place, "--policy", "judged", "--level", "page")
    alone = deepmem(*options)
    assert "--level needs --store and --embedding" in re.sub(r"[\s│]+", " ", alone.err)
    with pytest.warns(UserWarning, match="document not in the corpus"):
        done = deepmem(*options, *shop.store[:4])
    assert done.code == 0, done.err
    labels = Relevance.from_jsonl(tmp_path / "labels.jsonl")
    assert (labels.level, labels.labels, labels.irrelevant) == ("page", ((("page-0", 1.0),),), ((("page-1", 0.0),),))


def test_labels_of_a_log_with_hashes(tmp_path, caplog):
    with FeedbackLog(tmp_path / "hashed.db", texts=False) as log:
        for question in ("how do I undo a commit?", "how do I stash?"):
            log.thumb(log.record(question, ["doc-1"]), "doc-1", up=True)
    command = ("feedback", "labels", tmp_path / "labels.jsonl", "--log", tmp_path / "hashed.db", "--policy", "judged")
    done = deepmem(*command)
    assert done.code == 0, done.err
    assert "left out: 2 × a query whose text the log does not keep" in done.out
    assert "2 of 2 queries with feedback give no label" in caplog.text and "--texts FILE" in caplog.text
    (tmp_path / "asked.txt").write_text("how do I stash?\nhow do I push?\n", encoding="utf-8")
    done = deepmem(*command, "--texts", tmp_path / "asked.txt")
    assert "Relevance(1 queries, 1 labels)" in done.out, done.err
    assert Relevance.from_jsonl(tmp_path / "labels.jsonl").queries == ("how do I stash?",)


def test_forgetting(place):
    assert deepmem("feedback", "forget", "-l", place, "--older-than-days", "100", "--json").json == {"forgotten": 1}
    assert deepmem("feedback", "forget", "-l", place, "--query", "run-1", "--query", "nobody").out == "1 queries are forgotten.\n"
    assert deepmem("feedback", "forget", "-l", place, "--user", "u-9", "--json").json == {"forgotten": 0}
    refused = deepmem("feedback", "forget", "-l", place)
    assert refused.code == 1
    assert "one of query_ids, user, session and older_than" in refused.err


def test_export_and_import(place, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPMEM_FEEDBACK", str(place))
    assert deepmem("feedback", "export", tmp_path / "log.jsonl").code == 0
    assert len([json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]) == 3
    assert deepmem("feedback", "import", tmp_path / "log.jsonl", "--log", tmp_path / "new.db", "--json").json == {"queries": 2}
    assert (tmp_path / "new.db").exists()


def test_a_misspelt_path_makes_no_log(tmp_path):
    done = deepmem("feedback", "stats", "--log", tmp_path / "fedback.db")
    assert done.code == 2
    assert "there is no feedback log" in done.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["stats", "labels", "forget", "export", "import"])
def test_every_command_shows_an_example(command):
    told = deepmem("feedback", command, "--help").out
    assert f"\n  Example:\n    deepmem feedback {command}" in told
    assert "--json" in told
