import os
import subprocess
import sys

import pytest

from deepmem_integrations._locks import FileLock, try_flock
from deepmem_integrations.errors import StorageError

HOLD = """
import sys
from pathlib import Path
from deepmem_integrations._locks import FileLock
lock = FileLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_excludes_threads_and_is_seen_without_disturbing_it(tmp_path):
    path = tmp_path / "lock"
    assert not FileLock.is_held(path)
    with FileLock(path):
        assert FileLock.is_held(path)
        assert FileLock(path).acquire(wait=False) is False
    assert not FileLock.is_held(path)
    with pytest.raises(StorageError, match="Cannot write"):
        FileLock(path / "below").acquire()


def test_a_lock_excludes_processes_and_is_released_by_a_kill(holder, tmp_path):
    path = tmp_path / "lock"
    assert FileLock.is_held(path)
    assert FileLock(path).acquire(wait=False) is False
    holder.kill()
    holder.wait()
    assert not FileLock.is_held(path)
    with FileLock(path):
        assert FileLock.is_held(path)


def test_an_open_file_is_locked_and_shared_locks_go_together(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    one, two, three = (os.open(tmp_path / "file", os.O_RDWR) for _ in range(3))
    try:
        assert try_flock(one, shared=True)
        assert try_flock(two, shared=True)
        assert not try_flock(three)
        os.close(one)
        os.close(two)
        assert try_flock(three)
        one = two = None
    finally:
        for descriptor in filter(None, (one, two, three)):
            os.close(descriptor)
