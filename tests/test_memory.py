import contextlib
import gc
import os
import re
import tempfile
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance
from deepmem_integrations._locks import WriteLock
from deepmem_integrations.adapter import PROBES
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import (
    AdapterFileError,
    EmbeddingMismatchError,
    InvalidRelevanceError,
    InvalidVectorsError,
    ModelNotFoundError,
    StorageError,
    StoreError,
)
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.serving import ServedAdapter
from deepmem_integrations.training.candidates import Candidate, transforms
from deepmem_integrations.training.guard import Choice
from deepmem_integrations.words import Found
from tests.embeddings import LookupEmbeddings
from tests.jobs.helpers import add_model
from tests.words.conftest import flip_postings


@pytest.fixture
def store(problem, tmp_path):
    store = DeepLakeStore(tmp_path / "dataset")
    store.add(problem.ids, problem.corpus)
    return store


@pytest.fixture
def memory(store, embeddings):
    return DeepMemory.from_deeplake(store, embeddings)


def test_train_status_evaluate_as_in_v3(memory, problem, capsys):
    job_id = memory.train(list(problem.train.queries), problem.train.relevance)
    assert re.fullmatch("[0-9a-f]{24}", job_id)
    assert memory.get_model() == job_id
    capsys.readouterr()

    status = memory.status(job_id)
    assert (status.state, status.progress, status.eta) == ("completed", 1.0, 0.0)
    table = capsys.readouterr().out.splitlines()
    assert {len(line) for line in table} == {62}
    assert table[1] == f"|{job_id:^60}|"
    assert table[3] == "| status                     | completed                     |"
    assert re.fullmatch(r"\| results +\| recall@10: \d+\.\d% \(\+\d+\.\d%\) +\|", table[8])
    assert "on held-out training queries" in table[9]

    result = memory.evaluate(queries=list(problem.test.queries), relevance=problem.test.relevance)
    assert result["with model"]["recall@10"] > result["without model"]["recall@10"]
    printed = capsys.readouterr().out
    assert re.match(r"Embedding queries took \d+\.\d\d seconds\n---- Evaluating without Deep Memory ----\nRecall@1:\t  ", printed)
    assert (
        f"Recall@10:\t  {100 * result['with model']['recall@10']:.1f}%"
        in printed.split("---- Evaluating with Deep Memory ----")[1]
    )


def test_a_relevance_is_taken_wherever_two_lists_are(memory, problem):
    memory.train(problem.train.take(range(60)))
    one = memory.evaluate(problem.test, top_k=[10])
    assert memory.evaluate(relevance=problem.test, top_k=[10]) == one
    assert memory.evaluate(problem.test.relevance, list(problem.test.queries), top_k=[10]) == one
    assert memory.evaluate(problem.test, embedding=problem.test_queries, top_k=[10]) == one


def test_models_survive_a_restart_and_are_chosen_by_name(memory, problem, store, embeddings):
    first = memory.train(problem.train.take(range(60)))
    second = memory.train(problem.train.take(range(50)))
    assert memory.get_model() == second
    again = DeepMemory.from_deeplake(store.path, embeddings)
    assert again.get_model() == second
    again.set_model(first)
    assert memory.get_model() == first
    x = problem.test_queries[:3]
    np.testing.assert_array_equal(memory.transform(x), again.transform(x), err_msg="a running memory picks the new model up")
    with pytest.raises(ValueError, match=rf"Invalid model name. Please choose from the following models: {first}, {second}"):
        memory.set_model("nope")
    with pytest.raises(ModelNotFoundError):
        memory.set_model("../dataset")
    assert memory.folder.path == type(memory.folder.path)(f"{store.path}.deepmemory")


def test_the_identity_does_not_replace_a_model_in_use(memory, problem, caplog, capsys):
    few = problem.train.take(range(5))
    nothing = memory.train(few)
    assert memory.get_model() == nothing, "the first model serves, whatever it is"
    assert memory.adapter.is_identity
    good = memory.train(problem.train.take(range(60)))
    assert memory.get_model() == good
    assert not caplog.records
    again = memory.train(few)
    assert memory.get_model() == good
    assert f"to turn the transform off, call set_model('{again}') or run `deepmem use {again}`" in caplog.text
    table = str(memory.status(again))
    assert "| results                    | nothing could be held out     |" in table
    assert "| model                      | identity                      |" in table
    assert "| why                        | 5 labelled queries are too    |" in table
    assert {len(line) for line in table.splitlines()} == {62}


