"""`DeepMemory.train(…, in_use=…)` and `DeepMemory.retrain`, from labels to the model in use."""

import json
import time
from datetime import timedelta

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations._locks import FileLock
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.retraining import RetrainPolicy
from deepmem_integrations.retraining.policy import last_training
from tests.embeddings import LookupEmbeddings
from tests.jobs.helpers import add_model, leftovers, until_ended


def spoilt(labels, seed=0):
    """The same queries with each other's answers."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return Relevance(labels.queries, [labels.labels[row] for row in order], labels.query_ids)


def test_a_worse_model_is_not_put_in_use_and_the_audit_line_says_why(memory, problem, caplog):
    good = memory.train(problem.train, in_use="if better", by="cron")
    train, held = memory.hold_out(problem.train)
    remembered = memory.adapter.remembered_queries
    assert remembered.trained == len(train), "nothing of the held-out queries reaches the training"
    assert not set(remembered.query_ids) & set(held.query_ids)

    # A job that mixed up the answers since then: the held-out queries are from before.
    spoilt_model = memory.train(spoilt(train) + held, in_use="if better", max_unseen_loss=100, by="cron")
    assert memory.get_model() == good
    line = json.loads(memory.folder.audit.path.read_text().splitlines()[-1])
    assert (line["action"], line["model"], line["before"], line["in_use"], line["by"]) == (
        "train",
        spoilt_model,
        good,
        good,
        "cron",
    )
    assert line["reason"].startswith(f"worse beyond chance than the model in use, {good}, on ")
    assert line["figures"]["gains"]["mean"]["high"] < 0
    assert line["figures"]["questions"] >= 20
    assert f"The new model {spoilt_model} is not put in use: worse beyond chance" in caplog.text
    assert memory.jobs.job(spoilt_model).state == "completed"
    assert memory.folder.info(spoilt_model).error is None, "it is there for set_model"
    memory.set_model(spoilt_model)
    assert memory.rollback() == good


@pytest.mark.slow
def test_a_better_model_is_put_in_use_in_a_process_of_its_own(memory, problem, capsys):
    first = add_model(memory)
    job_id = memory.train(problem.train, in_use="if better", wait=False, by="cron")
    assert until_ended(memory, job_id).state == "completed"
    assert memory.get_model() == job_id
    entry = memory.audit()[-1]
    assert entry.reason.startswith(f"better beyond chance than the model in use, {first}, on ")
    assert (entry.by, entry.before) == ("cron", first)
    assert memory.folder.load_model(job_id).metadata["decision"]["better"] is True
    assert leftovers(memory) == []
    capsys.readouterr()


def test_never_trains_a_model_for_later(memory, problem):
    name = memory.train(problem.train.take(range(60)), in_use="never")
    assert memory.folder.in_use_name() is None
    assert memory.audit() == []
    memory.set_model(name)


def test_a_training_that_had_all_queries_is_favoured_by_them(memory, problem):
    memory.train(problem.train)
    memory.train(problem.train, in_use="if better")
    reason = memory.audit()[-1].reason
    assert "of which the model in use has learned" in reason


def test_what_cannot_be_asked_for(memory, problem):
    with pytest.raises(ValueError, match="in_use is 'always', 'if better' or 'never'; got 'if_better'"):
        memory.train(problem.train, in_use="if_better")
    with pytest.raises(ValueError, match="held_out is a share"):
        memory.train(problem.train, in_use="if better", held_out=2)
    held = memory.hold_out(problem.train)[1]
    with pytest.raises(InvalidRelevanceError, match="All of these questions are held out"):
        memory.train(held, in_use="if better")
    with pytest.raises(TypeError, match="retrain waits"):
        memory.retrain(problem.train, wait=False)
    with pytest.raises(InvalidRelevanceError, match="retrain takes one Relevance"):
        memory.retrain(problem.train.queries)
    with pytest.raises(TypeError, match=r"policy is a RetrainPolicy.*; got 50"):
        memory.retrain(problem.train, policy=50)
    with pytest.raises(ValueError, match=r"drift is a share of the documents, such as 0\.2 for a fifth; got 20, a perc"):
        RetrainPolicy(drift=20)
    assert memory.jobs.all() == []


def test_retrain_trains_when_it_is_due_and_only_then(memory, problem, embeddings):
    policy = RetrainPolicy(new_labels=100)
    first = memory.retrain(problem.train.take(range(140)), policy=policy)
    assert first.replaced
    assert first.due.reasons == ("no model was trained yet",)
    assert first.model == memory.get_model()
    again = memory.retrain(problem.train.take(range(220)), policy=policy)
    assert (again.model, again.in_use, bool(again.due)) == (None, first.model, False)
    assert "80 of 100 new labels, 0% of the documents changed" in str(again)
    more = memory.retrain(problem.train, policy=policy)
    assert more.due.reasons == ("100 labelled queries are new or were judged anew (100 are enough)",)
    assert more.model is not None
    assert more.replaced != more.refused
    assert more.reason == memory.audit()[-1].reason
    assert not memory.retraining_due(problem.train, policy), "whether the last model was put in use or not"
    assert memory.retraining_due(spoilt(problem.train), policy), "other judgements are new labels"

    ids = [*problem.ids[100:], *(f"new-{i}" for i in range(20))]
    moved = DeepMemory(GivenCorpus(ids, ids, ids, embeddings), embeddings, memory.folder.path)
    assert "20 documents were added, 0 changed, 100 are gone, 40% of 300" in str(moved.retraining_due(problem.train, policy))
    assert not moved.retraining_due(problem.train, RetrainPolicy(drift=None))
    assert memory.retraining_due(problem.train, RetrainPolicy(age=timedelta(microseconds=1)))
    assert not memory.retraining_due(problem.train, RetrainPolicy(age=timedelta(days=1)))


def test_without_labels_those_that_were_remembered_count(memory, problem):
    memory.train(problem.train.take(range(60)))
    memory.remember(problem.train.take(range(60, 90)))
    assert memory.retraining_due(policy=RetrainPolicy(new_labels=30))
    assert not memory.retraining_due(policy=RetrainPolicy(new_labels=31))


def test_while_a_training_runs_none_is_due(memory):
    with memory.jobs.new() as running:
        due = memory.retraining_due()
        assert (bool(due), str(due)) == (False, f"No retraining is due: the training {running.job.id} is running.")


def test_one_process_at_a_time_retrains(memory, problem):
    other = FileLock(memory.folder.path / "retrain.lock")
    assert other.acquire()
    done = memory.retrain(problem.train)
    assert (done.model, str(done.due)) == (None, "No retraining is due: another retraining is running.")
    other.release()
    assert memory.retrain(problem.train.take(range(60))).model


def test_clicks_whose_probabilities_move_are_no_new_labels(memory, problem):
    def clicks(weight):
        return Relevance(problem.train.queries, [[(name, weight) for name, _ in judged] for judged in problem.train.labels])

    memory.train(clicks(0.6206))
    assert "0 of 50 new labels" in str(memory.retraining_due(clicks(0.6346)))
    assert memory.retraining_due(clicks(-1.0))
    assert memory.retraining_due(clicks(1.0)), "judged anew, by somebody who is sure"


@pytest.mark.parametrize("values", [{"new_labels": 0}, {"drift": -1}, {"new_labels": True}, {"age": timedelta(0)}, {"age": 30}])
def test_a_policy_that_would_always_be_due_is_refused(values):
    with pytest.raises(ValueError, match="above 0"):
        RetrainPolicy(**values)


def test_held_out_questions_stay_held_out_for_another_process(memory, problem, embeddings):
    train, held = memory.hold_out(problem.train.take(range(100)))
    other = DeepMemory(memory.corpus, LookupEmbeddings(problem), memory.folder.path)
    later_train, later_held = other.hold_out(problem.train)
    assert set(held.queries) <= set(later_held.queries)
    assert set(train.queries) <= set(later_train.queries)


def test_a_training_from_the_future_is_not_the_last_one_for_ever(memory, problem, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 40 * 86_400)
    memory.train(problem.train.take(range(60)))
    monkeypatch.undo()
    by_age = RetrainPolicy(new_labels=None, drift=None, age=timedelta(days=30))
    due = memory.retraining_due(problem.train.take(range(60)), by_age)
    assert due.reasons == ("the last training is dated 40 days ahead, so its age is unknown",)
    name = memory.train(problem.train)
    assert last_training(memory.folder).name == name
    assert not memory.retraining_due(problem.train)
