"""Functions that read text files, and that write files whole or not at all."""

import codecs
import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from deepmem_integrations.errors import StorageError

_WINDOWS = os.name == "nt"
_PATIENCE = 2.0
"""For how many seconds Windows is asked again."""

_Result = TypeVar("_Result")


def user_path(path: str | os.PathLike[str]) -> str:
    """Return a path as a shell reads it, with the home folder in place of a leading ``~``. A URL stays as it is.

    Example:
        >>> user_path("data/~x"), user_path("s3://bucket/~x")
        ('data/~x', 's3://bucket/~x')
    """
    return os.path.expanduser(os.fspath(path))


def printable(text: str) -> str:
    """Return a text that the standard output can hold, with escapes for what its encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def patiently(action: Callable[[], _Result]) -> _Result:
    """Open or replace a file. On Windows, try again for a while where access is denied.

    Windows replaces no file that another process has open, and opens none that is just being replaced or deleted.

    Raises:
        OSError: What the action raises, on Windows in the end.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return action()
        except PermissionError:
            if not _WINDOWS or time.monotonic() > end:
                raise
        time.sleep(0.01)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically. Its folder is made if there is none.

    At every moment the file holds either the whole old content or the whole new content, even if the process is killed.

    Raises:
        StorageError: The folder cannot be made or written, or the disk is full. The old content stays.
    """
    path = Path(user_path(path))
    # tempfile.mkstemp would make a file that no other user may read.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        patiently(lambda: os.replace(temporary, path))
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. A file that was there before is unchanged."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file atomically, as `write_bytes` does.

    Raises:
        StorageError: See `write_bytes`.
    """
    write_bytes(path, text.encode())


def read_text(path: str | Path) -> str:
    """Return the content of a UTF-8 text file. With a byte order mark, as Excel and PowerShell write it, it may also be UTF-16.

    Raises:
        StorageError: The file cannot be read, or is not UTF-8.
    """
    try:
        data = Path(user_path(path)).read_bytes()
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if marked else "utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise StorageError(f"Cannot read {path}: the file is not UTF-8 text ({error.reason} at byte {error.start}).") from error
