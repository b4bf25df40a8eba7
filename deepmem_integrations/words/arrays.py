"""Files of named arrays: written once, whole, and read memory-mapped.

A file is a safetensors file, which other tools can read. The arrays lie aligned behind a JSON header, so that a reader maps the
file into memory and reads only the pages that a query touches. All processes that map a file share these pages.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._files import open_regular, parse_json
from deepmem_integrations.errors import StorageError

Array = NDArray[Any]

_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Write a new file of one-dimensional arrays of unsigned or 64-bit integers.

    Args:
        path: The file, which must not exist.
        arrays: Name → array.

    Returns:
        The size of the file in bytes (``bytes``) and its SHA-256 (``sha256``), to be kept elsewhere.

    Raises:
        StorageError: The folder cannot be written, or the disk is full. No half-written file is left behind.
    """
    ordered = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # keeps every array aligned
    header: dict[str, Any] = {}
    end = 0
    for name in ordered:
        start, end = end, end + arrays[name].nbytes
        header[name] = {
            "dtype": _NAMES[arrays[name].dtype.newbyteorder("<")],
            "shape": [arrays[name].size],
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    made = False
    try:
        with open(path, "xb") as file:
            made = True
            for part in (len(text).to_bytes(8, "little"), text, *(_raw(arrays[name]) for name in ordered)):
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if made:
            path.unlink(missing_ok=True)
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. A file that was there before is unchanged."
        ) from error
    return {"bytes": 8 + len(text) + end, "sha256": digest.hexdigest()}


def _raw(array: Array) -> memoryview | bytes:
    """Return the bytes of an array without a copy."""
    whole: Any = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return memoryview(whole).cast("B") if array.size else b""


def map_arrays(path: Path, size: int) -> dict[str, Array]:
    """Map a file that `write_arrays` wrote into memory.

    Args:
        path: The file.
        size: The number of bytes that the file must have.

    Returns:
        Name → array. The arrays cannot be written.

    Raises:
        FileNotFoundError: There is no file.
        StorageError: The file cannot be read, or is damaged. Only the header and the size are checked.
    """
    try:
        with open_regular(path) as file:
            if (found := os.fstat(file.fileno()).st_size) != size:
                raise damaged(path, f"it has {found} bytes where {size} are expected")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    try:
        data = 8 + int.from_bytes(mapped[:8], "little")
        arrays = {}
        for name, entry in parse_json(mapped[8:data]).items():
            start, end = entry["data_offsets"]
            dtype = _DTYPES[entry["dtype"]]
            if end - start != entry["shape"][0] * dtype.itemsize or start < 0 or data + end > size:
                raise ValueError(f"the array {name!r} does not fit")
            arrays[name] = np.frombuffer(mapped, dtype, entry["shape"][0], data + start)
        return arrays
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise damaged(path, repr(error)) from error


def check_sum(path: Path, expected: str) -> None:
    """Read a whole file and compare its SHA-256.

    Raises:
        FileNotFoundError: There is no file.
        StorageError: The file has changed since it was written.
    """
    with open_regular(path) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise damaged(path, "its checksum does not match")


def damaged(path: Path, why: str) -> StorageError:
    """Make the error for a file that is not as it was written."""
    return StorageError(
        f"The word index file {path} is damaged ({why}). "
        f"Build the index again from the documents: WordIndex.build({str(path.parent)!r}, …)."
    )
