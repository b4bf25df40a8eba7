import os
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations.errors import StorageError
from deepmem_integrations.words import Analysis, segment, strings
from deepmem_integrations.words.arrays import map_arrays, write_arrays
from deepmem_integrations.words.segment import LiveSegment, Segment, SegmentBuilder, merge, text_hashes
from deepmem_integrations.words.strings import StringTable, join, pack


@given(st.lists(st.text(st.characters()), unique=True), st.lists(st.text()))
def test_strings_are_found_by_row(texts, others):
    table = StringTable("t", pack("t", texts))
    assert len(table) == len(texts) and table.all() == texts
    assert [table[row] for row in range(len(texts))] == texts
    asked = [*reversed(texts), *others]
    assert table.find(asked).tolist() == [texts.index(text) if text in texts else -1 for text in asked]


def test_strings_with_equal_hashes_are_told_apart(monkeypatch):
    monkeypatch.setattr(strings, "hashes", lambda texts: np.array([len(text) % 2 for text in texts], np.uint64))
    texts = ["a", "b", "cc", "dd", "e", "", "ff"]
    table = StringTable("t", pack("t", texts))
    assert table.find(["ff", "e", "b", "zz", "z", ""]).tolist() == [6, 4, 1, -1, -1, 5]


def test_arrays_come_back_and_cannot_be_written(tmp_path):
    arrays = {
        "a": np.arange(5, dtype=np.uint8),
        "b": np.arange(3, dtype=np.int64) - 1,
        "c": np.arange(7, dtype=np.uint16)[::-1],
        "empty": np.empty(0, np.uint32),
        "d": np.array([2**63], np.uint64),
    }
    written = write_arrays(tmp_path / "x", arrays)
    assert (tmp_path / "x").stat().st_size == written["bytes"]
    mapped = map_arrays(tmp_path / "x", written["bytes"])
    assert mapped.keys() == arrays.keys()
    for name, array in arrays.items():
        assert mapped[name].dtype == array.dtype and (mapped[name] == array).all()
        assert mapped[name].ctypes.data % array.itemsize == 0
    with pytest.raises(ValueError):
        mapped["a"][0] = 1
    with pytest.raises(StorageError, match="Cannot write"):
        write_arrays(tmp_path / "x", arrays)  # files never change
    assert (tmp_path / "x").stat().st_size == written["bytes"]
    with pytest.raises(StorageError, match="Cannot read"):
        map_arrays(tmp_path, 5)


def built(documents):
    builder = SegmentBuilder(Analysis(None))
    texts = list(documents.values())
    builder.add(list(documents), texts, text_hashes(texts))
    return Segment(builder.arrays())


@pytest.mark.parametrize("times, dtype", [(255, np.uint8), (256, np.uint16), (70_000, np.uint32)])
def test_counts_take_as_little_room_as_they_need(times, dtype, tmp_path):
    one = built({"a": "word " * times})
    assert one.counts.dtype == dtype and one.counts.tolist() == [times]
    both = merge([LiveSegment(one), LiveSegment(built({"b": "word"}))], tmp_path)
    assert both["counts"].dtype == dtype and both["counts"].tolist() == [times, 1]


@pytest.mark.parametrize("deleted", [[], [0], [7, 30], list(range(0, 40, 2)), list(range(40))])
def test_postings_count_the_documents_that_are_there(deleted):
    live = LiveSegment(built({f"d{number}": "x y" if number % 3 else "y" for number in range(40)}), np.array(deleted, np.uint32))
    for term, rows in (("x", [n for n in range(40) if n % 3]), ("y", range(40))):
        documents, counts, number = live.postings(int(live.segment.terms.find([term])[0]))
        assert documents.tolist() == list(rows) and counts.tolist() == [1] * len(rows)
        assert number == len(set(rows) - set(deleted))


def test_merging_leaves_out_deleted_documents_and_their_terms(tmp_path):
    one = LiveSegment(built({"a": "x y", "b": "y z", "c": "z z"}), np.array([1], np.uint32))
    two = LiveSegment(built({"d": "x w", "e": "q"}), np.array([1], np.uint32))
    merged = Segment(merge([one, two], tmp_path))
    assert merged.ids.all() == ["a", "c", "d"]
    assert sorted(merged.terms.all()) == ["w", "x", "y", "z"]
    postings = {
        term: (merged.documents[start:end].tolist(), merged.counts[start:end].tolist())
        for term, start, end in zip(merged.terms.all(), merged.starts, merged.starts[1:], strict=False)
    }
    assert postings == {"x": ([0, 2], [1, 1]), "y": ([0], [1]), "z": ([1], [2]), "w": ([2], [1])}
    assert merged.lengths.tolist() == [2, 2, 2]
    assert (merged.text_hashes == text_hashes(["x y", "z z", "x w"])).all()


def test_postings_that_memory_should_not_hold_lie_in_a_file(tmp_path, monkeypatch):
    parts = [LiveSegment(built({f"{part}-{n}": f"word word{n}" for n in range(9)})) for part in "ab"]
    small = merge(parts, tmp_path)
    monkeypatch.setattr(segment, "_BLOCK", 3)
    large = merge(parts, tmp_path)
    assert isinstance(large["documents"], np.memmap) and not isinstance(small["documents"], np.memmap)
    assert all((small[name] == large[name]).all() for name in small)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="nothing reserves room on a disk here")
def test_a_full_disk_ends_a_merge_with_an_error(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    parts = [LiveSegment(built({f"{part}-{n}": f"word word{n}" for n in range(900)})) for part in "ab"]
    monkeypatch.setattr(segment, "_BLOCK", 300)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"Cannot write to .*The index is unchanged"):
            merge(parts, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@given(st.lists(st.lists(st.tuples(st.text(st.characters()), st.booleans()), unique_by=lambda one: one[0]), min_size=1))
def test_tables_are_joined_as_they_are_packed(parts):
    tables = [StringTable("t", pack("t", [text for text, _ in part])) for part in parts]
    kept = [None if all(keep for _, keep in part) else np.array([keep for _, keep in part]) for part in parts]
    joined = join("t", list(zip(tables, kept, strict=True)))
    packed = pack("t", [text for part in parts for text, keep in part if keep])
    assert all(joined[name].dtype == packed[name].dtype and joined[name].tolist() == packed[name].tolist() for name in packed)
