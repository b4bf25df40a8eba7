"""The two doors to files: `user_path` for every path from a user, and `open_regular` for every file that is read.

Files that the package writes are written whole or not at all.
"""

import codecs
import contextlib
import errno
import io
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from deepmem_integrations.errors import StorageError

_WINDOWS = os.name == "nt"
_PATIENCE = 2.0
"""For how many seconds Windows is asked again."""

MOST_TEXT = 2**31
"""The most bytes of a text file that are read; files of labels may be large."""
MOST_LINE = 2**26
"""The most characters of a line of a text file that is read line by line."""
MOST_STATE = 2**26
"""The most bytes of a file that the package keeps about itself, such as the state of a job."""
DEEPEST = 64
"""How deep arrays and objects of JSON may lie in one another."""
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
"""The modes of files and folders that hold what users asked: their owner alone reads them."""

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_BAD_PATHS = {errno.ENAMETOOLONG: "it is too long", errno.ELOOP: "its links lead round in a circle"}

_Result = TypeVar("_Result")


def user_path(path: str | os.PathLike[str]) -> str:
    """Return a path as a shell reads it, with the home folder in place of a leading ``~``. A URL stays as it is.

    Raises:
        StorageError: No file can have the path: it holds a NUL character or half of a surrogate pair, it is too long, or its
            links lead round in a circle. Whether there is a file, and whether it can be read, is found out by whoever opens it.

    Example:
        >>> user_path("data/~x"), user_path("s3://bucket/~x")
        ('data/~x', 's3://bucket/~x')
    """
    text = os.fspath(path)
    try:
        text = os.path.expanduser(text)
        if "://" not in text:
            os.stat(text)
    except ValueError as error:  # also a UnicodeEncodeError
        raise StorageError(f"{_shown(text)} is no path: {error}.") from error
    except OSError as error:
        if error.errno in _BAD_PATHS:
            raise StorageError(f"{_shown(text)} is no path: {_BAD_PATHS[error.errno]}.") from error
    return text


def lasting_path(path: str | os.PathLike[str]) -> str:
    """Return a `user_path` that stays right where the process changes its folder. A URL stays as it is.

    Raises:
        StorageError: See `user_path`.
    """
    place = user_path(path)
    return place if "://" in place else os.path.abspath(place)


LONGEST_NAME = 200
"""The most bytes of the name of a job or model; a name of 255 is the longest that file systems take, with its ending."""


def is_plain_name(name: Any) -> bool:
    """Tell whether a file of this name stays inside its folder, and can be there at all."""
    if not isinstance(name, str):
        return False
    try:
        fits = 0 < len(os.fsencode(name)) <= LONGEST_NAME
    except UnicodeEncodeError:
        return False
    return fits and "\0" not in name and not name.startswith(".") and Path(name).name == name


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:100]}…{text[-100:]}")


def open_regular(path: str | Path, flags: int = _READ) -> io.BufferedReader:
    """Open a regular file, and nothing else: a pipe would hang whoever reads it, and a device may never end.

    Args:
        path: The path of the file.
        flags: The flags of ``os.open``. A file that they create is its owner's alone.

    Returns:
        The open file, which is read, and written where the flags say so, without a buffer's delay for other processes.

    Raises:
        FileNotFoundError, OSError: The file cannot be opened, or is no regular file.
    """
    descriptor = patiently(lambda: os.open(path, flags | getattr(os, "O_NONBLOCK", 0), PRIVATE_FILE))
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is no regular file")
        mode = "a+b" if flags & os.O_APPEND else "r+b" if flags & os.O_RDWR else "rb"
        return os.fdopen(descriptor, mode)  # type: ignore[return-value]
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, most: int = MOST_STATE) -> bytes:
    """Return the content of a regular file of bounded size.

    Args:
        path: The path of the file.
        most: The most bytes that the file may have.

    Raises:
        StorageError: The file cannot be read, is no regular file, or is too large.
    """
    try:
        with open_regular(user_path(path)) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(most + 1) if size <= most else b""
        if size > most or len(data) > most:
            raise OSError(errno.EFBIG, f"it has {max(size, len(data)):,} bytes, and {most:,} are the most that such a file has")
        return data
    except StorageError:
        raise
    except (OSError, MemoryError) as error:
        raise StorageError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error or 'out of memory'}.") from error