def test_arguments_in_the_wrong_order_or_place_are_told(memory, problem):
    memory.train(problem.train.take(range(60)))
    with pytest.raises(InvalidRelevanceError, match=r"relevance comes first, as in v3: evaluate\(relevance, queries\)"):
        memory.evaluate(list(problem.test.queries), problem.test.relevance)
    with pytest.raises(InvalidRelevanceError, match="nothing beside it"):
        memory.train(problem.train, problem.train.relevance)
    with pytest.raises(InvalidRelevanceError, match="no labelled query"):
        memory.train([], [])


def test_queries_that_the_model_was_trained_on_are_told(memory, problem, caplog):
    some, others = problem.train.take(range(60)), problem.train.take(range(60, 70))
    name = memory.train(some)
    assert memory.adapter.attention is not None
    memory.evaluate(problem.test, top_k=[10])
    assert caplog.text == ""
    memory.evaluate(some + others, top_k=[10])
    assert f"60 of the 70 queries took part in the training of {name}" in caplog.text
    few = memory.train(problem.train.take(range(5)))
    plain = memory.evaluate(problem.test, top_k=[10], model=few)
    assert plain["with model"] == plain["without model"]
    assert memory.get_model() == name


def test_without_a_model_the_error_says_how_to_train_one(memory, problem):
    for call in (lambda: memory.adapter, memory.get_model, lambda: memory.evaluate(problem.test)):
        with pytest.raises(
            ModelNotFoundError, match=r"no trained model in .*dataset\.deepmemory.*deep_memory\.train\(queries, relevance\)"
        ):
            call()


def test_a_failed_training_is_told_and_keeps_the_model_in_use(memory, problem):
    good = memory.train(problem.train.take(range(60)))
    with pytest.raises(InvalidRelevanceError, match="'nope' is not in the corpus"):
        memory.train(["a query"], [[("nope", 1.0)]])
    assert memory.get_model() == good
    failed = [job for job in memory.jobs.all() if job.state == "failed"]
    assert len(failed) == 1
    assert "'nope' is not in the corpus" in failed[0].error
    table = str(failed[0]).splitlines()
    assert {len(line) for line in table} == {62}, "long errors are wrapped"
    assert "| results                    | error: InvalidRelevanceError: |" in table


def test_bad_vectors_from_the_model_are_told(memory, problem):
    with pytest.raises(InvalidVectorsError, match="The embedding model returned NaN"):
        memory.train(problem.train, embedding_function=lambda texts: np.full((len(texts), 32), np.nan))
    with pytest.raises(EmbeddingMismatchError, match="4 dimensions where 32 are expected"):
        memory.train(problem.train, embedding_function=lambda texts: np.ones((len(texts), 4)))


def test_another_dimension_is_refused_before_the_queries_are_embedded(memory, problem):
    embedded = []

    def narrow(texts):
        embedded.extend(texts)
        return np.ones((len(texts), 4))

    with pytest.raises(EmbeddingMismatchError):
        memory.train(problem.train, embedding_function=narrow)
    assert set(embedded) == set(PROBES)


def test_an_empty_store_cannot_be_trained_on(tmp_path, embeddings, problem):
    with pytest.raises(InvalidVectorsError, match="corpus is empty"):
        DeepMemory.from_deeplake(tmp_path / "empty", embeddings).train(problem.train)


def test_an_unwritable_folder_is_noticed_before_the_training(store, embeddings, problem, tmp_path):
    (tmp_path / "file").write_text("in the way")
    calls = []
    memory = DeepMemory.from_deeplake(store, lambda texts: calls.append(texts), path=tmp_path / "file")
    with pytest.raises(StorageError, match="Cannot write"):
        memory.train(problem.train)
    assert calls == []


def test_in_a_read_only_folder_training_is_a_clear_error_and_the_model_serves_on(problem, embeddings, as_another_user):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        memory = DeepMemory.from_deeplake("mem://read-only", embeddings, path=folder / "models")
        memory.corpus.store.add(problem.ids, problem.corpus)
        good = memory.train(problem.train.take(range(60)))
        for path in (folder / "models", folder / "models" / "jobs", folder / "models" / "models"):
            path.chmod(0o555)
        with as_another_user():
            with pytest.raises(StorageError, match="Permission denied"):
                memory.train(problem.train)
            with pytest.raises(StorageError, match="Permission denied"):
                memory.set_model(good)
            fresh = DeepMemory(memory.corpus, embeddings, folder / "models")
            assert not fresh.adapter.is_identity
            assert fresh.get_model() == good
        for path in folder.glob("models/**/"):
            path.chmod(0o755)


