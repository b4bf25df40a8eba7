"""Keep training jobs in a folder.

Four files and folders belong to a job:

- ``jobs/<id>.json`` is the state of the job, and is replaced atomically.
- ``jobs/<id>.lock`` is locked by the process that works on the job, as long as it works on the job.
- ``jobs/<id>/`` holds the inputs of the training, as long as the training needs them.
- ``jobs/<id>.cancel`` asks the process to stop.

Any process can therefore tell the state of a job, and can tell that a job has ended whose process was killed. The lock file also
says who holds it, and no process is killed that cannot be proven to be that one. The folders with inputs hold what users asked:
their owner alone may read them. Whoever uses the jobs next deletes those that a killed process left behind, but for the inputs of
a training that can go on: these are kept for `KEPT` seconds, or until another training has begun.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from deepmem_integrations._files import is_missing, is_plain_name, open_regular, read_json, write_text
from deepmem_integrations._locks import FileLock
from deepmem_integrations._processes import ProcessIdentity, kill_holder
from deepmem_integrations.errors import (
    DeepMemoryError,
    EmbeddingError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    JobRunningError,
    StorageError,
    StoreError,
)
from deepmem_integrations.jobs.inputs import are_complete
from deepmem_integrations.jobs.status import JobList, JobStatus, State, results
from deepmem_integrations.models import ModelFolder

_logger = logging.getLogger(__name__)

_HALF_WRITTEN = re.compile(r"\.([0-9a-f]{24})\.(?:json|safetensors|cancel)\.[0-9a-f]+\.tmp")
"""The pattern of the names of half-written files: see `_files.write_bytes`."""
KEPT = 3 * 24 * 3600.0
"""For how many seconds the inputs of a training are kept that was lost and can go on."""
_SKEW = 60.0
"""By how many seconds the clocks of machines that share the folder may differ."""
_PATIENCE = 10.0
"""For how many seconds the lock of a killed process is waited for."""
_MOMENT = 1.0
"""For how many seconds the lock of a job that has ended is waited for."""
_ID = re.compile(r"[0-9a-f]{24}")
_LOG_TAIL = 2**16
"""How many bytes at the end of a log are searched for its last line."""


class JobFolder:
    """The training jobs of a folder of models. The folder of the jobs is made when the first job is written.

    Args:
        models: The folder of models, which a completed job adds its model to.
    """

    def __init__(self, models: ModelFolder) -> None:
        self.models = models
        self.path = models.path / "jobs"

    def new(self) -> "RunningJob":
        """Create a job, which this process works on.

        Raises:
            StorageError: The folder cannot be written. The error comes here, and not after the training.
        """
        self.sweep()
        job = JobStatus(id=secrets.token_hex(12), state="pending", created=time.time(), pid=os.getpid())
        lock = FileLock(self.lock_path(job.id))
        try:
            lock.acquire()
            _sign(lock)
            self._save(job)
        except BaseException:
            lock.release()
            with contextlib.suppress(OSError):
                self.lock_path(job.id).unlink()
            raise
        return RunningJob(self, job, lock)

    def resume(self, job_id: str) -> "RunningJob":
        """Go on with a failed job whose inputs are kept, in this process.

        Raises:
            JobNotFoundError: No job has this id.
            JobRunningError: A process works on the job.
            JobFailedError: The job cannot go on: it completed or was cancelled, or its inputs are not kept.
            StorageError: The job's file is damaged, or the folder cannot be written.
        """
        lock = None if self.job(job_id).running else self._take(job_id)
        if lock is None:
            raise JobRunningError(f"The job {job_id} is running: there is nothing to resume.")
        try:
            job = self._read(job_id)
            if not self._can_resume(job):
                why = {
                    "completed": "it has completed",
                    "cancelled": "it was cancelled, and its inputs are deleted",
                }.get(
                    job.state,
                    "it ended before its inputs were complete, or they are deleted: another training has begun since, "
                    f"{KEPT / 86400:g} days have passed, or it was trained with resumable=False",
                )
                raise JobFailedError(f"The training {job_id} cannot go on: {why}. Train again.")
            _sign(lock)
            job = replace(job, state="pending", pid=os.getpid(), detached=False, error=None, resumable_until=None)
            self.cancel_path(job_id).unlink(missing_ok=True)
            self._save(job)
        except BaseException:
            lock.release()
            raise
        return RunningJob(self, job, lock)

    def take_over(self, job_id: str, descriptor: int) -> "RunningJob":
        """Continue a job in a process that was started for the job and has inherited its lock.

        Args:
            job_id: The id of the job.
            descriptor: The inherited file descriptor of the lock.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: The job's file is damaged, or the folder cannot be written.
        """
        lock = FileLock.inherited(self.lock_path(job_id), descriptor)
        _sign(lock)
        job = replace(self._read(job_id), pid=os.getpid(), detached=True)
        self._save(job)
        return RunningJob(self, job, lock)

    def job(self, job_id: str) -> JobStatus:
        """Return the state of a job. If the process of a running job was killed, the state is corrected and written.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: The job's file is damaged.
        """
        self.sweep()
        return self._job(job_id)

    def _job(self, job_id: str) -> JobStatus:
        job = self._read(job_id)
        if not job.running:
            return job if self._can_resume(job) else replace(job, resumable_until=None)
        if not FileLock.is_held(self.lock_path(job_id)):
            return self._settle(job_id)
        return replace(job, seconds=time.time() - job.started) if job.state == "training" else job

    def all(self) -> JobList:
        """Return the states of all jobs, oldest first.

        Raises:
            StorageError: The file of a job is damaged.
        """
        self.sweep()
        found = JobList()
        for name in self._names():
            with contextlib.suppress(JobNotFoundError):  # deleted meanwhile
                found.append(self._job(name))
        found.sort(key=lambda job: (job.created, job.id))
        return found

    def cancel(self, job_id: str) -> bool:
        """Stop a job. A job in a separate process ends at once. A job that its caller waits for ends at its next step.

        A separate process is killed only if it can be proven to work on the job: it has the number, the start, the boot and the
        namespace that the lock file names, and has the lock file open. Otherwise, as for a job in another container or on another
        machine, and on systems without ``/proc``, the job is asked to stop, which it does at its next step, and a warning says
        so.

        A job that was lost and could go on is given up: its inputs are deleted.

        Returns:
            True if the job was stopped, asked to stop or given up, and False if the job had ended already.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: The folder cannot be written, or the process belongs to another user.
        """
        if not self.job(job_id).running:
            return self._give_up(job_id)
        write_text(self.cancel_path(job_id), "")
        killed = False
        with self.models.lock():  # a job that holds this lock is putting its model in use
            job = self._job(job_id)
            if job.running and job.detached:
                try:
                    killed = kill_holder(self.lock_path(job_id))
                except PermissionError as error:
                    raise StorageError(f"The training process {job.pid} belongs to another user: {error}.") from error
                if not killed and self._job(job_id).running:
                    _logger.warning(
                        "Nothing proves that process %s works on the job %s: the job may run in another container or on another "
                        "machine. No process is killed. The job is asked to stop, and does so at its next step: see its status.",
                        job.pid,
                        job_id,
                    )
        if killed:
            end = time.monotonic() + _PATIENCE
            # The killed process loses the lock within a moment.
            while FileLock.is_held(self.lock_path(job_id)) and time.monotonic() < end:
                time.sleep(0.005)
            job = self._job(job_id)
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
            JobRunningError: The job has not ended.
            StorageError: The record cannot be deleted.
        """
        lock = None if self.job(job_id).running else self._take(job_id)
        if lock is None:
            raise JobRunningError(f"The job {job_id} is running: cancel it first.")
        try:
            self.delete_inputs(job_id)
            for path in (self._path(job_id), self.cancel_path(job_id), self.lock_path(job_id)):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"Cannot delete {self._path(job_id)}: {error.strerror or error}.") from error
        finally:
            lock.release()
        return True

    def inputs(self, job_id: str) -> Path:
        """Return the folder with the inputs of the training."""
        return self.path / job_id

    def log_path(self, job_id: str) -> Path:
        """Return the file that a separate training process logs to."""
        return self.inputs(job_id) / "log.txt"

    def delete_inputs(self, job_id: str) -> None:
        """Delete the inputs of the training."""
        shutil.rmtree(self.inputs(job_id), ignore_errors=True)

    def lock_path(self, job_id: str) -> Path:
        """Return the lock file of a job, which is locked by the process that works on the job."""
        return self.path / f"{job_id}.lock"

    def cancel_path(self, job_id: str) -> Path:
        """Return the cancel file of a job. If the file exists, the process that works on the job stops."""
        return self.path / f"{job_id}.cancel"

    def sweep(self, *, lost: bool = False) -> None:
        """Delete what killed processes left behind: half-written files, and the inputs of trainings, which hold users' queries.

        A live process that writes such a file or reads such inputs holds the lock of its job.

        Args:
            lost: Whether to delete the inputs of jobs that were lost and could go on as well, since another training has begun.
        """
        for path in [*self.path.glob(".*.tmp"), *(self.models.path / "models").glob(".*.tmp")]:
            found = _HALF_WRITTEN.fullmatch(path.name)
            if found and not FileLock.is_held(self.lock_path(found[1])):
                with contextlib.suppress(OSError):
                    path.unlink()
        for path in self.path.glob("*/"):
            if _ID.fullmatch(path.name) and not FileLock.is_held(self.lock_path(path.name)):
                job: JobStatus | None = None
                with contextlib.suppress(DeepMemoryError):  # deleted, or damaged, which whoever asks for it is told
                    self._job(path.name)  # notes how the job ended
                    job = self._read(path.name)
                if job is not None and job.running:  # another process notes it just now, or goes on with it
                    continue
                if job is None or job.resumable_until is None:
                    self.delete_inputs(path.name)
                elif lost or not self._can_resume(job):
                    with contextlib.suppress(DeepMemoryError):  # this user may not write here, or the job was deleted
                        self._give_up(path.name, "failed")

    def _can_resume(self, job: JobStatus) -> bool:
        """Tell whether a job was lost, and everything is there that it needs to go on."""
        now = time.time()
        # A time that lies further away is that of a clock that went back.
        if job.state != "failed" or job.resumable_until is None or not now < job.resumable_until <= now + KEPT + _SKEW:
            return False
        return are_complete(self.inputs(job.id))

    def _give_up(self, job_id: str, state: State = "cancelled") -> bool:
        """Delete the inputs of a job that could go on, unless a process goes on with it; and tell whether there were any."""
        lock = self._take(job_id)
        if lock is None:
            return False
        try:
            job = self._read(job_id)
            if job.running or job.resumable_until is None:
                return False
            self.delete_inputs(job_id)
            self._save(replace(job, state=state, resumable_until=None))
            return True
        finally:
            lock.release()

    def _take(self, job_id: str) -> FileLock | None:
        """Take the lock of a job that has ended; None where a process works on it. Others hold such a lock for a moment."""
        lock, end = FileLock(self.lock_path(job_id)), time.monotonic() + _MOMENT
        while not lock.acquire(wait=False):
            if time.monotonic() > end:
                return None
            time.sleep(0.005)
        return lock

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
            value = read_json(path)
        except (FileNotFoundError, StorageError) as error:
            if isinstance(error, StorageError) and not is_missing(error):
                raise
            known = ", ".join(self._names()) or "none"
            raise JobNotFoundError(f"There is no training job {job_id!r} in {self.models.path}. Jobs there: {known}.") from error
        try:
            return JobStatus.from_json(job_id, value)
        except (ValueError, TypeError) as error:
            raise StorageError(f"{path} is damaged or was written by another version ({error}).") from error

    def _settle(self, job_id: str) -> JobStatus:
        """Find out how a job ended whose process is gone, and write down the state.

        A model file is written atomically. If the file is there, it is complete, and the job counts as completed.
        """
        lock = FileLock(self.lock_path(job_id))
        try:
            mine = lock.acquire(wait=False)
        except StorageError:  # this user may not write here
            mine = False
        try:
            job = self._read(job_id)  # again: the job may have completed in the meantime
            if not job.running:
                return job
            if self.models.model_path(job_id).is_file():
                report = self.models.info(job_id).report
                job = replace(job, state="completed", progress=1.0, **results(report))
                if mine and self.models.in_use_name() != job_id:
                    _logger.warning(
                        "The process of the job %s was killed as it ended. Its model is whole, but not in use: set_model(%r) "
                        "puts it in use.",
                        job_id,
                        job_id,
                    )
            elif self.cancel_path(job_id).exists():
                job = replace(job, state="cancelled")
            else:
                job = replace(job, state="failed", error=self._last_words(job))
            if mine:
                with contextlib.suppress(StorageError):
                    if job.state == "failed" and are_complete(self.inputs(job_id)):
                        job = replace(job, resumable_until=time.time() + KEPT)
                    else:
                        self.delete_inputs(job_id)
                    self._save(job)
                    self.cancel_path(job_id).unlink(missing_ok=True)
            return job
        finally:
            lock.release()

    def _last_words(self, job: JobStatus) -> str:
        message = f"the process that worked on the job (pid {job.pid}) is gone: it was killed, or ran out of memory"
        with contextlib.suppress(OSError), open_regular(self.log_path(job.id)) as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG_TAIL))
            lines = log.read(_LOG_TAIL).decode("utf-8", "replace").strip().splitlines()
            message += "".join(f"; the last line of its log: {line}" for line in lines[-1:])
        return message


