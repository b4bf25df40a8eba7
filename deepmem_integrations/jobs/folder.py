"""Training jobs in a folder.

``jobs/<id>.json`` is a job's state, replaced atomically; ``jobs/<id>.lock`` is locked by the process that works on it for as long
as it does; ``jobs/<id>/`` holds what the training needs, while it needs it; and ``jobs/<id>.cancel`` asks it to stop. So any
process sees how a job is, and that a killed one has ended.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import textwrap
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from deepmem_integrations._files import read_text, write_text
from deepmem_integrations._locks import FileLock
from deepmem_integrations.errors import JobCancelledError, JobNotFoundError, JobRunningError, StorageError
from deepmem_integrations.models import ModelFolder, is_plain_name

State = Literal["pending", "training", "completed", "failed", "cancelled"]

RUNNING = ("pending", "training")
"""States that somebody works on."""

_WIDTH = 62
_HALF_WRITTEN = re.compile(r"\.([0-9a-f]{24})\.(?:json|safetensors)\.[0-9a-f]+\.tmp")
"""See `_files.write_bytes`."""


@dataclass(frozen=True)
class JobStatus:
    """A training job.

    Attributes:
        id: 24 hexadecimal digits, as in v3.
        state: ``pending`` while vectors are gathered, ``training``, ``completed``, ``failed`` or ``cancelled``.
        progress: Of the training, between 0 and 1.
        created: Seconds since the epoch.
        started: When the training itself began, likewise.
        seconds: How long the training has taken, or took.
        recall: Of ``recall@10``, the mean with the chosen model on *held-out training queries*, between 0 and 1.
        recall_gain: Its difference to the untransformed queries.
        report: The training report as JSON values, once completed.
        error: Why it failed.
        pid: The process that works on it, or did.
        detached: Whether that is a process of its own.
    """

    id: str
    state: State
    progress: float = 0.0
    created: float = 0.0
    started: float = 0.0
    seconds: float = 0.0
    recall: float | None = None
    recall_gain: float | None = None
    report: Mapping[str, Any] | None = field(default=None, repr=False)
    error: str | None = None
    pid: int | None = None
    detached: bool = False

    @property
    def running(self) -> bool:
        """Whether somebody works on it."""
        return self.state in RUNNING

    @property
    def eta(self) -> float | None:
        """Seconds to go, extrapolated from the progress; None where nothing is known yet."""
        if self.state == "completed":
            return 0.0
        if self.state != "training" or not self.progress:
            return None
        return self.seconds * (1 - self.progress) / self.progress

    def __str__(self) -> str:
        """Deep Lake v3's table. Its recall was measured on held-out training queries."""
        recall = self._recall
        rows: list[list[tuple[str, str]]] = [
            [("status", self.state)],
            [("progress", self._eta)],
            [("results", recall or "not available yet")],
        ]
        if recall:
            rows[1].append(("", recall))
            rows[2].append(("", "on held-out training queries"))
        elif self.state == "completed":
            rows[2] = [("results", "nothing could be held out")]
        if self.report:
            chosen, reason = self.report["chosen"].split(" + "), textwrap.wrap(self.report["reason"], width=29)
            for name, lines in (("model", chosen), ("why", reason)):
                rows.append([("" if index else name, line) for index, line in enumerate(lines)])
        if self.error:
            lines = textwrap.wrap(f"error: {self.error}", width=29)
            rows[2] = [("" if index else "results", line) for index, line in enumerate(lines)]
        elif self.state == "cancelled":
            rows[2] = [("results", "none: it was cancelled")]
        rule = "-" * _WIDTH
        table = [rule, f"|{self.id:^60}|", rule]
        for row in rows:
            table += [f"| {name:<27}| {value:<30}|" for name, value in row]
            table.append(rule)
        return "\n".join(table)

    @property
    def _recall(self) -> str:
        if self.recall is None or self.recall_gain is None:
            return ""
        return f"recall@10: {100 * self.recall:.1f}% ({100 * self.recall_gain:+.1f}%)"

    @property
    def _eta(self) -> str:
        if self.eta is not None:
            return f"eta: {self.eta:.1f} seconds"
        return "eta: not known yet" if self.state == "training" else "None"


class JobList(list[JobStatus]):
    """Jobs, oldest first."""

    def __str__(self) -> str:
        """Deep Lake v3's table."""
        if not self:
            return "No Deep Memory training jobs were found for this dataset"
        rows = [("ID", "STATUS", "RESULTS", "PROGRESS")]
        rows += [(job.id, job.state, job._recall or "not available yet", job._eta) for job in self]
        widths = [max(least, *(len(row[column]) for row in rows)) for column, least in enumerate((2, 6, 29, 15))]
        return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


