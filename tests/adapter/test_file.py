import copy
import json
import mmap
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save, save_file

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Ranking, file
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.adapter.file import FORMAT, read_header
from deepmem_integrations.errors import AdapterFileError, StorageError
from tests.adapter.helpers import make_adapter

FIXTURES = Path(__file__).parent.parent / "fixtures"
VERSION_1 = FIXTURES / "adapter-v1.safetensors"
VERSION_3 = FIXTURES / "adapter-v3.safetensors"
"""A linear part, keys that move no query, 24 remembered queries with texts, and a ranking with a transform of its own."""
VERSION_3_IRRELEVANT = FIXTURES / "adapter-v3-irrelevant.safetensors"
"""Six remembered queries that move nothing, two of which judged documents irrelevant, and a ranking by answers."""
VERSION_2 = FIXTURES / "adapter-v2.safetensors"
"""All that a file can hold, but lists: a linear and an attention part, 33 queries with texts (two share a key, three were added
later, one is forgotten), probes, and metadata. Written before the attention part and the remembered queries got these names."""


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


RANKING = Ranking(
    words=0.05,
    answers=0.4,
    answers_temperature=0.16,
    linear=np.eye(4, dtype=np.float32),
    attention_temperature=0.13,
    attention_strength=8.0,
    search="PostgresWords",
    cosines=np.array([0.9, 0.8], dtype=np.float32),
)


def test_a_ranking_is_kept(tmp_path):
    adapter = make_adapter(ranking=RANKING)
    loaded = QueryAdapter.load(adapter.save(tmp_path / "a.safetensors"))
    assert str(loaded.ranking) == str(RANKING)
    for name, value in vars(RANKING).items():
        np.testing.assert_array_equal(getattr(loaded.ranking, name), value)
    assert loaded.to_bytes() == adapter.to_bytes()
    x = np.random.default_rng(3).normal(size=(4, 4))
    np.testing.assert_array_equal(loaded.for_ranking().transform(x), adapter.for_ranking().transform(x))


def test_a_file_has_the_lowest_version_that_holds_the_adapter(tmp_path):
    at_rest = replace(make_adapter().attention, strength=0.0)
    for parts, version in (({}, 2), ({"attention": None}, 2), ({"ranking": RANKING}, 3), ({"attention": at_rest}, 3)):
        path = make_adapter(**parts).save(tmp_path / "a.safetensors")
        assert read_header(path)["version"] == version


def test_version_1_files_stay_readable():
    x = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    expected = np.load(VERSION_1.with_suffix(".npy"))
    np.testing.assert_allclose(QueryAdapter.load(VERSION_1).transform(x), expected, atol=1e-6)


def test_version_3_files_stay_readable():
    x = np.arange(1, 19, dtype=np.float32).reshape(3, 6)
    adapter = QueryAdapter.load(VERSION_3)
    alone, ranked = np.load(VERSION_3.with_suffix(".npy"))
    np.testing.assert_allclose(adapter.transform(x), alone, atol=1e-6)
    np.testing.assert_allclose(adapter.for_ranking().transform(x), ranked, atol=1e-6)
    assert str(adapter.ranking) == "vector + 0.05 words + 0.8 answers(τ=0.16)"
    asked, answers = json.loads(VERSION_3.with_suffix(".answers.json").read_text()).values()
    assert adapter.answers(asked) == pytest.approx(answers, abs=1e-6)
    assert adapter.to_bytes() == VERSION_3.read_bytes()


def test_version_3_files_with_thumbs_down_stay_readable(tmp_path):
    adapter = QueryAdapter.load(VERSION_3_IRRELEVANT)
    for row in json.loads(VERSION_3_IRRELEVANT.with_suffix(".answers.json").read_text()):
        assert adapter.answers(row["query"]) == pytest.approx(row["answers"], abs=1e-5)
    remembered = adapter.remembered_queries
    assert remembered.irrelevant.weight_of(4) == {remembered.document_ids.index("a"): 1.0}
    assert min(adapter.answers(adapter.attention.keys[5]).values()) < -0.4
    assert adapter.save(tmp_path / "again").read_bytes() == VERSION_3_IRRELEVANT.read_bytes()


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
    data = make_adapter(ranking=Ranking(words=0.1)).to_bytes()
    monkeypatch.setattr("deepmem_integrations.adapter.file.FORMAT_VERSION", 2)
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


# ---- a file of format 2 ----------------------------------------------------------------------------------------------


@pytest.fixture
def version_2():
    """The adapter, queries, what it makes of them, and what it makes of them after q4, q9 and doc-0 are forgotten."""
    queries, moved, moved_after_forgetting = np.load(VERSION_2.with_suffix(".npy"))
    return QueryAdapter.load(VERSION_2), queries, moved, moved_after_forgetting


