import re

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter, Relevance
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import JobFailedError
from deepmem_integrations.jobs import trainer
from deepmem_integrations.models import ModelFolder
from tests.cli.helpers import EMBEDDING, deepmem, process
from tests.openai_server import DIMENSION, embed


def test_train_answers_with_the_job(shop):
    assert shop.job["state"] == "completed"
    assert shop.job["report"]["queries"] == len(shop.train)
    assert shop.job["report"]["ranking"]["seen"]["gains"]["recall@10"]["mean"] > 0
    assert QueryAdapter.load(shop.folder / "ds.deepmemory" / "models" / f"{shop.job['id']}.safetensors").remembered_queries.texts


def test_status_shows_v3s_table_or_json(shop):
    for where in (shop.jobs, ("--store", f"deeplake:{shop.folder / 'ds'}")):
        shown = deepmem("status", shop.job["id"], *where)
        assert shown.code == 0
        assert "| completed" in shown.out
        answer = deepmem("status", shop.job["id"], *where, "--wait", "--json").json
        documents = answer.pop("documents")
        assert answer == {**shop.job, "eta": 0.0}
        assert (documents["trained"], documents["added"], documents["retraining_due"]) == (len(shop.documents), 0, False)
    missing = deepmem("status", "0" * 24, *shop.jobs)
    assert (missing.code, missing.out) == (1, "")
    assert missing.err.startswith("deepmem: There is no training job '000")
    missing = deepmem("status", "0" * 24, *shop.jobs, "--json")
    assert missing.json["type"] == "JobNotFoundError"
    nowhere = deepmem("status", shop.job["id"])
    assert nowhere.code == 2
    assert "--path FOLDER" in nowhere.err


def test_the_environment_names_the_store(shop, monkeypatch):
    monkeypatch.setenv("DEEPMEM_STORE", f"deeplake:{shop.folder / 'ds'}")
    monkeypatch.setenv("DEEPMEM_EMBEDDING", EMBEDDING)
    assert deepmem("jobs", "--json").json[0]["id"] == shop.job["id"]
    assert deepmem("evaluate", shop.folder / "test.jsonl", "-k", 10).code == 0


def test_a_lost_training_goes_on(shop, tmp_path, monkeypatch):
    models = tmp_path / "models"
    few, where = tmp_path / "few.jsonl", (*shop.store, "--path", models)
    shop.train.take(range(5)).to_jsonl(few)

    def fail(*_, **__):
        raise JobFailedError("There is no Ray cluster.")

    for option in ((), ("--not-resumable",)):
        with monkeypatch.context() as patched:
            patched.setattr(trainer, "train_adapter", fail)
            assert deepmem("train", few, *where, *option).code == 1
        lost = deepmem("status", "--path", models, "--json").json
        assert (lost["state"], lost["resumable_until"] is None) == ("failed", bool(option))
        told = f"`deepmem resume {lost['id']}` goes on with it" in deepmem("doctor", "--path", models).out
        assert told is not bool(option)
        resumed = deepmem("resume", lost["id"], "--path", models, "--json")
        if option:
            assert resumed.code == 1 and "cannot go on" in resumed.json["error"]
        else:
            assert (resumed.json["id"], resumed.json["state"], resumed.json["resumable_until"]) == (lost["id"], "completed", None)
    again = deepmem("resume", lost["id"], "--path", models)
    assert (again.code, again.err.startswith(f"deepmem: The training {lost['id']} cannot go on")) == (1, True)


