"""Train a job, in the process of the caller or in a separate process, ``python -m deepmem_integrations.jobs.trainer``."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm.auto import tqdm

from deepmem_integrations._files import private_opener
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.drift import METADATA
from deepmem_integrations.errors import JobFailedError, StorageError
from deepmem_integrations.jobs.folder import JobFolder, RunningJob
from deepmem_integrations.jobs.inputs import read_inputs
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.training import Pace, train_adapter

_logger = logging.getLogger(__name__)

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
"""The form of the progress bar. A remaining time beside the expected time would contradict it."""


def train(running: RunningJob, *, bar: bool = False) -> None:
    """Train a job whose inputs are written, and put the model in use.

    If the training chooses the identity, a model that is already in use stays in use, and a warning is logged.

    Args:
        running: The job.
        bar: Whether to show a progress bar, which tells at once how long the training is likely to take.

    Raises:
        JobCancelledError: The job was cancelled.
        StorageError: The inputs cannot be read, or the model cannot be written.
    """
    inputs = read_inputs(running.jobs.inputs(running.job.id))
    keep_texts, index_words = inputs.options.pop("keep_texts"), inputs.options.pop("index_words", False)
    of_corpus = {METADATA: inputs.options.pop("documents", None), "id_key": inputs.options.pop("id_key", None)}
    change_embedding = inputs.options.pop("change_embedding", False)
    index = running.jobs.models.lexical_search if index_words else None
    running.begin()
    pace = Pace.of(len(inputs.queries), *inputs.corpus.shape)
    _logger.info("The training %s takes %s.", running.job.id, pace)
    with _bar(pace, running.progress) if bar else contextlib.nullcontext(running.progress) as progress:
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
    publish(
        running,
        result.adapter,
        made_by="train",
        change_embedding=change_embedding,
        data=data,
        **{name: value for name, value in of_corpus.items() if value},
    )


@contextlib.contextmanager
def _bar(pace: Pace, record: Callable[[int, int], None]) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar that moves at the expected pace between two steps, and yield a function that takes the steps.

    Args:
        pace: The expected pace.
        record: Called with each step as well.
    """
    ended = threading.Event()
    reached = (0.0, time.monotonic())  # the share that was done at the last step, and when that was
    with tqdm(desc=f"Training ({pace})", total=100, unit="%", delay=1, bar_format=_BAR) as bar:

        def move() -> None:
            while not ended.wait(0.5):
                done, since = reached
                bar.update(max(0.0, round(100 * pace.share(done, time.monotonic() - since)) - bar.n))

        def step(done: int, total: int) -> None:
            nonlocal reached
            record(done, total)
            reached = done / total, time.monotonic()

        mover = threading.Thread(target=move, name="deepmem progress", daemon=True)
        mover.start()
        try:
            yield step
        finally:
            ended.set()
            mover.join()
        bar.update(100 - bar.n)


def publish(
    running: RunningJob,
    adapter: QueryAdapter,
    *,
    made_by: str,
    parent: str | None = None,
    change_embedding: bool = False,
    **known: Any,
) -> bool:
    """Write a job's model, put it in use, and mark the job completed. A job cannot be cancelled once its model is written.

    If a training chose the identity and a ranking by the vectors alone, the model is written but does not replace a model that is
    in use.

    Args:
        running: The job.
        adapter: The model.
        made_by: ``train``, ``remember`` or ``forget``: see `ModelInfo`.
        parent: The name of the model that was grown: see `ModelInfo`. Nothing is written if another model is in use by now. By
            default the model in use.
        change_embedding: Whether the model may belong to another embedding model than the model in use.
        known: Further metadata for the model's file.

    Returns:
        Whether the model was written; False if the parent is no longer in use.

    Raises:
        EmbeddingMismatchError: The model in use belongs to another embedding model: see `ModelFolder.check_embedding`.
        JobCancelledError: The job was cancelled.
        StorageError: The folder cannot be written, or the disk is full. The model in use stays in use.
    """
    name, models = running.job.id, running.jobs.models
    with models.lock():
        running.save()  # raises if the job was cancelled: a job cannot be cancelled later
        in_use = models.in_use_name()
        if parent not in (None, in_use):
            return False
        if not change_embedding:  # another process may have put a model in use since the training began
            models.check_embedding(adapter.fingerprint)
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
        with open(jobs.log_path(job.id), "wb", opener=private_opener) as log:
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
