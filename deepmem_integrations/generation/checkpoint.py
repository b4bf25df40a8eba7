"""The checkpoint of a run: an append-only file of JSON lines that keeps every answer as it arrives."""

import contextlib
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from deepmem_integrations._files import make_private_folder, open_regular, parse_json, user_path
from deepmem_integrations._locks import LOCKS_AVAILABLE, try_flock
from deepmem_integrations.errors import GenerationError, StorageError
from deepmem_integrations.generation.model import Answer

_FORMAT = 1
_LONGEST = 2**26
"""The most bytes of a line."""
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


class Checkpoint:
    """The answers of a run, by the key of their request.

    The first line of the file names the corpus, the prompt and the model that the answers belong to. A killed process loses at
    most the line that it was writing. The file holds the answers before they are filtered, so a run with other filters over
    the same answers sends no requests. Several threads may share one `Checkpoint`.

    Args:
        path: The path of the file; None keeps no answers.
        belongs_to: The digests that must be the same for the answers to be used again: name → digest.

    Raises:
        GenerationError: The file belongs to another corpus, prompt or model, is not a checkpoint, or is open in another run.
        StorageError: The file cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str] | None, belongs_to: dict[str, str]) -> None:
        self._path = Path(user_path(path)) if path is not None else None
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        if self._path is None:
            return
        try:
            make_private_folder(self._path.parent)
            self._file = open_regular(self._path, _APPEND)
        except OSError as error:
            raise StorageError(f"Cannot write the checkpoint {self._path}: {error.strerror or error}.") from error
        try:
            self._take(self._file)
            self._read(self._file, belongs_to)
        except BaseException:
            self._file.close()
            raise

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
                self._file.close()
            self._file = None

    def get(self, key: str) -> Answer | None:
        """Return the answer to the request with this key, or None where there is no answer yet."""
        with self._lock:
            if self._file is None or key not in self._places:
                return None
            self._file.seek(self._places[key])
            return _answer(parse_json(self._file.readline(_LONGEST))["answer"])

    def add(self, key: str, answer: Answer) -> None:
        """Append an answer. The method returns when the operating system has the answer, which then outlives this process.

        Raises:
            StorageError: The file cannot be written.
        """
        with self._lock:
            if self._file is not None:  # there is no file without a path, and an answer may come after the end of the run
                self._places[key] = self._write(self._file, {"key": key, "answer": answer.to_json()})

    def _write(self, file: BinaryIO, line: dict[str, Any]) -> int:
        try:
            place = file.seek(0, os.SEEK_END)
            text = json.dumps(line, ensure_ascii=False)
            if not text.isprintable():  # half of a surrogate pair cannot be encoded
                text = json.dumps(line)
            file.write(text.encode() + b"\n")
            file.flush()
        except OSError as error:
            raise StorageError(f"Cannot write the checkpoint {self._path}: {error.strerror or error}.") from error
        return place

    def _take(self, file: BinaryIO) -> None:
        # Without locks, as on Windows, two runs that write to one file are not noticed.
        try:
            taken = not LOCKS_AVAILABLE or try_flock(file.fileno())
        except OSError as error:
            raise StorageError(f"Cannot lock the checkpoint {self._path}: {error.strerror or error}.") from error
        if not taken:
            raise GenerationError(
                f"Another run is writing to the checkpoint {self._path}. Wait until it ends, or pass another file as checkpoint=."
            )

    def _read(self, file: BinaryIO, belongs_to: dict[str, str]) -> None:
        header = {"deepmem checkpoint": _FORMAT, **belongs_to}
        file.seek(0)
        place = 0
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b"")):
            if not line.endswith(b"\n"):
                if number == 0 and not _is_cut_header(line, header):
                    self._check(None, header)
                break  # the process was killed while it wrote this line
            try:
                value = parse_json(line)
                if number > 0:
                    key, answer = value["key"], _answer(value["answer"])
                    if not isinstance(key, str):
                        raise TypeError("the key is no text")
                    if answer.fault != "malformed":  # which earlier versions kept
                        self._places[key] = place
            except (ValueError, TypeError, KeyError) as error:
                raise GenerationError(
                    f"{self._path}, line {number + 1}, is not a line of a checkpoint ({error!r}). Move the file away, or pass "
                    "another file as checkpoint=."
                ) from error
            if number == 0:
                self._check(value, header)
            place += len(line)
        with contextlib.suppress(OSError):
            file.truncate(place)
        if place == 0:
            self._write(file, header)

    def _check(self, found: Any, wanted: dict[str, Any]) -> None:
        if not isinstance(found, dict) or found.get("deepmem checkpoint") != _FORMAT:
            raise GenerationError(
                f"{self._path} is not a checkpoint of this version. Move the file away, or pass another file as checkpoint=."
            )
        if changed := [name for name in wanted if found.get(name) != wanted[name]]:
            raise GenerationError(
                f"The checkpoint {self._path} belongs to another {' and another '.join(changed)}, so its answers do not answer "
                f"these requests. Use the same {' and the same '.join(changed)} again, or pass another file as checkpoint=."
            )


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
