"""Trains one job: in the process that asks for it, or in one of its own, ``python -m deepmem_integrations.jobs.trainer``."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.errors import JobFailedError, StorageError
from deepmem_integrations.jobs.folder import JobFolder, Work
from deepmem_integrations.jobs.inputs import read_inputs
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.training import train_adapter

_logger = logging.getLogger(__name__)


def train(work: Work, on_progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Train a job whose inputs are written, and put the model in use.

    Where the training chooses the identity, a model that is in use already stays; a warning is logged.

    Args:
        work: The job.
        on_progress: Called with (steps done, steps in all).

    Raises:
        JobCancelledError: Somebody has asked for it to stop.
    """
    inputs = read_inputs(work.jobs.inputs(work.job.id))
    keep_texts = inputs.options.pop("keep_texts")
    work.begin()

    def progress(done: int, total: int) -> None:
        work.progress(done, total)
        on_progress(done, total)

    result = train_adapter(
        inputs.queries,
        inputs.labels,
        inputs.corpus,
        inputs.corpus_ids,
        validation=inputs.validation,
        query_texts=inputs.labels.queries if keep_texts else None,
        fingerprint=inputs.fingerprint,
        progress=progress,
        **inputs.options,
    )
    publish(work, result.adapter, made_by="train", data=inputs.data)


def publish(work: Work, adapter: QueryAdapter, *, made_by: str, parent: str | None = None, **known: Any) -> None:
    """Write a job's model, put it in use, and end the job: once the model is written, there is no way back.

    A trained identity is not put in use where another model is.

    Args:
        work: The job.
        adapter: Its model.
        made_by: See `ModelInfo`.
        parent: Likewise; by default the model in use.
        known: More metadata for the model's file.

    Raises:
        JobCancelledError: Somebody has asked for it to stop.
        StorageError: The folder cannot be written, or the disk is full. The model in use stays.
    """
    name, models = work.job.id, work.jobs.models
    with models.lock():
        work.save()  # the last look whether somebody has asked for it to stop
        in_use = models.current()
        of_file = {"made_by": made_by, "parent": parent or in_use, "created": time.time(), **known}
        adapter = adapter.with_metadata(**of_file)
        models.save_model(name, adapter)
        keep = made_by == "train" and adapter.is_identity and in_use is not None
        try:
            if not keep:
                models.put_in_use(name)
        except StorageError:
            models.model_path(name).unlink(missing_ok=True)
            raise
        work.complete(adapter.metadata.get("report"))
    if keep:
        reason = adapter.metadata["report"]["reason"]
        _logger.warning(
            "Training chose the identity (%s). The model in use stays %s; set_model(%r) or deepmem use would switch it off.",
            reason,
            in_use,
            name,
        )


def start(work: Work) -> None:
    """Go on with a job in a process of its own, which outlives this one.

    Raises:
        JobFailedError: It cannot be started.
    """
    job, jobs = work.job, work.jobs
    command = [sys.executable, "-m", "deepmem_integrations.jobs.trainer", str(jobs.models.path.resolve()), job.id]
    # What can be imported here can be imported there; the working directory is a place like any other.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONSAFEPATH": "1"}
    try:
        with open(jobs.log_path(job.id), "wb") as log:
            process = subprocess.Popen(
                [*command, str(work.lock.descriptor)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                pass_fds=[work.lock.descriptor],
            )
    except OSError as error:
        raise JobFailedError(f"The training process cannot be started ({error}): {' '.join(command)}") from error
    work.hand_over()
    # Ends with the process, which would stay a zombie otherwise.
    threading.Thread(target=process.wait, name=f"deepmem training {job.id}", daemon=True).start()


def main(folder: str, job_id: str, descriptor: str) -> None:
    """Train a job whose lock this process was given."""
    logging.basicConfig(level=logging.WARNING)
    with JobFolder(ModelFolder(folder)).take_over(job_id, int(descriptor)) as work:
        train(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
