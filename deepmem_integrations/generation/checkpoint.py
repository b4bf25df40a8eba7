"""The answers of a run, kept as they come: an append-only file of JSON lines."""

import contextlib
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from deepmem_integrations._locks import LOCKS_AVAILABLE, try_flock
from deepmem_integrations.errors import GenerationError, StorageError
from deepmem_integrations.generation.model import Answer

_FORMAT = 1


class Checkpoint:
    """Answers by the key of their request. The first line says which corpus and prompt they belong to.

    A killed process loses at most the line that it was writing. Filters are not part of it: they run again over the answers,
    so other filters over the same answers cost nothing. Safe to share between threads.

    Args:
        path: The file; None keeps nothing.
        belongs_to: What must be the same for the answers to be used again: name → digest.

    Raises:
        GenerationError: The file belongs to another corpus, prompt or model, is no checkpoint, or another run has it open.
        StorageError: It cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str] | None, belongs_to: dict[str, str]) -> None:
        self._path = Path(path) if path is not None else None
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a+b")
        except OSError as error:
            raise StorageError(f"Cannot write the checkpoint {self._path}: {error.strerror or error}.") from error
        try:
            self._take(self._file)
            self._read(self._file, belongs_to)
        except BaseException:
            self._file.close()
            raise

    def __contains__(self, key: str) -> bool:
        """Whether there is an answer."""
        return key in self._places

    def __len__(self) -> int:
        """The number of answers."""
        return len(self._places)

    def __enter__(self) -> "Checkpoint":
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def get(self, key: str) -> Answer | None:
        """The answer, if there is one."""
        with self._lock:
            if self._file is None or key not in self._places:
                return None
            self._file.seek(self._places[key])
            return Answer(**json.loads(self._file.readline())["answer"])

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer. It is with the operating system when this returns, so that it outlives this process.

        Raises:
            StorageError: The file cannot be written.
        """
        with self._lock:
            if self._file is not None:  # None: no file is wanted, or an answer came after the end of the run
                self._places[key] = self._write(self._file, {"key": key, "answer": answer.to_json()})

    def _write(self, file: BinaryIO, line: dict[str, Any]) -> int:
        try:
            place = file.seek(0, os.SEEK_END)
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
        except OSError as error:
            raise StorageError(f"Cannot write the checkpoint {self._path}: {error.strerror or error}.") from error
        return place

    def _take(self, file: BinaryIO) -> None:
        # Without locks, as on Windows, two runs that write to one file are not noticed.
        if LOCKS_AVAILABLE and not try_flock(file.fileno()):
            raise GenerationError(
                f"Another run writes to the checkpoint {self._path}: wait for it, or pass checkpoint= another file."
            )

    def _read(self, file: BinaryIO, belongs_to: dict[str, str]) -> None:
        header = {"deepmem checkpoint": _FORMAT, **belongs_to}
        file.seek(0)
        place = 0
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break  # killed while writing
            try:
                value = json.loads(line)
                if number > 0:
                    self._places[value["key"]] = place
            except (ValueError, TypeError, KeyError) as error:
                raise GenerationError(f"{self._path}, line {number + 1}: no line of a checkpoint ({error!r}).") from error
            if number == 0:
                self._check(value, header)
            place += len(line)
        with contextlib.suppress(OSError):
            file.truncate(place)
        if place == 0:
            self._write(file, header)

    def _check(self, found: Any, wanted: dict[str, Any]) -> None:
        if not isinstance(found, dict) or found.get("deepmem checkpoint") != _FORMAT:
            raise GenerationError(f"{self._path} is no checkpoint of this version: pass another file, or move it away.")
        if changed := [name for name in wanted if found.get(name) != wanted[name]]:
            raise GenerationError(
                f"The checkpoint {self._path} belongs to another {' and another '.join(changed)}: its answers do not answer "
                "these requests. Run with what it was made with, or pass checkpoint= another file."
            )
