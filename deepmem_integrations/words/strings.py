"""Many strings in a file, found by 64-bit hash: memory-mapped, with nothing to load when the file is opened."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.words.arrays import Array


def encode(text: str) -> bytes:
    """Return the UTF-8 of a string; lone surrogates, which some documents have, pass."""
    return text.encode("utf-8", "surrogatepass")


def hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return (n,) uint64 hashes of strings (BLAKE2b)."""
    digests = b"".join(hashlib.blake2b(encode(text), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8")


def pack(name: str, texts: Sequence[str]) -> dict[str, Array]:
    """Return the arrays of a `StringTable` of distinct strings."""
    parts = [encode(text) for text in texts]
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=starts[1:])
    keys = hashes(texts)
    order = np.argsort(keys, kind="stable").astype(np.uint32)
    return {
        f"{name}.bytes": np.frombuffer(b"".join(parts), np.uint8),
        f"{name}.starts": starts,
        f"{name}.hashes": keys[order],
        f"{name}.rows": order,
    }


class StringTable:
    """Distinct strings, each with a row number.

    Args:
        name: The name under which `pack` packed the strings.
        arrays: The arrays of the file.
    """

    def __init__(self, name: str, arrays: dict[str, Array]) -> None:
        self._bytes: Array = arrays[f"{name}.bytes"]
        self._starts: Array = arrays[f"{name}.starts"]
        self._hashes: Array = arrays[f"{name}.hashes"]
        self._rows: Array = arrays[f"{name}.rows"]
        if not len(self._hashes) == len(self._rows) == len(self._starts) - 1 or self._starts[-1] != len(self._bytes):
            raise ValueError(f"the table {name!r} does not fit together")

    def __len__(self) -> int:
        """The number of strings."""
        return len(self._rows)

    def __getitem__(self, row: int) -> str:
        """The string of a row."""
        return self._raw(row).decode("utf-8", "surrogatepass")

    def all(self) -> list[str]:
        """Return all strings by row."""
        data, starts = self._bytes.tobytes(), self._starts.tolist()
        return [data[start:end].decode("utf-8", "surrogatepass") for start, end in pairwise(starts)]

    def find(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the (n,) row numbers of strings, −1 for strings that are not there."""
        rows = np.full(len(texts), -1, np.int64)
        if not len(texts) or not len(self._hashes):
            return rows
        keys = hashes(texts)
        places = np.searchsorted(self._hashes, keys)
        known = self._hashes[np.minimum(places, len(self._hashes) - 1)] == keys
        for number in np.flatnonzero(known).tolist():
            place, wanted = int(places[number]), encode(texts[number])
            while place < len(self._hashes) and self._hashes[place] == keys[number]:  # equal hashes of different strings
                row = int(self._rows[place])
                if self._raw(row) == wanted:
                    rows[number] = row
                    break
                place += 1
        return rows

    def _raw(self, row: int) -> bytes:
        return self._bytes[self._starts[row] : self._starts[row + 1]].tobytes()
