import pytest

from deepmem_integrations._locks import FileLock
from deepmem_integrations.errors import (
    StorageError,
)


def test_a_lock_excludes_threads_and_is_seen_without_disturbing_it(tmp_path):
    path = tmp_path / "lock"
    assert not FileLock.is_held(path)
    with FileLock(path):
        assert FileLock.is_held(path)
        assert FileLock(path).acquire(wait=False) is False
    assert not FileLock.is_held(path)
    with pytest.raises(StorageError, match="Cannot write"):
        FileLock(path / "below").acquire()
