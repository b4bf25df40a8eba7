"""Models that cost no training, and waiting for a job."""

import time

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
