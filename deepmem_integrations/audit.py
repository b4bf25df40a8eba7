"""The audit log of a folder of models, ``audit.jsonl``: who put which model in use, when, and why, or why it was refused."""

import contextlib
import getpass
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deepmem_integrations._files import read_text
from deepmem_integrations.errors import StorageError

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditEntry:
    """One line of the audit log.

    Attributes:
        time: When, in ISO 8601 and UTC.
        action: ``train``, ``remember``, ``forget``, ``relabel``, ``use``, ``rollback`` or ``publish``.
        by: Who asked: by default the user of the process.
        model: The model that the action is about.
        before: The model that was in use before; None where there was none.
        in_use: The model that is in use since then. It is ``before`` where a model was refused or published.
        reason: Why the model was put in use or refused, as far as there is a reason to give.
        figures: The figures of the decision, as JSON values: see `deepmem_integrations.retraining.Decision`.
    """

    time: str
    action: str
    by: str
    model: str
    before: str | None
    in_use: str | None
    reason: str = ""
    figures: Mapping[str, Any] | None = None

    @property
    def changed(self) -> bool:
        """Whether another model is in use since then."""
        return self.before != self.in_use

    def __str__(self) -> str:
        """Say it in one line."""
        reason = f": {self.reason}" if self.reason else ""
        stays = not self.changed and self.action != "publish"
        kept = f" ({self.in_use or 'no model'} stays in use)" if stays else ""
        return f"{self.time}  {self.action} {self.model} by {self.by}{kept}{reason}"


class AuditLog:
    """The audit log in a folder of models. It only grows. Whoever writes holds the lock of the folder.

    Args:
        path: The file, which the first line makes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def recorded(
        self,
        action: str,
        model: str,
        *,
        before: str | None,
        in_use: str | None,
        by: str | None = None,
        reason: str = "",
        figures: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        """Write a line, and take it back if the block fails: a change of the model in use is never without its line.

        Args:
            action: See `AuditEntry`.
            model: See `AuditEntry`.
            before: See `AuditEntry`.
            in_use: See `AuditEntry`.
            by: Who asked; by default the user of the process.
            reason: See `AuditEntry`.
            figures: See `AuditEntry`.

        Raises:
            StorageError: The file cannot be written. The block is not entered.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = AuditEntry(now, action, by or user(), model, before, in_use, reason, figures)
        line = json.dumps(asdict(entry)).encode() + b"\n"
        size: int | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size:
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else b"\n" + line  # a killed process left half a line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._cut(size)
            raise StorageError(f"Cannot write {self.path}: {error.strerror or error}. The model in use is unchanged.") from error
        try:
            yield
        except BaseException:
            self._cut(size)
            raise

    def entries(self) -> list[AuditEntry]:
        """Return all entries, oldest first. Lines that cannot be read are left out, and a warning counts them.

        Raises:
            StorageError: The file cannot be read.
        """
        if not self.path.exists():
            return []
        found, unreadable, names = [], 0, {field.name for field in fields(AuditEntry)}
        for line in read_text(self.path).split("\n"):
            if line:
                try:
                    found.append(AuditEntry(**{name: value for name, value in json.loads(line).items() if name in names}))
                except (ValueError, TypeError, AttributeError):
                    unreadable += 1
        if unreadable:
            _logger.warning("%d lines of %s cannot be read and are left out.", unreadable, self.path)
        return found

    def _cut(self, size: int | None) -> None:
        """Cut the file back to its size of before; a file that could not be opened has nothing to take back."""
        if size is None:
            return
        with contextlib.suppress(OSError):
            os.truncate(self.path, size)


def history(entries: Iterable[AuditEntry], in_use: str) -> list[str | None]:
    """Return the models in use up to now, oldest first, where a rollback takes back what came after the model it went to.

    Args:
        entries: The entries of the log.
        in_use: The model in use now, which is the last of the result.

    Returns:
        Names; None stands for the time before the first model.

    Example:
        >>> def entry(action, before, in_use):
        ...     return AuditEntry("2026-11-28T03:00:00+00:00", action, "cron", in_use, before, in_use)
        >>> changes = [entry("train", None, "a"), entry("train", "a", "b"), entry("rollback", "b", "a")]
        >>> history(changes, "a")
        [None, 'a']
    """
    past: list[str | None] = []
    changes = [entry for entry in entries if entry.changed]
    for entry, then in zip(changes, [*(later.before for later in changes[1:]), in_use], strict=False):
        if then == entry.before:  # the process was killed after it had written the line, and before the change
            continue
        if not past or past[-1] != entry.before:  # an earlier version, which writes no log, changed the model meanwhile
            past.append(entry.before)
        if entry.action == "rollback" and entry.in_use in past:
            while past[-1] != entry.in_use:
                past.pop()
        else:
            past.append(entry.in_use)
    return past if past and past[-1] == in_use else [*past, in_use]


def user() -> str:
    """Return the name of the user of this process, or the number where the user has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