def test_jobs_models_use_and_delete(shop, tmp_path):
    models = tmp_path / "models"
    where = (*shop.store, "--path", models)
    few = tmp_path / "few.jsonl"
    shop.train.take(range(5)).to_jsonl(few)
    empty = deepmem("jobs", "--path", models)
    assert (empty.code, empty.out) == (0, f"No training job was found in {models}.\n")
    assert deepmem("models", "--path", models).out == f"No model was found in {models}.\n"
    assert deepmem("status", "--path", models).code == 1
    for command in ("jobs", "models"):
        assert "is no folder" in deepmem(command, "--path", shop.folder / "train.jsonl").err
    first, second = (deepmem("train", few, *where, "--seed", seed, "--json").json["id"] for seed in (1, 2))
    listed = deepmem("jobs", "--path", models)
    assert [line.split()[0] for line in listed.out.splitlines()] == ["ID", first, second]
    assert [job["id"] for job in deepmem("jobs", "--path", models, "--json").json] == [first, second]
    assert deepmem("status", "--path", models, "--json").json["id"] == second, "the newest"

    assert [info["in_use"] for info in deepmem("models", "--path", models, "--json").json] == [True, False]
    used = deepmem("use", second, "--path", models)
    assert (used.code, used.out) == (0, f"{second} is in use.\n")
    assert deepmem("models", "--path", models).out.splitlines()[1].startswith(f"* {second}")
    assert deepmem("use", first, "--path", models, "--json").json == {"name": first, "in_use": True}
    wrong = deepmem("use", "nope", "--path", models)
    assert wrong.code == 1
    assert "Please choose from the following models" in wrong.err

    ModelFolder(models).save_model("other", QueryAdapter(3))
    refused = deepmem("use", "other", "--path", models)
    assert refused.code == 1
    assert "on the command line --change-embedding" in refused.err
    assert deepmem("use", "other", "--path", models, "--change-embedding").code == 0
    refused = deepmem("train", few, *where)
    assert refused.code == 1
    assert "in a folder of its own" in refused.err
    assert deepmem("train", few, *where, "--change-embedding", "--json").json["state"] == "completed"
    newest = deepmem("status", "--path", models, "--json").json["id"]
    assert deepmem("use", first, "--path", models, "--change-embedding").code == 0
    assert deepmem("delete", newest, "--path", models, "--model").code == 0
    ModelFolder(models).delete_model("other")

    refused = deepmem("delete", first, "--path", models, "--model")
    assert refused.code == 1
    assert f"set_model() another one first: {second}" in refused.err
    gone = deepmem("delete", second, "--path", models, "--model", "--json")
    assert gone.json == {"id": second, "deleted": True}
    assert [info["name"] for info in deepmem("models", "--path", models, "--json").json] == [first]
    assert deepmem("delete", first, "--path", models).out == f"{first} is deleted.\n"
    assert deepmem("jobs", "--path", models, "--json").json == []
    assert [info["name"] for info in deepmem("models", "--path", models, "--json").json] == [first], "the model stays"
    assert deepmem("delete", first, "--path", models).code == 1


@pytest.mark.slow
def test_train_in_the_background_status_and_cancel(shop, tmp_path):
    where = ("--path", tmp_path / "models")
    started = deepmem("train", shop.folder / "train.jsonl", *shop.store, *where, "--background", "--json")
    assert started.code == 0
    assert started.json["state"] == "pending"
    stopped = deepmem("cancel", started.json["id"], *where)
    assert (stopped.code, stopped.out) == (0, f"{started.json['id']} is cancelled.\n")
    # A process that is just starting sees the wish at its first look.
    shown = deepmem("status", started.json["id"], *where, "--wait")
    assert shown.code == 3
    assert "| cancelled" in shown.out
    again = deepmem("cancel", started.json["id"], *where, "--json")
    assert again.json == {"id": started.json["id"], "cancelled": False}
    assert deepmem("cancel", "nope", *where).code == 1

    few = tmp_path / "few.jsonl"
    shop.train.take(range(5)).to_jsonl(few)
    started = deepmem("train", few, *shop.store, *where, "--background")
    done = deepmem(*re.search(r"It goes on in the background: deepmem (.*)", started.out)[1].split())
    assert done.code == 0
    assert "| completed" in done.out


def test_train_takes_labels_of_every_form_and_judges(shop, tmp_path):
    few = tmp_path / "few"
    shop.train.take(range(5)).to_beir(few, "mine")
    judged = deepmem(
        "train",
        few,
        *shop.store,
        "--split",
        "mine",
        "--validation",
        shop.folder / "test.json",
        "--max-unseen-loss",
        "3",
        "--path",
        tmp_path / "m",
        "--json",
    )
    assert judged.code == 0, judged.err
    assert judged.json["report"]["queries"] == 5
    assert judged.json["report"]["max_unseen_loss"] == 3


