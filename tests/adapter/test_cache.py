import threading

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter.cache import AdapterCache
from deepmem_integrations.errors import AdapterFileError, StorageError


@pytest.fixture
def files(tmp_path):
    linear = np.eye(8, dtype=np.float32)
    return [QueryAdapter(8, linear=(row + 1) * linear).save(tmp_path / f"{row}.safetensors") for row in range(5)]


def test_a_file_is_read_again_after_a_change(files):
    cache = AdapterCache()
    first = cache.load(files[0])
    assert cache.load(str(files[0])) is first
    QueryAdapter(8).save(files[0])
    assert cache.load(files[0]).is_identity
    assert len(cache) == 1
    assert cache.bytes == files[0].stat().st_size


def test_the_least_recently_used_are_dropped(files, monkeypatch):
    size = files[0].stat().st_size
    cache = AdapterCache(max_bytes=3 * size)
    loaded = [cache.load(file) for file in files[:3]]
    assert cache.load(files[0]) is loaded[0]
    cache.load(files[3])
    assert len(cache) == 3
    assert cache.bytes == 3 * size
    assert cache.load(files[0]) is loaded[0]
    assert cache.load(files[1]) is not loaded[1], "it was not used for longest"
    small = AdapterCache(max_bytes=1)
    assert small.load(files[0]) is small.load(files[0]), "the last one is always kept"
    small.load(files[1])
    assert len(small) == 1


def test_a_mapped_file_drops_no_others(files, monkeypatch):
    size = files[0].stat().st_size
    large = QueryAdapter(8, metadata={"note": "x" * 5 * size}).save(files[0].with_name("large.safetensors"))
    monkeypatch.setattr("deepmem_integrations.adapter.file.MAPPED", 5 * size)
    cache = AdapterCache(max_bytes=3 * size)
    loaded = [cache.load(path) for path in (*files[:2], large)]
    assert [cache.load(path) for path in (*files[:2], large)] == loaded
    assert cache.bytes == 2 * size + large.stat().st_size // 20


def test_a_damaged_file_is_read_once_for_each_of_its_states(files, monkeypatch):
    read, load = [], QueryAdapter.load
    monkeypatch.setattr(QueryAdapter, "load", lambda path: read.append(path) or load(path))
    cache = AdapterCache()
    files[0].write_bytes(b"damaged")
    for _ in range(3):
        with pytest.raises(AdapterFileError, match=r"0\.safetensors"):
            cache.load(files[0])
    assert len(read) == 1
    QueryAdapter(8).save(files[0])
    assert cache.load(files[0]).is_identity
    files[0].unlink()
    with pytest.raises(StorageError):
        cache.load(files[0])


def test_many_threads_read_a_file_once(files, monkeypatch):
    read, load = [], QueryAdapter.load
    monkeypatch.setattr(QueryAdapter, "load", lambda path: read.append(path) or load(path))
    cache, start = AdapterCache(), threading.Barrier(8)
    threads = [threading.Thread(target=lambda: (start.wait(), cache.load(files[0]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 1