def is_missing(error: StorageError) -> bool:
    """Tell whether a file could not be read because there is none."""
    return isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)


def parse_json(text: str | bytes) -> Any:
    """Read JSON whose arrays and objects lie at most `DEEPEST` deep in one another.

    Raises:
        ValueError: The text is not JSON, or is nested deeper.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from None
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not level:
            return value
    raise ValueError(f"it is nested more than {DEEPEST} deep")


def read_json(path: str | Path, most: int = MOST_STATE) -> Any:
    """Read a file of JSON that the package wrote: see `read_bytes` and `parse_json`.

    Raises:
        StorageError: The file cannot be read, or is damaged.
    """
    data = read_bytes(path, most)
    try:
        return parse_json(data)
    except ValueError as error:
        raise StorageError(f"{path} is damaged or was written by another version ({error}).") from error


def make_private_folder(path: Path) -> None:
    """Make a folder that its owner alone may read, unless there is one; folders above it are as the umask wants them.

    Raises:
        OSError: The folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a new file, which takes the place of another at the end. The folder is made if there is none.

    At every moment the file holds either the whole old content or the whole new content, even if the process is killed.

    Raises:
        StorageError: The folder cannot be made or written, or the disk is full. The old content stays.
    """
    path = Path(user_path(path))
    # tempfile.mkstemp would make a file that no other user may read.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        patiently(lambda: os.replace(temporary, path))
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, StorageError) or not isinstance(error, OSError):
            raise
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. A file that was there before is unchanged."
        ) from error


def write_bytes(path: Path, data: bytes | Iterable[bytes | memoryview], *, private: bool = False) -> None:
    """Replace a file atomically, as `replacing` does.

    Args:
        path: The path of the file.
        data: The new content, whole or in pieces.
        private: Whether the file's owner alone may read the file.

    Raises:
        StorageError: See `replacing`.
    """
    with replacing(path) as temporary, open(temporary, "xb", opener=private_opener if private else None) as file:
        for piece in (data,) if isinstance(data, bytes) else data:
            file.write(piece)


def private_opener(path: str, flags: int) -> int:
    """Open a file, for Python's ``open``. A file that this makes is its owner's alone."""
    return os.open(path, flags, PRIVATE_FILE)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Replace a UTF-8 text file atomically, as `write_bytes` does.

    Raises:
        StorageError: See `write_bytes`.
    """
    write_bytes(path, text.encode(), private=private)


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """Return the content of a UTF-8 text file. With a byte order mark, as Excel and PowerShell write it, it may also be UTF-16.

    Raises:
        StorageError: The file cannot be read, is no regular file, is too large, or is not UTF-8.
    """
    data = read_bytes(path, most)
    try:
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if marked else "utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise StorageError(f"Cannot read {path}: the file is not UTF-8 text ({error.reason} at byte {error.start}).") from error


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file of any size, numbered from 1 and without their ends. `read_text` says how it is encoded.

    A line ends where an editor shows its end, and not at every separator that Unicode knows, since texts may hold U+2028.

    Raises:
        StorageError: The file cannot be read, is no regular file, is not UTF-8, or has a line that is too long.
    """
    try:
        with open_regular(user_path(path)) as file:
            marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            file.seek(0)
            with io.TextIOWrapper(file, "utf-16" if marked else "utf-8-sig") as text:
                number = 0
                while line := text.readline(MOST_LINE):
                    number += 1
                    if len(line) == MOST_LINE and not line.endswith("\n"):
                        raise StorageError(f"Cannot read {path}: line {number} has more than {MOST_LINE:,} characters.")
                    yield number, line.removesuffix("\n").removeprefix("\ufeff" if number == 1 else "")
    except StorageError:
        raise
    except (OSError, MemoryError) as error:
        raise StorageError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error or 'out of memory'}.") from error
    except UnicodeError as error:
        raise StorageError(f"Cannot read {path}: the file is not UTF-8 text ({error}).") from error
