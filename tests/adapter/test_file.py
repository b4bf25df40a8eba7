"""The file format. Files of older versions were written by the code of their time, with what it computed from them."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter.file import FORMAT, FORMAT_VERSION, read_header

FIXTURES = Path(__file__).parent.parent / "fixtures"
VERSION_2 = FIXTURES / "adapter-v2.safetensors"


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
