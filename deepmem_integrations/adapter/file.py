"""The file format of an adapter: one safetensors file with a JSON header and a checksum.

The only metadata entry of the file, ``deepmem-adapter``, is the JSON of ``{"checksum": …, "header": …}``. The header holds the
format version, the embedding model's name, the settings of the attention part, the names behind its keys (very many names are
tensors), and the adapter's metadata. Tensors and header entries call the attention part ``memory`` and the remembered queries
``examples``: those were their names when the format was made. docs/file-format.md lists all of them.
"""

import hashlib
import json
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from deepmem_integrations._files import open_regular, parse_json
from deepmem_integrations._strings import Strings
from deepmem_integrations.adapter.attention import Attention, KernelSpace
from deepmem_integrations.adapter.fingerprint import Fingerprint
from deepmem_integrations.adapter.lists import Lists
from deepmem_integrations.adapter.ranking import Ranking
from deepmem_integrations.adapter.remembered import ComputedValues, RememberedQueries, ValueSpace
from deepmem_integrations.adapter.schema import Parts, check_parts, check_remembered
from deepmem_integrations.errors import AdapterFileError, StorageError
from deepmem_integrations.labels import LabelRows

FORMAT = "deepmem-adapter"
FORMAT_VERSION = 4

MAPPED = 2**28
"""From this many bytes on, a file is mapped into memory, and all processes that serve it share its pages. Windows, where a file
that is mapped can be neither replaced nor deleted, reads it."""

_MOST_HEADER = 100_000_000
"""The most bytes of a safetensors header, as the format's own reader has it."""
_MOST_NAMES = 2**23
"""The most bytes of names in the header, where a byte may take up seven: more names are tensors."""
_NAMES = ("query_ids", "texts", "document_ids")
"""The names behind the keys."""
_DTYPES: dict[str, np.dtype[Any]] = {
    code: np.dtype(kind)
    for code, kind in zip(
        ("U64", "I64", "F64", "F32", "U32", "I32", "F16", "U16", "I16", "I8", "U8", "BOOL"),
        ("<u8", "<i8", "<f8", "<f4", "<u4", "<i4", "<f2", "<u2", "<i2", "i1", "u1", "?"),
        strict=True,
    )
}
"""The dtypes of tensors, in the order in which the writer of safetensors puts them."""

Tensors = Mapping[str, NDArray[Any]]

_RANKING = (
    "vector",
    "words",
    "answers",
    "answers_temperature",
    "by_rank",
    "attention_temperature",
    "attention_strength",
    "search",
)
"""The settings of a `Ranking` in the header."""


