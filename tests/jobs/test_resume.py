"""Trainings whose process is killed, and which go on."""

import errno
import json
import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from deepmem_integrations import DeepMemory
from deepmem_integrations._locks import FileLock
from deepmem_integrations.corpora import DeepLakeCorpus, GivenCorpus
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import (
    InvalidVectorsError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobRunningError,
    ModelNotFoundError,
    StorageError,
    StoreError,
)
from deepmem_integrations.jobs import folder as jobs_folder
from deepmem_integrations.jobs import inputs, trainer
from tests.jobs.helpers import add_model, kill, leftovers, until_ended
from tests.jobs.killed import MOMENTS, note_and_kill, patch


def inputs_of(memory):
    return [path.name for path in memory.jobs.path.glob("*/")]


@pytest.fixture
def lost(memory, problem, monkeypatch):
    """A job that a cluster out of reach has ended."""

    def fail(*_, **__):
        raise JobFailedError("There is no Ray cluster.")

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "train_adapter", fail)
        with pytest.raises(JobFailedError, match="no Ray cluster"):
            memory.train(problem.train, words=False)
    return memory.jobs.all()[-1].id


# ---- what goes on, and what does not ---------------------------------------------------------------------------------


def test_a_lost_job_goes_on_and_leaves_nothing(memory, problem, lost, caplog):
    (warning,) = [record.getMessage() for record in caplog.get_records("setup")]
    assert warning.endswith(f"can go on where it was: call resume({lost!r}) or run `deepmem resume {lost}`.")
    job = memory.jobs.job(lost)
    assert (job.state, inputs_of(memory)) == ("failed", [lost])
    assert 0 < job.resumable_until - time.time() <= jobs_folder.KEPT
    assert "| resumable                  | until 2" in str(job)
    assert memory.resume(lost) == lost
    job = memory.jobs.job(lost)
    assert (job.state, job.error, job.resumable_until) == ("completed", None, None)
    assert memory.get_model() == lost
    assert leftovers(memory) == []
    with pytest.raises(JobFailedError, match="cannot go on: it has completed"):
        memory.resume(lost)


@pytest.mark.parametrize("error", [StoreError("out of reach"), MemoryError()], ids=["store", "memory"])
def test_what_may_pass_is_no_end(memory, problem, monkeypatch, error):
    monkeypatch.setattr(trainer, "train_adapter", raising(error))
    with pytest.raises(type(error)):
        memory.train(problem.train, words=False)
    assert memory.jobs.all()[-1].resumable_until


@pytest.mark.parametrize("error", [InvalidVectorsError("row 7"), KeyboardInterrupt(), JobCancelledError("now")], ids=repr)
def test_what_would_come_again_and_what_was_cancelled_ends_a_job(memory, problem, monkeypatch, error):
    monkeypatch.setattr(trainer, "train_adapter", raising(error))
    with pytest.raises(type(error)):
        memory.train(problem.train, words=False)
    assert memory.jobs.all()[-1].resumable_until is None
    assert leftovers(memory) == []
    with pytest.raises(JobFailedError, match=r"cannot go on: it .* are deleted.*Train again"):
        memory.resume(memory.jobs.all()[-1].id)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_job_that_is_not_resumable_leaves_nothing(memory, problem, monkeypatch):
    monkeypatch.setattr(trainer, "train_adapter", raising(StoreError("out of reach")))
    with pytest.raises(StoreError):
        memory.train(problem.train, words=False, resumable=False)
    assert leftovers(memory) == []
    with pytest.raises(JobFailedError, match="it was trained with resumable=False"):
        memory.resume(memory.jobs.all()[-1].id)


def test_a_running_job_and_one_that_is_not_known(memory):
    with memory.jobs.new() as running:
        with pytest.raises(JobRunningError, match="there is nothing to resume"):
            memory.resume(running.job.id)
    with pytest.raises(JobNotFoundError):
        memory.resume("6508464cd80cab681bfcfff3")


def test_two_do_not_go_on_at_once(memory, lost):
    with memory.jobs.resume(lost):
        with pytest.raises(JobRunningError):
            memory.resume(lost)
        DeepMemory(memory.corpus, memory.embedder, memory.folder.path)
        assert inputs_of(memory) == [lost], "whoever uses the folder meanwhile deletes nothing"


# ---- how long the inputs are kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [72.1, -0.1], ids=["after three days", "by a clock that went back"])
def test_inputs_are_kept_for_three_days(memory, lost, monkeypatch, hours):
    now = time.time()
    monkeypatch.setattr(jobs_folder.time, "time", lambda: now + 3600 * hours)
    job = memory.jobs.job(lost)
    assert (job.state, job.resumable_until) == ("failed", None)
    assert leftovers(memory) == []


