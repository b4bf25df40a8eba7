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
    return _arrays(name, Strings.of(texts), hashes(texts))


def _arrays(name: str, packed: Strings, keys: NDArray[np.uint64]) -> dict[str, Array]:
    order = np.argsort(keys, kind="stable").astype(np.uint32)
    return {
        f"{name}.bytes": packed.data,
        f"{name}.starts": packed.starts,
        f"{name}.hashes": keys[order],
        f"{name}.rows": order,
    }


def join(name: str, tables: Sequence[tuple["StringTable", NDArray[np.bool_] | None]]) -> dict[str, Array]:
    """Return what `pack` returns for the strings of several tables, one after the other, and make no string.

    Args:
        name: The name of the new table.
        tables: One table or more, each with (n,) bool that tells which of its strings to take; None takes all.
    """
    strings = [table.strings if kept is None else table.strings.take(kept) for table, kept in tables]
    keys = [table.hashes if kept is None else table.hashes[kept] for table, kept in tables]
    return _arrays(name, Strings.join(strings), np.concatenate(keys))


class StringTable:
    """Distinct strings, each with a row number.

    Args:
        name: The name under which `pack` packed the strings.
        arrays: The arrays of the file.
    """

    def __init__(self, name: str, arrays: dict[str, Array]) -> None:
        self.strings = Strings(arrays[f"{name}.bytes"], arrays[f"{name}.starts"])
        self._hashes: Array = arrays[f"{name}.hashes"]
        self._rows: Array = arrays[f"{name}.rows"]
        strings = self.strings
        if not len(self._hashes) == len(self._rows) == len(strings) or strings.starts[-1] != len(strings.data):
            raise ValueError(f"the table {name!r} does not fit together")

    def __len__(self) -> int:
        """The number of strings."""
        return len(self._rows)

    def __getitem__(self, row: int) -> str:
        """The string of a row."""
        return self.strings[row]

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """(n,) uint64, the hashes of the strings by row."""
        by_row = np.empty(len(self), np.uint64)
        by_row[self._rows] = self._hashes
        return by_row

    def all(self) -> list[str]:
        """Return all strings by row."""
        return list(self.strings)

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
                if self.strings.raw(row) == wanted:
                    rows[number] = row
                    break
                place += 1
        return rows
