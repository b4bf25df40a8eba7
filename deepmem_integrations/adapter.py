"""The trained query transform: a small file, applied with numpy alone."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from deepmem_integrations._files import write_bytes
from deepmem_integrations._vectors import Vectors, blocks, unit_rows
from deepmem_integrations.errors import AdapterFileError, StorageError
from deepmem_integrations.fingerprint import Fingerprint

FORMAT = "deepmem-adapter"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Memory:
    """The part that remembers what was asked: an attention layer whose keys are the training queries.

    Attributes:
        keys: (m, d) float32 unit rows, the training queries.
        values: (m, d) float32, the direction in which each of them moves a query.
        temperature: Width of the kernel ``exp((x·key − 1) / temperature)``, above 0.
        strength: Factor of the sum, above 0.
    """

    keys: Vectors
    values: Vectors
    temperature: float
    strength: float

    def shift(self, queries: Vectors) -> Vectors:
        """What is added to the queries, (n, d) float32 unit rows → (n, d) float32."""
        moved = np.empty((len(queries), self.values.shape[1]), dtype=np.float32)
        for block in blocks(len(queries), len(self.keys)):
            kernel = np.exp((queries[block] @ self.keys.T - 1.0) / self.temperature)
            moved[block] = self.strength * (kernel @ self.values)
        return moved


class QueryAdapter:
    """A trained transform of query vectors. Immutable, safe to share between threads.

    ``x ← unit(x)``, then ``y ← unit(x + x W)`` (the linear part), then ``z ← unit(y + memory.shift(x))``. Either part may
    be absent; without both it is the identity. Document vectors are never touched, so no index is rewritten.

    Args:
        dimension: d, the length of the vectors.
        linear: W, (d, d) float32.
        memory: The memory part.
        fingerprint: The embedding model it was trained with; by default its dimension is all that is known.
        metadata: Anything JSON can hold, kept in the file.
    """

    def __init__(
        self,
        dimension: int,
        *,
        linear: Vectors | None = None,
        memory: Memory | None = None,
        fingerprint: Fingerprint | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the parts."""
        self.dimension = dimension
        self.linear = linear
        self.memory = memory
        self.fingerprint = fingerprint or Fingerprint(dimension)
        self.metadata: Mapping[str, Any] = dict(metadata or {})

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every direction as it is."""
        return self.linear is None and self.memory is None

    def transform(self, vectors: ArrayLike) -> Vectors:
        """Transform query vectors.

        Args:
            vectors: (d,) or (n, d), any real dtype; their length does not matter.

        Returns:
            The same shape, float32, rows of length 1. A new array.

        Raises:
            EmbeddingMismatchError: The vectors have another dimension.
            InvalidVectorsError: A row with NaN, infinity or nothing but zeros.
        """
        given = np.asarray(vectors)
        queries = unit_rows(given[None] if given.ndim == 1 else given, "query vector", dimension=self.dimension)
        moved = queries
        if self.linear is not None:
            moved = _normalised(queries + queries @ self.linear, queries)
        if self.memory is not None:
            moved = _normalised(moved + self.memory.shift(queries), moved)
        return moved[0] if given.ndim == 1 else moved

    def check(self, fingerprint: Fingerprint) -> None:
        """Refuse an embedding model other than the one of the training.

        Raises:
            EmbeddingMismatchError: It is another model, as far as both fingerprints tell.
        """
        self.fingerprint.check(fingerprint)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, atomically.

        The file holds the vectors of the training queries (the memory's keys), no texts.

        Returns:
            The path.

        Raises:
            StorageError: It cannot be written. A file that was there before is unchanged.
        """
        path = Path(path)
        write_bytes(path, self.to_bytes())
        return path

    @classmethod
    def load(cls, path: str | Path) -> "QueryAdapter":
        """Read a file that `save` wrote.

        Raises:
            StorageError: It cannot be read.
            AdapterFileError: It is damaged, no adapter, or written by a newer version.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise StorageError(f"Cannot read the adapter {path}: {error.strerror or error}.") from error
        try:
            return cls.from_bytes(data)
        except AdapterFileError as error:
            raise AdapterFileError(f"{path}: {error}") from error.__cause__

    def to_bytes(self) -> bytes:
        """The content of the file: safetensors with a JSON header and a checksum."""
        tensors: dict[str, Vectors] = {}
        if self.linear is not None:
            tensors["linear"] = np.ascontiguousarray(self.linear)
        if self.memory is not None:
            tensors["memory.keys"] = np.ascontiguousarray(self.memory.keys)
            tensors["memory.values"] = np.ascontiguousarray(self.memory.values)
        if self.fingerprint.probes is not None:
            tensors["fingerprint.probes"] = np.ascontiguousarray(self.fingerprint.probes)
        header = {
            "version": FORMAT_VERSION,
            "dimension": self.dimension,
            "model": self.fingerprint.model,
            "memory": None if self.memory is None else {"temperature": self.memory.temperature, "strength": self.memory.strength},
            "metadata": self.metadata,
        }
        header = json.loads(json.dumps(header))  # as it will be read
        # One entry, since safetensors writes several in random order: the same adapter gives the same bytes.
        return save_tensors(tensors, metadata={FORMAT: json.dumps({"checksum": _checksum(header, tensors), "header": header})})

    @classmethod
    def from_bytes(cls, data: bytes) -> "QueryAdapter":
        """Read what `to_bytes` made.

        Raises:
            AdapterFileError: The data is damaged, no adapter, or of a newer version.
        """
        try:
            tensors = load_tensors(data)
            attributes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
            envelope = json.loads(attributes[FORMAT]) if FORMAT in attributes else None
            checksum, header = (envelope["checksum"], envelope["header"]) if envelope else (None, None)
        except (SafetensorError, ValueError, KeyError) as error:
            raise AdapterFileError(f"not a whole safetensors file ({error}). Use a backup, or train again.") from error
        if header is None:
            raise AdapterFileError("a safetensors file, but not a Deep Memory adapter.")
        version = header.get("version") if isinstance(header, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise AdapterFileError(
                f"written in format {version}, newer than this package knows ({FORMAT_VERSION}). Upgrade deepmem-integrations."
            )
        if checksum != _checksum(header, tensors):
            raise AdapterFileError("damaged (its checksum does not match). Use a backup, or train again.")
        try:
            dimension, memory = header["dimension"], None
            if header["memory"]:
                memory = Memory(tensors["memory.keys"], tensors["memory.values"], **header["memory"])
            adapter = cls(
                dimension,
                linear=tensors.get("linear"),
                memory=memory,
                fingerprint=Fingerprint(dimension, header["model"], tensors.get("fingerprint.probes")),
                metadata=header["metadata"],
            )
            adapter.transform(np.ones(dimension))
        except (KeyError, TypeError, ValueError) as error:
            raise AdapterFileError(f"its parts do not fit together ({error!r}). Use a backup, or train again.") from error
        return adapter

    def __repr__(self) -> str:
        """A line with the parts."""
        parts = [name for name, part in (("linear", self.linear), ("memory", self.memory)) if part is not None]
        return f"QueryAdapter({self.dimension} dimensions, {' + '.join(parts) or 'identity'})"


def _normalised(vectors: Vectors, otherwise: Vectors) -> Vectors:
    """Rows of length 1; a row that cancelled out to nothing is taken from ``otherwise``."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norms > 1e-6, vectors / np.maximum(norms, 1e-6), otherwise).astype(np.float32, copy=False)


def _checksum(header: Mapping[str, Any], tensors: Mapping[str, Vectors]) -> str:
    """SHA-256 over the header and every tensor: safetensors itself does not notice a flipped bit."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()