def test_inputs_are_kept_where_the_clock_of_another_machine_is_behind(memory, lost, monkeypatch):
    now = time.time()
    monkeypatch.setattr(jobs_folder.time, "time", lambda: now - 5)
    assert memory.jobs.job(lost).resumable_until
    assert inputs_of(memory) == [lost]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO], ids=["of another user", "disk"])
@pytest.mark.parametrize("noticed", [True, False])
def test_inputs_that_cannot_be_read_just_now_are_kept(memory, lost, monkeypatch, code, noticed):
    """Another user, such as that of a service, looks at the jobs, or a disk is away for a moment."""
    if not noticed:
        state = memory.jobs.path / f"{lost}.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "state": "training", "resumable_until": None}))

    def fail(folder, name):
        raise StorageError("Cannot read it.") from OSError(code, "not now")

    with monkeypatch.context() as patched:
        patched.setattr(inputs, "_read_json", fail)
        memory.jobs.sweep()
    assert memory.jobs.job(lost).resumable_until
    assert memory.resume(lost) == lost


def test_inputs_are_kept_until_another_training_has_begun(memory, problem, lost):
    with pytest.raises(Exception, match="no-such"):
        memory.train(problem.train.queries[:1], [[("no-such", 1.0)]], words=False)
    assert memory.jobs.job(lost).resumable_until, "labels that cannot be used are no training"
    with memory.jobs.new() as running:
        running.begin()
        assert inputs_of(memory) == []
    assert memory.jobs.job(lost).resumable_until is None


@pytest.mark.parametrize("verb", ["cancel", "delete"])
def test_inputs_are_kept_until_the_job_is_given_up(memory, lost, verb):
    assert getattr(memory, verb)(lost) is True
    assert leftovers(memory) == []
    if verb == "cancel":
        assert memory.jobs.job(lost).state == "cancelled"
        assert memory.cancel(lost) is False
        with pytest.raises(JobFailedError, match="it was cancelled"):
            memory.resume(lost)


def test_forgetting_names_the_trainings_that_know_the_queries(memory, lost, caplog):
    with memory.jobs.new() as running, pytest.raises(ModelNotFoundError):
        memory.forget(query_ids=["q-1"])
    told = [record.getMessage() for record in caplog.records]
    assert [f"{lost} was lost and can go on" in one for one in told] == [True, False]
    assert f"{running.job.id} is running" in told[1]
    assert f"end it with cancel({lost!r})" in told[0]


def test_inputs_are_kept_while_another_process_notes_the_loss(memory, lost, monkeypatch):
    """The other process has taken the lock after this one has looked at it."""
    state = memory.jobs.path / f"{lost}.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "state": "training", "resumable_until": None}))
    with FileLock(memory.jobs.lock_path(lost)), monkeypatch.context() as patched:
        patched.setattr(FileLock, "is_held", lambda path: False)
        memory.jobs.sweep()
    assert inputs_of(memory) == [lost]
    assert memory.jobs.job(lost).resumable_until


def test_inputs_that_are_not_complete_are_not_kept(memory, lost):
    (memory.jobs.inputs(lost) / "options.json").unlink()
    assert memory.jobs.job(lost).resumable_until is None
    assert leftovers(memory) == []


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


def memories(kind, problem, embeddings, folder):
    """Two memories over the same documents, one copied into the job and one read where it lies."""
    if kind == "copied":
        corpus = GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings)
    else:
        store = DeepLakeStore(folder / "pages")
        store.add(problem.ids, problem.corpus, problem.ids)
        corpus = DeepLakeCorpus(store)
    return [DeepMemory(corpus, embeddings, folder / name) for name in ("whole", "resumed")]


