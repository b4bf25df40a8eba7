import contextlib
import json
import os
import stat

import pytest

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations._locks import FileLock
from deepmem_integrations.errors import JobNotFoundError, JobRunningError, ModelNotFoundError, StorageError
from deepmem_integrations.jobs import JobFolder
from deepmem_integrations.models import ModelFolder
from tests.jobs.helpers import add_model


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


# ---- hostile and leftover files --------------------------------------------------------------------------------------

JOB = "6508464cd80cab681bfcfff3"
STATE = {"id": JOB, "state": "pending", "progress": 0.0, "created": 1.0, "started": 0.0, "detached": True}


def write_state(folder, **changes):
    path = folder / "jobs" / f"{JOB}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**STATE, **changes}))
    return JobFolder(ModelFolder(folder))


def test_the_id_of_a_job_is_the_name_of_its_file(tmp_path):
    """Before, ``list_jobs`` wrote the state of a job whose process is gone to where the id in the file pointed."""
    folder = tmp_path / "m" / "deep"
    jobs = write_state(folder, id="../../victim")
    (found,) = jobs.all()
    assert (found.id, found.state) == (JOB, "failed")
    assert [path.name for path in tmp_path.rglob("victim*")] == []
    assert json.loads((folder / "jobs" / f"{JOB}.json").read_text())["id"] == JOB


@pytest.mark.parametrize(
    "damage",
    [
        {"state": "unheard of"},
        {"progress": "x"},
        {"created": float("nan")},
        {"created": None},
        {"pid": "1"},
        {"pid": 1.5},
        {"pid": True},
        {"error": 5},
        {"detached": "yes"},
        {"report": 5},
        {"report": {"chosen": 5}},
        {"report": {"chosen": "x", "reason": "y", "seen": {"chosen": 1}}},
        {"unknown": 1},
    ],
    ids=str,
)
def test_odd_states_are_errors_that_name_the_file(tmp_path, damage):
    with pytest.raises(StorageError, match=f"{JOB}.json is damaged"):
        write_state(tmp_path, **damage).job(JOB)


@pytest.mark.parametrize("text", ["", "[1]", "null", "[" * 100_000, '{"a":' * 100 + "1" + "}" * 100, "9" * 5000])
def test_odd_json_is_an_error_that_names_the_file(tmp_path, text):
    jobs = write_state(tmp_path)
    (jobs.path / f"{JOB}.json").write_text(text)
    with pytest.raises(StorageError, match=f"{JOB}.json is damaged"):
        jobs.job(JOB)


def test_a_pipe_in_place_of_a_job_hangs_nobody(tmp_path):
    jobs = write_state(tmp_path)
    (jobs.path / f"{JOB}.json").unlink()
    os.mkfifo(jobs.path / f"{JOB}.json")
    with pytest.raises(StorageError, match="no regular file"):
        jobs.all()


@pytest.mark.parametrize("name", ["..", ".hidden", "a\0b", "x" * 300, "\ud800", "a/b", ""])
def test_no_job_has_a_name_that_is_no_plain_one(tmp_path, name):
    with pytest.raises(JobNotFoundError):
        JobFolder(ModelFolder(tmp_path)).job(name)
    with pytest.raises(ModelNotFoundError):
        ModelFolder(tmp_path).load_model(name)


USES = {
    "new": lambda jobs: jobs.new().__exit__(None, None, None),
    "all": lambda jobs: jobs.all(),
    "job": lambda jobs: jobs.job("another"),
    "cancel": lambda jobs: jobs.cancel("another"),
    "delete": lambda jobs: jobs.delete("another"),
}


@pytest.mark.parametrize("use", USES)
def test_any_next_use_deletes_what_a_killed_training_left(tmp_path, use):
    """Before, the queries' texts stayed until somebody asked for the very job."""
    jobs = write_state(tmp_path)
    orphan = "f" * 24  # whose state is gone
    for name in (JOB, orphan):
        jobs.inputs(name).mkdir()
        (jobs.inputs(name) / "queries.json").write_text('{"queries": ["a secret"]}')
    halves = [f".{JOB}.{kind}.0123abcd.tmp" for kind in ("json", "cancel")]
    for half in halves:
        (jobs.path / half).write_text("")
    busy = "a" * 24
    jobs.inputs(busy).mkdir()
    with FileLock(jobs.lock_path(busy)):
        with contextlib.suppress(JobNotFoundError):
            USES[use](jobs)
        assert jobs.inputs(busy).exists(), "somebody works on it"
    assert not jobs.inputs(JOB).exists()
    assert not jobs.inputs(orphan).exists()
    assert not any((jobs.path / half).exists() for half in halves)
    assert jobs.job(JOB).state == "failed"


def test_a_training_that_was_killed_before_its_model_was_in_use_is_told(tmp_path, caplog):
    jobs = write_state(tmp_path)
    jobs.models.save_model(JOB, QueryAdapter(2))
    assert jobs.job(JOB).state == jobs.job(JOB).state == "completed"
    assert caplog.messages == [
        f"The process of the job {JOB} was killed as it ended. Its model is whole, but not in use: set_model('{JOB}') "
        "puts it in use."
    ]


def test_a_job_that_another_process_resumes_is_not_deleted(tmp_path):
    jobs = write_state(tmp_path)
    assert not jobs.job(JOB).running
    with FileLock(jobs.lock_path(JOB)), pytest.raises(JobRunningError):
        jobs.delete(JOB)
    assert jobs.lock_path(JOB).exists() and jobs.job(JOB).id == JOB
    assert jobs.delete(JOB)
    with pytest.raises(JobNotFoundError):
        jobs.job(JOB)


def test_opening_the_memory_deletes_what_a_killed_training_left(memory, embeddings):
    inputs = memory.jobs.inputs(JOB)
    inputs.mkdir(parents=True)
    DeepMemory(memory.corpus, embeddings, memory.folder.path)
    assert not inputs.exists()


def test_the_inputs_of_a_training_are_its_owners_alone(memory, problem, monkeypatch):
    modes = {}

    def look(running, **_):
        folder = running.jobs.inputs(running.job.id)
        modes.update({path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]})

    monkeypatch.setattr("deepmem_integrations.jobs.trainer.train", look)
    before = os.umask(0)
    try:
        memory.train(problem.train)
    finally:
        os.umask(before)
    assert modes.pop(next(name for name in modes if "." not in name)) == 0o700
    assert set(modes) >= {"queries.json", "queries.npy", "corpus.npy", "options.json"}
    assert set(modes.values()) == {0o600}


def test_an_embedding_error_that_quotes_a_query_stays_in_no_file(memory, problem, monkeypatch):
    secret = problem.train.queries[0]

    def refuse(*_, **__):
        raise ConnectionError(f"400: cannot embed {secret!r}")

    monkeypatch.setattr(memory.embedder, "embed_queries", refuse)
    with pytest.raises(ConnectionError, match="cannot embed"):
        memory.train(problem.train)
    (job,) = memory.jobs.all()
    assert job.state == "failed"
    assert "ConnectionError" in job.error
    assert "may quote a query" in job.error
    kept = [path for path in memory.folder.path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert kept == []
