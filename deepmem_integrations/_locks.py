"""Locks between processes. The kernel lets go of them when their holder ends, by kill -9 too."""

import os
from pathlib import Path
from types import TracebackType

from deepmem_integrations.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows: serving works there, jobs and the choice of models do not
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """An exclusive lock on a file, which is made when needed. Two objects exclude each other within a process, too.

    Args:
        path: The file. It is not to be deleted while anybody may want the lock.
    """

    def __init__(self, path: Path) -> None:
        """Keep the path; nothing is locked yet."""
        self.path = path
        self._descriptor: int | None = None

    @classmethod
    def inherited(cls, path: Path, descriptor: int) -> "FileLock":
        """A lock that the process which started this one held and passed on."""
        lock = cls(path)
        lock._descriptor = descriptor
        os.set_inheritable(descriptor, False)
        return lock

    @staticmethod
    def is_held(path: Path) -> bool:
        """Whether any process, this one included, has the lock. Disturbs nobody and needs no right to write."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return False
        try:
            _flock(descriptor, shared=True, wait=False)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    @property
    def descriptor(self) -> int:
        """To be passed on to a new process, with which the lock is shared from then on."""
        assert self._descriptor is not None
        return self._descriptor

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock.

        Args:
            wait: Until it is free; otherwise False says that it was not.

        Raises:
            StorageError: The file cannot be made or opened, or the file system has no locks.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StorageError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        try:
            _flock(descriptor, shared=False, wait=wait)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            raise StorageError(f"Cannot lock {self.path}: {error.strerror or error}.") from error
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go, also for a process that was forked meanwhile and has a copy."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.pass_on()

    def pass_on(self) -> None:
        """Leave the lock to a process that has inherited it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "FileLock":
        """Take the lock, and wait for it."""
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go."""
        self.release()


def _flock(descriptor: int, *, shared: bool, wait: bool) -> None:
    if fcntl is None:
        raise StorageError("Jobs and the choice of models need the file locks of Linux or macOS; adapter files serve anywhere.")
    fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
