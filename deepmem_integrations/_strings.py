"""Many strings in two arrays, which may lie in a file that is mapped into memory: a string is made when it is asked for."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 10_000
"""How many strings are made at once where all are asked for."""


def encode(text: str) -> bytes:
    """Return the UTF-8 of a string; lone surrogates, which some documents have, pass."""
    return text.encode("utf-8", "surrogatepass")


class Strings(Sequence[str]):
    """Strings by row number.

    Args:
        data: (bytes,) uint8, the UTF-8 of all strings, one after the other.
        starts: (n + 1,) int64; string i is ``data[starts[i]:starts[i + 1]]``.

    Example:
        >>> names = Strings.of(["a", "", "né"])
        >>> names[2], len(names), list(names)
        ('né', 3, ['a', '', 'né'])
    """

    def __init__(self, data: NDArray[np.uint8], starts: NDArray[np.int64]) -> None:
        self.data, self.starts = data, starts

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Strings":
        """Pack strings."""
        if isinstance(texts, cls):
            return texts
        parts = [encode(text) for text in texts]
        starts = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=starts[1:])
        return cls(np.frombuffer(b"".join(parts), np.uint8), starts)

    @classmethod
    def join(cls, parts: Sequence["Strings"]) -> "Strings":
        """Return the strings of one or more, one after the other."""
        starts = np.zeros(1 + sum(map(len, parts)), np.int64)
        np.cumsum(np.concatenate([part.lengths for part in parts]), out=starts[1:])
        return cls(np.concatenate([part.data for part in parts]), starts)

    def take(self, kept: NDArray[np.bool_]) -> "Strings":
        """Return some of the strings, which (n,) bool tells."""
        starts = np.zeros(1 + int(kept.sum()), np.int64)
        np.cumsum(self.lengths[kept], out=starts[1:])
        return Strings(self.data[np.repeat(kept, self.lengths)], starts)

    def __len__(self) -> int:
        """The number of strings."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) int64, the bytes of each string."""
        return np.diff(self.starts)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        """Return the string of a row, or those of several rows."""
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"there are {len(self)} strings, and no string {row}")
        row %= len(self)
        return self.raw(row).decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        """Make all strings, some thousands at a time."""
        for first in range(0, len(self), _AT_ONCE):
            starts = self.starts[first : first + _AT_ONCE + 1].tolist()
            data = self.data[starts[0] : starts[-1]].tobytes()
            for start, end in pairwise(starts):
                yield data[start - starts[0] : end - starts[0]].decode("utf-8", "surrogatepass")

    def check(self, name: str) -> None:
        """Refuse arrays that hold no strings.

        Args:
            name: The name of the strings, for the message.

        Raises:
            ValueError, TypeError: The arrays do not fit together, or a string is not UTF-8.
        """
        data, starts = self.data, self.starts
        if data.dtype != np.uint8 or data.ndim != 1 or starts.dtype != np.int64 or starts.ndim != 1 or not len(starts):
            raise TypeError(f"{name} holds no strings")
        if starts[0] != 0 or starts[-1] != len(data) or (np.diff(starts) < 0).any():
            raise ValueError(f"the starts of {name} do not rise from 0 to {len(data)}")
        data.tobytes().decode("utf-8", "surrogatepass")
        inside = starts[starts < len(data)]
        if ((data[inside] & 0xC0) == 0x80).any():
            raise ValueError(f"a string of {name} begins inside a character")

    def raw(self, row: int) -> bytes:
        """Return the UTF-8 of a row, from 0 on."""
        return self.data[self.starts[row] : self.starts[row + 1]].tobytes()
