"""Keep training jobs in a folder.

Four files and folders belong to a job:

- ``jobs/<id>.json`` is the state of the job, and is replaced atomically.
- ``jobs/<id>.lock`` is locked by the process that works on the job, as long as it works on the job.
- ``jobs/<id>/`` holds the inputs of the training, as long as the training needs them.
- ``jobs/<id>.cancel`` asks the process to stop.

Any process can therefore tell the state of a job, and can tell that a job has ended whose process was killed.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from deepmem_integrations._files import read_text, write_text
from deepmem_integrations._locks import FileLock
from deepmem_integrations.errors import JobCancelledError, JobNotFoundError, JobRunningError, StorageError
from deepmem_integrations.jobs.status import JobList, JobStatus, results
from deepmem_integrations.models import ModelFolder, is_plain_name

_HALF_WRITTEN = re.compile(r"\.([0-9a-f]{24})\.(?:json|safetensors)\.[0-9a-f]+\.tmp")
"""The pattern of the names of half-written files: see `_files.write_bytes`."""


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
        self._sweep()
        job = JobStatus(id=secrets.token_hex(12), state="pending", created=time.time(), pid=os.getpid())
        lock = FileLock(self.lock_path(job.id))
        lock.acquire()
        try:
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
        job = replace(self._read(job_id), pid=os.getpid(), detached=True)
        self._save(job)
        return RunningJob(self, job, lock)

    def job(self, job_id: str) -> JobStatus:
        """Return the state of a job. If the process of a running job was killed, the state is corrected and written.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: The job's file is damaged.
        """
        job = self._read(job_id)
        if not job.running:
            return job
        if not FileLock.is_held(self.lock_path(job_id)):
            return self._settle(job_id)
        return replace(job, seconds=time.time() - job.started) if job.state == "training" else job

    def all(self) -> JobList:
        """Return the states of all jobs, oldest first.

        Raises:
            StorageError: The file of a job is damaged.
        """
        found = JobList()
        for name in self._names():
            with contextlib.suppress(JobNotFoundError):  # deleted meanwhile
                found.append(self.job(name))
        found.sort(key=lambda job: (job.created, job.id))
        return found

    def cancel(self, job_id: str) -> bool:
        """Stop a job. A job in a separate process ends at once. A job that its caller waits for ends at its next step.

        Returns:
            True if the job was stopped, and False if the job had ended already.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: The folder cannot be written, or the process belongs to another user.
        """
        if not self.job(job_id).running:
            return False
        write_text(self.cancel_path(job_id), "")
        with self.models.lock():  # a job that holds this lock is putting its model in use
            job = self.job(job_id)
            if job.running and job.detached and job.pid is not None:
                try:
                    os.kill(job.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                except PermissionError as error:
                    raise StorageError(f"The training process {job.pid} belongs to another user: {error}.") from error
        if job.running and job.detached:
            while FileLock.is_held(self.lock_path(job_id)):  # the killed process loses the lock within a moment
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
            JobRunningError: The job has not ended.
            StorageError: The record cannot be deleted.
        """
        if self.job(job_id).running:
            raise JobRunningError(f"The job {job_id} is running: cancel it first.")
        try:
            self.delete_inputs(job_id)
            for path in (self._path(job_id), self.cancel_path(job_id), self.lock_path(job_id)):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"Cannot delete {self._path(job_id)}: {error.strerror or error}.") from error
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

    def _sweep(self) -> None:
        """Delete the half-written files of killed processes. A live process that writes such a file holds the lock of its job."""
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
            elif self.cancel_path(job_id).exists():
                job = replace(job, state="cancelled")
            else:
                job = replace(job, state="failed", error=self._last_words(job))
            if mine:
                with contextlib.suppress(StorageError):
                    self.delete_inputs(job_id)
                    self._save(job)
                    self.cancel_path(job_id).unlink(missing_ok=True)
            return job
        finally:
            lock.release()
            if mine:
                self._sweep()

    def _last_words(self, job: JobStatus) -> str:
        message = f"the process that worked on the job (pid {job.pid}) is gone: it was killed, or ran out of memory"
        with contextlib.suppress(OSError):
            lines = self.log_path(job.id).read_text(encoding="utf-8", errors="replace").strip().splitlines()
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
        if self.jobs.cancel_path(self.job.id).exists():
            raise JobCancelledError(f"The training {self.job.id} was cancelled.")
        self.job = replace(self.job, **changes)
        self.jobs._save(self.job)

    def begin(self) -> None:
        """Mark the job as training. Its inputs must be complete."""
        self.save(state="training", started=time.time())

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
        """Record how the job ended, delete its inputs, and release its lock."""
        try:
            if self._handed_over:
                return
            self.jobs.delete_inputs(self.job.id)  # first, because the disk may be full
            if error is None:
                return
            cancelled = isinstance(error, JobCancelledError | KeyboardInterrupt)
            message = None if cancelled else f"{type(error).__name__}: {error}"
            seconds = time.time() - self.job.started if self.job.started else 0.0
            with contextlib.suppress(StorageError):
                self.jobs._save(replace(self.job, state="cancelled" if cancelled else "failed", seconds=seconds, error=message))
                self.jobs.cancel_path(self.job.id).unlink(missing_ok=True)
        finally:
            self.lock.release()