@pytest.fixture
def as_another_user():
    """Root may write anywhere, so act as somebody else for a while."""

    @contextlib.contextmanager
    def act():
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(was)

    return act


def test_a_damaged_model_is_told_and_another_one_can_be_used(memory, problem):
    good = memory.train(problem.train.take(range(60)))
    bad = memory.train(problem.train.take(range(50)))
    file = memory.folder.path / "models" / f"{bad}.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    fresh = DeepMemory(memory.corpus, memory.embedder, memory.folder.path)
    with pytest.raises(AdapterFileError, match=f"{bad}.safetensors"):
        fresh.transform(problem.test_queries)
    with pytest.raises(AdapterFileError):
        fresh.set_model(bad)
    fresh.set_model(good)
    fresh.transform(problem.test_queries)


def test_another_embedding_model_is_refused(memory, problem, store):
    memory.train(problem.train.take(range(60)))

    class Other(LookupEmbeddings):
        model_name = "other"

        def embed_query(self, text):
            return list(np.roll(super().embed_query(text), 1))

    other = DeepMemory.from_deeplake(store, Other(problem))
    with pytest.raises(EmbeddingMismatchError, match=r"trained for lookup \(32 dimensions\) but is used with other"):
        other.evaluate(problem.test)
    served = ServedAdapter(memory)
    with pytest.raises(EmbeddingMismatchError):
        served.check(memory.adapter, Other(problem))
    served.check(memory.adapter, LookupEmbeddings(problem))


def test_v3s_token_and_runtime_are_told_to_be_unneeded(memory, problem):
    with pytest.warns(UserWarning, match="token is ignored: Deep Memory trains on this machine"):
        memory.train(problem.train.take(range(5)), token="secret")
    with pytest.warns(UserWarning, match="token and runtime are ignored: Deep Memory") as caught:
        memory.train(problem.train.take(range(5)), token="secret", runtime={"tensor_db": True})
    assert len(caught) == 1


def test_a_remote_data_set_needs_a_place_for_models(embeddings, problem, tmp_path):
    with pytest.raises(StoreError, match="no local folder.*pass the folder as path="):
        DeepMemory.from_deeplake("mem://somewhere", embeddings)
    memory = DeepMemory.from_deeplake("mem://somewhere", embeddings, path=tmp_path / "models here")
    memory.corpus.store.add(problem.ids, problem.corpus)
    memory.train(problem.train.take(range(60)))
    assert (tmp_path / "models here" / "current").exists()


def test_remember_and_forget_put_a_grown_model_in_use(memory, problem, caplog):
    first = memory.train(problem.train.take(range(100)), keep_texts=True)
    if memory.adapter.attention is None:
        pytest.fail("this problem gives an attention part")
    new = problem.train.take(range(100, 110))
    second = memory.remember(new)
    assert memory.get_model() == second != first
    assert set(new.query_ids) <= set(memory.adapter.remembered_queries.query_ids)
    top = memory.explain(new.queries[0]).influences[0]
    assert new.queries[0] in top.texts
    third = memory.forget(query_ids=iter(new.query_ids[:4]))
    assert memory.forget() == memory.forget(query_ids=[]) == third, "nothing to forget makes no model"
    assert memory.get_model() == third
    assert not set(new.query_ids[:4]) & set(memory.adapter.remembered_queries.query_ids)
    assert memory.adapter.growth.added == 6
    with caplog.at_level("WARNING"):
        memory.remember(problem.train.take(range(110, 140)))
    assert "A full training is due" in caplog.text
    memory.set_model(first)
    assert memory.adapter.growth.added == 0


def test_what_threads_and_a_training_put_in_use_meanwhile_is_not_lost(memory, problem, monkeypatch):
    memory.train(problem.train.take(range(60)))
    parts = [problem.train.take([row]) for row in range(60, 66)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(memory.remember, parts))
    assert {part.query_ids[0] for part in parts} <= set(memory.adapter.remembered_queries.query_ids)

    # A training of other labels ends between the reading of the model and the writing of the grown one.
    memory.folder.save_model("other", memory.adapter.forget(query_ids=problem.train.query_ids[:30]))
    grow = QueryAdapter.forget

    def forget(adapter, **options):
        monkeypatch.setattr(QueryAdapter, "forget", grow)
        memory.set_model("other")
        return grow(adapter, **options)

    monkeypatch.setattr(QueryAdapter, "forget", forget)
    memory.forget(query_ids=[problem.train.query_ids[40]])
    assert memory.list_models()[-1].parent == "other"
    assert len(memory.adapter.remembered_queries.query_ids) == 60 + 6 - 30 - 1


