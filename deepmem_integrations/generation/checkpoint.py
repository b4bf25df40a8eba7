"""The checkpoint of a run: JSON lines that keep every answer as it arrives, in a file or in an object store."""

import contextlib
import io
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from deepmem_integrations._files import make_private_folder, open_regular, parse_json, user_path
from deepmem_integrations._locks import LOCKS_AVAILABLE, release_flock, try_flock
from deepmem_integrations._store import Store, is_url
from deepmem_integrations.errors import GenerationError, StorageError
from deepmem_integrations.generation.model import Answer

_FORMAT = 1
_LONGEST = 2**26
"""The most bytes of a line."""
_SYNC = 1.0
"""After how many seconds a disk, or the server of a folder that machines share, gets what the operating system has."""
_PART = 2**18
"""From how many bytes on a part of a checkpoint in an object store is full."""
_SUFFIX = ".jsonl"
_DISK = "file://"
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


class Checkpoint:
    """The answers of a run, by the key of their request.

    The first line of the file names the prompt and the model that the answers belong to. A killed process loses at
    most the line that it was writing, and a lost machine the answers of a second. The file holds the answers before they are
    filtered, so a run with other filters over the same answers sends no requests. Several threads may share one `Checkpoint`.

    An object store cannot append to a file, so a checkpoint there is a folder of such files, its parts. Each run writes parts of
    its own, and each answer is in one when `add` returns. Nobody notices two runs at the same time, which ask for the same.

    Args:
        path: The path of the file, or the URL of a folder that fsspec knows, such as ``s3://bucket/queries``; a URL of
            ``file://`` is a path. None keeps no answers.
        belongs_to: The digests that must be the same for the answers to be used again: name → digest.

    Raises:
        GenerationError: The file belongs to another prompt or model, is not a checkpoint, or is open in another run.
        StorageError: The file cannot be read or written, or the object store cannot be reached.
        MissingExtraError: fsspec, or its package for this kind of URL, is not installed.
    """

    def __init__(self, path: str | os.PathLike[str] | None, belongs_to: dict[str, str]) -> None:
        self._name = str(path)
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._parts: _Parts | None = None
        self._synced = 0.0
        if path is None:
            return
        if isinstance(path, str) and path.startswith(_DISK):  # a file there takes a lock, and its owner alone may read it
            path = path.removeprefix(_DISK)
        header = {"deepmem checkpoint": _FORMAT, **belongs_to}
        if is_url(path):
            self._parts = _Parts(self._name, _line_of(header))
            self._file = tempfile.TemporaryFile()  # a copy of all parts, in which answers are looked up
        else:
            self._file = self._open(Path(user_path(path)))
        try:
            if self._parts is None:
                self._take(self._file)
                self._read(self._file, header)
            else:
                for name, data in self._parts.read():
                    for _, line, key in self._lines(io.BytesIO(data), f"{self._name}/{name}", header):
                        if key:
                            self._places[key] = self._write(self._file, line)
        except BaseException:
            self._close(self._file)
            raise

    def _open(self, path: Path) -> BinaryIO:
        try:
            make_private_folder(path.parent)
            return open_regular(path, _APPEND)
        except OSError as error:
            raise StorageError(f"Cannot write the checkpoint {path}: {error.strerror or error}.") from error

    def __contains__(self, key: str) -> bool:
        """Tell whether the checkpoint has the answer to the request with this key."""
        return key in self._places

    def __len__(self) -> int:
        """Count the answers."""
        return len(self._places)

    def __enter__(self) -> "Checkpoint":
        """Return the checkpoint."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                if self._parts is None:
                    with contextlib.suppress(OSError):
                        os.fsync(self._file.fileno())
                self._close(self._file)
            self._file = None

    @staticmethod
    def _close(file: BinaryIO) -> None:
        release_flock(file.fileno())
        with contextlib.suppress(OSError):  # of a full disk, which whoever wrote was told
            file.close()

    def get(self, key: str) -> Answer | None:
        """Return the answer to the request with this key, or None where there is no answer yet."""
        with self._lock:
            if self._file is None or key not in self._places:
                return None
            self._file.seek(self._places[key])
            return _answer(parse_json(self._file.readline(_LONGEST))["answer"])

    def add(self, key: str, answer: Answer) -> None:
        """Append an answer. It outlives this process when the method returns: the operating system or the object store has it.

        Raises:
            StorageError: The file cannot be written, or the object store cannot be reached.
        """
        line = _line_of({"key": key, "answer": answer.to_json()})
        with self._lock:
            if self._file is None:  # there is no file without a path, and an answer may come after the end of the run
                return
            place = self._write(self._file, line)
        if self._parts is not None:
            self._parts.add(line)
        self._places[key] = place

    def _write(self, file: BinaryIO, line: bytes) -> int:
        try:
            place = file.seek(0, os.SEEK_END)
            file.write(line)
            file.flush()
            if self._parts is None and time.monotonic() - self._synced > _SYNC:
                os.fsync(file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise StorageError(f"Cannot write the checkpoint {self._name}: {error.strerror or error}.") from error
        return place

    def _take(self, file: BinaryIO) -> None:
        # Without locks, as on Windows, two runs that write to one file are not noticed.
        try:
            taken = not LOCKS_AVAILABLE or try_flock(file.fileno())
        except OSError as error:
            raise StorageError(f"Cannot lock the checkpoint {self._name}: {error.strerror or error}.") from error
        if not taken:
            raise GenerationError(
                f"Another run is writing to the checkpoint {self._name}. Wait until it ends, or pass another file as checkpoint=."
            )

    def _read(self, file: BinaryIO, header: dict[str, Any]) -> None:
        """Read a file on disk, cut off what a killed process left, and begin a file that is new."""
        file.seek(0)
        end = 0
        for place, line, key in self._lines(file, self._name, header):
            if key:
                self._places[key] = place
            end = place + len(line)
        with contextlib.suppress(OSError):
            file.truncate(end)
        if end == 0:
            self._write(file, _line_of(header))

    def _lines(self, file: BinaryIO, name: str, header: dict[str, Any]) -> Iterator[tuple[int, bytes, str]]:
        """Yield the whole lines of a file: where each begins, the line, and its key, which is empty where there is no answer."""
        place = 0
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b"")):
            if not line.endswith(b"\n"):
                if number == 0 and not _is_cut_header(line, header):
                    self._check(None, header)
                return  # the process was killed while it wrote this line
            key = ""
            try:
                value = parse_json(line)
                if number > 0:
                    key, answer = value["key"], _answer(value["answer"])
                    if not isinstance(key, str):
                        raise TypeError("the key is no text")
                    if answer.fault == "malformed":  # which earlier versions kept
                        key = ""
            except (ValueError, TypeError, KeyError) as error:
                raise GenerationError(
                    f"{name}, line {number + 1}, is not a line of a checkpoint ({error!r}). Move the file away, or pass "
                    "another file as checkpoint=."
                ) from error
            if number == 0:
                self._check(value, header)
            yield place, line, key
            place += len(line)

    def _check(self, found: Any, wanted: dict[str, Any]) -> None:
        # Earlier versions wrote the corpus into a generator's checkpoint, and its answers by the ids of documents alone.
        if not isinstance(found, dict) or found.get("deepmem checkpoint") != _FORMAT or "corpus" in found:
            raise GenerationError(
                f"{self._name} is not a checkpoint of this version. Move the file away, or pass another file as checkpoint=."
            )
        if changed := [name for name in wanted if found.get(name) != wanted[name]]:
            raise GenerationError(
                f"The checkpoint {self._name} belongs to another {' and another '.join(changed)}, so its answers do not answer "
                f"these requests. Use the same {' and the same '.join(changed)} again, or pass another file as checkpoint=."
            )


class _Parts:
    """The parts of a checkpoint in an object store. A run writes its last part anew with each line, while the part is small.

    Args:
        url: The folder.
        header: The first line of each part.
    """

    def __init__(self, url: str, header: bytes) -> None:
        self._store, self._header = Store(url, {}), header
        self._run, self._number = f"{int(time.time()):011}-{secrets.token_hex(4)}", 0
        self._part = header
        self._pending: list[bytes] = []
        self._added = self._written = 0
        self._lock, self._writing = threading.Lock(), threading.Lock()

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the content of each part there is, in the order of time."""
        for name in sorted(self._store.names("")):
            if name.endswith(_SUFFIX) and (data := self._store.find(name)) is not None:
                yield name, data

    def add(self, line: bytes) -> None:
        """Write a line. Lines of other threads, which wait meanwhile, go along with the next one."""
        with self._lock:
            self._pending.append(line)
            self._added += 1
            mine = self._added
        with self._writing:
            with self._lock:
                if self._written >= mine:
                    return
                lines, self._pending, added = self._pending, [], self._added
            part = self._part + b"".join(lines)
            try:
                self._store.write(f"{self._run}-{self._number:06}{_SUFFIX}", part)
            except BaseException:
                with self._lock:
                    self._pending = lines + self._pending
                raise
            self._written = added
            full = len(part) >= _PART
            self._part, self._number = (self._header, self._number + 1) if full else (part, self._number)


def _line_of(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    if not text.isprintable():  # half of a surrogate pair cannot be encoded
        text = json.dumps(value)
    return text.encode() + b"\n"


def _answer(fields: Any) -> Answer:
    """Make an answer of the fields of a line.

    Raises:
        TypeError: A field has no place in an answer, or has another type.
    """
    answer = Answer(**fields)
    if not all(isinstance(getattr(answer, name), type(default)) for name, default in vars(Answer()).items()):
        raise TypeError("a field of the answer has another type")
    return answer


def _is_cut_header(line: bytes, header: dict[str, Any]) -> bool:
    """Tell whether a file's only line is the beginning of a header, whatever corpus, prompt and model the header names."""
    start = json.dumps(dict(list(header.items())[:1])).encode().removesuffix(b"}")
    return line.startswith(start) or start.startswith(line)
