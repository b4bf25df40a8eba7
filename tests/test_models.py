import os
import threading

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.corpora import DeepLakeCorpus, GivenCorpus
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import EmbeddingMismatchError, ModelInUseError, ModelNotFoundError, StoreError
from deepmem_integrations.jobs.trainer import publish
from deepmem_integrations.langchain import DeepLake
from deepmem_integrations.llama_index import DeepLakeVectorStore
from deepmem_integrations.models import ModelFolder, beside, check_outside
from deepmem_integrations.serving import ServedAdapter
from tests.embeddings import LookupEmbeddings
from tests.jobs.helpers import add_model
from tests.langchain.helpers import Lookup, documents_of


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
    assert "its header is cut off" in listed[bad].error
    assert "its header is cut off" in str(listed[bad])


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


def test_a_model_serves_on_where_its_folder_is_lost(memory, caplog):
    name = add_model(memory)
    before = memory.transform(np.ones(32))
    lost = memory.folder.path.rename(memory.folder.path.with_name("lost"))
    assert (memory.transform(np.ones(32)) == before).all() and (memory.transform(np.ones(32)) == before).all()
    assert [record.message for record in caplog.records if "is the folder lost?" in record.message] == [
        f"{memory.folder.path} names no model in use any more: is the folder lost? {name} serves on."
    ]
    lost.rename(memory.folder.path)
    assert memory.get_model() == name


def test_an_adapter_file_that_comes_later_is_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    served = ServedAdapter("later.safetensors", untrained="plain")
    monkeypatch.chdir("/")
    turned = QueryAdapter(2, linear=np.array([[0, 1], [-1, 0]], dtype=np.float32))
    turned.save(tmp_path / "later.safetensors")
    assert served.transform([1.0, 0.0]) == pytest.approx(turned.transform([1.0, 0.0]))


def test_a_process_may_change_its_folder(memory, tmp_path, monkeypatch):
    name = add_model(memory)
    monkeypatch.chdir(memory.folder.path.parent)
    folder = ModelFolder(memory.folder.path.name)
    monkeypatch.chdir("/")
    assert folder.in_use()[0] == name


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


@pytest.mark.parametrize("there", [True, False], ids=["there", "not yet there"])
def test_models_are_not_kept_in_a_data_set(tmp_path, monkeypatch, there):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    data_set, link = tmp_path / "ds", tmp_path / "link"
    if there:
        data_set.mkdir()
    link.symlink_to(data_set, target_is_directory=True)
    for path in (
        data_set,
        "ds",
        "ds/",
        "./ds/models",
        "~/ds/a/b",
        "link",
        "link/models",
        "other/../ds/models",
        f"file://{data_set}/m",
    ):
        for place in (data_set, "ds", "~/ds", link, f"file://{data_set}"):
            with pytest.raises(
                StoreError, match=r"cannot be kept in .*, which (is|lies in) the data set .*: deleting or overwriting"
            ):
                check_outside(path, place)
    for path in ("ds.deepmemory", "d", "ds2/models", "DS", "DS/models", ".", tmp_path, "~"):
        check_outside(path, "ds")
    check_outside("ds", "mem://ds")
    check_outside("ds", "s3://bucket/ds")


def test_letter_case_does_not_matter_where_the_file_system_ignores_it(tmp_path):
    (tmp_path / "Home").mkdir()
    (tmp_path / "hOME").symlink_to("Home")  # as a file system that ignores case shows a folder
    with pytest.raises(StoreError, match="lies in the data set"):
        check_outside(tmp_path / "Home" / "DS" / "models", tmp_path / "Home" / "ds")
    check_outside(tmp_path / "Home" / "DS.deepmemory", tmp_path / "Home" / "ds")


