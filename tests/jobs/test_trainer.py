import logging
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.errors import JobCancelledError, JobFailedError, JobNotFoundError, JobRunningError, StorageError
from deepmem_integrations.jobs import JobFolder, trainer
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.training import Pace
from tests.embeddings import LookupEmbeddings
from tests.jobs.helpers import add_model, kill, leftovers, process_of, until_ended
from tests.problems import make_problem

# ---- a training in a process of its own ------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_waiting_the_training_goes_on_in_a_process_of_its_own(memory, problem, capsys):
    options = {"keep_texts": True, "validation": problem.test, "max_unseen_loss": 2, "seed": 3}
    waited = memory.train(problem.train, **options)
    job_id = memory.train(problem.train, **options, wait=False)
    job = memory.jobs.job(job_id)
    assert job.running
    assert process_of(job_id) not in (None, os.getpid())
    assert memory.get_model() == waited, "until the new one is there"
    with pytest.raises(JobRunningError, match=f"The job {job_id} is running: cancel it first"):
        memory.delete(job_id)
    job = until_ended(memory, job_id)
    assert (job.state, job.progress, job.error, job.detached) == ("completed", 1.0, None, True)
    assert job.pid != os.getpid()
    assert memory.get_model() == job_id
    one, two = memory.folder.load_model(waited), memory.folder.load_model(job_id)
    x = problem.test_queries
    np.testing.assert_allclose(one.transform(x), two.transform(x), atol=1e-6, err_msg="the same data and seed, the same model")
    assert set(two.remembered_queries.texts) == set(problem.train.queries)
    assert job.report["max_unseen_loss"] == 2
    assert job.report["seen"]["queries"] == f"{len(problem.test)} validation queries"
    assert leftovers(memory) == []
    capsys.readouterr()


