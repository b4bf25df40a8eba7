"""``deepmem retrain``, ``rollback`` and ``audit``: what a nightly job calls, and its exit codes."""

import pytest

from deepmem_integrations.audit import user
from deepmem_integrations.models import ModelFolder
from tests.cli.helpers import deepmem


@pytest.mark.slow
def test_the_nights_of_a_cron_job(shop, tmp_path):
    models, labels = tmp_path / "models", tmp_path / "labels.jsonl"
    where = (*shop.store, "--path", models)
    shop.train.to_jsonl(labels)
    dry = deepmem("retrain", labels, *where, "--dry-run")
    assert (dry.code, dry.out) == (0, "A retraining is due: no model was trained yet.\n")
    first = deepmem("retrain", labels, *where, "--by", "cron", "--json")
    assert first.code == 0
    assert first.json["replaced"] is True
    assert first.json["model"] == first.json["in_use"] == ModelFolder(models).in_use_name()

    second = deepmem("retrain", labels, *where, "--age", 30)
    assert second.code == 0
    assert second.out.startswith("No retraining is due: 0 of 50 new labels, 0% of the documents changed, the last training is ")
    shop.train.take(range(10)).to_jsonl(labels)  # too few of them are held out to tell
    refused = deepmem("retrain", labels, *where, "--now", "--json")
    assert refused.code == 4
    assert (refused.json["replaced"], refused.json["in_use"]) == (False, first.json["model"])
    assert "too few to compare models" in refused.json["reason"]
    assert deepmem("retrain", labels, *where, "--new-labels", -1).code == 2

    taken = deepmem("retrain", labels, *where, "--now", "--in-use", "never", "--json")
    assert taken.code == 0
    assert deepmem("use", taken.json["model"], "--path", models, "--by", "ada").code == 0
    back = deepmem("rollback", "--path", models)
    assert (back.code, back.out) == (0, f"{first.json['model']} is in use.\n")
    nothing = deepmem("rollback", "--path", models)
    assert nothing.code == 1
    assert "there is nothing to go back to" in nothing.err

    entries = deepmem("audit", "--path", models, "--json").json
    assert [(entry["action"], entry["by"]) for entry in entries] == [
        ("train", "cron"),
        ("train", user()),
        ("use", "ada"),
        ("rollback", user()),
    ]
    lines = deepmem("audit", "--path", models).out.splitlines()
    assert f"train {refused.json['model']} by {user()} ({first.json['model']} stays in use): " in lines[1]
    assert deepmem("audit", "--path", tmp_path / "none").out.startswith("The model in use was never changed in ")


def test_train_if_better_from_the_shell(shop, tmp_path):
    shop.train.take(range(12)).to_jsonl(tmp_path / "few.jsonl")
    where = (*shop.store, "--path", tmp_path / "models")
    job = deepmem("train", tmp_path / "few.jsonl", *where, "--in-use", "if-better", "--by", "cron", "--json").json
    (entry,) = deepmem("audit", "--path", tmp_path / "models", "--json").json
    assert (entry["model"], entry["by"]) == (job["id"], "cron")
    assert "the choice of the training stands" in entry["reason"]
