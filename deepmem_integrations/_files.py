"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path

from deepmem_integrations.errors import StorageError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically: a reader, or a killed process, sees the old content or the new.

    Raises:
        StorageError: The folder cannot be made or written, or the disk is full. The old content stays.
    """
    # tempfile.mkstemp would make a file that no other user may read.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(f"Cannot write {path}: {error.strerror or error}. What was there before is unchanged.") from error


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) atomically.

    Raises:
        StorageError: See `write_bytes`.
    """
    write_bytes(path, text.encode())


def read_text(path: str | Path) -> str:
    """Read a text file (UTF-8).

    Raises:
        StorageError: The file cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # Excel and Notepad put a byte order mark first
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise StorageError(f"Cannot read {path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
