import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepmem_integrations import QueryAdapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.adapter import Fingerprint
from deepmem_integrations.adapter.attention import BUDGET, Attention, Lists
from deepmem_integrations.errors import AdapterFileError, EmbeddingMismatchError, InvalidVectorsError, StorageError

FIXTURE = Path(__file__).parent.parent / "fixtures" / "adapter-v1.safetensors"


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make_adapter(seed=0, dimension=4, **parts):
    rng = np.random.default_rng(seed)
    keys = unit(rng.normal(size=(6, dimension))).astype(np.float32)
    values = rng.normal(size=(6, dimension)).astype(np.float32)
    given = {
        "linear": (0.3 * rng.normal(size=(dimension, dimension))).astype(np.float32),
        "attention": Attention(keys, values, temperature=0.1, strength=2.0),
        "fingerprint": Fingerprint(dimension, "a-model", unit(rng.normal(size=(3, dimension))).astype(np.float32)),
        "metadata": {"note": "é"},
    }
    return QueryAdapter(dimension, **{**given, **parts})


def test_transform_is_the_formula_of_its_docstring():
    adapter = make_adapter()
    x = unit(np.random.default_rng(1).normal(size=(5, 4)))
    attention = adapter.attention
    y = unit(x + x @ adapter.linear)
    z = unit(y + attention.strength * np.exp((x @ attention.keys.T - 1) / attention.temperature) @ attention.values)
    np.testing.assert_allclose(adapter.transform(x), z, atol=1e-5)


