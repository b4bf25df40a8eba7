"""`TrainingCheckpoint`: what a training has done so far, in files, so that another process can go on where it was killed."""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save_file

from deepmem_integrations import __version__
from deepmem_integrations._extras import require
from deepmem_integrations._files import PRIVATE_FILE, patiently, read_bytes
from deepmem_integrations.errors import StorageError

EVERY = 10.0
"""After how many seconds of work something is written again at the earliest."""
SHARE = 0.01
"""The share of the time that writing may take: after a long write the next one comes later."""
MOST = 2**30
"""The most bytes of a part. A larger one is not written, and is done again after a kill."""

_logger = logging.getLogger(__name__)

Parts = Mapping[str, NDArray[Any]]
"""Arrays by their names."""


class TrainingCheckpoint:
    """What a training has done so far: parts in a folder, each a file that is written whole or not at all.

    A file that cannot be written or read is no error: the work in it is done again.

    Args:
        folder: The folder, which is there and which its owner alone may read.
        basis: What the whole training depends on, such as the fingerprint of the corpus. Parts of another basis, or of other
            versions of this package, numpy or torch, count as missing.

    Example:
        >>> checkpoint = TrainingCheckpoint(getfixture("tmp_path"), "corpus 1")
        >>> checkpoint.write("sums", {"total": np.arange(3)})
        >>> TrainingCheckpoint(getfixture("tmp_path"), "corpus 1").read("sums")
        {'total': array([0, 1, 2])}
        >>> TrainingCheckpoint(getfixture("tmp_path"), "corpus 2").read("sums") is None
        True
    """

    def __init__(self, folder: Path, basis: str) -> None:
        versions = (__version__, np.__version__, str(require("torch", extra="train").__version__))
        self._folder, self._basis = folder, hashlib.sha256(json.dumps([*versions, basis]).encode()).hexdigest()
        self._next = time.monotonic() + EVERY

    @property
    def due(self) -> bool:
        """Whether enough work was done since the last write for the next one to cost nothing that anybody notices."""
        return time.monotonic() >= self._next

    def read(self, name: str, basis: str = "") -> dict[str, NDArray[Any]] | None:
        """Return a part; None where it was not written, cannot be read, or has another basis.

        Args:
            name: The name of the part.
            basis: What the part depends on beside the whole training.
        """
        with contextlib.suppress(StorageError, SafetensorError, ValueError, KeyError):
            parts = load(read_bytes(self._path(name), MOST + 2**20))
            if bytes(parts.pop("basis")) == self._of(basis):
                return parts
        return None

    def write(self, name: str, parts: Parts, basis: str = "") -> None:
        """Write a part, in place of what was written under its name.

        Args:
            name: The name of the part.
            parts: The arrays.
            basis: See `read`.
        """
        started = time.monotonic()
        arrays = {key: np.ascontiguousarray(array) for key, array in parts.items()}
        arrays["basis"] = np.frombuffer(self._of(basis), dtype=np.uint8)
        path = self._path(name)
        temporary = path.with_name(f".{path.name}.tmp")  # one name, so that kills leave no more than one behind
        try:
            if sum(array.nbytes for array in arrays.values()) <= MOST:
                os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE))
                save_file(arrays, temporary)
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
                patiently(lambda: os.replace(temporary, path))
        except (OSError, SafetensorError) as error:
            _logger.warning("The training goes on, and would start anew after a kill: %s cannot be written (%s).", path, error)
            with contextlib.suppress(OSError):
                temporary.unlink()
        ended = time.monotonic()
        self._next = ended + max(EVERY, (ended - started) / SHARE)

    def _of(self, basis: str) -> bytes:
        return f"{self._basis} {basis}".encode()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


def as_array(values: list[str]) -> NDArray[np.uint8]:
    """Return texts as an array, (bytes,) uint8."""
    return np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)


def as_texts(array: NDArray[np.uint8]) -> list[str]:
    """Return the texts that `as_array` made an array of."""
    found: list[str] = json.loads(array.tobytes())
    return found