def test_version_2_files_stay_readable(version_2):
    adapter, queries, moved, _ = version_2
    np.testing.assert_allclose(adapter.transform(queries), moved, atol=1e-6)
    assert adapter.fingerprint.model == "a-model"
    assert adapter.fingerprint.probes.shape == (3, 8)
    assert adapter.metadata["note"] == "é"
    assert adapter.metadata["report"]["merged_queries"] == 1
    assert len(adapter.remembered_queries.query_ids) == 32
    assert len(adapter.attention.keys) == 31
    assert adapter.remembered(queries).tolist() == [True] + [False] * 11


def test_version_2_files_explain_themselves(version_2):
    adapter, queries, _, _ = version_2
    found = adapter.explain(queries[0]).to_json()
    expected = json.loads((FIXTURES / "adapter-v2.explanation.json").read_text(encoding="utf-8"))
    assert set(found) == {*expected, "ranking", "ranking_degrees", "documents", "votes"}
    assert (found["ranking"], found["documents"], found["votes"]) == (None, [], [])
    for name in ("degrees", "linear_degrees", "memory_degrees"):
        assert found[name] == pytest.approx(expected[name], abs=1e-3), name
    assert len(found["influences"]) == 5
    for one, other in zip(found["influences"], expected["influences"], strict=True):
        assert {name: one[name] for name in ("query_ids", "texts", "documents")} == {
            name: other[name] for name in ("query_ids", "texts", "documents")
        }
        assert one["similarity"] == pytest.approx(other["similarity"], abs=1e-4)
        assert one["share"] == pytest.approx(other["share"], abs=1e-4)


def test_version_2_files_grow_and_forget(version_2):
    adapter, queries, moved, moved_after_forgetting = version_2
    assert adapter.growth.to_json() == {
        "trained": 30,
        "added": 3,
        "forgotten": 1,
        "linear": True,
        "used": True,
        "retraining_due": True,
    }
    less = adapter.forget(query_ids=["q4", "q9"], document_ids=["doc-0"])
    np.testing.assert_allclose(less.transform(queries), moved_after_forgetting, atol=1e-6)
    assert np.abs(moved - moved_after_forgetting).max() > 1e-3
    more = adapter.remember(queries[1:2], [[("doc-0", 1.0)]], query_ids=["new"], query_texts=["Neu?"])
    assert more.explain(queries[1]).influences[0].texts == ("Neu?",)


def test_version_2_files_are_saved_again_to_the_same_bytes(version_2, tmp_path):
    saved = version_2[0].save(tmp_path / "again.safetensors")
    assert saved.read_bytes() == VERSION_2.read_bytes()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda adapter: pickle.loads(pickle.dumps(adapter))])
def test_an_adapter_with_all_parts_is_copied_and_pickled(version_2, again):
    assert again(version_2[0]).to_bytes() == VERSION_2.read_bytes()


# ---- the header alone ------------------------------------------------------------------------------------------------


def test_the_header_is_read_without_the_tensors(tmp_path):
    path = make_adapter(metadata={"note": "é", "report": {"chosen": "identity"}}).save(tmp_path / "a.safetensors")
    assert read_header(path) == {
        "version": 2,
        "dimension": 4,
        "model": "a-model",
        "memory": {"temperature": 0.1, "strength": 2.0, "neighbours": 64},
        "examples": None,
        "metadata": {"note": "é", "report": {"chosen": "identity"}},
    }
    assert read_header(VERSION_1)["metadata"] == {"note": "é"}
    assert set(read_header(VERSION_2)["examples"]["query_ids"]) == {f"q{row}" for row in range(33)} - {"q2"}
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # in a tensor
    path.write_bytes(data)
    assert read_header(path)["model"] == "a-model"
    with pytest.raises(AdapterFileError, match="checksum"):
        QueryAdapter.load(path)


def test_a_damaged_header_is_an_error(tmp_path):
    from safetensors.numpy import save

    data = make_adapter().to_bytes()
    path = tmp_path / "a.safetensors"
    ones = {"x": np.ones(3, dtype=np.float32)}
    for damaged, error in (
        (b"", ValueError),
        (b"nothing of use", ValueError),
        (data[:100], ValueError),
        (save(ones), KeyError),
        (save(ones, metadata={FORMAT: "{"}), ValueError),
        (save(ones, metadata={FORMAT: "{}"}), KeyError),
    ):
        path.write_bytes(damaged)
        with pytest.raises(error):
            read_header(path)
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "none")


def test_scalars_of_numpy_are_written_as_numbers():
    adapter = QueryAdapter(np.int64(4)).with_metadata(queries=np.int64(3), loss=np.float32(0.5))
    again = QueryAdapter.from_bytes(adapter.to_bytes())
    assert (again.dimension, again.metadata) == (4, {"queries": 3, "loss": 0.5})