@given(arrays(np.float32, (3, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_rows_come_back_with_length_one_and_the_argument_is_left_alone(vectors):
    before = vectors.copy()
    if not np.abs(vectors).max(axis=1).all():
        with pytest.raises(InvalidVectorsError, match="all zeros"):
            make_adapter().transform(vectors)
        return
    moved = make_adapter().transform(vectors)
    assert moved.dtype == np.float32
    assert moved.shape == vectors.shape
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, before)


def test_one_vector_and_many_agree_and_length_does_not_matter():
    adapter = make_adapter()
    x = np.random.default_rng(2).normal(size=(5, 4))
    many = adapter.transform(x)
    for row in range(5):
        np.testing.assert_allclose(adapter.transform(x[row].tolist()), many[row], atol=1e-6)
        np.testing.assert_allclose(adapter.transform(1000 * x[row]), many[row], atol=1e-6)


def test_the_identity_keeps_directions():
    x = unit(np.random.default_rng(0).normal(size=(3, 4)))
    adapter = QueryAdapter(4)
    assert adapter.is_identity
    np.testing.assert_allclose(adapter.transform(x), x, atol=1e-6)
    assert "identity" in repr(adapter)


def test_a_row_that_cancels_out_stays_where_it_was():
    adapter = QueryAdapter(2, linear=-np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(adapter.transform([0.0, 3.0]), [0.0, 1.0])


def test_bad_vectors_are_refused():
    adapter = make_adapter()
    with pytest.raises(EmbeddingMismatchError, match="5 dimensions where 4"):
        adapter.transform(np.ones(5))
    with pytest.raises(InvalidVectorsError, match="Query vector 1 holds NaN"):
        adapter.transform([[1, 1, 1, 1], [1, 1, np.nan, 1]])
    with pytest.raises(InvalidVectorsError, match="need the shape"):
        adapter.transform(np.ones((1, 2, 4)))


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts", [{}, {"linear": None}, {"attention": None}, {"linear": None, "attention": None, "fingerprint": None}]
)
def test_save_and_load(tmp_path, parts):
    adapter = make_adapter(**parts)
    loaded = QueryAdapter.load(adapter.save(tmp_path / "new folder" / "a.safetensors"))
    x = np.random.default_rng(3).normal(size=(4, 4))
    np.testing.assert_array_equal(loaded.transform(x), adapter.transform(x))
    assert loaded.metadata == adapter.metadata
    assert loaded.fingerprint.model == adapter.fingerprint.model
    assert loaded.to_bytes() == adapter.to_bytes()


def test_version_1_files_stay_readable():
    x = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    expected = np.load(FIXTURE.with_suffix(".npy"))
    np.testing.assert_allclose(QueryAdapter.load(FIXTURE).transform(x), expected, atol=1e-6)


def test_every_flipped_bit_and_every_truncation_is_noticed():
    data = make_adapter().to_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    places = [*range(0, header, 7), *rng.integers(header, len(data), size=200).tolist()]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        # JSON allows many spellings: a flip that leaves the very same adapter is no damage.
        try:
            loaded = QueryAdapter.from_bytes(bytes(damaged))
        except AdapterFileError:
            continue
        assert loaded.to_bytes() == data, f"a flipped bit in byte {place} went unnoticed"
    for length in (0, 4, 8, header - 1, header, header + 5, len(data) - 1):
        with pytest.raises(AdapterFileError):
            QueryAdapter.from_bytes(data[:length])


def test_other_files_are_told_apart(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"x": np.ones(3, dtype=np.float32)}, path)
    with pytest.raises(AdapterFileError, match=r"other\.safetensors: a safetensors file, but not a Deep Memory adapter"):
        QueryAdapter.load(path)
    path.write_bytes(b"PK\x03\x04 a zip file, not tensors")
    with pytest.raises(AdapterFileError, match="not a whole safetensors file"):
        QueryAdapter.load(path)
    with pytest.raises(StorageError, match="Cannot read"):
        QueryAdapter.load(tmp_path / "none")
    with pytest.raises(StorageError, match="Cannot read"):
        QueryAdapter.load(tmp_path)


def test_metadata_with_keys_that_json_changes_still_loads():
    adapter = QueryAdapter(3, metadata={"e": {2: 0.1, 10: 0.2}})
    assert QueryAdapter.from_bytes(adapter.to_bytes()).metadata == {"e": {"2": 0.1, "10": 0.2}}


@pytest.mark.parametrize(
    "parts",
    [
        {"linear": np.eye(5, dtype=np.float32)},
        {"attention": Attention(np.eye(4, 3, dtype=np.float32), np.eye(4, dtype=np.float32), 0.1, 1)},
    ],
)
def test_parts_that_do_not_fit_are_noticed_on_loading(parts):
    with pytest.raises(AdapterFileError, match="its parts do not fit together"):
        QueryAdapter.from_bytes(make_adapter(**parts).to_bytes())


def test_a_large_batch_is_done_in_blocks(monkeypatch):
    x = np.random.default_rng(0).normal(size=(50, 4))
    whole = make_adapter().transform(x)
    monkeypatch.setattr("deepmem_integrations._vectors._BLOCK_FLOATS", 20)
    np.testing.assert_allclose(make_adapter().transform(x), whole, atol=1e-6)


def test_a_newer_format_asks_for_an_upgrade(monkeypatch):
    monkeypatch.setattr("deepmem_integrations.adapter.file.FORMAT_VERSION", 3)
    data = make_adapter().to_bytes()
    monkeypatch.undo()
    with pytest.raises(AdapterFileError, match="Upgrade deepmem-integrations"):
        QueryAdapter.from_bytes(data)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = make_adapter().save(tmp_path / "a.safetensors")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        make_adapter(seed=5).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        make_adapter().save(tmp_path / "file" / "a.safetensors")


def test_metadata_is_json():
    with pytest.raises(TypeError):
        QueryAdapter(2, metadata={"x": object()}).to_bytes()
    assert json.dumps(make_adapter().metadata)


# ---- fingerprint -----------------------------------------------------------------------------------------------------


def test_another_model_is_refused_and_noise_is_not():
    probes = unit(np.random.default_rng(0).normal(size=(3, 64))).astype(np.float32)
    adapter = QueryAdapter(64, fingerprint=Fingerprint(64, "one", probes))
    noisy = unit(probes + 0.005 * np.random.default_rng(1).normal(size=probes.shape)).astype(np.float32)
    adapter.check(Fingerprint(64, "the same by another name", noisy))
    with pytest.raises(EmbeddingMismatchError, match=r"trained for one \(64 dimensions\) but is used with two"):
        adapter.check(Fingerprint(64, "two", unit(np.random.default_rng(2).normal(size=(3, 64))).astype(np.float32)))
    with pytest.raises(EmbeddingMismatchError, match="32 dimensions"):
        adapter.check(Fingerprint(32))


def test_bare_arrays_leave_only_the_dimension_to_compare():
    probes = unit(np.ones((3, 4))).astype(np.float32)
    QueryAdapter(4).check(Fingerprint(4, "any", probes))
    QueryAdapter(4, fingerprint=Fingerprint(4, "one", probes)).check(Fingerprint(4))


def test_very_many_keys_are_searched_in_lists_with_nearly_the_same_result(tmp_path):
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(300, 24))
    keys = unit_rows(topics[rng.integers(300, size=25_000)] + 0.5 * rng.normal(size=(25_000, 24)), "key")
    values = rng.normal(size=(25_000, 24)).astype(np.float32)
    exact = Attention(keys, values, temperature=0.1, strength=2.0)
    order, lists = Lists.of(keys)
    assert sorted(order.tolist()) == list(range(25_000))
    assert lists.starts[-1] == 25_000
    in_lists = replace(exact, keys=keys[order], values=values[order], lists=lists)
    queries = unit_rows(topics[rng.integers(300, size=200)] + 0.5 * rng.normal(size=(200, 24)), "query")
    expected, found = exact.shift(queries), in_lists.shift(queries)
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(error) < 1e-4
    assert error.mean() < 0.01
    assert 0 < max(part.stop - part.start for part in lists.closest_lists(queries[0])) < BUDGET
    adapter = QueryAdapter(24, attention=in_lists)
    again = QueryAdapter.load(adapter.save(tmp_path / "many.safetensors"))
    np.testing.assert_allclose(again.transform(queries), adapter.transform(queries), atol=1e-6)
    assert again.attention.lists is not None
