"""`AdapterCache`: adapters that were read from files, within bounded memory."""

import os
import threading
from collections import OrderedDict
from pathlib import Path

from deepmem_integrations._forks import fork_safe
from deepmem_integrations.adapter import file
from deepmem_integrations.adapter.query_adapter import QueryAdapter
from deepmem_integrations.errors import AdapterFileError

MAX_BYTES = 512 * 2**20
"""How many bytes of adapters a process keeps by default."""

State = tuple[int, int, int]
"""What tells a file from its successor: the time of its last change in nanoseconds, its size in bytes, and its inode."""


def state_of(path: str | os.PathLike[str]) -> State | None:
    """Return the state of a file; None where the file cannot be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _held(state: State) -> int:
    """Return how many bytes of memory the adapter of a file holds."""
    return state[1] // 20 if state[1] >= file.MAPPED and os.name != "nt" else state[1]


class AdapterCache:
    """Adapters by file. A file is read again after a change, and the adapters that were not used for longest are dropped first.

    An adapter that is dropped stays with whoever holds it. A cache may be shared between threads.

    Args:
        max_bytes: How many bytes of files to keep. The adapter that was used last is always kept. Of a mapped file, whose pages
            the system drops where it needs memory, a twentieth counts.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = QueryAdapter(2).save(f"{folder}/adapter.safetensors")
        ...     cache = AdapterCache()
        ...     cache.load(path) is cache.load(path)
        True
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._lock = fork_safe(threading.Lock())
        self._kept: OrderedDict[str, tuple[State, QueryAdapter | AdapterFileError]] = OrderedDict()
        self._reading: dict[str, threading.Lock] = {}
        self._bytes = 0

    def load(self, path: str | Path) -> QueryAdapter:
        """Return the adapter of a file. A damaged file is read once for each of its states, too.

        Raises:
            StorageError: The file cannot be read.
            AdapterFileError: The file is damaged, is no adapter, or was written by a newer version.
        """
        name = os.path.abspath(path)
        with self._lock:
            reading = self._reading.setdefault(name, fork_safe(threading.Lock()))
        try:
            with reading:  # so that many threads read a file once
                found = self._current(name)
                if found is None:
                    state = state_of(name)  # before the file is read: a file that changes meanwhile is read again
                    try:
                        found = QueryAdapter.load(path)
                    except AdapterFileError as error:
                        found = error
                    if state is not None:
                        self._keep(name, state, found)
        finally:
            with self._lock:
                self._reading.pop(name, None)
        if isinstance(found, AdapterFileError):
            raise AdapterFileError(*found.args)  # a new one, because each raise adds to the traceback of an error
        return found

    def _current(self, name: str) -> QueryAdapter | AdapterFileError | None:
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or kept[0] != state_of(name):
                return None
            self._kept.move_to_end(name)
            return kept[1]

    def _keep(self, name: str, state: State, found: QueryAdapter | AdapterFileError) -> None:
        with self._lock:
            if (old := self._kept.pop(name, None)) is not None:
                self._bytes -= _held(old[0])
            self._kept[name] = (state, found)
            self._bytes += _held(state)
            while self._bytes > self.max_bytes and len(self._kept) > 1:
                _, (dropped, _) = self._kept.popitem(last=False)
                self._bytes -= _held(dropped)

    def __len__(self) -> int:
        """Count the files whose adapters are kept."""
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """How many bytes are kept: see ``max_bytes``."""
        return self._bytes


shared = AdapterCache()
"""The adapters that this process keeps for retrievers that are made anew for each request."""
