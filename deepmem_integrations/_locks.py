"""Locks between processes. The kernel releases a lock when its holder ends, by kill -9 too."""

import contextlib
import importlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from deepmem_integrations._files import open_regular
from deepmem_integrations.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows, where models serve, but cannot be trained in jobs or put in use
    fcntl = None  # type: ignore[assignment]

LOCKS_AVAILABLE = fcntl is not None
_msvcrt: Any = importlib.import_module("msvcrt") if os.name == "nt" else None
_PAUSE = 0.05
"""After how many seconds Windows is asked again for a lock."""


class FileLock:
    """An exclusive lock on a file, which is made when needed. Two objects exclude each other within one process, too.

    Args:
        path: The file. It must not be deleted while a process may want the lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @classmethod
    def inherited(cls, path: Path, descriptor: int) -> "FileLock":
        """Take over a lock from the process that started this one."""
        lock = cls(path)
        lock._descriptor = descriptor
        os.set_inheritable(descriptor, False)
        return lock

    @staticmethod
    def is_held(path: Path) -> bool:
        """Tell whether any process, this one included, holds the lock. Needs no right to write, and disturbs no holder.

        Raises:
            StorageError: The file system has no locks.
        """
        try:
            file = open_regular(path)
        except OSError:
            return False
        with file:
            try:
                return not try_flock(file.fileno(), shared=True)
            except OSError as error:
                raise _cannot_lock(path, error) from error

    @property
    def descriptor(self) -> int:
        """The file descriptor to pass on to a new process, which then shares the lock."""
        assert self._descriptor is not None
        return self._descriptor

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock.

        Args:
            wait: Whether to wait until the lock is free.

        Returns:
            Whether the lock was taken; always True with ``wait``.

        Raises:
            StorageError: The file cannot be made or opened, or the file system has no locks.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Without O_NONBLOCK, a pipe of this name would hang whoever wants the lock.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o666)
        except OSError as error:
            raise StorageError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        try:
            taken = self._try(descriptor, wait)
        except OSError as error:
            os.close(descriptor)
            raise _cannot_lock(self.path, error) from error
        if taken:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return taken

    def release(self) -> None:
        """Release the lock, also for a process that was forked meanwhile and has a copy of it."""
        if self._descriptor is not None:
            try:
                with contextlib.suppress(OSError):  # of a network file system; closing the file releases the lock of this process
                    self._unlock(self._descriptor)
            finally:
                self.pass_on()

    def pass_on(self) -> None:
        """Leave the lock to a process that has inherited it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # the descriptor is closed all the same
                os.close(descriptor)

    def _try(self, descriptor: int, wait: bool) -> bool:
        return try_flock(descriptor, wait=wait)

    def _unlock(self, descriptor: int) -> None:
        release_flock(descriptor)

    def __enter__(self) -> "FileLock":
        """Wait for the lock and take it."""
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release the lock."""
        self.release()


class WriteLock(FileLock):
    """A lock for short changes that Windows has, too. There, it cannot be passed on, and `is_held` cannot look at it."""

    def _try(self, descriptor: int, wait: bool) -> bool:
        if _msvcrt is None:
            return super()._try(descriptor, wait)
        while True:
            try:
                _msvcrt.locking(descriptor, _msvcrt.LK_NBLCK, 1)  # LK_LOCK would give up after ten seconds
                return True
            except PermissionError:
                if not wait:
                    return False
            time.sleep(_PAUSE)

    def _unlock(self, descriptor: int) -> None:
        if _msvcrt is None:
            super()._unlock(descriptor)
        else:
            _msvcrt.locking(descriptor, _msvcrt.LK_UNLCK, 1)


def try_flock(descriptor: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file.

    Args:
        descriptor: The file's descriptor. The lock is released when the file is closed.
        shared: Whether other shared locks are allowed beside this one.
        wait: Whether to wait until the lock is free.

    Returns:
        Whether the lock was taken.

    Raises:
        StorageError: The operating system has no such locks.
        OSError: The file system has no locks.
    """
    if not LOCKS_AVAILABLE:
        raise StorageError("Jobs and the choice of models need the file locks of Linux or macOS; adapter files serve anywhere.")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def release_flock(descriptor: int) -> None:
    """Release the lock of an open file, also for a process that was forked meanwhile and has a copy of it."""
    if LOCKS_AVAILABLE:
        with contextlib.suppress(OSError):  # of a network file system; closing the file releases the lock of this process
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _cannot_lock(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"Cannot lock {path}: {error.strerror or error}. Network file systems often have no locks: keep the folder on a disk of "
        "this machine, and publish models to where others read them."
    )