def encode(parts: Parts) -> list[bytes | memoryview]:
    """Write an adapter as the bytes of its file, piece by piece. The same adapter gives the same bytes.

    The file has the lowest version that holds the adapter, so that earlier versions of this package can read what they know.
    """
    tensors: dict[str, NDArray[Any]] = {}
    attention, remembered = parts.attention, parts.remembered_queries
    if parts.linear is not None:
        tensors["linear"] = parts.linear
    if attention is not None:
        tensors["memory.keys"] = attention.keys
        if attention.space is not None:
            tensors["memory.centre"] = attention.space.centre
            tensors["memory.projection"] = attention.space.projection
        if attention.lists is not None:
            tensors["memory.centroids"] = attention.lists.centroids
            tensors["memory.starts"] = attention.lists.starts
        if remembered is None:
            tensors["memory.values"] = np.asarray(attention.values)
        else:
            tensors |= _remembered_tensors(remembered)
    packed = _packed_names(remembered) if remembered else {}
    tensors |= packed
    if parts.ranking is not None:
        tensors["ranking.cosines"] = parts.ranking.cosines
        if parts.ranking.linear is not None:
            tensors["ranking.linear"] = parts.ranking.linear
    if parts.fingerprint.probes is not None:
        tensors["fingerprint.probes"] = parts.fingerprint.probes
    tensors = {name: np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")) for name, tensor in tensors.items()}
    plain = parts.ranking is None and (attention is None or attention.strength > 0)
    plain = plain and (remembered is None or remembered.irrelevant is None)
    header = {
        "version": FORMAT_VERSION if packed else 2 if plain else 3,
        "dimension": parts.dimension,
        "model": parts.fingerprint.model,
        "memory": attention and {name: getattr(attention, name) for name in ("temperature", "strength", "neighbours")},
        "examples": remembered and _remembered_header(remembered, names=not packed),
        "metadata": dict(parts.metadata),
    }
    if parts.ranking is not None:
        header["ranking"] = {name: getattr(parts.ranking, name) for name in _RANKING}
    header = json.loads(json.dumps(header, default=np.generic.item))  # as it will be read
    return _serialised(tensors, json.dumps({"checksum": _checksum(header, tensors), "header": header}), aligned=bool(packed))


def _serialised(tensors: Tensors, envelope: str, *, aligned: bool) -> list[bytes | memoryview]:
    """Lay out a safetensors file: the header, and the tensors in the order in which the format's own writer has them.

    Args:
        tensors: Name → array.
        envelope: The only metadata entry.
        aligned: Whether to align the tensors instead, matrices first, so that products of a mapped file are fast.

    Raises:
        StorageError: The header is too large to be read again.
    """
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    rank = {dtype: place for place, dtype in enumerate(codes)}
    order = sorted(tensors, key=lambda name: (aligned and -tensors[name].ndim, rank[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": {FORMAT: envelope}}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        entry = {"dtype": codes[tensors[name].dtype], "shape": tensors[name].shape, "data_offsets": [start, end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % (64 if aligned else 8))
    if len(text) > _MOST_HEADER:
        raise StorageError(
            f"The metadata of the adapter takes {len(text):,} bytes; {_MOST_HEADER:,} are the most. Leave entries out."
        )
    return [len(text).to_bytes(8, "little"), text, *(_raw(tensors[name]) for name in order)]


def _raw(tensor: NDArray[Any]) -> memoryview | bytes:
    """Return the bytes of an array without a copy."""
    whole: Any = np.ascontiguousarray(tensor)
    return memoryview(whole).cast("B") if tensor.size else b""


def decode(data: bytes | mmap.mmap) -> Parts:
    """Read what `encode` wrote.

    Raises:
        AdapterFileError: The data is damaged, is no adapter, or has a newer format version.
    """
    try:
        if isinstance(data, bytes):
            # Copies, since views into the file's bytes lie where products are slower, and are rounded otherwise.
            tensors = {name: tensor.copy() for name, tensor in load_tensors(data).items()}
        else:
            tensors = _mapped_tensors(data)
        attributes = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        envelope = _envelope(attributes)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise AdapterFileError(f"not a whole safetensors file ({error}). Use a backup, or train again.") from error
    if envelope is None:
        raise AdapterFileError("a safetensors file, but not a Deep Memory adapter.")
    checksum, header = envelope
    version = header.get("version") if isinstance(header, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise AdapterFileError(
            f"written in format {version}, newer than this package knows ({FORMAT_VERSION}). Upgrade deepmem-integrations."
        )
    if checksum != _checksum(header, tensors):
        raise AdapterFileError("damaged (its checksum does not match). Use a backup, or train again.")
    try:
        return check_parts(_parts(header, tensors))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise parts_do_not_fit(error) from error


def parts_do_not_fit(error: Exception) -> AdapterFileError:
    """Make the error for a file whose parts contradict one another."""
    return AdapterFileError(f"its parts do not fit together ({error!r}). Use a backup, or train again.")


def read_file(path: str | Path) -> bytes | mmap.mmap:
    """Read a file, if it is a regular file of the size that its header says. A very large one is mapped into memory.

    Raises:
        OSError: The file cannot be read, or is no regular file.
        AdapterFileError: The file has another size than its header says.
    """
    with open_regular(path) as file:
        try:
            text, values = _read_json_header(file)
            ends = [int(entry["data_offsets"][1]) for name, entry in values.items() if name != "__metadata__"]
            size, found = len(text) + max(ends, default=0), os.fstat(file.fileno()).st_size
            if found != size:
                raise ValueError(f"it has {found:,} bytes where its header says {size:,}")
            if size >= MAPPED and os.name != "nt":
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return text + file.read(size - len(text))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, MemoryError, OverflowError) as error:
            raise AdapterFileError(f"not a whole safetensors file ({error}). Use a backup, or train again.") from error


def _mapped_tensors(mapped: mmap.mmap) -> dict[str, NDArray[Any]]:
    """Return views into a mapped file.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: The header is none of safetensors.
    """
    start = 8 + int.from_bytes(mapped[:8], "little")
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in parse_json(mapped[8:start]).items():
        if name != "__metadata__":
            (first, last), dtype, shape = entry["data_offsets"], _DTYPES[entry["dtype"]], tuple(entry["shape"])
            count = math.prod(shape)
            if not 0 <= first <= last <= len(mapped) - start or last - first != count * dtype.itemsize:
                raise ValueError(f"the tensor {name!r} does not fit")
            name.encode()  # raises a ValueError for half of a surrogate pair, which has no checksum
            tensors[name] = np.frombuffer(mapped, dtype, count, start + first).reshape(shape)
    return tensors


def read_header(path: Path) -> Any:
    """Read the JSON header of a file and no tensor. The checksum is not checked: that would take reading everything.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: The file is missing or damaged.
    """
    with open_regular(path) as file:
        _, values = _read_json_header(file)
    envelope = _envelope(values.get("__metadata__") or {})
    if envelope is None:
        raise KeyError(FORMAT)
    return envelope[1]


def _read_json_header(file: BinaryIO) -> tuple[bytes, Any]:
    """Read the beginning of a safetensors file up to its tensors, as bytes and as JSON."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(_MOST_HEADER, os.fstat(file.fileno()).st_size - 8):
        raise ValueError("its header is cut off")
    text = file.read(length)
    return start + text, parse_json(text)


def _envelope(attributes: Mapping[str, str]) -> tuple[str, Any] | None:
    """Take the checksum and the header out of a safetensors file's metadata."""
    if FORMAT not in attributes:
        return None
    envelope = parse_json(attributes[FORMAT])
    return envelope["checksum"], envelope["header"]


def _parts(header: Mapping[str, Any], tensors: Tensors) -> Parts:
    dimension, attention, remembered = header["dimension"], None, None
    if header["memory"]:
        space = lists = None
        if "memory.centre" in tensors:
            space = KernelSpace(tensors["memory.centre"], tensors["memory.projection"])
        if "memory.centroids" in tensors:
            lists = Lists(tensors["memory.centroids"], tensors["memory.starts"])
        settings = {"neighbours": None, **header["memory"]}  # in version 1 all keys moved a query
        if header.get("examples"):
            remembered = _read_remembered(header["examples"], tensors)
            check_remembered(remembered, dimension, len(tensors["memory.keys"]))
        keys = tensors["memory.keys"]
        if remembered is None:
            values: Any = tensors["memory.values"]
        else:
            values = remembered.values if lists is None else ComputedValues(remembered, len(keys))
        attention = Attention(keys, values, space=space, lists=lists, **settings)
    ranking = None
    if header.get("ranking"):
        ranking = Ranking(**header["ranking"], linear=tensors.get("ranking.linear"), cosines=tensors["ranking.cosines"])
    fingerprint = Fingerprint(dimension, header["model"], tensors.get("fingerprint.probes"))
    return Parts(dimension, tensors.get("linear"), attention, remembered, ranking, fingerprint, header["metadata"])


def _remembered_tensors(remembered: RememberedQueries) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {
        "examples.owners": remembered.owners,
        "examples.starts": remembered.labels.starts,
        "examples.labels": remembered.labels.documents,
        "examples.weights": remembered.labels.weights,
        "examples.documents": remembered.documents,
        "examples.mean": remembered.space.mean,
        "examples.projection": remembered.space.projection,
    }
    if (irrelevant := remembered.irrelevant) is not None:
        tensors["examples.irrelevant_starts"] = irrelevant.starts
        tensors["examples.irrelevant"] = irrelevant.documents
        tensors["examples.irrelevant_weights"] = irrelevant.weights
    return tensors


def _remembered_header(remembered: RememberedQueries, *, names: bool) -> dict[str, Any]:
    listed = {name: None if (texts := getattr(remembered, name)) is None else list(texts) for name in _NAMES} if names else {}
    counts = {name: getattr(remembered, name) for name in ("trained", "trained_in_all")}
    return {**listed, **counts, "scale": remembered.space.scale}


def _packed_names(remembered: RememberedQueries) -> dict[str, NDArray[Any]]:
    """Return the names as tensors, if they are too many for a header."""
    packed = {name: Strings.of(texts) for name in _NAMES if (texts := getattr(remembered, name)) is not None}
    if sum(len(names.data) + 4 * len(names) for names in packed.values()) <= _MOST_NAMES:
        return {}
    arrays = {f"examples.{name}": names.data for name, names in packed.items()}
    return {**arrays, **{f"examples.{name}.starts": names.starts for name, names in packed.items()}}


def _read_names(name: str, header: Mapping[str, Any], tensors: Tensors) -> Sequence[str]:
    packed = tensors.get(f"examples.{name}")
    return tuple(header[name]) if packed is None else Strings(packed, tensors[f"examples.{name}.starts"])


def _read_remembered(header: Mapping[str, Any], tensors: Tensors) -> RememberedQueries:
    irrelevant, has_texts = None, header.get("texts") is not None or "examples.texts" in tensors
    if "examples.irrelevant" in tensors:
        irrelevant = LabelRows(*(tensors[f"examples.irrelevant{part}"] for part in ("_starts", "", "_weights")))
    return RememberedQueries(
        query_ids=_read_names("query_ids", header, tensors),
        texts=_read_names("texts", header, tensors) if has_texts else None,
        owners=tensors["examples.owners"],
        labels=LabelRows(*(tensors[f"examples.{part}"] for part in ("starts", "labels", "weights"))),
        document_ids=_read_names("document_ids", header, tensors),
        documents=tensors["examples.documents"],
        space=ValueSpace(tensors["examples.mean"], tensors["examples.projection"], header["scale"]),
        trained=header["trained"],
        trained_in_all=header["trained_in_all"],
        irrelevant=irrelevant,
    )


def _checksum(header: Mapping[str, Any], tensors: Tensors) -> str:
    """Hash the header and every tensor with SHA-256: safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tensor.shape}".encode())
        digest.update(_raw(tensor))
    return digest.hexdigest()
