"""Files with a valid checksum whose content cannot be an adapter's: whoever writes a file can write its checksum."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load, save

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import file
from deepmem_integrations.errors import AdapterFileError, StorageError
from deepmem_integrations.models import ModelFolder
from tests.adapter.test_file import FIXTURES


def rewritten(data, change):
    """The file with other content, and the checksum of that content."""
    tensors = load(data)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][file.FORMAT])["header"]
    change(header, tensors)
    envelope = json.dumps({"checksum": file._checksum(header, tensors), "header": header})
    return save(tensors, metadata={file.FORMAT: envelope})


@pytest.fixture(scope="module")
def whole():
    return (FIXTURES / "adapter-v3-irrelevant.safetensors").read_bytes()


def test_the_file_itself_is_read(whole):
    assert QueryAdapter.from_bytes(rewritten(whole, lambda header, tensors: None)).remembered_queries is not None


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, 3e38])
def test_weights_that_are_not_finite_or_too_large_are_refused(whole, number):
    for name, tensor in load(whole).items():
        if tensor.dtype.kind == "f" and tensor.size:

            def change(header, tensors, name=name):
                tensors[name].flat[0] = number

            with pytest.raises(AdapterFileError, match="do not fit together"):
                QueryAdapter.from_bytes(rewritten(whole, change))


def test_arrays_of_other_lengths_and_types_are_refused(whole):
    free = {"fingerprint.probes", "ranking.cosines"}  # of any length
    for name, tensor in load(whole).items():
        if name in free:
            continue
        for other in (
            tensor[:-1],
            np.concatenate([tensor, tensor]),
            tensor[..., None],
            tensor.astype(np.float32 if tensor.dtype.kind == "i" else np.uint8),
        ):
            if other.shape == tensor.shape and other.dtype == tensor.dtype:
                continue  # of nothing

            def change(header, tensors, name=name, other=other):
                tensors[name] = np.ascontiguousarray(other)

            with pytest.raises(AdapterFileError, match="do not fit together"):
                QueryAdapter.from_bytes(rewritten(whole, change))


def test_rows_that_do_not_exist_are_refused(whole):
    for name, tensor in load(whole).items():
        if tensor.dtype.kind == "i":
            for value in (-1, 2**40):

                def change(header, tensors, name=name, value=value):
                    tensors[name].flat[-1] = value

                with pytest.raises(AdapterFileError, match="do not fit together"):
                    QueryAdapter.from_bytes(rewritten(whole, change))


ODD = [None, True, -1, 0.5, "x", [], [1], {}, {"a": 1}, float("nan"), float("inf"), 10**30]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_headers_are_refused_or_serve(whole, odd):
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(json.loads(whole[8 : 8 + length])["__metadata__"][file.FORMAT])["header"]
    places = [(name,) for name in header]
    places += [(name, inner) for name, value in header.items() if isinstance(value, dict) for inner in value]
    for place in places:

        def change(header, tensors, place=place):
            for name in place[:-1]:
                header = header[name]
            header[place[-1]] = odd

        try:
            adapter = QueryAdapter.from_bytes(rewritten(whole, change))
        except AdapterFileError:
            continue
        assert np.isfinite(adapter.transform(np.ones((3, adapter.dimension)))).all(), place


# ---- listings and doors ----------------------------------------------------------------------------------------------


ODD_METADATA = [
    None,
    [],
    *({"created": value} for value in (float("nan"), "x", 1e300, True)),
    *({"report": value} for value in (5, {"seen": 1}, {"seen": {"gains": 5}})),
    {"made_by": 5},
    {"parent": []},
    {"data": 1},
]


@pytest.mark.parametrize("metadata", ODD_METADATA, ids=repr)
def test_one_odd_model_does_not_hide_the_others(whole, tmp_path, metadata):
    folder = ModelFolder(tmp_path)
    good = QueryAdapter.from_bytes(whole)
    folder.save_model("good", good)
    bad = rewritten(whole, lambda header, tensors: header.update(metadata=metadata))
    (tmp_path / "models" / "bad.safetensors").write_bytes(bad)
    found = {info.name: info for info in folder.list_models()}
    assert found["good"].error is None
    assert found["bad"].error
    assert all(str(info) for info in found.values())


def test_only_regular_files_of_the_size_that_they_say_are_models(whole, tmp_path):
    """Before, a pipe hung for ever, and ``/dev/zero`` filled the memory."""
    folder = ModelFolder(tmp_path)
    folder.save_model("good", QueryAdapter.from_bytes(whole))
    pipe, zero = folder.model_path("pipe"), folder.model_path("zero")
    os.mkfifo(pipe)
    zero.symlink_to("/dev/zero")
    for path in (pipe, zero):
        with pytest.raises(StorageError, match="no regular file"):
            QueryAdapter.load(path)
    longer = folder.model_path("longer")
    longer.write_bytes(whole + b"x")
    sparse = folder.model_path("sparse")
    with open(sparse, "wb") as hole:
        hole.write(whole)
        hole.truncate(2**40)
    for path in (longer, sparse):
        with pytest.raises(AdapterFileError, match="bytes where its header says"):
            QueryAdapter.load(path)
    assert [info.name for info in folder.list_models() if info.error is None and info.name == "good"] == ["good"]
    (tmp_path / "current").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "current")
    with pytest.raises(StorageError, match="no regular file"):
        folder.in_use_name()
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("/dev/zero")
    with pytest.raises(StorageError, match="no regular file"):
        folder.in_use_name()
