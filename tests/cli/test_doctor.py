import re
import shutil

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import MissingExtraError
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.words import analysis
from tests.cli.helpers import EMBEDDING, deepmem
from tests.openai_server import DIMENSION, embed
from tests.words.conftest import flip_postings


def test_doctor(shop, tmp_path, monkeypatch):
    alone = deepmem("doctor")
    assert alone.code == 0
    assert "extra train" in alone.out
    well = deepmem("doctor", *shop.store, "--json")
    assert well.code == 0, well.out
    checks = {check["name"]: check for check in well.json}
    assert checks["store"]["detail"] == f"reachable, {DIMENSION} dimensions"
    assert checks["model and embedding"]["ok"] is True
    assert shop.job["id"] in checks["model in use"]["detail"]
    assert deepmem("doctor", *shop.store[:2]).code == 2

    missing = deepmem("doctor", "--store", f"deeplake:{tmp_path / 'nope'}", "--embedding", EMBEDDING)
    assert missing.code == 1
    assert re.search(r"BAD +store +There is no Deep Lake data set", missing.out)

    DeepLakeStore(tmp_path / "other").add(["a"], np.eye(3)[:1])
    other = deepmem("doctor", "--store", f"deeplake:{tmp_path / 'other'}", "--embedding", EMBEDDING)
    assert other.code == 1
    assert "but the store has 3: it was filled with another model" in other.out

    models = tmp_path / "models"
    shutil.copytree(shop.folder / "ds.deepmemory", models)
    QueryAdapter(DIMENSION + 1).save(models / "models" / "wide.safetensors")
    (models / "current").write_text("wide")
    DeepLakeStore(tmp_path / "elsewhere").add(["a"], np.eye(DIMENSION)[:1], ["made by another model"])
    DeepLakeStore(tmp_path / "textless").add(["a"], np.eye(DIMENSION)[:1])
    for name, code, told in (("elsewhere", 1, "another model made these"), ("textless", 0, "has no texts to compare")):
        done = deepmem("doctor", "--store", f"deeplake:{tmp_path / name}", "--embedding", EMBEDDING)
        assert done.code == code, done.out
        assert told in done.out, done.out
    unfit = deepmem("doctor", *shop.store, "--path", models)
    assert unfit.code == 1
    assert "The adapter was trained for" in unfit.out
    (models / "models" / "wide.safetensors").write_bytes(b"damaged")
    damaged = deepmem("doctor", "--path", models)
    assert damaged.code == 1
    assert "BAD" in damaged.out

    monkeypatch.setenv("OPENAI_API_KEY", "bad-key")
    keyless = deepmem("doctor", *shop.store)
    assert keyless.code == 1
    assert "Incorrect API key" in keyless.out


def the_words(done):
    """The checks of the word index and of the ranking, by name."""
    assert done.out, done.err
    return {c["name"]: c for c in done.json if c["name"] in ("word index", "word index and store", "ranking")}


@pytest.fixture
def small(shop, tmp_path):
    """A store of three documents without a model."""
    texts = {"a": "Restart the router.", "b": "The table is missing.", "c": "Nothing changes here, and the text is English."}
    store = DeepLakeStore(tmp_path / "ds")
    store.add(list(texts), np.array([embed(text) for text in texts.values()]), list(texts.values()))
    where = ("--store", f"deeplake:{tmp_path / 'ds'}", "--embedding", EMBEDDING)
    return store, ModelFolder(tmp_path / "ds.deepmemory"), where


def put_in_use(folder, ranking):
    name = f"model{len(folder.models())}"
    folder.save_model(name, QueryAdapter(DIMENSION, ranking=ranking))
    folder.write_in_use(name)


def test_doctor_on_a_word_index_that_nobody_needs(small):
    store, folder, where = small
    checks = the_words(deepmem("doctor", *where, "--json"))
    assert checks["word index"]["ok"] is None
    assert "training and deepmem refresh build it" in checks["word index"]["detail"]
    assert "ranking" not in checks
    assert deepmem("refresh", *where).code == 0
    store.delete(["a"])
    checks = the_words(deepmem("doctor", *where, "--json"))
    assert checks["word index"]["ok"] is True
    assert checks["word index"]["facts"].keys() == {"documents", "language", "bytes"}
    assert checks["word index and store"]["ok"] is None
    put_in_use(folder, Ranking(answers=1.0))
    done = deepmem("doctor", *where, "--json")
    assert done.code == 0
    assert the_words(done)["ranking"]["detail"] == "retrievers rank by vector + answers(τ=0.1); words do not count"


