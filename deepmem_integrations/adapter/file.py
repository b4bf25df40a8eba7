"""The file format of an adapter: one safetensors file with a JSON header and a checksum.

The only metadata entry of the file, ``deepmem-adapter``, is the JSON of ``{"checksum": …, "header": …}``. The header holds the
format version, the embedding model's name, the settings of the attention part, the names behind its keys, and the adapter's
metadata. Tensors and header entries call the attention part ``memory`` and the remembered queries ``examples``: those were their
names when the format was made. docs/file-format.md lists all of them.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from deepmem_integrations._files import open_regular, parse_json
from deepmem_integrations.adapter.attention import Attention, KernelSpace, Lists
from deepmem_integrations.adapter.fingerprint import Fingerprint
from deepmem_integrations.adapter.ranking import Ranking
from deepmem_integrations.adapter.remembered import RememberedQueries, ValueSpace
from deepmem_integrations.adapter.schema import Parts, check_parts, check_remembered
from deepmem_integrations.errors import AdapterFileError
from deepmem_integrations.labels import LabelRows

FORMAT = "deepmem-adapter"
FORMAT_VERSION = 3

_MOST_HEADER = 100_000_000
"""The most bytes of a safetensors header, as the format's own reader has it."""

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


def encode(parts: Parts) -> bytes:
    """Write an adapter as the bytes of its file. The same adapter gives the same bytes.

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
            tensors["memory.values"] = attention.values
        else:
            tensors |= _remembered_tensors(remembered)
    if parts.ranking is not None:
        tensors["ranking.cosines"] = parts.ranking.cosines
        if parts.ranking.linear is not None:
            tensors["ranking.linear"] = parts.ranking.linear
    if parts.fingerprint.probes is not None:
        tensors["fingerprint.probes"] = parts.fingerprint.probes
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    plain = parts.ranking is None and (attention is None or attention.strength > 0)
    plain = plain and (remembered is None or remembered.irrelevant is None)
    header = {
        "version": 2 if plain else FORMAT_VERSION,
        "dimension": parts.dimension,
        "model": parts.fingerprint.model,
        "memory": attention and {name: getattr(attention, name) for name in ("temperature", "strength", "neighbours")},
        "examples": remembered and _remembered_names(remembered),
        "metadata": dict(parts.metadata),
    }
    if parts.ranking is not None:
        header["ranking"] = {name: getattr(parts.ranking, name) for name in _RANKING}
    header = json.loads(json.dumps(header, default=np.generic.item))  # as it will be read
    # One entry, since safetensors writes several in random order.
    return save_tensors(tensors, metadata={FORMAT: json.dumps({"checksum": _checksum(header, tensors), "header": header})})


def decode(data: bytes) -> Parts:
    """Read what `encode` wrote.

    Raises:
        AdapterFileError: The data is damaged, is no adapter, or has a newer format version.
    """
    try:
        # Copies, since views into the file's bytes lie where products are slower, and are rounded otherwise.
        tensors = {name: tensor.copy() for name, tensor in load_tensors(data).items()}
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


def read_file(path: str | Path) -> bytes:
    """Read a file, if it is a regular file of the size that its header says.

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
            return text + file.read(size - len(text))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, MemoryError, OverflowError) as error:
            raise AdapterFileError(f"not a whole safetensors file ({error}). Use a backup, or train again.") from error


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
        values = tensors["memory.values"] if remembered is None else remembered.values
        attention = Attention(tensors["memory.keys"], values, space=space, lists=lists, **settings)
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


def _remembered_names(remembered: RememberedQueries) -> dict[str, Any]:
    names = ("query_ids", "texts", "document_ids", "trained", "trained_in_all")
    return {name: getattr(remembered, name) for name in names} | {"scale": remembered.space.scale}


def _read_remembered(names: Mapping[str, Any], tensors: Tensors) -> RememberedQueries:
    irrelevant = None
    if "examples.irrelevant" in tensors:
        irrelevant = LabelRows(*(tensors[f"examples.irrelevant{part}"] for part in ("_starts", "", "_weights")))
    return RememberedQueries(
        query_ids=tuple(names["query_ids"]),
        texts=None if names["texts"] is None else tuple(names["texts"]),
        owners=tensors["examples.owners"],
        labels=LabelRows(*(tensors[f"examples.{part}"] for part in ("starts", "labels", "weights"))),
        document_ids=tuple(names["document_ids"]),
        documents=tensors["examples.documents"],
        space=ValueSpace(tensors["examples.mean"], tensors["examples.projection"], names["scale"]),
        trained=names["trained"],
        trained_in_all=names["trained_in_all"],
        irrelevant=irrelevant,
    )


def _checksum(header: Mapping[str, Any], tensors: Tensors) -> str:
    """Hash the header and every tensor with SHA-256: safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()
