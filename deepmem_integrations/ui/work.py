"""Work that goes on beside the requests: reading documents, writing queries, training, measuring."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from deepmem_integrations.errors import DeepMemoryError, JobCancelledError

_logger = logging.getLogger(__name__)

Kind = Literal["read", "generate", "train", "measure"]


class Stopped(Exception):
    """Raised inside work that somebody has stopped."""


@dataclass
class Work:
    """One piece of work, whose fields the pages show.

    Attributes:
        kind: What is done.
        state: ``"running"``, ``"done"``, ``"failed"`` or ``"stopped"``.
        title: What is done now, or what came of it, in words.
        done: How much is done.
        total: Of how much; 0 where nobody knows.
        started: When it began, in POSIX seconds.
        error: Why it failed.
        notes: More on what came of it, in lines.
        job: The training job, or the model that is measured.
        shown: What came so far, newest first, for people to watch.
    """

    kind: Kind
    title: str
    state: Literal["running", "done", "failed", "stopped"] = "running"
    done: int = 0
    total: int = 0
    started: float = field(default_factory=time.time)
    error: str = ""
    notes: tuple[str, ...] = ()
    job: str | None = None
    shown: list[Any] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.state == "running"

    def step(self, done: int, title: str | None = None) -> None:
        """Tell how far it is.

        Raises:
            Stopped: Somebody has stopped it.
        """
        self.done, self.title = done, title or self.title
        self.check()

    def check(self) -> None:
        """Raise `Stopped` if somebody has stopped it."""
        if self._stop.is_set():
            raise Stopped

    def stop(self) -> None:
        """Ask it to stop at its next step."""
        self._stop.set()


class Works:
    """The latest work of each kind. Of each kind one goes on at a time, whichever tab has begun it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[Kind, Work] = {}

    def get(self, kind: Kind) -> Work | None:
        """Return the latest work of a kind."""
        return self._latest.get(kind)

    def start(self, kind: Kind, title: str, run: Callable[[Work], None]) -> Work:
        """Begin work in a thread, unless work of the kind goes on, which is returned in its place."""
        with self._lock:
            going = self._latest.get(kind)
            if going is not None and going.running:
                return going
            work = self._latest[kind] = Work(kind, title)
        threading.Thread(target=_run, args=(work, run), name=f"deepmem ui: {kind}", daemon=True).start()
        return work


def _run(work: Work, run: Callable[[Work], None]) -> None:
    try:
        run(work)
        work.state = "done"
    except (Stopped, JobCancelledError):
        work.state = "stopped"
    except DeepMemoryError as error:
        work.error, work.state = str(error), "failed"
    except Exception as error:
        _logger.exception("The work %r failed.", work.kind)
        work.error, work.state = f"{type(error).__name__}: {error}", "failed"
