import pickle

import numpy as np
import pytest

from deepmem_integrations.corpora.shards import array_shards

ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)


def rows_of(shard):
    return np.concatenate([vectors for _, vectors in shard.batches()])


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    return tmp_path / "rows.npy"


def test_the_rows_of_a_mapped_file_travel_as_its_path(file):
    (shard,) = array_shards(np.load(file, mmap_mode="r"), list("abcdefghij"))
    again = pickle.loads(pickle.dumps(shard))
    np.save(file, ROWS + 1)
    np.testing.assert_array_equal(rows_of(again), ROWS + 1)


def test_parts_of_a_file_and_what_is_changed_in_memory_travel_as_rows(file):
    """Before, a worker read the file from its start, and trained on other documents."""
    changed = np.load(file, mmap_mode="c")
    changed += 1
    raw = np.memmap(file, np.float32, "r", offset=128, shape=(10, 4))
    whole = np.load(file, mmap_mode="r")
    for vectors in (whole[2:], whole[::-1], whole[:, :2], changed, raw, whole[2:].astype(np.float64)):
        (shard,) = array_shards(vectors, list("abcdefghij")[: len(vectors)])
        np.testing.assert_array_equal(rows_of(pickle.loads(pickle.dumps(shard))), vectors)