def test_every_way_to_name_a_folder_refuses_one_in_the_data_set(problem, embeddings, tmp_path):
    data_set = tmp_path / "ds"
    store = DeepLakeStore(data_set)
    store.add(problem.ids, problem.corpus)
    lookup = Lookup(problem)
    for folder in (data_set, data_set / "models"):
        for make in (
            lambda: DeepMemory(DeepLakeCorpus(store), embeddings, folder),  # noqa: B023
            lambda: DeepMemory.from_deeplake(store, embeddings, folder),  # noqa: B023
            lambda: DeepMemory.from_langchain(DeepLake(data_set, embedding=lookup), folder, documents=documents_of(problem)),  # noqa: B023
            lambda: DeepLake(data_set, deep_memory_path=folder, overwrite=True),  # noqa: B023
            lambda: DeepLakeVectorStore(data_set, deep_memory_path=folder, overwrite=True),  # noqa: B023
        ):
            with pytest.raises(StoreError, match="the data set"):
                make()
    assert len(DeepLakeStore(data_set)) == len(problem.ids), "nothing was overwritten"


def test_the_default_folder_lies_outside_of_the_data_set(tmp_path, monkeypatch):
    (tmp_path / "ds" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "ds")
    for data_set in (".", "./", "..", "inner/..", "inner", "../ds", str(tmp_path)):
        check_outside(beside(data_set), data_set)
    assert beside("inner") == "inner.deepmemory", "relative paths stay as they are"
    assert beside(".") == str(tmp_path / "ds.deepmemory")


def test_a_path_may_start_with_the_home_folder(problem, memory, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    add_model(DeepMemory(memory.corpus, memory.embedder, "~/models"))
    assert ModelFolder(tmp_path / "models").models()
    DeepLakeStore("~/ds").add(problem.ids, problem.corpus)
    assert DeepLake("~/ds").deep_memory_path == str(tmp_path / "ds.deepmemory")
    QueryAdapter(4).save("~/adapter.safetensors")
    assert QueryAdapter.load("~/adapter.safetensors").dimension == 4
    problem.test.to_jsonl("~/labels.jsonl")
    problem.test.to_beir("~/beir")
    assert Relevance.from_jsonl("~/labels.jsonl") == Relevance.from_beir("~/beir") == problem.test
    assert not os.path.exists("~")


# ---- another embedding model -----------------------------------------------------------------------------------------


class Other(LookupEmbeddings):
    """Another model with vectors of the same length."""

    model_name = "other"

    def embed_query(self, text):
        return list(np.roll(super().embed_query(text), 1))


@pytest.fixture
def green(memory, problem):
    """A Deep Memory of another embedding model over the same documents, in the folder that serves the first one."""
    other = Other(problem)
    return DeepMemory(GivenCorpus(problem.ids, problem.ids, problem.ids, other), other, memory.folder.path)


TOLD = r"serves the model \w+ of lookup \(32 dimensions\), and this model belongs to other .* in a folder of its own, path=….*"


def test_training_does_not_replace_a_model_of_another_embedding_model(memory, green, problem):
    few = problem.train.take(range(60))
    first = memory.train(few)
    for options in ({}, {"wait": False}):
        with pytest.raises(EmbeddingMismatchError, match=TOLD + "change_embedding=True, on the command line --change-embedding"):
            green.train(few, **options)
    with pytest.raises(EmbeddingMismatchError, match="serves the model"):
        memory.train(few, embedding_function=Other(problem).embed_documents)
    assert memory.get_model() == first
    assert len(memory.jobs.all()) == 1, "nothing was begun"
    memory.train(few)
    second = green.train(few, change_embedding=True)
    assert green.get_model() == second
    with pytest.raises(EmbeddingMismatchError):
        memory.transform(problem.test_queries)
    with pytest.raises(EmbeddingMismatchError, match="serves the model"):
        memory.set_model(first)
    memory.set_model(first, change_embedding=True)
    memory.transform(problem.test_queries)


def test_a_model_that_came_into_use_during_the_training_is_not_replaced_either(memory, green):
    with green.jobs.new() as running:
        first = add_model(memory)
        with pytest.raises(EmbeddingMismatchError, match=TOLD):
            publish(running, QueryAdapter(32, fingerprint=green.embedder.fingerprint()), made_by="train")
    assert memory.get_model() == first
    assert memory.folder.models() == [first]


def test_where_nothing_serves_nothing_is_refused(memory, green, problem):
    few = problem.train.take(range(60))
    first = memory.train(few)
    memory.folder.model_path(first).write_bytes(b"damaged")
    second = DeepMemory(green.corpus, green.embedder, memory.folder.path).train(few)
    assert ModelFolder(memory.folder.path).in_use_name() == second
