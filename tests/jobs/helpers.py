"""Models that cost no training, and what there is to see of jobs and their processes."""

import os
import signal
import time
from pathlib import Path

from deepmem_integrations import QueryAdapter
from deepmem_integrations.jobs import trainer


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
    kept = {"jobs", "models", "words", "lock", "current", "audit.jsonl", "questions.json"}
    found = [path.name for path in memory.folder.path.iterdir() if path.name not in kept]
    found += [path.name for path in memory.jobs.path.iterdir() if path.suffix not in (".json", ".lock")]
    return found + [
        p.name for p in (memory.folder.path / "models").glob("*") if p.name.startswith(".") or p.suffix != ".safetensors"
    ]
