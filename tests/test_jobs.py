import json
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

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations._locks import FileLock
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.errors import (
    DeepMemoryError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobRunningError,
    StorageError,
)
from deepmem_integrations.jobs import JobFolder, JobStatus, trainer
from deepmem_integrations.models import ModelFolder
from tests.conftest import LookupEmbeddings, make_problem


@pytest.fixture
def memory(problem, embeddings, tmp_path):
    """Over a store in memory, which a training in another process cannot reach."""
    return DeepMemory(GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings), embeddings, tmp_path / "m")


def add_model(memory, **parts):
    """A model that costs no training."""
    with memory.jobs.new() as work:
        adapter = QueryAdapter(32, fingerprint=memory.embedder.fingerprint(), **parts)
        trainer.publish(work, adapter, made_by="remember")
    return work.job.id


def until_ended(memory, job_id, seconds=60):
    end = time.monotonic() + seconds
    while memory.jobs.job(job_id).running:
        assert time.monotonic() < end, memory.jobs.job(job_id)
        time.sleep(0.02)
    return memory.jobs.job(job_id)


def process_of(job_id):
    """The process that was started for a job. While it starts, its command line is empty for a moment."""
    for _ in range(20):
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if job_id.encode() in (folder / "cmdline").read_bytes():
                    return int(folder.name)
            except OSError:
                continue
        time.sleep(0.005)
    return None


def kill(job_id):
    if (pid := process_of(job_id)) is not None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def leftovers(memory):
    """Files that no job and no model accounts for."""
    kept = {"jobs", "models", "lock", "current"}
    found = [path.name for path in memory.folder.path.iterdir() if path.name not in kept]
    found += [path.name for path in memory.jobs.path.iterdir() if path.suffix not in (".json", ".lock")]
    return found + [
        p.name for p in (memory.folder.path / "models").glob("*") if p.name.startswith(".") or p.suffix != ".safetensors"
    ]


# ---- a training in a process of its own ------------------------------------------------------------------------------


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
    np.testing.assert_allclose(one.transform(x), two.transform(x), atol=1e-6), "the same data and seed, the same model"
    assert two.remembered_queries.texts is not None
    assert job.report["max_unseen_loss"] == 2
    assert job.report["seen"]["queries"] == f"{len(problem.test)} validation queries"
    assert leftovers(memory) == []
    capsys.readouterr()