class JobFolder:
    """Jobs below the folder of the models that they make.

    Args:
        models: Where a finished training puts its model.
    """

    def __init__(self, models: ModelFolder) -> None:
        """Keep it; nothing is touched yet."""
        self.models = models
        self.path = models.path / "jobs"

    def new(self) -> "Work":
        """Write down a new job, which this process works on.

        Raises:
            StorageError: The folder cannot be written: better now than after the training.
        """
        self._sweep()
        job = JobStatus(id=secrets.token_hex(12), state="pending", created=time.time(), pid=os.getpid())
        lock = FileLock(self.lock_path(job.id))
        lock.acquire()
        try:
            self._save(job)
        except BaseException:
            lock.release()
            raise
        return Work(self, job, lock)

    def take_over(self, job_id: str, descriptor: int) -> "Work":
        """Go on with a job in a process of its own, which was started for it and given its lock."""
        lock = FileLock.inherited(self.lock_path(job_id), descriptor)
        job = replace(self._read(job_id), pid=os.getpid(), detached=True)
        self._save(job)
        return Work(self, job, lock)

    def job(self, job_id: str) -> JobStatus:
        """How a job is. Where its process was killed, that is found out here and written down.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: Its file is damaged.
        """
        job = self._read(job_id)
        if not job.running:
            return job
        if not FileLock.is_held(self.lock_path(job_id)):
            return self._settle(job_id)
        return replace(job, seconds=time.time() - job.started) if job.state == "training" else job

    def all(self) -> JobList:
        """All jobs, oldest first.

        Raises:
            StorageError: The file of one is damaged.
        """
        found = JobList()
        for name in self._names():
            with contextlib.suppress(JobNotFoundError):  # deleted meanwhile
                found.append(self.job(name))
        found.sort(key=lambda job: (job.created, job.id))
        return found

    def cancel(self, job_id: str) -> bool:
        """Stop a job. One in a process of its own ends at once; one that blocks its caller, at its next step.

        Returns:
            False where it had ended already.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: The folder cannot be written, or the process is another user's.
        """
        if not self.job(job_id).running:
            return False
        write_text(self.cancel_path(job_id), "")
        with self.models.lock():  # not while it puts its model in use
            job = self.job(job_id)
            if job.running and job.detached and job.pid is not None:
                try:
                    os.kill(job.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                except PermissionError as error:
                    raise StorageError(f"The training process {job.pid} belongs to another user: {error}.") from error
        if job.running and job.detached:
            while FileLock.is_held(self.lock_path(job_id)):  # until it is gone: a moment
                time.sleep(0.005)
            job = self.job(job_id)
        if job.running or job.state == "cancelled":
            return True
        self.cancel_path(job_id).unlink(missing_ok=True)
        return False

    def delete(self, job_id: str) -> bool:
        """Delete the record of a job that has ended. Its model stays.

        Returns:
            True.

        Raises:
            JobNotFoundError: No job has this id.
            JobRunningError: It has not ended.
            StorageError: It cannot be deleted.
        """
        if self.job(job_id).running:
            raise JobRunningError(f"The job {job_id} is running: cancel it first.")
        try:
            self.forget_inputs(job_id)
            for path in (self._path(job_id), self.cancel_path(job_id), self.lock_path(job_id)):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"Cannot delete {self._path(job_id)}: {error.strerror or error}.") from error
        return True

    def inputs(self, job_id: str) -> Path:
        """The folder of what its training needs."""
        return self.path / job_id

    def log_path(self, job_id: str) -> Path:
        """What a process of its own has to say."""
        return self.inputs(job_id) / "log.txt"

    def forget_inputs(self, job_id: str) -> None:
        """Delete what its training needed."""
        shutil.rmtree(self.inputs(job_id), ignore_errors=True)

    def lock_path(self, job_id: str) -> Path:
        """Locked by the process that works on the job."""
        return self.path / f"{job_id}.lock"

    def cancel_path(self, job_id: str) -> Path:
        """Asks that process to stop, by being there."""
        return self.path / f"{job_id}.cancel"

    def _sweep(self) -> None:
        """Delete what killed processes left half-written. Whoever writes such a file holds the job's lock."""
        for path in [*self.path.glob(".*.tmp"), *(self.models.path / "models").glob(".*.tmp")]:
            found = _HALF_WRITTEN.fullmatch(path.name)
            if found and not FileLock.is_held(self.lock_path(found[1])):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _path(self, job_id: str) -> Path:
        return self.path / f"{job_id}.json"

    def _names(self) -> list[str]:
        return sorted(file.stem for file in self.path.glob("*.json") if not file.name.startswith("."))

    def _save(self, job: JobStatus) -> None:
        write_text(self._path(job.id), json.dumps(asdict(job), indent=1))

    def _read(self, job_id: str) -> JobStatus:
        path = self._path(job_id)
        try:
            if not is_plain_name(job_id):
                raise FileNotFoundError
            text = read_text(path)
        except (FileNotFoundError, StorageError) as error:
            if is_plain_name(job_id) and path.is_file():
                raise
            known = ", ".join(self._names()) or "none"
            raise JobNotFoundError(f"There is no training job {job_id!r} in {self.models.path}. Jobs there: {known}.") from error
        try:
            return JobStatus(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise StorageError(f"{path} is damaged or was written by another version ({error}).") from error

    def _settle(self, job_id: str) -> JobStatus:
        """Find out how a job ended whose process is gone. Its model, if it is there, is whole: then it was all but done."""
        lock = FileLock(self.lock_path(job_id))
        try:
            mine = lock.acquire(wait=False)
        except StorageError:  # not for us to write
            mine = False
        try:
            job = self._read(job_id)  # it may have ended well between the two looks
            if not job.running:
                return job
            if self.models.model_path(job_id).is_file():
                report = self.models.info(job_id).report
                job = replace(job, state="completed", progress=1.0, **results(report))
            elif self.cancel_path(job_id).exists():
                job = replace(job, state="cancelled")
            else:
                job = replace(job, state="failed", error=self._last_words(job))
            if mine:
                with contextlib.suppress(StorageError):
                    self.forget_inputs(job_id)
                    self._save(job)
                    self.cancel_path(job_id).unlink(missing_ok=True)
            return job
        finally:
            lock.release()
            if mine:
                self._sweep()

    def _last_words(self, job: JobStatus) -> str:
        told = f"the process that worked on it (pid {job.pid}) is gone: killed, or out of memory"
        with contextlib.suppress(OSError):
            lines = self.log_path(job.id).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            told += "".join(f"; its last words: {line}" for line in lines[-1:])
        return told


class Work:
    """A job that this process works on. Used with ``with``: however that ends, it is written down.

    Args:
        jobs: Where it is.
        job: Its state.
        lock: Its lock, held.
    """

    def __init__(self, jobs: JobFolder, job: JobStatus, lock: FileLock) -> None:
        """Keep them."""
        self.jobs, self.job, self.lock, self._handed_over = jobs, job, lock, False

    def save(self, **changes: Any) -> None:
        """Write down what has changed.

        Raises:
            JobCancelledError: Somebody has asked for it to stop.
            StorageError: It cannot be written.
        """
        if self.jobs.cancel_path(self.job.id).exists():
            raise JobCancelledError(f"The training {self.job.id} was cancelled.")
        self.job = replace(self.job, **changes)
        self.jobs._save(self.job)

    def begin(self) -> None:
        """The vectors are there, the training begins."""
        self.save(state="training", started=time.time())

    def progress(self, done: int, total: int) -> None:
        """Steps of the training."""
        self.save(progress=done / total, seconds=time.time() - self.job.started)

    def complete(self, report: Mapping[str, Any] | None) -> None:
        """The model is written. What the training needed is gone by the time that anybody can know."""
        self.jobs.forget_inputs(self.job.id)
        seconds = time.time() - self.job.started if self.job.started else 0.0
        self.job = replace(self.job, state="completed", progress=1.0, seconds=seconds, **results(report))
        self.jobs._save(self.job)

    def hand_over(self) -> None:
        """Another process has inherited the lock, and writes down what becomes of the job."""
        self.lock.pass_on()
        self._handed_over = True

    def __enter__(self) -> "Work":
        """Nothing more to do."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write down how it ended, delete what it needed, and let go of it."""
        try:
            if self._handed_over:
                return
            self.jobs.forget_inputs(self.job.id)  # first, since it may be the disk that is full
            if error is None:
                return
            cancelled = isinstance(error, JobCancelledError | KeyboardInterrupt)
            told = None if cancelled else f"{type(error).__name__}: {error}"
            seconds = time.time() - self.job.started if self.job.started else 0.0
            with contextlib.suppress(StorageError):
                self.jobs._save(replace(self.job, state="cancelled" if cancelled else "failed", seconds=seconds, error=told))
                self.jobs.cancel_path(self.job.id).unlink(missing_ok=True)
        finally:
            self.lock.release()


def results(report: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the state of a job says of its report."""
    seen = (report or {}).get("seen")
    return {
        "report": report,
        "recall": seen["chosen"]["recall@10"] if seen else None,
        "recall_gain": seen["gains"]["recall@10"]["mean"] if seen else None,
    }
