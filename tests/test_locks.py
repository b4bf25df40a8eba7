import errno
import fcntl
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from deepmem_integrations._locks import FileLock, WriteLock, try_flock
from deepmem_integrations.errors import StorageError
from deepmem_integrations.generation.checkpoint import Checkpoint


def test_a_lock_excludes_threads_and_is_seen_without_disturbing_it(tmp_path):
    path = tmp_path / "lock"
    assert not FileLock.is_held(path)
    with FileLock(path):
        assert FileLock.is_held(path)
        assert FileLock(path).acquire(wait=False) is False
    assert not FileLock.is_held(path)
    with pytest.raises(StorageError, match="Cannot write"):
        FileLock(path / "below").acquire()


# ---- between two processes -------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from deepmem_integrations._locks import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


@contextmanager
def held_by_another_process(path):
    """Another process that holds a lock; `go_on` makes it release the lock."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, path], **pipes) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_a_lock_excludes_other_processes_until_it_is_released(tmp_path):
    path = tmp_path / "lock"
    with held_by_another_process(path) as process:
        assert FileLock.is_held(path)
        assert FileLock(path).acquire(wait=False) is False
        assert go_on(process) == "released\n"
        assert not FileLock.is_held(path)
        mine = FileLock(path)
        assert mine.acquire(wait=False) is True
        mine.release()


def test_a_lock_is_waited_for(tmp_path):
    path, taken = tmp_path / "lock", threading.Event()

    def take():
        with FileLock(path):
            taken.set()

    with held_by_another_process(path) as process:
        waiting = threading.Thread(target=take)
        waiting.start()
        assert not taken.wait(0.2), "the other process still holds it"
        assert go_on(process) == "released\n"
        assert taken.wait(10)
        waiting.join()


def test_a_killed_process_holds_no_lock(tmp_path):
    path = tmp_path / "lock"
    with held_by_another_process(path) as process:
        process.kill()
        process.wait()
        with FileLock(path):
            assert FileLock.is_held(path)


def test_an_inherited_lock_is_held_until_its_heir_ends(tmp_path):
    path = tmp_path / "lock"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from deepmem_integrations._locks import FileLock\n"
        "lock = FileLock.inherited(Path(sys.argv[1]), int(sys.argv[2]))\n"
        "print(lock.descriptor, flush=True)\n"
        "sys.stdin.readline()\n"
    )
    lock = FileLock(path)
    lock.acquire()
    command = [sys.executable, "-c", script, str(path), str(lock.descriptor)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, pass_fds=[lock.descriptor], **pipes) as process:
        assert process.stdout.readline() == f"{lock.descriptor}\n"
        lock.pass_on()
        assert FileLock.is_held(path), "this process has let go of it, the other has not"
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(10)
        assert not FileLock.is_held(path)


def test_shared_locks_stand_beside_each_other_and_exclude_an_exclusive_one(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with open(path) as one, open(path) as two, open(path) as three:
        assert try_flock(one.fileno(), shared=True)
        assert try_flock(two.fileno(), shared=True)
        assert not try_flock(three.fileno())
        assert FileLock(path).acquire(wait=False) is False
    with open(path) as alone:
        assert try_flock(alone.fileno())
    with held_by_another_process(path), open(path) as file:
        assert not try_flock(file.fileno(), shared=True)
        assert not try_flock(file.fileno())


def test_where_there_are_no_locks_the_error_says_what_works(tmp_path, monkeypatch):
    monkeypatch.setattr("deepmem_integrations._locks.LOCKS_AVAILABLE", False)
    with pytest.raises(StorageError, match="adapter files serve anywhere"):
        FileLock(tmp_path / "lock").acquire()


# ---- on Windows, whose locks are played by flock ---------------------------------------------------------------------


class Msvcrt:
    """Python's module of Windows, as far as it locks files."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def locking(self, descriptor, mode, size):
        assert size == 1
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if mode == self.LK_NBLCK else fcntl.LOCK_UN)
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error


@pytest.mark.parametrize("windows", [False, True])
def test_a_write_lock_excludes_and_is_waited_for(tmp_path, monkeypatch, windows):
    if windows:
        monkeypatch.setattr("deepmem_integrations._locks._msvcrt", Msvcrt())
        monkeypatch.setattr("deepmem_integrations._locks.fcntl", None)
        monkeypatch.setattr("deepmem_integrations._locks.LOCKS_AVAILABLE", False)
    path, taken = tmp_path / "lock", threading.Event()

    def take():
        with WriteLock(path):
            taken.set()

    with WriteLock(path):
        assert WriteLock(path).acquire(wait=False) is False
        waiting = threading.Thread(target=take)
        waiting.start()
        assert not taken.wait(0.2)
    waiting.join()
    assert taken.is_set()


def test_windows_locks_that_fail_say_so(tmp_path, monkeypatch):
    class Broken(Msvcrt):
        def locking(self, descriptor, mode, size):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr("deepmem_integrations._locks._msvcrt", Broken())
    with pytest.raises(StorageError, match="Cannot lock .*Invalid argument"):
        WriteLock(tmp_path / "lock").acquire()


# ---- network file systems --------------------------------------------------------------------------------------------


class NoLocks:
    """Python's module ``fcntl`` over a file system without locks, as NFS may be."""

    LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN = fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_UN

    def __init__(self, *failing):
        self.failing = failing

    def flock(self, descriptor, operation):
        if operation in self.failing or not self.failing:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        fcntl.flock(descriptor, operation)


def test_a_file_system_without_locks_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("deepmem_integrations._locks.fcntl", NoLocks())
    path = tmp_path / "lock"
    with pytest.raises(StorageError, match=r"Cannot lock .*lock: No locks available.* keep the folder on a disk"):
        FileLock(path).acquire()
    with pytest.raises(StorageError, match=r"Cannot lock .*lock: No locks available"):
        FileLock.is_held(path)
    with pytest.raises(StorageError, match="Cannot lock the checkpoint"):
        Checkpoint(tmp_path / "run.jsonl", {})


def test_an_unlock_that_fails_releases_the_lock_all_the_same(tmp_path, monkeypatch):
    """Before, the lock stayed held in the process, and the next ``set_model`` waited for ever."""
    monkeypatch.setattr("deepmem_integrations._locks.fcntl", NoLocks(fcntl.LOCK_UN))
    path = tmp_path / "lock"
    with FileLock(path):
        assert FileLock.is_held(path)
    assert not FileLock.is_held(path)
    assert FileLock(path).acquire(wait=False) is True