def test_what_cannot_be_remembered_is_told(memory, problem):
    memory.train(problem.train.take(range(60)))
    with pytest.raises(InvalidRelevanceError, match="no labelled query to remember"):
        memory.remember(Relevance([], []))
    turned = np.roll(np.eye(32), 1, axis=0)
    other = DeepMemory(memory.corpus, lambda texts: memory.embedder.embed_queries(texts) @ turned, memory.folder.path)
    with pytest.raises(EmbeddingMismatchError, match="different vectors"):
        other.remember(problem.train.take([70]))


def test_a_document_that_is_not_in_the_store_cannot_be_remembered(memory, problem):
    name = memory.train(problem.train.take(range(100)))
    with pytest.raises(InvalidRelevanceError, match=r"'nowhere' is not in the corpus \(1 such label in all\)"):
        memory.remember(Relevance(["new"], [[("nowhere", 1.0)]], ["new"]))
    assert memory.get_model() == name


def test_validation_queries_are_embedded_and_judge(memory, problem):
    job_id = memory.train(problem.train, validation=problem.test)
    assert memory.jobs.job(job_id).report["seen"]["queries"] == f"{len(problem.test)} validation queries"
    with pytest.raises(InvalidRelevanceError, match="'nowhere' is not in the corpus"):
        memory.train(problem.train, validation=Relevance(["new"], [[("nowhere", 1.0)]]))
    assert "on validation queries" in str(memory.jobs.job(job_id))


def test_validation_queries_that_judge_nothing_are_no_validation(memory, problem):
    with pytest.raises(InvalidRelevanceError, match="There is no validation query"):
        memory.train(problem.train, validation=Relevance([], []))
    gone = Relevance(["new"], [[("nowhere", 1.0)]])
    with (
        pytest.raises(InvalidRelevanceError, match="No document that the validation queries ask for is in the store"),
        pytest.warns(),
    ):
        memory.train(problem.train, validation=gone, on_invalid="drop")


# ---- measuring -------------------------------------------------------------------------------------------------------


@pytest.fixture
def turned(memory, problem):
    """A memory whose model costs no training and moves every query."""
    add_model(memory, linear=np.roll(np.eye(32, dtype=np.float32), 1, axis=1))
    return memory


def test_measure_prints_nothing_and_evaluate_prints_v3s_blocks(turned, problem, capfd):
    measured = turned.measure(problem.test, top_k=[1, 10])
    assert capfd.readouterr() == ("", "")
    assert measured.embedding_seconds > 0
    evaluated = turned.evaluate(problem.test, top_k=[1, 10])
    assert evaluated == measured
    first, *blocks = capfd.readouterr().out.splitlines()
    assert re.fullmatch(r"Embedding queries took \d+\.\d\d seconds", first)
    expected = []
    for title, side in (("without", "without model"), ("with", "with model")):
        expected.append(f"---- Evaluating {title} Deep Memory ----")
        expected += [f"Recall@{k}:\t  {100 * measured[side][f'recall@{k}']:.1f}%" for k in (1, 10)]
    assert blocks == expected
    turned.evaluate(problem.test, embedding=problem.test_queries, top_k=[1])
    assert capfd.readouterr().out.startswith("---- Evaluating without"), "nothing was embedded"


def test_labels_are_measured_only_if_their_documents_are_there(turned, problem):
    """They are checked before a query is embedded, which may cost money."""
    embedded = []

    def embed(texts):
        embedded.extend(texts)
        return turned.embedder.embed_documents(texts)

    wrong = problem.test.take(range(5)) + Relevance(["one more"], [[("nowhere", 1.0)]])
    with pytest.raises(InvalidRelevanceError, match="'nowhere' is not in the corpus"):
        turned.measure(wrong, embedding_function=embed)
    assert embedded == []
    turned.measure(problem.test.take(range(5)), embedding_function=embed)
    assert embedded[-5:] == list(problem.test.queries[:5])


# ---- closing ---------------------------------------------------------------------------------------------------------


def test_a_store_is_let_go_with_its_deep_memory(problem, embeddings, tmp_path):
    """At once, by reference counting: a store in a circle would keep its files until the garbage is collected."""
    store = DeepLakeStore(tmp_path / "dataset")
    store.add(problem.ids, problem.corpus)
    memory = DeepMemory.from_deeplake(store, embeddings)
    add_model(memory, linear=np.eye(32, dtype=np.float32))
    memory.transform(problem.test_queries)
    memory.measure(problem.test, top_k=[1])
    let_go = weakref.ref(store), weakref.ref(memory)
    gc.disable()
    try:
        del store, memory
        assert [reference() for reference in let_go] == [None, None]
    finally:
        gc.enable()