@pytest.mark.slow
def test_doctor_on_the_words_of_a_model_that_ranks_by_them(small, monkeypatch):
    store, folder, where = small
    put_in_use(folder, Ranking(words=0.5))
    missing = deepmem("doctor", *where, "--json")
    assert missing.code == 1
    assert "the model in use ranks by words: run deepmem refresh" in the_words(missing)["word index"]["detail"]
    assert the_words(missing)["ranking"]["ok"] is False

    deepmem("refresh", *where)
    well = deepmem("doctor", *where, "--json")
    assert well.code == 0, well.out
    checks = the_words(well)
    assert [check["ok"] for check in checks.values()] == [True, True, True]
    assert checks["word index"]["facts"]["documents"] == 3
    assert checks["word index"]["facts"]["language"] == "en"
    assert checks["word index and store"]["facts"] == {"added": 0, "changed": 0, "deleted": 0, "unchanged": 3}
    assert checks["ranking"]["detail"] == "retrievers rank by vector + 0.5 words"
    alone = deepmem("doctor", "--path", folder.path, "--json")
    assert alone.code == 0, "without the store, the index alone is looked at"
    assert set(the_words(alone)) == {"word index", "ranking"}

    store.delete(["a", "b"])
    texts = ["The table is there.", "A new page."]
    store.add(["b", "d"], np.array([embed(text) for text in texts]), texts)
    stale = deepmem("doctor", *where)
    assert stale.code == 1
    told = "1 documents are new in the store, 1 have another text, 1 are gone: run deepmem refresh"
    assert re.search(rf"BAD +word index and store +{told}", stale.out)

    def without_stemmers(package, extra):
        raise MissingExtraError(package, extra)

    with monkeypatch.context() as patch:
        patch.setattr(analysis, "require", without_stemmers)
        unable = the_words(deepmem("doctor", *where, "--json"))
    assert unable["word index"]["ok"] is unable["ranking"]["ok"] is False
    assert "deepmem-integrations[words]" in unable["word index"]["detail"]

    flip_postings(folder.lexical_search)
    damaged = deepmem("doctor", *where, "--json")
    assert damaged.code == 1
    assert re.search(r"is damaged .* deepmem refresh builds it anew", the_words(damaged)["word index"]["detail"])
    deepmem("refresh", *where)
    assert deepmem("doctor", *where).code == 0


def test_doctor_on_a_model_that_ranks_by_the_words_of_its_store(small):
    _, folder, where = small
    put_in_use(folder, Ranking(words=0.5, search="PostgresWords"))
    done = deepmem("doctor", *where, "--json")
    assert done.code == 0
    assert "give retrievers the PostgresWords" in the_words(done)["ranking"]["detail"]


def test_doctor_names_extras_that_are_missing(monkeypatch):
    import importlib.metadata

    from deepmem_integrations.cli import doctor

    def without_two(package):
        if package in ("faiss-cpu", "torch"):
            raise importlib.metadata.PackageNotFoundError(package)
        return importlib.metadata.version(package)

    monkeypatch.setattr(doctor, "version", without_two)
    done = deepmem("doctor")
    assert done.code == 0
    assert 'torch is not installed; if you need it: pip install "deepmem-integrations[train]"' in done.out
    assert re.search(r"-   faiss-cpu +not installed; if you need it: pip install faiss-cpu$", done.out, re.MULTILINE)


def test_doctor_lists_what_is_gone_or_changed(shop, tmp_path):
    labels = ("--labels", shop.folder / "train.jsonl")
    well = {check["name"]: check for check in deepmem("doctor", *shop.store, *labels, "--json").json}
    assert well["documents of the labels"]["ok"] is True
    assert well["remembered answers"]["ok"] is True
    assert "as they were learned" in well["remembered answers"]["detail"]

    shutil.copytree(shop.folder / "ds", tmp_path / "ds")
    shutil.copytree(shop.folder / "ds.deepmemory", tmp_path / "ds.deepmemory")
    store = DeepLakeStore(tmp_path / "ds")
    gone, changed = list(dict.fromkeys(name for judged in shop.train.labels for name, _ in judged))[:2]
    store.delete([gone, changed])
    store.add([changed], np.eye(DIMENSION)[:1], ["another text"])
    where = ("--store", f"deeplake:{tmp_path / 'ds'}", "--embedding", EMBEDDING)
    told = deepmem("doctor", *where, *labels, "--json")
    assert told.code == 1
    checks = {check["name"]: check for check in told.json}
    assert checks["documents of the labels"]["facts"]["gone"] == [gone]
    assert shop.train.query_ids[0] in checks["documents of the labels"]["facts"]["queries"]
    assert checks["remembered answers"]["facts"]["gone"] == [gone]
    assert checks["remembered answers"]["facts"]["changed"] == [changed]
    assert deepmem("doctor", *labels).code == 2
