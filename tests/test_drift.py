import json
import logging

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.drift import SAMPLE, Drift, Sketch, drift_of_index, trained_on
from deepmem_integrations.errors import ModelNotFoundError
from tests.cli.helpers import deepmem


def sketch(documents, batch=100):
    ids, texts = list(documents), list(documents.values())
    return Sketch.of_texts((ids[start : start + batch], texts[start : start + batch]) for start in range(0, len(ids), batch))


def documents(count, text="text {}"):
    return {f"doc-{row}": text.format(row) for row in range(count)}


def test_small_stores_are_compared_exactly():
    before = documents(300)
    assert sketch(before).drift(sketch(before)) == Drift(300, 0, 0, 0)
    now = dict(list(before.items())[20:]) | {"doc-50": "another text"} | {f"new-{row}": "x" for row in range(40)}
    assert sketch(before).drift(sketch(now)) == Drift(300, 40, 1, 20)
    assert sketch({}).drift(sketch(before)) == Drift(0, 300, 0, 0)
    assert sketch(before).drift(sketch({})) == Drift(300, 0, 0, 300)


def test_the_order_and_the_batches_do_not_matter():
    before = documents(2000)
    rows = list(before.items())
    np.random.default_rng(0).shuffle(rows)
    one, other = sketch(before), sketch(dict(rows), batch=7)
    assert one.to_json() == other.to_json()
    assert len(one.ids) == SAMPLE
    assert one.drift(other) == Drift(2000, 0, 0, 0, exact=False)
    assert len(json.dumps(one.to_json())) < 12_000


@pytest.mark.parametrize(
    ("added", "changed", "gone"), [(5000, 0, 0), (0, 4000, 0), (0, 0, 8000), (3000, 3000, 3000), (80_000, 0, 0)]
)
def test_large_stores_are_estimated(added, changed, gone):
    before = documents(20_000)
    now = dict(list(before.items())[gone:])
    now |= dict.fromkeys(list(now)[:changed], "another text") | {f"new-{row}": "x" for row in range(added)}
    drift = sketch(before).drift(sketch(now))
    assert not drift.exact
    for found, right in ((drift.added, added), (drift.changed, changed), (drift.gone, gone)):
        assert abs(found - right) <= 0.06 * max(len(now), 20_000)


def test_a_store_that_outgrew_the_sketch_is_estimated():
    before, now = documents(100), documents(1000)
    drift = sketch(before).drift(sketch(now))
    assert abs(drift.added - 900) < 100
    assert drift.gone == drift.changed == 0
    assert drift.retraining_due


def test_a_sketch_survives_its_json():
    one = sketch(documents(700))
    again = Sketch.from_json(json.loads(json.dumps(one.to_json())))
    assert again.drift(one) == Drift(700, 0, 0, 0, exact=False)


def memory_of(problem, embeddings, folder, texts):
    class Corpus(GivenCorpus):
        def texts(self):
            yield list(texts), list(texts.values())

    return DeepMemory(Corpus(problem.ids, problem.ids, problem.ids, embeddings), embeddings, folder)


@pytest.mark.parametrize("words", [True, False])
def test_a_memory_tells_when_a_fifth_of_the_store_is_new(problem, embeddings, tmp_path, caplog, words):
    texts = {name: f"text of {name}" for name in problem.ids}
    memory = memory_of(problem, embeddings, tmp_path, texts)
    with pytest.raises(ModelNotFoundError):
        memory.drift()
    name = memory.train(problem.train.take(range(60)), words=words)
    assert trained_on(memory.adapter.metadata).count == len(problem.ids)
    assert str(memory.drift()).endswith("since then 0 added, 0 changed, 0 gone\nThe documents call for no full training yet.")
    with caplog.at_level(logging.WARNING):
        texts |= {f"new-{row}": "new" for row in range(20)}
        memory.refresh()
        assert "A full training is due" not in caplog.text
        texts |= {f"new-{row}": "new" for row in range(60)}
        del texts[problem.ids[0]]
        texts[problem.ids[1]] = "another text"
        for _ in range(2):
            memory.refresh()
        again = DeepMemory(memory.corpus, embeddings, tmp_path)
        again.refresh()
    assert caplog.text.count("The model in use was trained on 300 documents; since then 60 added, 1 changed, 1 gone") == 1
    assert memory.drift() == drift_of_index(memory.folder) == Drift(300, 60, 1, 1)
    status = deepmem("status", name, "--path", tmp_path)
    assert status.out.endswith("since then 60 added, 1 changed, 1 gone\nA full training is due.\n")
    assert deepmem("status", name, "--path", tmp_path, "--json").json["documents"]["retraining_due"] is True
    checks = {check["name"]: check for check in deepmem("doctor", "--path", tmp_path, "--json").json}
    assert checks["documents"]["ok"] is None
    assert checks["documents"]["facts"]["added"] == 60
    memory.remember(Relevance(["something new"], [[(problem.ids[2], 1.0)]], ["new"]))
    assert memory.drift() == Drift(300, 60, 1, 1), "a model that grew was trained on the same documents"


def test_a_model_of_before_does_not_know(memory):
    memory.folder.save_model("old", QueryAdapter(32))
    memory.folder.use("old")
    assert memory.drift() is None
    memory.refresh()
    assert drift_of_index(memory.folder) is None
