"""`Writer`: a bounded queue whose entries one thread of the process writes, so that no query waits for a disk or a network."""

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from multiprocessing import util
from typing import Any, Generic, Protocol, TypeVar

from deepmem_integrations.errors import StorageError

_logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_In = TypeVar("_In", contravariant=True)
BATCH = 500
"""How many entries are written in one transaction at most."""
_LINGER, _LONGEST_LINGER = 0.05, 1.0
"""For how many seconds entries gather before they are written: as many as the last write took, within these bounds, so that many
processes leave the storage time for one another."""
_TELL_AFTER = 5.0
"""After how many seconds a message says that the storage is away. Other processes may write for a moment."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""After how many seconds a write that failed is tried again: the pause doubles with each failure."""
_UPKEEP = 3600.0
"""After how many seconds the upkeep comes again."""
_LOOK = 30.0
"""After how many seconds an idle thread looks whether anybody still holds the log."""
_AT_EXIT = 10.0
"""For how many seconds the end of a process waits for the last write."""


class Storage(Protocol[_In]):
    """What a `Writer` writes to."""

    def write(self, entries: Sequence[_In]) -> None:
        """Write entries, all or none. A `StorageError` says that a later try may succeed, any other error that none will."""
        ...

    def release(self) -> None:
        """Close what ``write`` keeps open."""
        ...

    def abandon(self) -> None:
        """Leave what ``write`` keeps open to the process that this one was forked from."""
        ...


