import socket
import time

import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.ui import app, workspace
from deepmem_integrations.ui.carried import gone
from deepmem_integrations.ui.texts import cut
from deepmem_integrations.ui.work import Works
from deepmem_integrations.ui.workspace import Workspace
from tests.cli.helpers import deepmem
from tests.ui.conftest import open_texts


def ended(work):
    deadline = time.monotonic() + 60
    while work.running:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return work


def test_two_processes_share_the_labels(work, tmp_path):
    other = Workspace(tmp_path / "memory", tmp_path / "root", open_texts, store="texts:here")
    other.judge("how to undo", "revert.md#1", True, list, "Ada")
    work.judge("how to undo", "clone.md#1", False, list, "Bob")
    (label,) = other.labelled()
    assert label.values == {"revert.md#1": 1.0, "clone.md#1": -1.0}
    other.forget(label.query.query_id)
    assert work.judged("how to undo") == {}
    work.judge("how to undo", "clone.md#1", True, list, "Bob")
    assert [one.values for one in other.labelled()] == [{"clone.md#1": 1.0}], "a thumb is never lost on a forgotten query"
    other.close()


def test_queries_are_written_once(work):
    for _ in range(2):
        done = ended(work.generate(work.generator("extractive", 2, None, None), "extractive", "Ada"))
        assert (done.state, done.error) == ("done", "")
        found = work.labels()
        assert len(found) == len(set(found.queries)) > 1
        assert all(found.generated) and {one.source for one in work.labelled()} == {"extractive"}
    assert done.title.startswith(f"{len(found)} queries kept")


APPLES = "Apples grow on trees in the orchard. Farmers harvest apples in autumn with ladders."
PEARS = "Pears ripen in the cellar after the harvest. The cellar should be cool and dark for pears."
BOATS = "Submarines dive below the sea with ballast tanks. Sailors aboard submarines sleep in bunks."


def read(work, **texts):
    """Let a folder hold these texts and no others, and read it."""
    for path in work.texts.iterdir():
        path.unlink()
    for name, text in texts.items():
        (work.texts / f"{name}.md").write_text(text)
    done = ended(work.read_folder(str(work.texts)))
    assert (done.state, done.error) == ("done", "")
    return done


def write_queries(work, per_document=2):
    done = ended(work.generate(work.generator("extractive", per_document, None, None), "extractive", "Ada"))
    assert (done.state, done.error) == ("done", "")
    return done


def judged(work):
    """Query → document → weight."""
    return {one.query.text: one.values for one in work.labelled()}


def test_queries_are_written_after_a_document_has_changed(notes):
    read(notes, a=APPLES)
    write_queries(notes)
    read(notes, a=APPLES, b=PEARS)
    assert "1 requests to send (1 answered before)" in notes.estimate(notes.generator("extractive", 2, None, None))
    write_queries(notes)
    assert {name for values in judged(notes).values() for name in values} == {"a.md#1", "b.md#1"}
    assert len(list((notes.own / "checkpoints").iterdir())) == 1


def test_labels_go_where_their_texts_are(notes):
    read(notes, a=APPLES, b=PEARS)
    write_queries(notes)
    notes.judge("fruit in a cellar", "b.md#1", True, list, "Ada")
    notes.judge("fruit in a cellar", "a.md#1", False, list, "Ada")
    before = judged(notes)
    assert read(notes, a=APPLES, b=PEARS).notes == ()
    done = read(notes, a=PEARS, b=APPLES)
    other = {"a.md#1": "b.md#1", "b.md#1": "a.md#1"}
    assert judged(notes) == {text: {other[name]: 1.0 * value for name, value in row.items()} for text, row in before.items()}
    assert done.notes == ("Labels that went along with their texts to other passages: 6.",)
    read(notes, a=APPLES, b=PEARS)
    assert judged(notes) == before


@pytest.mark.parametrize("done", [0, 2, 4])
def test_labels_go_where_their_texts_are_although_the_server_was_killed(notes, monkeypatch, done):
    read(notes, a=APPLES, b=PEARS)
    write_queries(notes)
    before = judged(notes)
    carry = workspace.carry

    def killed(log, labelled, old, new):
        carry(log, labelled[:done], old, new)
        raise KeyError("as if the process were gone")

    monkeypatch.setattr(workspace, "carry", killed)
    (notes.texts / "a.md").write_text(PEARS)
    (notes.texts / "b.md").write_text(APPLES)
    assert ended(notes.read_folder(str(notes.texts))).state == "failed"
    monkeypatch.setattr(workspace, "carry", carry)
    notes.close()
    again = Workspace(notes.folder, notes.root, notes._open_store, texts=notes.texts, embedding=notes.embedding)
    again.go_on()
    assert ended(again.works.get("read")).state == "done"
    other = {"a.md#1": "b.md#1", "b.md#1": "a.md#1"}
    assert judged(again) == {text: {other[name]: value for name, value in row.items()} for text, row in before.items()}
    again.works = Works()
    again.go_on()
    assert again.works.get("read") is None, "once"
    again.close()


