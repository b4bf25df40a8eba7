import errno
import json
import os

import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations.audit import AuditEntry, AuditLog, history, user
from deepmem_integrations.errors import EmbeddingMismatchError, ModelNotFoundError, NotTrainedError, StorageError
from deepmem_integrations.models import ModelFolder
from tests.jobs.helpers import add_model


@pytest.fixture
def folder(tmp_path):
    folder = ModelFolder(tmp_path / "m")
    for name in "abc":
        folder.save_model(name, QueryAdapter(2))
    return folder


def lines(folder):
    return [json.loads(line) for line in folder.audit.path.read_text().splitlines()]


def test_each_change_of_the_model_in_use_is_one_line(folder):
    folder.use("a", by="ada")
    folder.use("a", by="ada")  # changes nothing
    folder.use("b")
    assert [(line["action"], line["before"], line["in_use"], line["by"]) for line in lines(folder)] == [
        ("use", None, "a", "ada"),
        ("use", "a", "b", user()),
    ]
    assert str(folder.audit.entries()[0]).endswith("use a by ada")


def test_rollback_goes_back_step_by_step(folder):
    for name in "abc":
        folder.use(name)
    assert folder.roll_back(by="ada") == "b"
    assert folder.roll_back() == "a"
    with pytest.raises(ModelNotFoundError, match="No model was in use in .* before 'a'"):
        folder.roll_back()
    assert folder.in_use_name() == "a"
    folder.use("c")
    assert folder.roll_back() == "a"
    assert [line["action"] for line in lines(folder)] == ["use"] * 3 + ["rollback"] * 2 + ["use", "rollback"]
    assert lines(folder)[3]["reason"] == "back from c"


def test_rollback_without_a_model_or_without_the_model_before(folder):
    with pytest.raises(NotTrainedError):
        folder.roll_back()
    folder.use("a")
    folder.use("b")
    folder.delete_model("a")
    with pytest.raises(ModelNotFoundError, match=r"'a', which was in use before 'b', was deleted .* `deepmem use`: c"):
        folder.roll_back()
    assert folder.in_use_name() == "b"


def test_rollback_refuses_a_model_of_another_embedding_model(folder):
    folder.save_model("wide", QueryAdapter(3))
    folder.use("wide")
    folder.use("a", change_embedding=True)
    with pytest.raises(EmbeddingMismatchError):
        folder.roll_back()
    assert folder.roll_back(change_embedding=True) == "wide"


def test_models_of_a_version_without_a_log_know_their_parent(memory):
    first = add_model(memory)
    second = add_model(memory)
    memory.folder.audit.path.unlink()
    assert memory.rollback() == first
    memory.folder.audit.path.unlink()
    memory.folder.use(second)
    memory.folder.audit.path.unlink()
    assert memory.audit() == []


def test_an_earlier_version_between_two_lines_is_noticed():
    def entry(before, after, action="use"):
        return AuditEntry("", action, "", after, before, after)

    assert history([entry(None, "a"), entry("x", "b")], "b") == [None, "a", "x", "b"]
    assert history([entry(None, "a")], "x") == [None, "a", "x"]
    assert history([], "a") == ["a"]


def test_a_change_that_cannot_be_written_leaves_no_line(folder, monkeypatch):
    folder.use("a")

    def fail(path, text):
        raise StorageError("the disk is full")

    monkeypatch.setattr("deepmem_integrations.models.write_text", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        folder.use("b")
    assert folder.in_use_name() == "a"
    assert len(lines(folder)) == 1


def test_without_its_line_there_is_no_change(folder):
    folder.use("a")
    folder.audit.path.unlink()
    folder.audit.path.mkdir()  # nobody, not even root, can write to it
    with pytest.raises(StorageError, match="The model in use is unchanged"):
        folder.use("b")
    assert folder.in_use_name() == "a"


def test_what_cannot_be_opened_is_left_as_it_is(folder, monkeypatch):
    """Before, the log was emptied where a process had no descriptor left to open it."""
    folder.use("a")
    before = folder.audit.path.read_bytes()

    def refuse(*arguments, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(StorageError, match="Too many open files"), folder.audit.recorded("use", "a", before="a", in_use="b"):
        raise AssertionError
    monkeypatch.undo()
    assert folder.audit.path.read_bytes() == before != b""


def test_half_a_line_of_a_killed_process_spoils_no_other(folder, caplog):
    folder.use("a")
    with open(folder.audit.path, "a") as file:
        file.write('{"time": "20')
    folder.use("b")
    assert [entry.in_use for entry in folder.audit.entries()] == ["a", "b"]
    assert "1 lines of" in caplog.text


def test_a_later_version_may_add_what_this_one_does_not_know(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    with log.recorded("use", "a", before=None, in_use="a"):
        pass
    line = json.loads(log.path.read_text())
    log.path.write_text(json.dumps({**line, "mood": "good"}) + "\n")
    assert [entry.model for entry in log.entries()] == ["a"]


def test_a_user_without_a_name_has_a_number(monkeypatch):
    def unknown():
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert user() == f"uid {os.getuid()}"


def test_remembering_and_forgetting_say_who_asked(memory, problem):
    first = memory.train(problem.train.take(range(60)), by="ada")
    second = memory.remember(problem.train.take(range(60, 62)), by="bob")
    third = memory.forget(query_ids=["0"], by="eve")
    assert [(e.action, e.by, e.before, e.in_use) for e in memory.audit()] == [
        ("train", "ada", None, first),
        ("remember", "bob", first, second),
        ("forget", "eve", second, third),
    ]
    assert memory.rollback(by="ada") == second
    memory.set_model(first, by="ada")
    assert memory.rollback() == second


def test_a_process_that_was_killed_between_its_line_and_the_change_changed_nothing(folder):
    folder.use("a")
    folder.use("b")
    with folder.audit.recorded("use", "c", before="b", in_use="c"):
        pass  # killed here
    assert folder.in_use_name() == "b"
    assert folder.roll_back() == "a"
    folder.use("c")
    assert history(folder.audit.entries(), "c") == [None, "a", "c"]