class RunningJob:
    """A job that this process works on.

    Use it in a ``with`` block. When the block ends, with or without an error, the state of the job is written.

    Args:
        jobs: The folder of the job.
        job: The state of the job.
        lock: The lock of the job, which this process holds.
    """

    def __init__(self, jobs: JobFolder, job: JobStatus, lock: FileLock) -> None:
        self.jobs, self.job, self.lock, self._handed_over = jobs, job, lock, False

    def save(self, **changes: Any) -> None:
        """Change the state of the job, and write it.

        Args:
            changes: The fields of `JobStatus` to change, with their new values.

        Raises:
            JobCancelledError: The job was cancelled.
            StorageError: The state cannot be written.
        """
        self.check()
        self.job = replace(self.job, **changes)
        self.jobs._save(self.job)

    def check(self) -> None:
        """Go on, unless the job was cancelled.

        Raises:
            JobCancelledError: The job was cancelled.
        """
        if self.jobs.cancel_path(self.job.id).exists():
            raise JobCancelledError(f"The training {self.job.id} was cancelled.")

    def begin(self) -> None:
        """Mark the job as training. Its inputs must be complete. What earlier trainings could have gone on with is deleted."""
        self.save(state="training", started=time.time() - self.job.seconds)  # of a job that goes on, what it took so far
        self.jobs.sweep(lost=True)

    def progress(self, done: int, total: int) -> None:
        """Record how many steps of the training are done."""
        self.save(progress=done / total, seconds=time.time() - self.job.started)

    def complete(self, report: Mapping[str, Any] | None) -> None:
        """Mark the job completed. Its inputs are deleted first, so that no completed job still has any.

        Args:
            report: The training report as JSON values, if there is one.
        """
        self.jobs.delete_inputs(self.job.id)
        seconds = time.time() - self.job.started if self.job.started else 0.0
        self.job = replace(self.job, state="completed", progress=1.0, seconds=seconds, **results(report))
        self.jobs._save(self.job)

    def hand_over(self) -> None:
        """Leave the job to a process that has inherited its lock, and that writes the state from now on."""
        self.lock.pass_on()
        self._handed_over = True

    def __enter__(self) -> "RunningJob":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Record how the job ended, delete its inputs unless the job can go on, and release its lock."""
        try:
            if self._handed_over:
                return
            # What the inputs are not to blame for may pass: a cluster or a store that is out of reach.
            kept = isinstance(error, JobFailedError | StoreError | MemoryError) and are_complete(self.jobs.inputs(self.job.id))
            if not kept:
                self.jobs.delete_inputs(self.job.id)  # first, because the disk may be full
            if error is None:
                return
            cancelled = isinstance(error, JobCancelledError | KeyboardInterrupt)
            message = None if cancelled else self._why(error)
            seconds = time.time() - self.job.started if self.job.started else 0.0
            with contextlib.suppress(StorageError):
                ended: dict[str, Any] = {"state": "cancelled" if cancelled else "failed", "seconds": seconds, "error": message}
                if kept:
                    ended["resumable_until"] = time.time() + KEPT
                    _logger.warning(
                        "The training %s can go on where it was: call resume(%r) or run `deepmem resume %s`.",
                        *(self.job.id,) * 3,
                    )
                self.jobs._save(replace(self.job, **ended))
                self.jobs.cancel_path(self.job.id).unlink(missing_ok=True)
        finally:
            self.lock.release()

    def _why(self, error: BaseException) -> str:
        """Say why the job failed, without a text that may quote a query: embedding models do so in their errors.

        Until the training begins, the job's caller gets every error itself.
        """
        name = type(error).__name__
        if isinstance(error, DeepMemoryError) and not isinstance(error, EmbeddingError):
            return f"{name}: {error}"
        if self.job.state == "pending":
            return f"{name}, whose message was shown to the caller and is not kept here, because it may quote a query"
        return f"{name}: {error}"


def _sign(lock: FileLock) -> None:
    """Write into a lock's file which process holds the lock."""
    if (identity := ProcessIdentity.of(os.getpid())) is not None:
        identity.write(lock.descriptor)
