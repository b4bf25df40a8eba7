"""Training jobs and trained models in a folder.

``jobs/<id>.json`` is a job's state, ``models/<name>.safetensors`` a model, and ``current`` holds the name of the model in use.
Every file is replaced atomically.
"""

import json
import os
import secrets
import textwrap
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from deepmem_integrations._files import read_text, write_text
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.errors import JobNotFoundError, ModelNotFoundError, StorageError

State = Literal["pending", "training", "completed", "failed"]

_WIDTH = 62


@dataclass(frozen=True)
class JobStatus:
    """A training job.

    Attributes:
        id: 24 hexadecimal digits, as in v3.
        state: ``pending``, ``training``, ``completed`` or ``failed``.
        progress: Between 0 and 1.
        started: Seconds since the epoch.
        seconds: How long it has run, or ran.
        recall: Of ``recall@10``, the mean with the chosen model on *held-out training queries*, between 0 and 1.
        recall_gain: Its difference to the untransformed queries.
        report: The training report as JSON values, once completed.
        error: Why it failed.
    """

    id: str
    state: State
    progress: float = 0.0
    started: float = 0.0
    seconds: float = 0.0
    recall: float | None = None
    recall_gain: float | None = None
    report: Mapping[str, Any] | None = None
    error: str | None = None

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
        recall = ""
        if self.recall is not None and self.recall_gain is not None:
            recall = f"recall@10: {100 * self.recall:.1f}% ({100 * self.recall_gain:+.1f}%)"
        eta = "eta: not known yet" if self.eta is None else f"eta: {self.eta:.1f} seconds"
        rows: list[list[tuple[str, str]]] = [
            [("status", self.state)],
            [("progress", eta)],
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
        rule = "-" * _WIDTH
        table = [rule, f"|{self.id:^60}|", rule]
        for row in rows:
            table += [f"| {name:<27}| {value:<30}|" for name, value in row]
            table.append(rule)
        return "\n".join(table)


class ModelFolder:
    """Jobs and models below one folder, which is made when something is first written.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Keep the path; nothing is touched yet."""
        self.path = Path(path)

    # ---- jobs --------------------------------------------------------------------------------------------------

    def new_job(self) -> JobStatus:
        """Write down a new job.

        Raises:
            StorageError: The folder cannot be written: better now than after the training.
        """
        job = JobStatus(id=secrets.token_hex(12), state="training", started=time.time())
        self.save_job(job)
        return job

    def save_job(self, job: JobStatus) -> None:
        """Write a job's state."""
        write_text(self._job_path(job.id), json.dumps(asdict(job), indent=1))

    def job(self, job_id: str) -> JobStatus:
        """Read a job's state.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: Its file is damaged.
        """
        path = self._job_path(job_id)
        if not _plain_name(job_id) or not path.is_file():
            known = ", ".join(sorted(file.stem for file in self.path.glob("jobs/*.json"))) or "none"
            raise JobNotFoundError(f"There is no training job {job_id!r} in {self.path}. Jobs there: {known}.")
        try:
            job = JobStatus(**json.loads(read_text(path)))
        except (ValueError, TypeError) as error:
            raise StorageError(f"{path} is damaged or was written by another version ({error}).") from error
        return replace(job, seconds=time.time() - job.started) if job.state == "training" else job

    def _job_path(self, job_id: str) -> Path:
        return self.path / "jobs" / f"{job_id}.json"

    # ---- models ------------------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """The names of all models, oldest first."""
        files = self.path.glob("models/*.safetensors")
        return [file.stem for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name))]

    def save_model(self, name: str, adapter: QueryAdapter) -> None:
        """Write a model; it is not in use before `set_current`."""
        adapter.save(self._model_path(name))

    def load_model(self, name: str) -> QueryAdapter:
        """Read a model.

        Raises:
            ModelNotFoundError: No model has this name.
            AdapterFileError: Its file is damaged.
        """
        self._must_exist(name)
        return QueryAdapter.load(self._model_path(name))

    def current(self) -> str | None:
        """The name of the model in use; None where there is none yet."""
        return read_text(self._current).strip() if self._current.is_file() else None

    def current_stamp(self) -> tuple[int, int] | None:
        """Changes whenever another model is put in use; costs one look at the file system."""
        try:
            stat = self._current.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino

    def set_current(self, name: str) -> None:
        """Put a model in use.

        Raises:
            ModelNotFoundError: No model has this name.
        """
        self._must_exist(name)
        write_text(self._current, name)

    @property
    def _current(self) -> Path:
        return self.path / "current"

    def _model_path(self, name: str) -> Path:
        return self.path / "models" / f"{name}.safetensors"

    def _must_exist(self, name: str) -> None:
        if not _plain_name(name) or not self._model_path(name).is_file():
            raise ModelNotFoundError(
                f"Invalid model name. Please choose from the following models: {', '.join(self.models()) or 'none yet'} "
                f"(asked for {name!r} in {self.path})"
            )


def _plain_name(name: str) -> bool:
    """Whether a name stays inside its folder."""
    return bool(name) and Path(name).name == name
