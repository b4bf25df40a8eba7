"""Train a job, in the process of the caller or in a separate process, ``python -m deepmem_integrations.jobs.trainer``."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from tqdm.auto import tqdm

from deepmem_integrations._extras import require
from deepmem_integrations._files import private_opener
from deepmem_integrations._workers import Workers
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.cluster import check_address, workers_on
from deepmem_integrations.corpora import ShardedCorpus
from deepmem_integrations.drift import METADATA
from deepmem_integrations.errors import AdapterFileError, JobFailedError, ModelNotFoundError, StorageError
from deepmem_integrations.jobs.folder import JobFolder, RunningJob
from deepmem_integrations.jobs.inputs import TrainingInputs, hexadecimal, read_inputs, train_on
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.retraining import LABELS, Decision, HeldOutQueries, InUse, decide
from deepmem_integrations.training import Pace, TrainingCheckpoint, train_adapter
from deepmem_integrations.words import LexicalSearch

_logger = logging.getLogger(__name__)

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
"""The form of the progress bar. A remaining time beside the expected time would contradict it."""


def train(running: RunningJob, *, bar: bool = False) -> None:
    """Train a job whose inputs are written, and put the model in use, or compare it with the model in use first.

    If the training chooses the identity, a model that is already in use stays in use, and a warning is logged.

    Args:
        running: The job.
        bar: Whether to show a progress bar, which tells at once how long the training is likely to take.

    Raises:
        JobCancelledError: The job was cancelled.
        StorageError: The inputs cannot be read, or the model cannot be written.
        JobFailedError: There is no such Ray cluster, or it lost the same part of the work again and again.
    """
    inputs = read_inputs(running.jobs.inputs(running.job.id))
    keep_texts, index_words = inputs.options.pop("keep_texts"), inputs.options.pop("index_words", False)
    of_corpus = {METADATA: inputs.options.pop("documents", None), "id_key": inputs.options.pop("id_key", None)}
    of_corpus["level"] = inputs.labels.level
    of_corpus[LABELS] = inputs.options.pop("labels", None)
    change_embedding = inputs.options.pop("change_embedding", False)
    in_use, by, on = (inputs.options.pop(name, None) for name in ("in_use", "by", "on"))
    checkpoint = _checkpoint(running, inputs) if inputs.options.pop("resumable", False) else None
    index = running.jobs.models.lexical_search if index_words else None
    running.begin()

    def compared(adapter: QueryAdapter) -> Decision | None:
        return _compared(running.jobs.models, inputs, adapter, workers) if in_use == "if better" else None

    with workers_on(on, running.check) as workers:
        pace = Pace.of(len(inputs.queries), *inputs.shape, workers=None if workers is None else workers.count)
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
                corpus_parents=inputs.parents,
                fingerprint=inputs.fingerprint,
                progress=progress,
                workers=workers,
                checkpoint=checkpoint,
                **inputs.options,
            )
        of_corpus["parents"] = remembered_parents(result.adapter, inputs.parents or {})
        data = inputs.data if index is None else {**inputs.data, "words": index.fingerprint}
        if result.corpus_digest is not None:
            data = {**data, "corpus": hexadecimal(result.corpus_digest)}
        while not publish(
            running,
            result.adapter,
            made_by="train",
            change_embedding=change_embedding,
            in_use=in_use or "always",
            decision=compared(result.adapter),
            by=by,
            data=data,
            **{name: value for name, value in of_corpus.items() if value},
        ):
            _logger.info("Another model was put in use meanwhile: the new model is compared with that one.")


def _checkpoint(running: RunningJob, inputs: TrainingInputs) -> TrainingCheckpoint:
    """Return the checkpoint in the private folder of a job."""
    corpus = inputs.corpus
    basis = corpus.fingerprint() if isinstance(corpus, ShardedCorpus) else inputs.data["corpus"]
    return TrainingCheckpoint(running.jobs.inputs(running.job.id), basis)


def resume(jobs: JobFolder, job_id: str, *, wait: bool = True, on: str | None = None) -> None:
    """Go on with a job that was lost: see `DeepMemory.resume`.

    Args:
        jobs: The folder of the job.
        job_id: The id of the job.
        wait: Whether to train in this process, or in a separate process.
        on: The Ray cluster to go on with; by default as before.

    Raises:
        MissingExtraError, JobNotFoundError, JobRunningError, JobFailedError, StorageError: See `DeepMemory.resume`.
    """
    require("torch", extra="train")
    if on is not None:
        check_address(on)
        require("ray", extra="ray")
    with jobs.resume(job_id) as running:
        if on is not None:
            train_on(jobs.inputs(job_id), on)
        if wait:
            train(running, bar=True)
        else:
            start(running)


def remembered_parents(adapter: QueryAdapter, parent_of: Mapping[str, str]) -> dict[str, str]:
    """Return document id → parent of the documents that a model remembers, which its file keeps.

    Args:
        adapter: The model.
        parent_of: Document id → parent.
    """
    remembered = adapter.remembered_queries
    names = () if remembered is None else remembered.document_ids
    return {name: parent_of[name] for name in names if name in parent_of}


def _compared(models: ModelFolder, inputs: TrainingInputs, new: QueryAdapter, workers: Workers | None) -> Decision:
    """Compare a new model with the model in use on the held-out queries, if there are any."""
    held_out = None if inputs.held_out is None else HeldOutQueries(*inputs.held_out)
    searches: list[LexicalSearch] = [] if inputs.words is None else [inputs.words]
    with contextlib.suppress(StorageError):  # retrievers go on without a damaged index, too
        searches += [] if models.lexical_search is None else [models.lexical_search]
    name, old = models.in_use_name(), None
    if name is not None:
        with contextlib.suppress(ModelNotFoundError, AdapterFileError):  # then it serves nobody
            name, old = models.in_use()
    in_use = None if name is None else (name, old)
    return decide(
        new,
        held_out,
        inputs.corpus_ids,
        inputs.corpus,
        in_use=in_use,
        searches=tuple(searches),
        corpus_parents=inputs.parents,
        workers=workers,
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
    in_use: InUse = "always",
    decision: Decision | None = None,
    by: str | None = None,
    **known: Any,
) -> bool:
    """Write a job's model, put it in use, and mark the job completed. A job cannot be cancelled once its model is written.

    The model is written but does not replace a model that is in use where the decision says so, and where, without a decision, a
    training chose the identity and a ranking by the vectors alone.

    Args:
        running: The job.
        adapter: The model.
        made_by: ``train``, ``remember``, ``forget`` or ``relabel``: see `ModelInfo`.
        parent: The name of the model that was grown: see `ModelInfo`. Nothing is written if another model is in use by now. By
            default the model in use.
        change_embedding: Whether the model may belong to another embedding model than the model in use.
        in_use: ``"never"`` writes the model and leaves the model in use alone.
        decision: The comparison with the model in use, where there was one.
        by: Who asked for it, for the audit log; by default the user of the process.
        known: Further metadata for the model's file.

    Returns:
        Whether the model was written; False if the parent, or the model that it was compared with, is no longer in use.

    Raises:
        EmbeddingMismatchError: The model in use belongs to another embedding model: see `ModelFolder.check_embedding`.
        JobCancelledError: The job was cancelled.
        StorageError: The folder cannot be written, or the disk is full. The model in use stays in use.
    """
    name, models = running.job.id, running.jobs.models
    with models.lock():
        running.save()  # raises if the job was cancelled: a job cannot be cancelled later
        before = models.in_use_name()
        if parent not in (None, before) or (decision is not None and decision.against != before):
            return False
        if not change_embedding:  # another process may have put a model in use since the training began
            models.check_embedding(adapter.fingerprint)
        of_file = {"made_by": made_by, "parent": before, "created": time.time(), **known}
        if decision is not None:
            of_file["decision"] = decision.to_json()
        adapter = adapter.with_metadata(**of_file)
        models.save_model(name, adapter)
        identity = made_by == "train" and adapter.is_identity and adapter.ranking is None and before is not None
        keep = in_use == "never" or (identity if decision is None else not decision.better)
        reason, figures = (decision.reason, decision.to_json()) if decision is not None else ("", None)
        if identity and decision is None and in_use != "never":
            reason = f"nothing better than the untransformed queries was found ({adapter.metadata['report']['reason']})"
        try:
            if not keep:
                models.write_in_use(name, action=made_by, by=by, reason=reason, figures=figures)
            elif reason:
                with models.audit.recorded(made_by, name, before=before, in_use=before, by=by, reason=reason, figures=figures):
                    pass
        except StorageError:
            models.model_path(name).unlink(missing_ok=True)
            raise
        running.complete(adapter.metadata.get("report"))
        lost = [] if keep or made_by != "train" else _grown_since(models, running.job.created)
    if lost:
        _logger.warning(
            "While the training ran, %s to the model in use, which the new model %s knows nothing of: do so again, or train with "
            "all labels.",
            " and ".join(f"{action} was applied {count} time{'s' * (count > 1)}" for action, count in Counter(lost).items()),
            name,
        )
    if keep and decision is not None:
        _logger.warning(
            "The new model %s is not put in use: %s. To use it all the same, call set_model(%r) or run `deepmem use %s`.",
            name,
            reason,
            name,
            name,
        )
    elif keep and reason:
        _logger.warning(
            "Training found nothing better than the untransformed queries (%s). Model %s stays in use; to turn the transform "
            "off, call set_model(%r) or run `deepmem use %s`.",
            adapter.metadata["report"]["reason"],
            before,
            name,
            name,
        )
    return True


def _grown_since(models: ModelFolder, moment: float) -> list[str]:
    """Return what was done to models in use since a moment, in POSIX seconds, that a training does not learn."""
    since = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    growth = ("remember", "forget", "relabel")
    return [entry.action for entry in models.audit.entries() if entry.changed and entry.action in growth and entry.time >= since]


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
