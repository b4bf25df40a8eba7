"""Training jobs in a folder.

Four files and folders belong to a job. ``jobs/<id>.json`` is its state, replaced atomically. ``jobs/<id>.lock`` is locked by the
process that works on the job, as long as it does. ``jobs/<id>/`` holds the inputs of the training, while it needs them. A file
``jobs/<id>.cancel`` asks the process to stop. So any process can tell the state of a job, and that a killed one has ended.
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
"""The names of half-written files: see `_files.write_bytes`."""


class JobFolder:
    """The jobs of a folder of models. The folder is made when the first job is written.

    Args:
        models: The folder that finished trainings put their models into.
    """

    def __init__(self, models: ModelFolder) -> None:
        self.models = models
        self.path = models.path / "jobs"

    def new(self) -> "RunningJob":
        """Create a job, which this process works on.

        Raises:
            StorageError: The folder cannot be written, which is noticed here and not after the training.
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
        """Continue a job in a process that was started for it and has inherited its lock."""
        lock = FileLock.inherited(self.lock_path(job_id), descriptor)
        job = replace(self._read(job_id), pid=os.getpid(), detached=True)
        self._save(job)
        return RunningJob(self, job, lock)

    def job(self, job_id: str) -> JobStatus:
        """Return the state of a job. If its process was killed, the state is corrected and written down.

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
        """Stop a job. One in a process of its own ends at once; one that its caller waits for ends at its next step.

        Returns:
            Whether the job was stopped; False where it had ended already.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: The folder cannot be written, or the process belongs to another user.
        """
        if not self.job(job_id).running:
            return False
        write_text(self.cancel_path(job_id), "")
        with self.models.lock():  # a job that holds it is putting its model in use
            job = self.job(job_id)
            if job.running and job.detached and job.pid is not None:
                try:
                    os.kill(job.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                except PermissionError as error:
                    raise StorageError(f"The training process {job.pid} belongs to another user: {error}.") from error
        if job.running and job.detached:
            while FileLock.is_held(self.lock_path(job_id)):  # the killed process lets go of it within a moment
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
        """Return the file that a process of its own logs to."""
        return self.inputs(job_id) / "log.txt"

    def delete_inputs(self, job_id: str) -> None:
        """Delete the inputs of the training."""
        shutil.rmtree(self.inputs(job_id), ignore_errors=True)

    def lock_path(self, job_id: str) -> Path:
        """Return the file that the process which works on the job has locked."""
        return self.path / f"{job_id}.lock"

    def cancel_path(self, job_id: str) -> Path:
        """Return the file whose existence asks that process to stop."""
        return self.path / f"{job_id}.cancel"

    def _sweep(self) -> None:
        """Delete the half-written files of killed processes. A process that writes one holds the job's lock."""
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
        """Find out how a job ended whose process is gone. If the model is written, it is whole: the job had all but completed."""
        lock = FileLock(self.lock_path(job_id))
        try:
            mine = lock.acquire(wait=False)
        except StorageError:  # this user may not write here
            mine = False
        try:
            job = self._read(job_id)  # again: it may have ended well meanwhile
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
        message = f"the process that worked on it (pid {job.pid}) is gone: it was killed, or out of memory"
        with contextlib.suppress(OSError):
            lines = self.log_path(job.id).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            message += "".join(f"; its last words: {line}" for line in lines[-1:])
        return message


class RunningJob:
    """A job that this process works on. At the end of its ``with`` block, however that ends, the job's state is written down.

    Args:
        jobs: The folder of the job.
        job: The state of the job.
        lock: The lock of the job, which this process holds.
    """

    def __init__(self, jobs: JobFolder, job: JobStatus, lock: FileLock) -> None:
        self.jobs, self.job, self.lock, self._handed_over = jobs, job, lock, False

    def save(self, **changes: Any) -> None:
        """Write down changes of the state.

        Raises:
            JobCancelledError: The job was cancelled.
            StorageError: The state cannot be written.
        """
        if self.jobs.cancel_path(self.job.id).exists():
            raise JobCancelledError(f"The training {self.job.id} was cancelled.")
        self.job = replace(self.job, **changes)
        self.jobs._save(self.job)

    def begin(self) -> None:
        """Mark the job as training: its inputs are complete."""
        self.save(state="training", started=time.time())

    def progress(self, done: int, total: int) -> None:
        """Write down how many steps of the training are done."""
        self.save(progress=done / total, seconds=time.time() - self.job.started)

    def complete(self, report: Mapping[str, Any] | None) -> None:
        """Mark the job completed. Its inputs are deleted first, so that no completed job still has any."""
        self.jobs.delete_inputs(self.job.id)
        seconds = time.time() - self.job.started if self.job.started else 0.0
        self.job = replace(self.job, state="completed", progress=1.0, seconds=seconds, **results(report))
        self.jobs._save(self.job)

    def hand_over(self) -> None:
        """Leave the job to a process that has inherited its lock and will write down its state."""
        self.lock.pass_on()
        self._handed_over = True

    def __enter__(self) -> "RunningJob":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Write down how the job ended, delete its inputs, and release its lock."""
        try:
            if self._handed_over:
                return
            self.jobs.delete_inputs(self.job.id)  # first: the disk may be full
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