# ---- words --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(problem, embeddings, tmp_path):
    """A Deep Memory over documents that can be changed: id → text."""
    texts = {name: f"the page of {name}" for name in problem.ids}

    class Shelf(GivenCorpus):
        def texts(self):
            yield list(texts), list(texts.values())

    return DeepMemory(Shelf(problem.ids, problem.ids, problem.ids, embeddings), embeddings, tmp_path / "m"), texts


def test_training_builds_the_word_index_and_refresh_follows_the_store(shelf, problem):
    memory, texts = shelf
    assert memory.lexical_search is None
    name = memory.train(problem.train)
    index = memory.lexical_search
    assert len(index) == len(texts)
    assert memory.folder.info(name).data["words"] == index.fingerprint
    texts["doc-new"], texts["doc-0"] = "a page on zeppelins", "now about balloons"
    del texts["doc-1"]
    assert str(memory.refresh()) == "Refreshed(added=1, changed=1, deleted=1, unchanged=298)"
    assert index.search("zeppelins", 1).ids == ["doc-new"]
    assert memory.refresh().unchanged == 300
    german = memory.refresh(language="de")
    assert (german.added, memory.lexical_search.language) == (300, "de")


def test_without_words_no_text_is_read(shelf, problem):
    memory, texts = shelf
    texts.clear()
    memory.train(problem.train, words=False)
    assert memory.lexical_search is None
    assert memory.adapter.ranking is None or memory.adapter.ranking.words == 0


def test_words_that_are_no_search_are_refused_before_anything_is_done(shelf, problem):
    memory, _ = shelf
    with pytest.raises(TypeError, match="words is True, False, or a search"):
        memory.train(problem.train, words="yes")
    assert not memory.folder.path.exists()


def test_a_damaged_word_index_is_built_anew(shelf, problem, caplog):
    memory, texts = shelf
    memory.refresh()
    (memory.folder.words_path / "index.json").write_text("{")
    again = DeepMemory(memory.corpus, memory.embedder, memory.folder.path)
    assert again.refresh().added == len(texts)
    assert "The word index is built anew" in caplog.text


