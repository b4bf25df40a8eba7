"""Many strings in a file, found by 64-bit hash: memory-mapped, with nothing to load when the file is opened."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._strings import Strings, encode
from deepmem_integrations.words.arrays import Array


def hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return (n,) uint64 hashes of strings (BLAKE2b)."""
    digests = b"".join(hashlib.blake2b(encode(text), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8")


def pack(name: str, texts: Sequence[str]) -> dict[str, Array]:
    """Return the arrays of a `StringTable` of distinct strings."""
    packed, keys = Strings.of(texts), hashes(texts)
    order = np.argsort(keys, kind="stable").astype(np.uint32)
    return {
        f"{name}.bytes": packed.data,
        f"{name}.starts": packed.starts,
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
        self._strings = Strings(arrays[f"{name}.bytes"], arrays[f"{name}.starts"])
        self._hashes: Array = arrays[f"{name}.hashes"]
        self._rows: Array = arrays[f"{name}.rows"]
        strings = self._strings
        if not len(self._hashes) == len(self._rows) == len(strings) or strings.starts[-1] != len(strings.data):
            raise ValueError(f"the table {name!r} does not fit together")

    def __len__(self) -> int:
        """The number of strings."""
        return len(self._rows)

    def __getitem__(self, row: int) -> str:
        """The string of a row."""
        return self._strings[row]

    def all(self) -> list[str]:
        """Return all strings by row."""
        return list(self._strings)

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
                if self._strings.raw(row) == wanted:
                    rows[number] = row
                    break
                place += 1
        return rows
