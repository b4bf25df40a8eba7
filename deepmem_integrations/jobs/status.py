"""The state of a training job, `JobStatus`, and of all jobs in a folder, `JobList`. Both print as Deep Lake v3's tables."""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

State = Literal["pending", "training", "completed", "failed", "cancelled"]

RUNNING = ("pending", "training")
"""The states in which a process works on the job."""

_NUMBERS = ("progress", "created", "started", "seconds", "recall", "recall_gain", "pid", "resumable_until")
_OPTIONAL = ("recall", "recall_gain", "pid", "resumable_until")
_WIDTH = 62


@dataclass(frozen=True)
class JobStatus:
    """The state of a training job.

    Attributes:
        id: 24 hexadecimal digits, as in v3.
        state: ``pending`` while the vectors are gathered, then ``training``, then ``completed``, ``failed`` or ``cancelled``.
        progress: The progress of the training, between 0 and 1.
        created: When the job was created, in seconds since the epoch.
        started: When the training itself began, in seconds since the epoch.
        seconds: How long the training has taken so far, or took.
        recall: The mean recall@10 of the chosen model on *held-out training queries*, or on the validation queries that were
            given, between 0 and 1.
        recall_gain: The difference of ``recall`` to the recall of the untransformed queries.
        report: The training report as JSON values, once the job is completed.
        error: Why the job failed.
        pid: The id of the process that works on the job, or that worked on it.
        detached: Whether that process was started for the job.
        resumable_until: Until when `DeepMemory.resume` can go on with a failed job, in seconds since the epoch, if nothing else
            ends that before; None where it cannot.
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
    resumable_until: float | None = None

    @classmethod
    def from_json(cls, job_id: str, value: Any) -> "JobStatus":
        """Take the fields of a job's file.

        Args:
            job_id: The id, which is the name of the file, whatever the file says.
            value: The content of the file as JSON values.

        Raises:
            TypeError, ValueError: A field is unknown, is missing or has another type.
        """
        if not isinstance(value, dict):
            raise TypeError("the state of a job is a JSON object")
        if value.get("state") not in get_args(State):
            raise ValueError(f"no job has the state {value.get('state')!r}")
        for name, item in value.items():
            if name in _NUMBERS and not (item is None and name in _OPTIONAL):
                whole = isinstance(item, int) and not isinstance(item, bool)
                if not (whole if name == "pid" else whole or isinstance(item, float)) or not -1e18 < item < 1e18:
                    raise TypeError(f"{name} is a number; got {item!r}")
            if name == "error" and not isinstance(item, str | None):
                raise TypeError(f"error is a text; got {item!r}")
            if name == "detached" and not isinstance(item, bool):
                raise TypeError(f"detached is true or false; got {item!r}")
        status = cls(**{**value, "id": job_id})
        if status.report is not None:
            if not isinstance(status.report, dict):
                raise TypeError("report is an object or null")
            try:
                str(status), results(status.report)
            except Exception as error:
                raise TypeError(f"the report lacks what every report has ({error!r})") from error
        return status

    @property
    def running(self) -> bool:
        """Whether a process works on the job."""
        return self.state in RUNNING

    @property
    def eta(self) -> float | None:
        """The seconds that the training still takes, extrapolated from the progress; None where the progress is not known."""
        if self.state == "completed":
            return 0.0
        if self.state != "training" or not self.progress:
            return None
        return self.seconds * (1 - self.progress) / self.progress

    def __str__(self) -> str:
        """Draw Deep Lake v3's table of a job. Below the recall stands what it was measured on."""
        recall = self._recall
        rows: list[list[tuple[str, str]]] = [
            [("status", self.state)],
            [("progress", self._eta)],
            [("results", recall or self._no_recall)],
        ]
        if recall:
            rows[1].append(("", recall))
            kind = re.sub(r"^[\d,]+ ", "", str(self.report["seen"]["queries"]) if self.report else "held-out training queries")
            rows[2] += [("", line) for line in textwrap.wrap(f"on {kind}", width=29)]
        if self.report:
            chosen, reason = self.report["chosen"].split(" + "), textwrap.wrap(self.report["reason"], width=29)
            ranking = self.report.get("ranking")  # reports of earlier versions have none
            parts = ranking["chosen"].split(" + ") if ranking else []
            ranked = [line for part in parts for line in textwrap.wrap(part, width=29)]
            if ranking and (measured := results(ranking))["recall"] is not None:
                ranked.append(_recall(measured["recall"], measured["recall_gain"]))
            spellings = self.report.get("near_duplicates", 0)
            asked = [f"{self.report['queries'] - spellings:,} questions,", f"{spellings:,} more spellings"] if spellings else []
            for name, lines in (("labels", asked), ("model", chosen), ("why", reason), ("retrievers rank by", ranked)):
                if lines:
                    rows.append([("" if index else name, line) for index, line in enumerate(lines)])
        if self.error:
            lines = textwrap.wrap(f"error: {self.error}", width=29)
            rows[2] = [("" if index else "results", line) for index, line in enumerate(lines)]
            if self.resumable_until is not None:
                until = datetime.fromtimestamp(self.resumable_until).astimezone()
                rows.append([("resumable", f"until {until:%Y-%m-%d %H:%M}")])
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
        return _recall(self.recall, self.recall_gain)

    @property
    def _no_recall(self) -> str:
        return "nothing could be held out" if self.state == "completed" else "not available yet"

    @property
    def _eta(self) -> str:
        if self.eta is not None:
            return f"eta: {self.eta:.1f} seconds"
        return "eta: not known yet" if self.state == "training" else "None"


def _recall(recall: float, gain: float) -> str:
    return f"recall@10: {100 * recall:.1f}% ({100 * gain:+.1f}%)"


class JobList(list[JobStatus]):
    """The states of jobs, oldest first."""

    def __str__(self) -> str:
        """Draw Deep Lake v3's table of all jobs."""
        if not self:
            return "No Deep Memory training jobs were found for this dataset"
        rows = [("ID", "STATUS", "RESULTS", "PROGRESS")]
        rows += [(job.id, job.state, job._recall or job._no_recall, job._eta) for job in self]
        widths = [max(least, *(len(row[column]) for row in rows)) for column, least in enumerate((2, 6, 29, 15))]
        return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def results(report: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields of `JobStatus` that a training report fills."""
    seen = (report or {}).get("seen")
    return {
        "report": report,
        "recall": seen["chosen"]["recall@10"] if seen else None,
        "recall_gain": seen["gains"]["recall@10"]["mean"] if seen else None,
    }
