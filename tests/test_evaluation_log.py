import json
import sys

import deeplake
import numpy as np
import pytest

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import MissingExtraError, StoreError
from deepmem_integrations.evaluation_log import EvaluationLog
from tests.jobs.helpers import add_model

COLUMNS = [
    "text",
    "metadata",
    "embedding",
    "id",
    "deep_memory_top_10",
    "deep_memory_recall",
    "vector_search_top_10",
    "vector_search_recall",
]


@pytest.fixture
def logged(problem, embeddings, tmp_path):
    store = DeepLakeStore(tmp_path / "ds")
    store.add(problem.ids, problem.corpus)
    memory = DeepMemory.from_deeplake(store, embeddings)
    add_model(memory, linear=np.roll(np.eye(32, dtype=np.float32), 1, axis=1))
    return memory


def read(path, branch=None):
    dataset = deeplake.open(str(path))
    if branch is not None:
        kept = dataset, dataset.branches[branch]  # a branch ends with the data set it came from
        dataset = kept[1].open()
    return {name: list(dataset[name][:]) for name in COLUMNS}


def test_each_evaluation_is_kept_in_v3s_columns(logged, problem, tmp_path):
    result = logged.evaluate(problem.test, top_k=[3], qvs_params={"log_queries": True})
    path = tmp_path / "ds_eval_queries"
    dataset = deeplake.open(str(path))
    assert [column.name for column in dataset.schema.columns] == COLUMNS
    rows = read(path)
    assert rows["text"] == list(problem.test.queries)
    np.testing.assert_allclose(np.stack(rows["embedding"]), problem.test_queries, atol=1e-6)
    assert rows["metadata"][0]["model"] == logged.get_model()
    (document,) = problem.test.relevance[0]
    assert rows["metadata"][0]["relevance"][0][0] == document[0]
    for name, side in (("deep_memory", "with model"), ("vector_search", "without model")):
        top = [json.loads(found) for found in rows[f"{name}_top_10"]]
        assert top == [list(found[:10]) for found in result.found[side]]
        assert {len(found) for found in top} == {10}, "though recall@3 alone was asked for"
        whole = logged.evaluate(problem.test, top_k=[10])
        assert np.mean(rows[f"{name}_recall"]) == pytest.approx(whole[side]["recall@10"])
    assert len(set(rows["id"])) == len(problem.test)

    logged.evaluate(problem.test.take(range(7)), qvs_params={"log_queries": True})
    more = read(path)
    assert len(more["text"]) == len(problem.test) + 7
    assert len({metadata["evaluation"] for metadata in more["metadata"]}) == 2


def test_on_a_branch(logged, problem, tmp_path):
    few = problem.test.take(range(5))
    logged.evaluate(few, qvs_params={"log_queries": True})
    logged.evaluate(few, qvs_params={"branch": "queries"})
    logged.evaluate(few, qvs_params={"log_queries": True, "branch": "queries"})
    assert len(read(tmp_path / "ds_eval_queries")["text"]) == 5
    assert len(read(tmp_path / "ds_eval_queries", "queries")["text"]) == 10


def test_without_being_asked_nothing_is_kept(logged, problem, tmp_path):
    for params in (None, {"log_queries": False}):
        logged.evaluate(problem.test, qvs_params=params)
    assert not (tmp_path / "ds_eval_queries").exists()
    with pytest.raises(ValueError, match=r"Invalid query param 'log'\. Valid query params are 'log_queries' and 'branch'"):
        logged.evaluate(problem.test, qvs_params={"log": True})


class NotInstalled:
    """Finds no deeplake, as where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name == "deeplake":
            raise ModuleNotFoundError(name, name=name)


def test_of_other_stores_the_log_lies_with_the_models(memory, problem, monkeypatch):
    add_model(memory)
    memory.evaluate(problem.test, qvs_params={"log_queries": True})
    assert len(read(memory.folder.path / "eval_queries")["text"]) == len(problem.test)
    monkeypatch.delitem(sys.modules, "deeplake")
    monkeypatch.setattr(sys, "meta_path", [NotInstalled(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r'pip install "deepmem-integrations\[deeplake\]"'):
        memory.evaluate(problem.test, qvs_params={"log_queries": True})


def test_a_log_that_cannot_be_written_is_told(logged, problem, tmp_path):
    (tmp_path / "ds_eval_queries").write_text("in the way")
    with pytest.raises(StoreError, match=r"The evaluation cannot be logged to '.*ds_eval_queries'"):
        logged.evaluate(problem.test, qvs_params={"log_queries": True})


def test_what_was_judged_irrelevant_is_logged_and_has_no_recall(logged, problem, tmp_path):
    judged = problem.test.take(range(5)) + Relevance(["only wrong"], [[(problem.ids[-1], -1.0)]], ["wrong"])
    logged.evaluate(judged, top_k=[3], qvs_params={"log_queries": True})
    rows = read(tmp_path / "ds_eval_queries")
    assert rows["metadata"][5]["relevance"] == [[problem.ids[-1], -1.0]]
    assert np.isnan(rows["deep_memory_recall"]).tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("begun", ["nothing of it", "without columns", "without a commit"])
def test_a_log_whose_making_failed_is_made_later(logged, problem, tmp_path, monkeypatch, begun):
    """Before, a disk that was full while the log was made stopped every later log, too, for good."""
    path = f"{logged.corpus.store.path}_eval_queries"
    make = deeplake.create

    def full(place, *args, **kwargs):
        made = make(place, *args, **kwargs)
        if begun == "without a commit":
            made.add_column("text", deeplake.types.Text())
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(deeplake, "create", full)
    log = EvaluationLog(path)
    evaluation = logged.measure(problem.test, top_k=[1])
    vectors = problem.test_queries
    with pytest.raises(StoreError, match="No space left"):
        log.add(problem.test, vectors, evaluation, "m")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".tmp")] == []
    monkeypatch.undo()
    if begun != "nothing of it":  # as versions before left it
        dataset = make(path)
        if begun == "without a commit":
            dataset.add_column("text", deeplake.types.Text())
            dataset.commit("half")
        del dataset
    log.add(problem.test, vectors, evaluation, "m")
    assert len(read(path)["text"]) == len(problem.test)
