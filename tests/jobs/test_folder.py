import json

import pytest

from deepmem_integrations.errors import JobNotFoundError, StorageError
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