def test_a_folder_that_cannot_be_written_is_not_called_a_damaged_index(shelf, caplog, monkeypatch):
    memory, texts = shelf
    memory.refresh()
    del texts["doc-0"]

    def refuse(lock, descriptor, wait):
        raise StorageError("Cannot write: Permission denied.")

    monkeypatch.setattr(WriteLock, "_try", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        memory.refresh()
    assert not caplog.messages


def test_retrievers_use_the_search_that_the_model_in_use_was_trained_with(shelf, problem, caplog):
    memory, _ = shelf
    right = {text: [name for name, _ in pairs] for _, text, pairs in [*problem.train, *problem.test]}

    class Exact:
        def search(self, text, k, filter=None):
            return Found(list(right[text])[:k], np.full(min(k, len(right[text])), 2.0, dtype=np.float32))

    class Other(Exact):
        pass

    exact = Exact()
    memory.train(problem.train, words=exact)
    assert memory.adapter.ranking.search == "Exact" and memory.adapter.ranking.words
    memory.train(problem.train, words=Other(), in_use="never")
    assert memory.lexical_search is exact, "no model that was trained with the other one is in use"
    served = memory.measure(problem.test)["with model"]["recall@10"]

    night = DeepMemory(memory.corpus, memory.embedder, memory.folder.path)
    assert night.measure(problem.test)["with model"]["recall@10"] < served
    assert "trained with the words of a Exact, which is not at hand, so it is measured without words" in caplog.text
    kept = night.retrain(problem.train, policy=None)
    assert not kept.replaced and "ranks by the words of a Exact, which is not at hand" in kept.reason

    night.lexical_search = exact
    assert night.measure(problem.test)["with model"]["recall@10"] == served
    again = night.retrain(problem.train, policy=None, in_use="always")
    assert again.replaced and night.adapter.ranking.search == "Exact", "the search that was set takes the place of the index"


@pytest.mark.slow
def test_a_search_of_the_users_own_trains_in_another_process(store, embeddings, problem):
    class Exact:
        """Finds the documents that a text's number names."""

        def search(self, text, k, filter=None):
            return Found(list(right[text])[:k], np.full(min(k, len(right[text])), 2.0, dtype=np.float32))

    right = {text: [name for name, _ in pairs] for _, text, pairs in problem.train}
    memory = DeepMemory.from_deeplake(store, embeddings)
    job = memory.train(problem.train, words=Exact(), wait=False)
    deadline = time.monotonic() + 300
    while memory.jobs.job(job).state not in ("completed", "failed") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert memory.jobs.job(job).state == "completed"
    assert memory.adapter.ranking.search == "Exact"
    assert memory.adapter.ranking.words > 0
    assert memory.lexical_search.__class__ is Exact


def test_damage_inside_a_word_index_is_found_by_training_and_refresh(shelf, problem, caplog):
    memory, texts = shelf
    for again in (memory.refresh, lambda: memory.train(problem.train.take(range(5)))):
        memory.refresh()
        flip_postings(memory.lexical_search)
        caplog.clear()
        again()
        assert "The word index is built anew" in caplog.text
        memory.lexical_search.verify()
        assert len(memory.lexical_search) == len(texts)


def test_a_text_that_cannot_be_indexed_leaves_the_words_out(memory, problem, caplog, monkeypatch):
    def texts():
        raise StoreError("A document of the store has no text.")

    monkeypatch.setattr(memory.corpus, "texts", texts)
    memory.train(problem.train.take(range(60)))
    assert "The training goes on without words: A document of the store has no text." in caplog.text
    assert memory.lexical_search is None


# ---- what a training chose ----------------------------------------------------------------------------------------------

CHOICES = {
    "identity": (Candidate(), Candidate()),
    "linear": (Candidate("labelled"), Candidate("labelled")),
    "words alone": (Candidate(), Candidate(vector=False, words=1.0)),
    "words": (Candidate(), Candidate(words=0.2)),
    "attention": (Candidate(attention=3.0), Candidate(attention=3.0)),
    "answers": (Candidate(), Candidate(answers=0.8)),
    "words and answers": (Candidate(), Candidate(words=0.2, answers=0.8)),
    "attention for retrievers": (Candidate(), Candidate(attention=3.0, words=0.2)),
}
USED = ("attention", "answers", "words and answers", "attention for retrievers")


@pytest.fixture
def trained_to(shelf, problem, monkeypatch):
    """A function that trains a memory whose guard chooses what the test wants."""
    memory, _ = shelf

    def train(name):
        transform, ranking = CHOICES[name]

        def choose(views, candidates, **options):
            return Choice(transform if len(candidates) == len(transforms(60)) else ranking, "the test says so")

        monkeypatch.setattr("deepmem_integrations.training.train.choose", choose)
        memory.train(problem.train.take(range(60)), keep_texts=True)
        return memory

    return train


def ranked(memory, query, others=()):
    """Rank as a retriever does: the ids, best first."""
    asked = Ranker(memory).query(query, memory.embedder.embed_query(query))
    return asked.rank([*others, "doc-250", "doc-251"], None, asked.words(10))


@pytest.mark.parametrize("name", CHOICES)
def test_a_nightly_job_remembers_and_forgets_whatever_the_training_chose(trained_to, problem, name, caplog):
    memory = trained_to(name)
    first, adapter = memory.get_model(), memory.adapter
    assert len(adapter.remembered_queries.query_ids) == 60
    assert adapter.growth.used == (name in USED)
    before = adapter.transform(problem.test_queries), adapter.for_ranking().transform(problem.test_queries)
    for night in range(3):
        caplog.clear()
        new = Relevance([f"night {night}"], [[("doc-299", 1.0)]], [f"night {night}"])
        memory.remember(new)
        told = "change no result yet" in caplog.text
        assert told == ("A full training is due." in caplog.text) == (name not in USED)
    memory = DeepMemory(memory.corpus, memory.embedder, memory.folder.path)
    assert len(memory.adapter.remembered_queries.query_ids) == 63
    assert memory.adapter.ranking is None or str(memory.adapter.ranking) == str(adapter.ranking)
    if name not in USED:
        np.testing.assert_array_equal(memory.adapter.transform(problem.test_queries), before[0])
        np.testing.assert_array_equal(memory.adapter.for_ranking().transform(problem.test_queries), before[1])
    answered = "answers" in name and name in USED
    assert ("doc-299" in ranked(memory, "night 1").ids) == answered
    if answered:
        assert ranked(memory, "night 1").ids[0] == "doc-299", "at once"
        top = memory.explain("night 1").votes[0]
        assert top.query_ids == ("night 1",)
    memory.forget(document_ids=["doc-299"])
    assert "doc-299" not in ranked(memory, "night 1").ids
    assert len(memory.adapter.remembered_queries.query_ids) == 60
    assert memory.get_model() != first


def test_a_model_of_an_earlier_version_without_remembered_queries_says_what_to_do(memory, problem):
    add_model(memory, linear=np.eye(32, dtype=np.float32))
    for call in (lambda: memory.remember(problem.train.take([0])), lambda: memory.forget(document_ids=["doc-0"])):
        with pytest.raises(
            InvalidRelevanceError,
            match=r"remembers no queries \(it has no attention part, or all queries were forgotten\).*train again",
        ):
            call()


# ---- explaining ---------------------------------------------------------------------------------------------------------


def test_explain_tells_what_each_channel_brings(trained_to, problem):
    memory = trained_to("words and answers")
    query = problem.train.queries[3]
    (answer, _), *_ = problem.train.labels[3]
    explanation = memory.explain(query, top=4)
    assert explanation.ranking == str(memory.adapter.ranking)
    assert len(explanation.documents) == 4
    asked = Ranker(memory).query(query, problem.train_queries[3])
    cosines = problem.corpus @ np.array(asked.vector)
    rows = np.argsort(-cosines)[:100]
    expected = asked.rank([problem.ids[row] for row in rows], cosines[rows], asked.words(100)).choices(4)
    for document, choice in zip(explanation.documents, expected, strict=True):
        assert document.id == choice.id
        assert document.score == pytest.approx(choice.score, abs=1e-5)
        assert list(document.channels) == ["vector", "words", "answers"]
        for name, (score, rank) in document.channels.items():
            assert score == pytest.approx(choice.evidence[name].score, abs=1e-5)
            assert rank == choice.evidence[name].rank
    best = explanation.documents[0]
    assert best.id == answer
    assert best.channels["answers"][1] == 1
    assert best.channels["vector"][0] == pytest.approx(cosines[problem.ids.index(answer)], abs=1e-5)
    assert explanation.votes[0].texts == (query,)
    assert "vector + " in str(explanation)


def test_explain_names_words_where_they_are_the_reason(trained_to):
    memory = trained_to("words")
    explanation = memory.explain("the page of doc-17", top=3)
    assert explanation.documents[0].id == "doc-17"
    assert explanation.documents[0].channels["words"][1] == 1
    assert list(explanation.documents[0].channels) == ["vector", "words"]
    assert explanation.votes == ()


def test_explain_of_vectors_alone_lists_the_nearest_documents(turned, problem):
    explanation = turned.explain(problem.test.queries[0], top=3)
    nearest = np.argsort(-(problem.corpus @ turned.transform(problem.test_queries[0])))[:3]
    assert [document.id for document in explanation.documents] == [problem.ids[row] for row in nearest]
    assert explanation.ranking == "vector"
    assert explanation.ranking_degrees == pytest.approx(explanation.degrees, abs=1e-3)
    assert list(explanation.documents[0].channels) == ["vector"]


def test_explain_shows_the_rank_without_the_model(turned, problem):
    explanation = turned.explain(problem.test.queries[0], top=20)
    plain = np.argsort(-(problem.corpus @ problem.test_queries[0]))[:100].tolist()
    ranks = {problem.ids[row]: rank for rank, row in enumerate(plain, start=1)}
    assert [document.without for document in explanation.documents] == [
        ranks.get(document.id) for document in explanation.documents
    ]
    assert [document.without for document in explanation.documents] != list(range(1, 21)), "the model changed the order"
    assert str(explanation).splitlines()[2].endswith("vector   without")


def test_documents_that_the_store_has_no_more_are_not_explained(trained_to, problem):
    memory = trained_to("words and answers")
    query, gone = problem.train.queries[3], problem.train.labels[3][0][0]
    assert memory.explain(query).documents[0].id == gone
    left = [name for name in problem.ids if name != gone]
    other = DeepMemory(GivenCorpus(left, left, left, memory.embedder), memory.embedder, memory.folder.path)
    found = other.explain(query, top=300)
    assert gone not in [document.id for document in found.documents]


def test_a_store_that_is_searched_and_not_listed_is_explained(trained_to, problem, embeddings):
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import InMemoryVectorStore

    memory = trained_to("words and answers")
    model = type("Model", (LookupEmbeddings, Embeddings), {})(problem)
    store = InMemoryVectorStore.from_texts(problem.ids, model, ids=problem.ids)
    searched = DeepMemory.from_langchain(store, memory.folder.path, scan=False)
    query = problem.train.queries[3]
    found, expected = searched.explain(query), memory.explain(query)
    assert [document.id for document in found.documents] == [document.id for document in expected.documents]
    assert [document.without for document in found.documents] == [document.without for document in expected.documents]
    assert found.votes == expected.votes


def test_where_the_store_cannot_be_read_the_explanation_names_no_documents(turned, problem, caplog, monkeypatch):
    def around(queries, k, ids):
        raise StoreError("The store fetches nothing by id.")

    monkeypatch.setattr(turned.corpus, "around", around)
    explanation = turned.explain(problem.test.queries[0])
    assert explanation.documents == ()
    assert explanation.degrees > 0
    assert "The explanation names no documents: The store fetches nothing by id." in caplog.text


# ---- evaluating a ranking -----------------------------------------------------------------------------------------------


def test_evaluate_prints_v3s_blocks_whatever_the_model_ranks_by(trained_to, problem, capsys):
    memory = trained_to("words and answers")
    capsys.readouterr()
    result = memory.evaluate(problem.test, top_k=[1, 10])
    assert set(result) == {"without model", "transform alone", "words alone", "hybrid (RRF)", "with model"}
    first, *blocks = capsys.readouterr().out.splitlines()
    assert first.startswith("Embedding queries took ")
    expected = []
    for title, side in (("without", "without model"), ("with", "with model")):
        expected.append(f"---- Evaluating {title} Deep Memory ----")
        expected += [f"Recall@{k}:\t  {100 * result[side][f'recall@{k}']:.1f}%" for k in (1, 10)]
    assert blocks == expected


def test_an_evaluation_goes_on_without_words_that_cannot_be_read(trained_to, problem, caplog):
    memory = trained_to("words and answers")
    flip_postings(memory.lexical_search)
    (memory.folder.words_path / "index.json").write_text("{")
    result = DeepMemory(memory.corpus, memory.embedder, memory.folder.path).measure(problem.test, top_k=[1])
    assert "The evaluation goes on without words" in caplog.text
    assert set(result) == {"without model", "transform alone", "with model"}


def test_thumbs_down_go_through_a_training_an_evaluation_and_growth(memory, problem):
    down = [[(problem.ids[-1 - row % 5], -1.0)] for row in range(len(problem.train))]
    labels = Relevance(problem.train.queries, [[*one, *other] for one, other in zip(problem.train.labels, down, strict=True)])
    only = Relevance(["no good"], [[(problem.ids[-1], -1.0)]], ["only"])
    job = memory.train(labels + only)
    report = memory.status(job).report
    assert (report["irrelevant"], report["queries"]) == (len(labels) + 1, len(labels) + 1)
    remembered = memory.adapter.remembered_queries
    assert remembered.documents_of(remembered.query_ids.index("only")) == {problem.ids[-1]: -1.0}
    judged = problem.test + Relevance(["only wrong"], [[(problem.ids[-1], 0)]], ["wrong"])
    evaluation = memory.evaluate(judged)
    assert evaluation.unscored == 1
    assert evaluation["with model"]["recall@10"] > evaluation["without model"]["recall@10"]
    assert 0 <= evaluation["with model"]["irrelevant@10"] <= evaluation["with model"]["judged@10"] <= 1
    memory.remember(Relevance(["another"], [[(problem.ids[0], -0.5)]], ["new"]))
    remembered = memory.adapter.remembered_queries
    assert remembered.documents_of(remembered.query_ids.index("new")) == {problem.ids[0]: -0.5}
    memory.forget(query_ids=["new", "only"])
    assert not {"new", "only"} & set(memory.adapter.remembered_queries.query_ids)
    with pytest.raises(InvalidRelevanceError, match="'nowhere' is not in the corpus"):
        memory.train(Relevance(["q"], [[("nowhere", -1.0)]]))


def test_labels_come_in_either_shape(memory, problem):
    train, judges = problem.train.take(range(100)), problem.test.take(range(40))
    pair = judges.queries, judges.relevance
    memory.train(train, validation=judges, seed=np.int64(0), words=np.bool_(True))
    one = memory.adapter.transform(problem.test_queries)
    memory.train(train.queries, train.relevance, validation=pair)
    np.testing.assert_array_equal(memory.adapter.transform(problem.test_queries), one)
    new = problem.train.take(range(100, 103))
    memory.remember(new.queries, new.relevance)
    memory.remember(relevance=problem.train.take(range(103, 105)))
    assert memory.adapter.growth.added == 5
    with pytest.raises(
        InvalidRelevanceError, match="Pass one Relevance and nothing beside it, or queries together with relevance"
    ):
        memory.remember(["a query"])
    for wrong in (pair[0], [pair[1]], "labels.jsonl"):
        with pytest.raises(InvalidRelevanceError, match="validation is a Relevance, or the pair"):
            memory.train(train, validation=wrong)
    assert memory.measure(judges, top_k=np.array([1, 5])).top_k == (1, 5)