@pytest.mark.slow
def test_every_command_with_labels_takes_a_level(shop, tmp_path):
    """LlamaIndex's format and BEIR folders do not say what their labels name, and neither do lines of before."""
    page_of = {document.id: f"page-{row // 3}" for row, document in enumerate(shop.documents)}
    for name, labels in (("train", shop.train), ("test", shop.test)):
        pages = [[(page_of[document], weight) for document, weight in row] for row in labels.labels]
        Relevance(labels.queries, pages, labels.query_ids).to_jsonl(tmp_path / f"{name}.jsonl")
        Relevance(labels.queries, pages, labels.query_ids).to_beir(tmp_path / "beir", name)
    known = (*shop.store[:4], "--path", tmp_path / "m")
    unknown = deepmem("train", tmp_path / "train.jsonl", *known)
    assert "document 'page-" in unknown.err and "is not in the corpus" in unknown.err
    at_level = (*known, "--level", "page")
    validation = ("--validation", tmp_path / "test.jsonl")
    trained = deepmem("train", tmp_path / "beir", *validation, *at_level, "--no-words", "--json")
    assert trained.code == 0, trained.err
    assert "are in the store" in deepmem("doctor", "--labels", tmp_path / "test.jsonl", *at_level).out
    evaluated = deepmem("evaluate", tmp_path / "beir", *at_level, "--json").json
    report = deepmem(
        "report", tmp_path / "test.jsonl", tmp_path / "report.json", *at_level, "--on-invalid", "drop", "--json"
    ).json
    scores = report["curves"]["all"]["scores"]["with model"]
    assert scores["recall@10"]["mean"] == pytest.approx(evaluated["with model"]["recall@10"])
    assert "--level page --on-invalid drop" in report["provenance"]["command"]
    due = deepmem("retrain", tmp_path / "train.jsonl", *at_level, "--new-labels", 0, "--json")
    assert due.code == 0 and due.json["due"] is False, due.err


def test_train_without_words_builds_no_index(shop, tmp_path):
    done = deepmem("train", shop.folder / "train.jsonl", *shop.store, "--path", tmp_path, "--no-words", "--json")
    assert done.code == 0, done.err
    assert not (tmp_path / "words").exists()
    assert (shop.folder / "ds.deepmemory" / "words").exists(), "by default there is one"
    assert " words" not in done.json["report"]["ranking"]["chosen"]


def test_status_and_models_tell_how_retrievers_rank(shop, tmp_path):
    assert "| retrievers rank by " in deepmem("status", shop.job["id"], *shop.jobs).out
    folder = ModelFolder(tmp_path)
    folder.save_model("model", QueryAdapter(DIMENSION, ranking=Ranking(words=0.5)))
    assert deepmem("models", "--path", tmp_path, "--json").json[0]["ranking"] == "vector + 0.5 words"
    assert "retrievers rank by vector + 0.5 words" in deepmem("models", "--path", tmp_path).out


# ---- refresh ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_refresh_follows_the_store(shop, tmp_path):
    texts = {"a": "Restart the router.", "b": "The table is missing.", "c": "Nothing changes here, and the text is English."}
    store = DeepLakeStore(tmp_path / "ds")
    store.add(list(texts), np.array([embed(text) for text in texts.values()]), list(texts.values()))
    where = ("--store", f"deeplake:{tmp_path / 'ds'}", "--embedding", EMBEDDING)
    counts = ("added", "changed", "deleted", "unchanged", "documents", "language")
    first = deepmem("refresh", *where, "--json")
    assert first.code == 0, first.err
    assert [first.json[name] for name in counts] == [3, 0, 0, 0, 3, "en"]
    assert first.json["bytes"] > 0
    store.delete(["a", "b"])
    store.add(["b", "d"], np.array([embed("b"), embed("d")]), ["The table is there.", "A new page."])
    shown = deepmem("refresh", *where)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("1 added, 1 changed, 1 deleted, 1 unchanged\nword index of 3 documents, language en, ")
    assert [deepmem("refresh", *where, "--json").json[name] for name in counts] == [0, 0, 0, 3, 3, "en"]
    german = deepmem("refresh", *where, "--language", "de", "--json")
    assert [german.json[name] for name in counts] == [3, 0, 0, 0, 3, "de"]
    wrong = deepmem("refresh", *where, "--language", "xx", "--json")
    assert wrong.code == 1
    assert "does not know the language 'xx'" in wrong.json["error"]
    assert deepmem("refresh").code == 2
    (tmp_path / "ds.deepmemory" / "words" / "index.json").write_text("{")
    mended = process("refresh", *where, "--json")
    assert mended.json["added"] == 3
    assert "The word index is built anew" in mended.err


