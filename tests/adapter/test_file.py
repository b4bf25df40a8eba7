from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.adapter.file import FORMAT, FORMAT_VERSION, read_header
from deepmem_integrations.errors import AdapterFileError, StorageError
from tests.adapter.helpers import make_adapter

FIXTURE = Path(__file__).parent.parent / "fixtures" / "adapter-v1.safetensors"


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
    assert QueryAdapter.from_bytes(make_adapter().to_bytes()).metadata == {"note": "é"}


VERSION_2 = Path(__file__).parent.parent / "fixtures" / "adapter-v2.safetensors"
"""Written by the code before the package was restructured, with what it computed."""


def test_a_file_of_version_2_transforms_as_it_did():
    queries, expected = np.load(VERSION_2.with_suffix(".npy"))
    np.testing.assert_allclose(QueryAdapter.load(VERSION_2).transform(queries), expected, atol=1e-6)


def test_a_file_of_version_2_has_all_its_parts():
    adapter = QueryAdapter.load(VERSION_2)
    assert adapter.fingerprint.model == "a model of before"
    assert adapter.fingerprint.probes.shape == (3, 8)
    assert adapter.linear.shape == (8, 8)
    assert adapter.attention.neighbours == 64
    assert adapter.remembered_queries.texts[0].startswith("question ")
    assert adapter.metadata["made_by"] == "train"
    assert adapter.metadata["report"]["queries"] == 30


def test_a_file_of_version_2_explains_grows_and_forgets():
    adapter = QueryAdapter.load(VERSION_2)
    query = np.load(VERSION_2.with_suffix(".npy"))[0][0]
    assert adapter.explain(query).influences[0].texts == ("question 5",)
    forgotten = adapter.forget(query_ids=["q-5"])
    assert "q-5" not in forgotten.remembered_queries.query_ids
    assert forgotten.growth.forgotten == 1
    grown = forgotten.remember(query[None], [[("doc-1", 1.0)]], query_ids=["new"], query_texts=["a new question"])
    assert grown.explain(query).influences[0].query_ids == ("new",)


def test_a_file_of_version_2_is_saved_to_the_same_bytes(tmp_path):
    assert QueryAdapter.load(VERSION_2).save(tmp_path / "again.safetensors").read_bytes() == VERSION_2.read_bytes()


def test_the_header_is_read_without_the_tensors(tmp_path):
    header = read_header(VERSION_2)
    assert header["version"] == 2 == FORMAT_VERSION
    assert header["dimension"] == 8
    assert header["metadata"]["report"]["chosen"]
    # Even where a tensor is damaged: only the checksum of the whole would notice.
    damaged = bytearray(VERSION_2.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    assert read_header(tmp_path / "damaged.safetensors") == header


def test_a_header_that_is_none_is_an_error(tmp_path):
    save_file({"x": np.ones(3, dtype=np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(KeyError, match=FORMAT):
        read_header(tmp_path / "other.safetensors")
    (tmp_path / "short.safetensors").write_bytes(VERSION_2.read_bytes()[:100])
    with pytest.raises(SafetensorError):
        read_header(tmp_path / "short.safetensors")