class Writer(Generic[_T]):
    """Writes entries in a thread of its own, which starts with the first entry.

    Where the storage is away, entries wait, and the write is tried again and again. Entries that find the queue full, and
    entries that the storage refuses, are dropped and counted; a log message says so once. After a fork, the parent writes what
    was queued, and the child starts with an empty queue.

    Args:
        storage: What to write to.
        name: The storage's name in messages.
        limit: How many entries may wait.
        upkeep: A function that is called by the thread at its start and every hour, and starts the thread at once.

    Attributes:
        dropped: How many entries this process has dropped.
    """

    def __init__(
        self,
        storage: Storage[_T],
        *,
        name: str,
        limit: int,
        upkeep: Callable[[], object] | None = None,
    ) -> None:
        self._storage, self._name, self._limit = storage, name, limit
        self._upkeep = upkeep
        self._start_anew()
        _WRITERS.add(self)
        if upkeep is not None:
            with self._condition:
                self._start()

    def _start_anew(self) -> None:
        """Begin with an empty queue and no thread, as at first and in a forked process."""
        self._condition = threading.Condition()
        self._entries: deque[_T] = deque()
        self._thread: threading.Thread | None = None
        self._flushing, self._stopping, self._forking, self._retired = 0, False, False, False
        self._accepted = self._done = 0
        self.dropped = self._told_dropped = 0
        self._failure: Exception | None = None

    # ---- for those who have entries ----------------------------------------------------------------------------

    def put(self, entry: _T) -> None:
        """Queue an entry. Never waits for the storage, and never raises an error."""
        with self._condition:
            if len(self._entries) >= self._limit:
                self._drop("the queue is full")
                return
            self._entries.append(entry)
            self._accepted += 1
            if not self._start() and len(self._entries) == 1:
                self._condition.notify_all()

    @property
    def pending(self) -> int:
        """How many entries wait to be written."""
        return len(self._entries)

    def flush(self, timeout: float) -> None:
        """Wait until all entries that were put before are written.

        Args:
            timeout: For how many seconds to wait.

        Raises:
            StorageError: The entries were not written in time, or entries were dropped since the last flush.
        """
        with self._condition:
            target = self._accepted
            if self._done < target:
                self._start()
            self._flushing += 1
            self._condition.notify_all()
            try:
                written = self._condition.wait_for(lambda: self._done >= target, timeout)
            finally:
                self._flushing -= 1
            dropped, self._told_dropped = self.dropped - self._told_dropped, self.dropped
            if not written:
                raise StorageError(
                    f"{target - self._done} entries of the feedback log {self._name} were not written in {timeout:g} seconds: "
                    f"{self._reason('the storage is slow')}. They stay queued, and are written as soon as that is possible."
                )
            if dropped:
                raise StorageError(
                    f"{dropped} entries of the feedback log {self._name} were dropped since the last flush: "
                    f"{self._reason('the queue was full')}. What was queued beside them is written."
                )

    def _reason(self, otherwise: str) -> str:
        return otherwise if self._failure is None else str(self._failure).rstrip(".")

    def close(self, timeout: float) -> None:
        """Write what is queued, and end the thread. An entry that is put later starts another.

        Raises:
            StorageError: See `flush`. Entries that could not be written are dropped.
        """
        written = False
        try:
            self.flush(timeout)
            written = True
        finally:
            with self._condition:
                thread, self._stopping = self._thread, True
                self._condition.notify_all()
            if thread is not None and thread is not threading.current_thread():
                thread.join(timeout)
            ended = thread is None or not thread.is_alive()
            if ended:  # a write that hangs holds the connection
                self._storage.release()
            with self._condition:
                self._thread, self._stopping = None, False
                if self._entries and written and ended:  # which others have put meanwhile
                    self._start()
                else:
                    for _ in range(len(self._entries)):
                        self._drop("the log was closed before they could be written")
                    self._done += len(self._entries)
                    self._entries.clear()

    def retire(self) -> None:
        """Let the thread write what is queued, and end. Nobody waits for it, and it waits for nobody.

        The garbage collector calls this, in a thread that may hold any lock.
        """
        self._retired = True
        if self._condition.acquire(blocking=False):  # otherwise the thread looks by itself
            self._condition.notify_all()
            self._condition.release()

    # ---- the thread --------------------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Start the thread if there is none. Returns whether it was started."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(target=self._run, name="deepmem feedback", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is ending
            self._thread = None
            return False
        return True

    def _run(self) -> None:
        next_upkeep, linger = time.monotonic(), _LINGER
        while True:
            if self._upkeep is not None and time.monotonic() >= next_upkeep:
                next_upkeep = time.monotonic() + _UPKEEP
                self._try_upkeep(self._upkeep)
            with self._condition:
                if not (self._entries or self._stopping or self._forking or self._retired):
                    due = _LOOK if self._upkeep is None else min(_LOOK, max(0.0, next_upkeep - time.monotonic()))
                    self._condition.wait(due)
                if self._forking or (self._stopping and not self._entries):
                    return
                if self._retired and not self._entries:
                    break
                if not self._entries:
                    continue
                if not self._flushing and not self._stopping and not self._retired and len(self._entries) < BATCH:
                    self._condition.wait(linger)
                batch = list(islice(self._entries, BATCH))
            started = time.monotonic()
            if not self._write_all(batch):
                return
            linger = min(max(_LINGER, time.monotonic() - started), _LONGEST_LINGER)
            with self._condition:
                if self._is_replaced():
                    return
                for _ in batch:
                    self._entries.popleft()
                self._done += len(batch)
                self._condition.notify_all()
        self._storage.release()

    def _write_all(self, batch: list[_T]) -> bool:
        """Write a batch, as often as it takes. Returns False where the log is closed before that."""
        pause, started, told = _FIRST_PAUSE, time.monotonic(), False
        while True:
            try:
                self._storage.write(batch)
                if told:
                    _logger.warning("The feedback log %s is written again.", self._name)
                return True
            except StorageError as error:
                if not told and time.monotonic() - started >= _TELL_AFTER:
                    told = True
                    _logger.warning("%s Feedback waits in memory, and the write is tried again.", error)
                self._failure = error
            except Exception as error:  # one of the entries is at fault
                if len(batch) == 1:
                    self._failure = error
                    with self._condition:
                        self._drop(str(error))
                    return True
                return all(self._write_all([entry]) for entry in batch)
            with self._condition:
                if self._condition.wait_for(self._is_over, pause):
                    return False
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _is_over(self) -> bool:
        return self._stopping or self._forking or self._is_replaced()

    def _is_replaced(self) -> bool:
        """Tell whether the log was closed and did not wait for this thread any longer."""
        return self._thread is not threading.current_thread()

    def _try_upkeep(self, upkeep: Callable[[], object]) -> None:
        try:
            upkeep()
        except Exception as error:  # the next hour tries again
            _logger.warning("The upkeep of the feedback log %s failed: %s", self._name, error)

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        if self.dropped == 1:
            _logger.error(
                "The feedback log %s drops entries (%s). This message comes once; FeedbackLog.dropped counts them.",
                self._name,
                reason,
            )

    # ---- forks -------------------------------------------------------------------------------------------------

    def _before_fork(self) -> None:
        """End the thread, and close the connection, which a forked process must neither use nor close."""
        with self._condition:
            thread, self._forking = self._thread, True
            self._condition.notify_all()
        if thread is not None:
            thread.join(_AT_EXIT)
        self._condition.acquire()  # nothing is queued until the fork is over
        if thread is None or not thread.is_alive():
            self._thread = None
            self._storage.release()

    def _after_fork_in_parent(self) -> None:
        self._forking = False
        if self._entries or self._upkeep is not None:
            self._start()
        self._condition.release()

    def _after_fork_in_child(self) -> None:
        self._storage.abandon()
        self._start_anew()


_WRITERS: "weakref.WeakSet[Writer[Any]]" = weakref.WeakSet()
_FORKS = threading.local()
"""The writers that wait until this thread has forked."""


def _close_all() -> None:
    """Write what is queued at the end of a process."""
    for writer in list(_WRITERS):
        try:
            writer.close(_AT_EXIT)
        except StorageError as error:
            _logger.error("%s", error)


def _before_fork() -> None:
    _FORKS.writers = sorted(_WRITERS, key=id)
    for writer in _FORKS.writers:
        writer._before_fork()


def _after_fork_in_parent() -> None:
    for writer in _FORKS.writers:
        writer._after_fork_in_parent()


def _after_fork_in_child() -> None:
    for writer in list(_WRITERS):
        writer._after_fork_in_child()


class _AtExit:
    """What `multiprocessing` calls in a process that it has forked, and which ends without the functions of `atexit`."""

    def register(self) -> None:
        util.Finalize(None, _close_all, exitpriority=100)


_AT_EXIT_OF_WORKERS = _AtExit()
atexit.register(_close_all)
util.register_after_fork(_AT_EXIT_OF_WORKERS, _AtExit.register)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