def test_refresh_reads_the_store_that_the_environment_names(shop, tmp_path, monkeypatch):
    for name, value in zip(("DEEPMEM_STORE", "DEEPMEM_EMBEDDING"), shop.store[1::2], strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DEEPMEM_PATH", str(tmp_path))
    assert deepmem("refresh", "--json").json["added"] == len(shop.documents)
    assert (tmp_path / "words" / "index.json").is_file()


@pytest.mark.slow
def test_train_holds_queries_out_and_measures_on_them(shop, tmp_path):
    arguments = ("train", shop.folder / "train.jsonl", *shop.store, "--path", tmp_path, "--hold-out", "0.25")
    shown = deepmem(*arguments)
    assert shown.code == 0
    assert "| completed" in shown.out
    assert "95% interval" in shown.out
    answer = deepmem(*arguments, "--json").json
    held = round(len(shop.train) / 4)
    assert answer["report"]["queries"] == len(shop.train) - held
    assert answer["evaluation"]["queries"] == held
    assert answer["evaluation"]["with model"]["recall@10"] > answer["evaluation"]["without model"]["recall@10"]
    refused = deepmem(*arguments, "--background")
    assert refused.code == 2
    assert "--save-held-out" in refused.err
    nothing = deepmem(*arguments[:-1], "1.0")
    assert nothing.code == 1
    assert "leaves one side empty" in nothing.err
    assert deepmem(*arguments[:-1], "2").code == 2

    assert deepmem(*arguments[:-2], "--hold-out-by", "time").code == 2
    untimed = deepmem(*arguments, "--hold-out-by", "time")
    assert untimed.code == 1
    assert "the time is not known" in untimed.err

    in_use = answer["id"]
    shop.train.take(range(8)).to_jsonl(tmp_path / "few.jsonl")
    few = deepmem("train", tmp_path / "few.jsonl", *shop.store, "--path", tmp_path, "--hold-out", "0.25", "--json").json
    assert few["report"]["chosen"] == "identity"
    assert few["evaluation"]["with model"] == few["evaluation"]["without model"], "what was trained, not what is in use"
    serving = [info["name"] for info in deepmem("models", "--path", tmp_path, "--json").json if info["in_use"]]
    assert serving == [in_use] != [few["id"]]


def test_train_holds_the_latest_queries_out(shop, tmp_path):
    times = [1_700_000_000 + (row * 7919) % 1000 for row in range(len(shop.train))]
    timed = Relevance(shop.train.queries, shop.train.relevance, shop.train.query_ids, times=times)
    timed.to_jsonl(tmp_path / "timed.jsonl")
    hold_out = ("--hold-out", "0.25", "--hold-out-by", "time")
    answer = deepmem("train", tmp_path / "timed.jsonl", *shop.store, "--path", tmp_path / "memory", *hold_out, "--json").json
    remembered = QueryAdapter.load(tmp_path / "memory" / "models" / f"{answer['id']}.safetensors").remembered_queries
    latest = timed.split(0.25, by="time")[1]
    assert answer["evaluation"]["queries"] == len(latest)
    assert not set(remembered.query_ids) & set(latest.query_ids)


def test_train_never_overwrites_other_queries_in_a_home_folder(shop, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shop.train.take(range(3)).to_jsonl(tmp_path / "held.jsonl")
    arguments = ("train", shop.folder / "train.jsonl", *shop.store, "--path", tmp_path / "models", "--hold-out", "0.25")
    refused = deepmem(*arguments, "--save-held-out=~/held.jsonl")
    assert refused.code == 2
    assert "has other queries" in refused.err
    assert Relevance.from_jsonl(tmp_path / "held.jsonl") == shop.train.take(range(3))


@pytest.mark.slow
def test_train_saves_the_queries_that_it_holds_out(shop, tmp_path):
    file = tmp_path / "held.jsonl"
    arguments = ("train", shop.folder / "train.jsonl", *shop.store, "--path", tmp_path / "models", "--save-held-out", file)
    assert deepmem(*arguments).code == 2, "no share is given"
    assert not file.exists()
    held_out = deepmem(*arguments, "--hold-out", "0.25", "--json").json
    kept = Relevance.from_jsonl(file)
    assert len(kept) == round(len(shop.train) / 4)
    assert set(kept.queries) < set(shop.train.queries)
    later = deepmem("evaluate", file, *shop.store, "--path", tmp_path / "models", "--json").json
    for side in ("without model", "with model"):
        assert later[side] == held_out["evaluation"][side]

    background = deepmem(*arguments, "--hold-out", "0.25", "--background", "--json")
    assert background.code == 0, background.err
    done = deepmem("status", background.json["id"], "--path", tmp_path / "models", "--wait", "--json").json
    assert done["report"]["queries"] == len(shop.train) - len(kept)
    assert Relevance.from_jsonl(file) == kept

    other = deepmem(*arguments, "--hold-out", "0.5")
    assert other.code == 2
    assert "has other queries" in other.err
    assert Relevance.from_jsonl(file) == kept


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["{labels}", "--store", "deeplake:{folder}/nope", "--embedding", EMBEDDING], 1, "no Deep Lake data set"),
        (["{labels}", "--store", "ds", "--embedding", EMBEDDING], 1, "'ds' names no vector store. Write deeplake:PATH; or"),
        (["{labels}", "--store", "oracle:x", "--embedding", EMBEDDING], 1, "names no vector store"),
        (["{labels}", "--store", "{store}", "--embedding", "bert"], 1, "'bert' names no embedding model"),
        (["{labels}", "--store", "{store}", "--embedding", "sentence-transformers:/nope"], 1, "There is no folder '/nope'"),
        pytest.param(
            ["{labels}", "--store", "{store}", "--embedding", "sentence-transformers:{folder}"],
            1,
            "cannot be loaded",
            marks=pytest.mark.slow,
        ),
        (["{folder}/nope.jsonl", "--store", "{store}", "--embedding", EMBEDDING], 1, "Cannot read"),
        (["{folder}/beir", "--store", "{store}", "--embedding", EMBEDDING, "--split", "nope"], 1, "nope.tsv"),
        (["{bad}", "--store", "{store}", "--embedding", EMBEDDING], 1, "line 2: needs the keys query and relevance"),
        (["{unknown}", "--store", "{store}", "--embedding", EMBEDDING], 1, "'elsewhere' is not in the corpus"),
        (["{labels}", "--store", "{store}"], 2, "--embedding"),
        (["--store", "{store}", "--embedding", EMBEDDING], 2, "LABELS"),
        (["{labels}", "--store", "{store}", "--embedding", EMBEDDING, "--max-unseen-loss", "-1"], 2, "--max-unseen-loss"),
        (["{labels}", "--store", "{store}", "--embedding", EMBEDDING, "--seed", "x"], 2, "--seed"),
        (["{labels}", "--store", "chroma:{folder}/db#docs", "--embedding", EMBEDDING], 2, "--path FOLDER"),
        (["{labels}", "--store", "{store}", "--embedding", EMBEDDING, "--path", "{labels}"], 2, "is no folder"),
    ],
)
def test_training_on_what_cannot_be_trained_on(shop, tmp_path, arguments, code, told):
    bad, unknown = tmp_path / "bad.jsonl", tmp_path / "unknown.jsonl"
    bad.write_text('{"query": "a", "relevance": ["b"]}\n{"query": "c"}\n')
    unknown.write_text('{"query": "a", "relevance": ["elsewhere"]}\n')
    names = {
        "labels": shop.folder / "train.jsonl",
        "folder": shop.folder,
        "store": f"deeplake:{shop.folder / 'ds'}",
        "bad": bad,
        "unknown": unknown,
    }
    done = deepmem("train", *(argument.format(**names) for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert told in done.err
    assert "Traceback" not in done.err
    if code == 1:
        assert len(done.err.splitlines()) == 1, "one line"


def test_publish(shop):
    url = f"memory://{shop.folder.name}/support.deepmemory"
    told = deepmem("publish", url, *shop.jobs)
    assert (told.code, told.out) == (0, f"{shop.job['id']} is published to {url}.\n")
    assert deepmem("publish", url, *shop.jobs, "--json").json == {"name": shop.job["id"], "url": url}