def check_equal(one, other, problem):
    one, other = one.adapter, other.adapter
    np.testing.assert_array_equal(one.transform(problem.test_queries), other.transform(problem.test_queries))
    assert str(one.ranking) == str(other.ranking)
    reports = [{k: v for k, v in adapter.metadata["report"].items() if k != "seconds"} for adapter in (one, other)]
    assert reports[0] == reports[1]
    assert one.metadata["data"] == other.metadata["data"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copied", "read where it lies"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_training_goes_on_to_the_same_model(problem, embeddings, tmp_path, killing, kind, moment):
    whole, resumed = memories(kind, problem, embeddings, tmp_path)
    options = {"in_use": "if better", "wait": False}
    killing(None)
    until_ended(whole, whole.train(problem.train, **options))
    every = killing(moment)
    assert (every["shards"], every["folds"]) == (8, 6)

    job_id = resumed.train(problem.train, **options)
    job = until_ended(resumed, job_id)
    assert (job.state, "is gone: it was killed" in job.error) == ("failed", True)
    assert resumed.folder.models() == []
    before = killing(None)
    resumed.resume(job_id, wait=False)
    job = until_ended(resumed, job_id)
    assert job.state == "completed", job
    after = killing(None)
    check_equal(whole, resumed, problem)
    assert leftovers(resumed) == []
    # What was kept is not done again.
    shards = {"start": 0, "corpus": 5, "corpus, while written": 4}.get(moment, 8)
    assert before["shards"] >= shards and after["shards"] == 8 - shards
    folds = {"start": 0, "corpus": 0, "corpus, while written": 0, "folds": before["kept"]}.get(moment, 6)
    assert after["folds"] == 6 - folds and (moment != "folds" or folds >= 2)


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again(problem, embeddings, tmp_path, killing):
    whole, resumed = memories("copied", problem, embeddings, tmp_path)
    killing(None)
    until_ended(whole, whole.train(problem.train, wait=False))
    killing("corpus, while written")
    job_id = resumed.train(problem.train, wait=False)
    until_ended(resumed, job_id)
    for moment in ("start", "folds", "fit", "publish"):
        killing(moment)
        resumed.resume(job_id, wait=False)
        job = until_ended(resumed, job_id)
        assert (job.state, inputs_of(resumed)) == ("failed", [job_id])
    killing(None)
    resumed.resume(job_id, wait=False)
    assert until_ended(resumed, job_id).state == "completed"
    check_equal(whole, resumed, problem)
    assert leftovers(resumed) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_training_that_is_killed_at_random_moments_until_it_ends(problem, embeddings, tmp_path, killing, seed):
    whole, resumed = memories("copied", problem, embeddings, tmp_path)
    killing(None)
    started = time.monotonic()
    until_ended(whole, whole.train(problem.train, wait=False))
    takes, rng, kills = time.monotonic() - started, np.random.default_rng(seed), 0
    job_id = resumed.train(problem.train, wait=False)
    while True:
        time.sleep(rng.uniform(0.4, 1.2 if kills else 0.5) * takes)
        kill(job_id)
        if until_ended(resumed, job_id).state == "completed":
            break
        kills += 1
        resumed.resume(job_id, wait=False)
    assert kills, "no kill came before the end"
    check_equal(whole, resumed, problem)
    assert leftovers(resumed) == []


GATHER = """
import os, signal, sys
from deepmem_integrations import DeepMemory
from deepmem_integrations.corpora import GivenCorpus
from tests.embeddings import LookupEmbeddings
from tests.problems import make_problem

problem = make_problem()
embeddings = LookupEmbeddings(problem)
memory = DeepMemory(GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings), embeddings, sys.argv[1])

def embed(texts):
    os.kill(os.getpid(), signal.SIGKILL)

memory.train(problem.train, embedding_function=embed, words=False)
"""


@pytest.mark.slow
def test_a_job_that_was_killed_while_it_gathered_does_not_go_on(memory):
    done = subprocess.run([sys.executable, "-c", GATHER, str(memory.folder.path)], env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == -9
    (job,) = memory.jobs.all()
    assert (job.state, job.resumable_until) == ("failed", None)
    assert leftovers(memory) == []
    with pytest.raises(JobFailedError, match="it ended before its inputs were complete"):
        memory.resume(job.id)


@pytest.mark.slow
def test_documents_that_changed_are_read_again(problem, embeddings, tmp_path, killing, monkeypatch):
    """Of Parquet files, which have no versions: what was read of the files of before is not mixed with what there is now."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    from deepmem_integrations import ParquetCorpus
    from deepmem_integrations.corpora import parquet

    def write(vectors):
        table = pa.table({"id": problem.ids, "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 32)})
        pq.write_table(table, tmp_path / "pages.parquet", row_group_size=40)

    write(problem.corpus)
    patch(monkeypatch.setattr)
    monkeypatch.setattr(parquet, "SHARD_ROWS", 40)
    notes = tmp_path / "here"
    lost, whole = (DeepMemory(ParquetCorpus(tmp_path / "pages.parquet"), embeddings, tmp_path / name) for name in ("a", "b"))
    with monkeypatch.context() as patched:
        note_and_kill(notes, None, patched.setattr)
        patched.setattr("deepmem_integrations.training.train._fit", raising(StoreError("out of reach")))
        with pytest.raises(StoreError):
            lost.train(problem.train, words=False)
    write(problem.corpus[:, ::-1].copy())
    notes.unlink()
    note_and_kill(notes, None, monkeypatch.setattr)
    lost.resume(lost.jobs.all()[-1].id)
    assert Counter(notes.read_text().split())["shards"] == 8
    whole.train(problem.train, words=False)
    check_equal(lost, whole, problem)


def test_a_model_of_before_serves_meanwhile(memory, problem, lost):
    good = add_model(memory)
    assert memory.get_model() == good
