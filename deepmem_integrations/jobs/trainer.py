"""Train a job, in the process of the caller or in a separate process, ``python -m deepmem_integrations.jobs.trainer``."""

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
from deepmem_integrations.jobs.folder import JobFolder, RunningJob
from deepmem_integrations.jobs.inputs import read_inputs
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.training import train_adapter

_logger = logging.getLogger(__name__)


def train(running: RunningJob, on_progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Train a job whose inputs are written, and put the model in use.

    If the training chooses the identity, a model that is already in use stays in use, and a warning is logged.

    Args:
        running: The job.
        on_progress: Called with (steps done, steps in all) as the training goes on.

    Raises:
        JobCancelledError: The job was cancelled.
        StorageError: The inputs cannot be read, or the model cannot be written.
    """
    inputs = read_inputs(running.jobs.inputs(running.job.id))
    keep_texts, index_words = inputs.options.pop("keep_texts"), inputs.options.pop("index_words", False)
    index = running.jobs.models.lexical_search if index_words else None
    running.begin()

    def progress(done: int, total: int) -> None:
        running.progress(done, total)
        on_progress(done, total)

    result = train_adapter(
        inputs.queries,
        inputs.labels,
        inputs.corpus,
        inputs.corpus_ids,
        validation=inputs.validation,
        query_texts=inputs.labels.queries if keep_texts else None,
        words=inputs.words or index,
        fingerprint=inputs.fingerprint,
        progress=progress,
        **inputs.options,
    )
    data = inputs.data if index is None else {**inputs.data, "words": index.fingerprint}
    publish(running, result.adapter, made_by="train", data=data)


def publish(running: RunningJob, adapter: QueryAdapter, *, made_by: str, parent: str | None = None, **known: Any) -> bool:
    """Write a job's model, put it in use, and mark the job completed. A job cannot be cancelled once its model is written.

    If a training chose the identity and a ranking by the vectors alone, the model is written but does not replace a model that is
    in use.

    Args:
        running: The job.
        adapter: The model.
        made_by: ``train``, ``remember`` or ``forget``: see `ModelInfo`.
        parent: The name of the model that was grown: see `ModelInfo`. Nothing is written if another model is in use by now. By
            default the model in use.
        known: Further metadata for the model's file.

    Returns:
        Whether the model was written; False if the parent is no longer in use.

    Raises:
        JobCancelledError: The job was cancelled.
        StorageError: The folder cannot be written, or the disk is full. The model in use stays in use.
    """
    name, models = running.job.id, running.jobs.models
    with models.lock():
        running.save()  # raises if the job was cancelled: a job cannot be cancelled later
        in_use = models.in_use_name()
        if parent not in (None, in_use):
            return False
        of_file = {"made_by": made_by, "parent": in_use, "created": time.time(), **known}
        adapter = adapter.with_metadata(**of_file)
        models.save_model(name, adapter)
        keep = made_by == "train" and adapter.is_identity and adapter.ranking is None and in_use is not None
        try:
            if not keep:
                models.write_in_use(name)
        except StorageError:
            models.model_path(name).unlink(missing_ok=True)
            raise
        running.complete(adapter.metadata.get("report"))
    if keep:
        reason = adapter.metadata["report"]["reason"]
        _logger.warning(
            "Training found nothing better than the untransformed queries (%s). Model %s stays in use; to turn the transform "
            "off, call set_model(%r) or run `deepmem use %s`.",
            reason,
            in_use,
            name,
            name,
        )
    return True


def start(running: RunningJob) -> None:
    """Continue a job in a separate process, which goes on when this process ends.

    Raises:
        JobFailedError: The process cannot be started.
    """
    job, jobs = running.job, running.jobs
    command = [sys.executable, "-m", "deepmem_integrations.jobs.trainer", str(jobs.models.path.resolve()), job.id]
    # The new process imports from the same paths as this one. An empty path means the working directory.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "PYTHONSAFEPATH": "1"}
    try:
        with open(jobs.log_path(job.id), "wb") as log:
            process = subprocess.Popen(
                [*command, str(running.lock.descriptor)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                pass_fds=[running.lock.descriptor],
            )
    except OSError as error:
        raise JobFailedError(f"The training process cannot be started ({error}): {' '.join(command)}") from error
    running.hand_over()
    # A child process stays a zombie until its parent waits for it.
    threading.Thread(target=process.wait, name=f"deepmem training {job.id}", daemon=True).start()


def main(folder: str, job_id: str, descriptor: str) -> None:
    """Train a job whose lock this process has inherited."""
    logging.basicConfig(level=logging.WARNING)
    with JobFolder(ModelFolder(folder)).take_over(job_id, int(descriptor)) as running:
        train(running)


if __name__ == "__main__":
    main(*sys.argv[1:])