@pytest.mark.parametrize("fixture", ["adapter-v2", "adapter-v3", "adapter-v3-irrelevant"])
def test_a_file_is_laid_out_as_the_writer_of_safetensors_does(fixture):
    data = QueryAdapter.load(FIXTURES / f"{fixture}.safetensors").to_bytes()
    attributes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert data == save(load(data), metadata=attributes)


def test_tensors_of_every_dtype_are_laid_out_as_the_writer_of_safetensors_does():
    tensors = {f"{place}": np.ones(3, dtype) for place, dtype in enumerate([*file._DTYPES.values()] * 2)}
    assert b"".join(file._serialised(tensors, "{}", aligned=False)) == save(tensors, metadata={FORMAT: "{}"})


@pytest.fixture
def very_many(monkeypatch):
    """Let the remembered queries of the fixtures be very many, with names as tensors, in a file that is mapped."""
    monkeypatch.setattr(file, "_MOST_NAMES", 10)
    monkeypatch.setattr(file, "MAPPED", 1_000)


def test_very_many_names_are_tensors_of_a_file_that_is_mapped(very_many, tmp_path):
    small = QueryAdapter.load(FIXTURES / "adapter-v3-irrelevant.safetensors")
    path = small.save(tmp_path / "many.safetensors")
    assert read_header(path)["version"] == 4 and "query_ids" not in read_header(path)["examples"]
    many = QueryAdapter.load(path)
    assert isinstance(many.attention.keys.base.base.obj, mmap.mmap)
    assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 64 == 0, "matrices begin where products are fast"
    queries = np.random.default_rng(0).normal(size=(20, small.dimension))
    np.testing.assert_allclose(many.transform(queries), small.transform(queries), atol=1e-6)
    assert many.answers(queries[0]) == pytest.approx(small.answers(queries[0]), abs=1e-6)
    assert many.explain(queries[0]).votes[0].query_ids == small.explain(queries[0]).votes[0].query_ids
    assert many.to_bytes() == path.read_bytes() == QueryAdapter.from_bytes(path.read_bytes()).to_bytes()
    assert list(many.remembered_queries.query_ids) == list(small.remembered_queries.query_ids)
    grown = many.remember(queries[:1], [[(small.remembered_queries.document_ids[0], 1.0)]], query_ids=["né"])
    again = QueryAdapter.load(grown.forget(query_ids=[many.remembered_queries.query_ids[0]]).save(path))
    assert again.remembered_queries.query_ids[-1] == "né"
    assert list(again.remembered_queries.query_ids[:-1]) == list(small.remembered_queries.query_ids[1:])
    assert many.transform(queries).shape == queries.shape, "what is mapped outlives its file"


def test_a_mapped_file_that_is_damaged_is_refused(very_many, tmp_path):
    path = QueryAdapter.load(FIXTURES / "adapter-v3-irrelevant.safetensors").save(tmp_path / "many.safetensors")
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(AdapterFileError):
            QueryAdapter.load(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(AdapterFileError, match="bytes where its header says"):
        QueryAdapter.load(path)


def test_a_tensor_of_a_mapped_file_whose_name_is_no_text_is_refused(very_many, tmp_path):
    path = QueryAdapter.load(FIXTURES / "adapter-v3-irrelevant.safetensors").save(tmp_path / "many.safetensors")
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end]) | {"\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[end:])
    with pytest.raises(AdapterFileError, match="not a whole safetensors file"):
        QueryAdapter.load(path)


def test_a_mapped_adapter_serves_threads_processes_and_copies(very_many, tmp_path):
    path = QueryAdapter.load(FIXTURES / "adapter-v3-irrelevant.safetensors").save(tmp_path / "many.safetensors")
    adapter = QueryAdapter.load(path)
    queries = np.random.default_rng(0).normal(size=(8, adapter.dimension))
    expected = adapter.transform(queries)
    with ThreadPoolExecutor(4) as threads:
        assert all((found == expected).all() for found in threads.map(adapter.transform, [queries] * 20))
    for copied in (pickle.loads(pickle.dumps(adapter)), copy.deepcopy(adapter)):
        np.testing.assert_allclose(copied.transform(queries), expected, atol=1e-6)
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as processes:
            np.testing.assert_allclose(processes.submit(adapter.transform, queries).result(60), expected, atol=1e-6)


def test_metadata_that_no_reader_would_take_is_not_written(monkeypatch, tmp_path):
    monkeypatch.setattr(file, "_MOST_HEADER", 5_000)
    with pytest.raises(StorageError, match="Leave entries out"):
        make_adapter(metadata={"note": "x" * 5_000}).save(tmp_path / "adapter.safetensors")
    assert not list(tmp_path.iterdir())