@pytest.mark.slow
def test_two_trainings_at_once_outlive_their_caller(tmp_path):
    script = (
        "from tests.test_jobs import *\n"
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


def test_what_cannot_be_trained_on_is_told_before_a_process_starts(memory, problem):
    from deepmem_integrations.errors import EmbeddingMismatchError, InvalidRelevanceError

    calls = []
    with pytest.raises(InvalidRelevanceError, match="'nope' is not in the corpus"):
        memory.train(["a"], [[("nope", 1.0)]], calls.append, wait=False)
    assert calls == [], "nothing was embedded"
    with pytest.raises(EmbeddingMismatchError, match="4 dimensions where 32 are expected"):
        memory.train(problem.train, embedding_function=lambda texts: np.ones((len(texts), 4)), wait=False)
    with pytest.raises(ValueError, match="max_unseen_loss is a number of points"):
        memory.train(problem.train, max_unseen_loss=-1, wait=False)
    assert {job.state for job in memory.jobs.all()} == {"failed"}
    assert leftovers(memory) == []


def test_a_process_that_cannot_be_started_is_told(memory, problem, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(JobFailedError, match=r"cannot be started \(.*No such file.*: /nowhere/python -m"):
        memory.train(problem.train, wait=False)
    (job,) = memory.jobs.all()
    assert (job.state, "JobFailedError" in job.error) == ("failed", True)


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
    assert leftovers(memory) == []
    assert "(pid" in str(job)


def test_a_model_that_was_written_before_the_kill_counts(memory, problem):
    """Killed between the model and the state of its job: the model is whole, so the job has done what it should."""
    good = add_model(memory)
    with memory.jobs.new() as work:
        job_id = work.job.id
    text = (memory.jobs.path / f"{job_id}.json").read_text()
    assert json.loads(text)["state"] == "pending"
    memory.folder.save_model(job_id, memory.folder.load_model(good))
    assert memory.jobs.job(job_id).state == "completed"
    assert memory.get_model() == good


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
    models.use(models.models()[0]), "no lock is left behind"
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
            job_id = memory.train(problem.train, wait=False)
            time.sleep(rng.uniform(0, 1.05 * whole))
            moment = memory.jobs.job(job_id).state
            moments[moment if moment in moments else "ended"] += 1
            kill(job_id)
            job = until_ended(memory, job_id, seconds=5)
            states[job.state] += 1
            if job.state == "failed":
                assert "is gone: killed" in job.error
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

    caught = []

    def train():
        try:
            memory.train(problem.train, embedding_function=embed, wait=False)
        except JobCancelledError as error:
            caught.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    assert embedding.wait(30)
    (job,) = memory.jobs.all()
    assert job.state == "pending"
    assert memory.cancel(job.id) is True
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
    command = [sys.executable, "-m", "tests.jobs_worker", str(folder), str(seconds), str(labels)]
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
    with no_file_larger_than(20_000), pytest.raises(StorageError, match=r"Cannot write .*corpus\.npy: File too large"):
        memory.train(problem.train)
    with no_file_larger_than(20_000), pytest.raises(StorageError, match=r"Cannot write .*\.safetensors: File too large"):
        add_model(memory, metadata={"large": "x" * 30_000})
    assert memory.get_model() == good
    assert memory.folder.models() == [good]
    assert leftovers(memory) == []
    failed = [job for job in memory.jobs.all() if job.state == "failed"]
    assert ["File too large" in job.error for job in failed] == [True, True]


# ---- states ----------------------------------------------------------------------------------------------------------


def test_jobs_have_names_not_paths(tmp_path):
    jobs = JobFolder(ModelFolder(tmp_path / "m"))
    with pytest.raises(JobNotFoundError, match="Jobs there: none"):
        jobs.job("x")
    with jobs.new() as work:
        name = work.job.id
        assert jobs.job(name).state == "pending"
        work.begin()
        assert jobs.job(name).state == "training"
        with pytest.raises(JobNotFoundError, match=f"Jobs there: {name}"):
            jobs.job("../jobs/" + name)
        work.progress(1, 4)
        assert jobs.job(name).eta > 0
    assert jobs.job(name).state == "failed", "whoever worked on it has let go of it"
    (tmp_path / "m" / "jobs" / f"{name}.json").write_text('{"id": "x"')
    with pytest.raises(StorageError, match=f"{name}.json is damaged"):
        jobs.job(name)


def test_states_of_the_first_version_are_read(tmp_path):
    path = tmp_path / "jobs" / "6508464cd80cab681bfcfff3.json"
    path.parent.mkdir()
    old = {"id": path.stem, "state": "completed", "progress": 1.0, "started": 1.0, "seconds": 2.0, "recall": 0.5}
    path.write_text(json.dumps({**old, "recall_gain": 0.1, "report": None, "error": None}))
    assert JobFolder(ModelFolder(tmp_path)).job(path.stem).recall == 0.5


def test_the_tables_of_v3(memory, problem, capsys):
    assert memory.list_jobs() == []
    assert capsys.readouterr().out == "No Deep Memory training jobs were found for this dataset\n"
    first, second = memory.train(problem.train), memory.train(problem.train.take(range(5)))
    capsys.readouterr()
    with pytest.warns(UserWarning, match=r"debug is ignored: str\(list_jobs\(\)\) is the table"):
        jobs = memory.list_jobs(debug=True)
    assert [job.id for job in jobs] == [first, second]
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["ID", "STATUS", "RESULTS", "PROGRESS"]
    assert re.fullmatch(rf"{first}  completed  recall@10: \d+\.\d% \(\+\d+\.\d%\) +eta: 0\.0 seconds *", table[1])
    assert re.fullmatch(rf"{second}  completed  not available yet +eta: 0\.0 seconds *", table[2])


def test_the_table_of_a_running_job():
    job = JobStatus(id="6508464cd80cab681bfcfff3", state="training", progress=0.25, seconds=10)
    assert job.eta == pytest.approx(30)
    assert str(job).splitlines()[3:8] == [
        "| status                     | training                      |",
        "-" * 62,
        "| progress                   | eta: 30.0 seconds             |",
        "-" * 62,
        "| results                    | not available yet             |",
    ]
    pending = str(JobStatus(id="6508464cd80cab681bfcfff3", state="pending")).splitlines()
    assert pending[5] == "| progress                   | None                          |", "as v3 wrote it"


def test_every_error_is_one_of_ours():
    for error in (JobCancelledError, JobFailedError, JobRunningError, JobNotFoundError):
        assert issubclass(error, DeepMemoryError)


def test_a_lock_excludes_threads_and_is_seen_without_disturbing_it(tmp_path):
    path = tmp_path / "lock"
    assert not FileLock.is_held(path)
    with FileLock(path):
        assert FileLock.is_held(path)
        assert FileLock(path).acquire(wait=False) is False
    assert not FileLock.is_held(path)
    with pytest.raises(StorageError, match="Cannot write"):
        FileLock(path / "below").acquire()
