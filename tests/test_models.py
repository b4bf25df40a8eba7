import threading

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.errors import ModelInUseError, ModelNotFoundError
from deepmem_integrations.models import ModelFolder
from tests.jobs.helpers import add_model


def test_versions_have_their_report_data_and_parent(memory, problem, capsys):
    assert memory.list_models() == []
    some = problem.train.take(range(60))
    first = memory.train(some)
    second = memory.remember(Relevance(["something new"], [[(problem.ids[0], 1.0)]], ["new"]))
    third = memory.forget(query_ids=["new"])
    fourth = memory.train(some)
    other = memory.train(problem.train.take(range(5)))
    models = memory.list_models()
    assert [(info.name, info.made_by, info.parent) for info in models] == [
        (first, "train", None),
        (second, "remember", first),
        (third, "forget", second),
        (fourth, "train", third),
        (other, "train", fourth),
    ]
    assert [info.in_use for info in models] == [False, False, False, True, False]
    assert models[0].created < models[1].created < models[-1].created
    assert {(info.embedding, info.dimension, info.error) for info in models} == {("lookup", 32, None)}
    assert models[0].report["queries"] == 60
    assert models[0].report["chosen"] == memory.jobs.job(first).report["chosen"]
    assert models[0].data == models[3].data, "the same labels and documents"
    assert models[0].data["corpus"] == models[4].data["corpus"]
    assert models[0].data["queries"] != models[4].data["queries"]
    assert str(models[3]).startswith(f"* {fourth}  20")
    assert str(models[4]).startswith(f"  {other}  20")
    assert "recall@10 +" in str(models[0])
    assert str(models[1]).endswith(f"remember of {first}")


def test_other_documents_are_other_data(memory, problem, embeddings, tmp_path):
    from deepmem_integrations.corpora import GivenCorpus

    few = problem.train.take(range(5))
    first = memory.train(few)

    def data_of(ids, labels):
        other = DeepMemory(GivenCorpus(ids, ids, ids, embeddings), embeddings, memory.folder.path)
        return memory.folder.info(other.train(labels)).data

    one = memory.folder.info(first).data
    assert data_of(problem.ids[::-1], few.take([4, 2, 0, 1, 3])) == one, "in any order"
    two = data_of(problem.ids[:-1], few)
    assert one["queries"] == two["queries"]
    assert one["corpus"] != two["corpus"]


def test_the_model_in_use_is_not_deleted(memory):
    first = add_model(memory)
    with pytest.raises(ModelInUseError, match=rf"'{first}' in .* is in use: train another one first"):
        memory.delete_model(first)
    second = add_model(memory)
    with pytest.raises(ModelInUseError, match=rf"is in use: set_model\(\) another one first: {first}"):
        memory.delete_model(second)
    memory.set_model(first)
    memory.delete_model(second)
    assert [info.name for info in memory.list_models()] == [first]
    assert memory.jobs.job(second).state == "completed", "the record of its job stays"
    for name in (second, "nope", "../current", ""):
        with pytest.raises(ModelNotFoundError, match="Invalid model name"):
            memory.delete_model(name)


def test_a_damaged_file_is_listed_with_its_fault(memory):
    good, bad = add_model(memory), "bad"
    (memory.folder.path / "models" / f"{bad}.safetensors").write_bytes(b"nothing of use")
    listed = {info.name: info for info in memory.list_models()}
    assert listed[good].error is None
    assert "SafetensorError" in listed[bad].error
    assert "SafetensorError" in str(listed[bad])


def test_the_ranking_is_told_from_the_header_alone(memory, monkeypatch):
    name = add_model(memory, ranking=Ranking(words=0.25, answers=0.5, linear=np.eye(32, dtype=np.float32)))
    plain = add_model(memory)
    monkeypatch.setattr(QueryAdapter, "from_bytes", None)
    listed = {info.name: info for info in memory.list_models()}
    assert listed[name].ranking == "vector + 0.25 words + 0.5 answers(τ=0.1)"
    assert "retrievers rank by vector + 0.25 words" in str(listed[name])
    assert listed[plain].ranking is None
    assert "rank by" not in str(listed[plain])


def test_a_file_that_somebody_put_there_is_a_model(memory):
    add_model(memory)
    QueryAdapter(32).save(memory.folder.path / "models" / "handmade.safetensors")
    info = memory.folder.info("handmade")
    assert (info.made_by, info.parent, info.data, info.in_use) == ("", None, None, False)
    memory.set_model("handmade")
    assert memory.get_model() == "handmade"


def test_a_running_memory_never_serves_a_model_that_is_gone(memory):
    """Another process replaces the model in use and deletes the old one, again and again."""
    folder, done, errors = ModelFolder(memory.folder.path), threading.Event(), []
    names = [add_model(memory)]

    def read():
        while not done.is_set():
            try:
                reader = DeepMemory(memory.corpus, memory.embedder, folder.path)
                assert reader.transform(np.ones(32)).shape == (32,)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        names.append(add_model(memory))
        folder.delete_model(names[-2])
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert folder.models() == names[-1:]