@pytest.mark.slow
def test_two_trainings_at_once_outlive_their_caller(tmp_path):
    script = (
        "import os\n"
        "from deepmem_integrations import DeepMemory\n"
        "from deepmem_integrations.corpora import GivenCorpus\n"
        "from tests.embeddings import LookupEmbeddings\n"
        "from tests.problems import make_problem\n"
        "problem = make_problem(train=100)\n"
        "embeddings = LookupEmbeddings(problem)\n"
        f"memory = DeepMemory(GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings), embeddings, {str(tmp_path)!r})\n"
        "print(*(memory.train(problem.train, wait=False) for _ in range(2)), flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ids = done.stdout.split()
    jobs = JobFolder(ModelFolder(tmp_path))
    assert all(jobs.job(job_id).running for job_id in ids), "the caller is gone, the trainings are not"
    end = time.monotonic() + 60
    while any(jobs.job(job_id).running for job_id in ids) and time.monotonic() < end:
        time.sleep(0.05)
    assert [job.state for job in jobs.all()] == ["completed", "completed"]
    assert set(jobs.models.models()) == set(ids)
    assert jobs.models.in_use_name() in ids


def test_a_process_that_cannot_be_started_is_told(memory, problem, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(JobFailedError, match=r"cannot be started \(.*No such file.*: /nowhere/python -m"):
        memory.train(problem.train, wait=False)
    (job,) = memory.jobs.all()
    assert job.state == "failed"
    assert "JobFailedError" in job.error


def test_a_process_that_fails_leaves_its_last_words(memory, problem, monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho Starting >&2\necho 'python: error while loading shared libraries' >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    job = until_ended(memory, memory.train(problem.train, wait=False))
    assert job.state == "failed"
    assert job.error.endswith("; the last line of its log: python: error while loading shared libraries")


# ---- killed ----------------------------------------------------------------------------------------------------------


def test_a_killed_training_is_seen_as_failed_and_the_old_model_serves(memory, problem):
    good = add_model(memory)
    job_id = memory.train(problem.train, wait=False)
    while not memory.jobs.job(job_id).detached:
        time.sleep(0.01)
    pid = memory.jobs.job(job_id).pid
    os.kill(pid, signal.SIGKILL)
    job = until_ended(memory, job_id, seconds=5)
    assert job.state == "failed"
    assert job.error == f"the process that worked on the job (pid {pid}) is gone: it was killed, or ran out of memory"
    assert memory.get_model() == good
    assert memory.folder.models() == [good]
    assert leftovers(memory) == [job_id], "the inputs, with which the job can go on"
    assert "(pid" in str(job)


PUBLISH = """
import sys
import numpy as np
from deepmem_integrations import QueryAdapter
from deepmem_integrations.jobs import JobFolder
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.jobs.trainer import publish
jobs = JobFolder(ModelFolder(sys.argv[1]))
print("ready", flush=True)
while True:
    with jobs.new() as work:
        publish(work, QueryAdapter(64, linear=np.eye(64, dtype=np.float32)), made_by="train")
"""


@pytest.mark.slow
def test_kill_9_while_models_are_written(tmp_path):
    models = ModelFolder(tmp_path)
    rng = random.Random(0)
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", PUBLISH, str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0.01, 0.1))
        process.kill()
        process.wait()
        process.stdout.close()
    jobs = JobFolder(models).all()
    assert len(jobs) >= 5
    assert {job.state for job in jobs} <= {"completed", "failed"}
    assert sorted(models.models()) == sorted(job.id for job in jobs if job.state == "completed")
    for name in models.models():
        assert models.load_model(name).linear is not None
    assert models.in_use_name() in models.models()
    # No lock is left behind.
    models.use(models.models()[0])
    with JobFolder(models).new():
        pass
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


@contextmanager
def served_throughout(memory, names):
    """Transform all the time, from another thread with eyes of its own, and note which models served."""
    mine = DeepMemory(memory.corpus, memory.embedder, memory.folder.path)
    stop, served, errors = threading.Event(), set(), []

    def serve():
        x = np.ones(32)
        while not stop.is_set():
            try:
                assert np.isclose(np.linalg.norm(mine.transform(x)), 1)
                served.add(mine.get_model())
            except Exception as error:
                errors.append(error)
                return
            time.sleep(0.001)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield served
    finally:
        stop.set()
        thread.join()
    assert errors == []


@pytest.mark.slow
def test_kill_9_at_fifty_random_moments_of_a_training(tmp_path, capsys):
    problem = make_problem(documents=120, train=80)
    embeddings = LookupEmbeddings(problem)
    memory = DeepMemory(GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings), embeddings, tmp_path)
    good = memory.train(problem.train)
    started = time.monotonic()
    until_ended(memory, memory.train(problem.train, wait=False))
    whole = time.monotonic() - started
    memory.set_model(good)
    rng = random.Random(0)
    states = {"failed": 0, "completed": 0}
    moments = {"pending": 0, "training": 0, "ended": 0}
    with served_throughout(memory, {good}) as served:
        for _ in range(50):
            before = memory.get_model()
            job_id = memory.train(problem.train, wait=False, resumable=False)
            time.sleep(rng.uniform(0, 1.05 * whole))
            moment = memory.jobs.job(job_id).state
            moments[moment if moment in moments else "ended"] += 1
            kill(job_id)
            job = until_ended(memory, job_id, seconds=5)
            states[job.state] += 1
            if job.state == "failed":
                assert "is gone: it was killed" in job.error
                assert job_id not in memory.folder.models()
                assert memory.get_model() == before
            else:
                assert not memory.folder.load_model(job_id).is_identity
                assert memory.get_model() in (before, job_id)
            assert leftovers(memory) == []
    for name in memory.folder.models():
        memory.folder.load_model(name)
    assert served <= set(memory.folder.models())
    with capsys.disabled():
        print(f"\nkilled at {moments}, ended {states}")  # noqa: T201 - what was measured
    assert states["failed"] > 20


# ---- cancelled -------------------------------------------------------------------------------------------------------


def test_a_training_process_is_cancelled_at_once(memory, problem):
    good = add_model(memory)
    job_id = memory.train(problem.train, wait=False)
    while not memory.jobs.job(job_id).detached:
        time.sleep(0.01)
    assert memory.cancel(job_id) is True
    job = memory.jobs.job(job_id)
    assert (job.state, job.error) == ("cancelled", None)
    assert "none: it was cancelled" in str(job)
    assert process_of(job_id) is None
    assert memory.get_model() == good
    assert memory.cancel(job_id) is False
    assert leftovers(memory) == []
    assert memory.delete(job_id) is True
    assert list(memory.jobs.path.glob(f"*{job_id}*")) == []
    with pytest.raises(JobNotFoundError):
        memory.cancel(job_id)


def test_a_pending_job_is_cancelled(memory, problem):
    """While the queries are embedded, which may take an hour."""
    embedding, go_on = threading.Event(), threading.Event()

    def embed(texts):
        embedding.set()
        assert go_on.wait(30)
        return memory.embedder.embed_documents(texts)

    caught, started = [], []

    def train():
        try:
            memory.train(problem.train, embedding_function=embed, wait=False, on_start=started.append)
        except JobCancelledError as error:
            caught.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    assert embedding.wait(30)
    (job,) = memory.jobs.all()
    assert job.state == "pending"
    assert started == [job.id], "the caller knows what to cancel"
    assert memory.cancel(started[0]) is True
    go_on.set()
    thread.join()
    # Its own thread stops before it starts a process, or that process stops at its first look.
    assert until_ended(memory, job.id).state == "cancelled"
    assert memory.folder.models() == []


def test_a_training_that_blocks_its_caller_is_cancelled_at_its_next_step(memory, problem, monkeypatch):
    other = DeepMemory(memory.corpus, memory.embedder, memory.folder.path)
    begun = trainer.RunningJob.begin
    monkeypatch.setattr(trainer.RunningJob, "begin", lambda work: (begun(work), other.cancel(work.job.id)))
    with pytest.raises(JobCancelledError, match="was cancelled"):
        memory.train(problem.train)
    (job,) = memory.jobs.all()
    assert job.state == "cancelled"
    assert memory.folder.models() == []
    assert leftovers(memory) == []


def test_control_c_cancels(memory, problem):
    def interrupt(texts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.train(problem.train, embedding_function=interrupt)
    assert memory.jobs.all()[0].state == "cancelled"


# ---- many at once ----------------------------------------------------------------------------------------------------


def hammer(folder, processes, seconds, labels=40):
    command = [sys.executable, "-m", "tests.jobs.worker", str(folder), str(seconds), str(labels)]
    running = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in range(processes)
    ]
    told = [process.communicate(timeout=seconds + 300) for process in running]
    assert [process.returncode for process in running] == [0] * processes, "\n".join(errors[-2000:] for _, errors in told)
    jobs = JobFolder(ModelFolder(folder))
    end = time.monotonic() + 300
    while any(job.running for job in jobs.all()) and time.monotonic() < end:
        time.sleep(0.1)
    for name in jobs.models.models():
        jobs.models.load_model(name)
    assert jobs.models.in_use_name() in jobs.models.models()
    assert not any(job.running for job in jobs.all())
    assert [path.name for path in Path(folder).rglob("*.tmp")] == []
    return [out.strip() for out, _ in told]


@pytest.mark.slow
def test_processes_that_train_read_set_and_delete_do_not_collide(tmp_path):
    assert len(hammer(tmp_path, processes=2, seconds=1.5, labels=5)) == 2


@pytest.mark.slow
def test_ten_processes_for_a_minute(tmp_path, capsys):
    told = hammer(tmp_path, processes=10, seconds=60)
    with capsys.disabled():
        print("", *told, sep="\n")  # noqa: T201 - what was measured


# ---- a full disk -----------------------------------------------------------------------------------------------------


@contextmanager
def no_file_larger_than(size):
    """As on a full disk: the kernel refuses to write on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_training_is_a_clear_error_and_the_model_serves_on(memory, problem):
    good = add_model(memory)
    with no_file_larger_than(20_000), pytest.raises(StorageError, match=r"Cannot write .*: File too large"):
        memory.train(problem.train)
    with no_file_larger_than(20_000), pytest.raises(StorageError, match=r"Cannot write .*\.safetensors: File too large"):
        add_model(memory, metadata={"large": "x" * 30_000})
    assert memory.get_model() == good
    assert memory.folder.models() == [good]
    assert leftovers(memory) == []
    failed = [job for job in memory.jobs.all() if job.state == "failed"]
    assert ["File too large" in job.error for job in failed] == [True, True]


@pytest.mark.slow
def test_the_bar_tells_the_time_and_moves_between_two_steps(capfd):
    recorded, shown = [], ""
    with trainer._bar(Pace(0.0, 6.0, 0.0, waves=1), lambda done, total: recorded.append((done, total))) as step:
        step(0, 1000)
        deadline = time.monotonic() + 60
        while len(set(re.findall(r" (\d+)%", shown))) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
            shown += capfd.readouterr().err
    shown += capfd.readouterr().err
    assert "Training (about 6 seconds): " in shown
    percents = [int(percent) for percent in re.findall(r" (\d+)%", shown)]
    assert len(set(percents)) >= 4
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert recorded == [(0, 1000)]


def test_the_log_tells_about_how_long_a_training_takes(memory, problem, caplog):
    with caplog.at_level(logging.INFO):
        name = memory.train(problem.train)
    assert re.search(rf"The training {name} takes about (a second|\d+ seconds)\.", caplog.text)


def test_what_was_remembered_while_a_training_ran_is_told(memory, problem, monkeypatch, caplog):
    """A training knows its labels alone, and its model takes the place of one that has grown meanwhile."""
    memory.train(problem.train)
    adapter = memory.adapter
    if adapter.remembered_queries is None:
        pytest.skip("the model remembers no queries")
    publish = trainer.publish

    def grown_before(running, new, *, made_by, **known):
        if made_by == "train":
            monkeypatch.setattr(trainer, "publish", publish)
            memory.remember(Relevance(["a new question"], [[(problem.ids[0], 1.0)]]))
        return publish(running, new, made_by=made_by, **known)

    monkeypatch.setattr(trainer, "publish", grown_before)
    memory.train(problem.train)
    assert "While the training ran, remember was applied 1 time to the model in use" in caplog.text
    caplog.clear()
    memory.train(problem.train)
    assert "While the training ran" not in caplog.text