def test_labels_wait_for_texts_that_are_gone(notes):
    read(notes, a=APPLES, b=PEARS)
    write_queries(notes)
    before, learned = judged(notes), notes.labels()
    done = read(notes, a=BOATS)
    assert done.notes == ("Labels that teach nothing now, since their texts are gone: 4. They come back if the texts do.",)
    assert len(notes.labels()) == 0
    assert [gone(name) for one in notes.labelled() for name in one.values] == ["b.md#1"] * 2 + ["a.md#1"] * 2
    assert write_queries(notes).notes[0] == "2 of them were not among the labels before"
    assert notes.labels().document_ids == {"a.md#1"} and not set(notes.labels().queries) & set(before)
    assert read(notes, b=PEARS, c=APPLES).notes[-1] == "Labels that came back with their texts: 4."
    assert set(notes.labels().queries) == set(learned.queries)
    assert notes.labels().document_ids == {"b.md#1", "c.md#1"}


def test_the_same_queries_are_added_once(notes):
    read(notes, a=APPLES, b=PEARS)
    write_queries(notes)
    done = write_queries(notes, per_document=3)
    assert done.notes[0] == "0 of them were not among the labels before"
    assert len(notes.labelled()) == 4


def test_a_label_of_any_kind_is_taken_back(notes):
    read(notes, a=APPLES)
    write_queries(notes)
    one, other = notes.labelled()
    notes.judge(one.query.text, "a.md#1", None, list, "Ada")
    assert [left.query.query_id for left in notes.labelled()] == [other.query.query_id]


def test_labels_that_were_deleted_or_taken_back_stay_away(notes):
    read(notes, a=APPLES, b=PEARS)
    write_queries(notes)
    one, other, *rest = notes.labelled()
    notes.forget(one.query.query_id)
    notes.judge(other.query.text, "b.md#1", None, list, "Ada")
    for per_document in (2, 3):
        assert write_queries(notes, per_document).notes[0] == "0 of them were not among the labels before"
        assert [left.query.query_id for left in notes.labelled()] == [left.query.query_id for left in rest]
    assert "Pears" not in (notes.own / "forgotten").read_text()
    notes.judge(one.query.text, "b.md#1", True, list, "Ada")
    assert len(notes.labelled()) == len(rest) + 1, "people may judge it again"


def test_words_follow_a_folder_that_is_read_again(notes):
    read(notes, a=APPLES, b=PEARS)
    memory = notes.opened.memory
    memory.train(Relevance(["in the orchard", "in the sea"] * 10, [[("a.md#1", 1.0)], [("b.md#1", 1.0)]] * 10))
    done = read(notes, a=PEARS, b=APPLES)
    assert list(notes.opened.memory.lexical_search.search("orchard", 1).ids) == ["b.md#1"]
    assert done.notes == (
        "The model in use was trained on 2 documents; since then 0 added, 2 changed, 0 gone",
        "A full training is due.",
    )


def test_work_of_a_kind_goes_on_once_and_can_be_stopped():
    works, steps = Works(), []

    def run(work):
        while True:
            steps.append(work)
            work.step(len(steps))
            time.sleep(0.001)

    first = works.start("read", "Reading", run)
    assert works.start("read", "Reading again", run) is first
    first.stop()
    assert ended(first).state == "stopped"
    failed = ended(works.start("read", "Reading", lambda work: 1 / 0))
    assert (failed.state, failed.error) == ("failed", "ZeroDivisionError: division by zero")


@pytest.mark.parametrize("arguments", [["--host", "0.0.0.0", "--port", "0"], ["--host", "203.0.113.7"], ["--port", "TAKEN"]])
def test_the_command_refuses_what_it_cannot_do(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPMEM_UI_PASSWORD", "short")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = deepmem("ui", *(port if word == "TAKEN" else word for word in arguments))
    assert refused.code == 2
    assert "password" in refused.err or "cannot listen" in refused.err


def test_a_folder_that_is_not_there_is_called_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("./nots", "nots", "/no/such"):
        refused = deepmem("ui", name, "--port", "0")
        assert refused.code == 2
        assert f"there is no folder {name}" in " ".join(refused.err.replace("│", " ").split())


def test_an_empty_password_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPMEM_UI_PASSWORD", "")
    monkeypatch.setattr(app, "serve", lambda *_: None)
    assert "/?token=" in deepmem("ui", "--port", "0").out


@pytest.mark.parametrize(
    "url",
    ["docs.example.com", "ftp://docs.example.com", "https://", "https://a/b", "https://a:b", "https://u@a", "https://a b", ""],
)
def test_a_public_url_is_that_of_a_server(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPMEM_UI_PASSWORD", "correct horse")
    refused = deepmem("ui", "--port", "0", "--public-url", url)
    assert refused.code == 2
    assert "is no address of a server" in " ".join(refused.err.replace("│", " ").split())


@pytest.mark.parametrize("sentence", ["यह एक वाक्य है। ", "これは文です。", "¿Dónde está? ", "This is one. "])
def test_long_paragraphs_are_cut_between_the_sentences_of_any_script(sentence):
    paragraph = (sentence * 40).strip()
    found = cut(paragraph, most=100)
    assert all(len(piece) <= 100 and piece.endswith(sentence.strip()[-1]) for piece in found)
    assert "".join("".join(found).split()) == "".join(paragraph.split())
