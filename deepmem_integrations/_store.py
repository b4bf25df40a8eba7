"""Files in an object store, or in any other store that fsspec knows: `Store`."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from deepmem_integrations._extras import require
from deepmem_integrations._redaction import redact, redacted
from deepmem_integrations.errors import MissingExtraError, StorageError

_T = TypeVar("_T")


def is_url(path: object) -> bool:
    """Tell whether a path leads to an object store, as ``s3://bucket/support.deepmemory`` does."""
    return isinstance(path, str) and "://" in path


class Store:
    """The files below a URL, read and written with fsspec.

    Args:
        url: The URL of the folder, such as ``s3://bucket/support.deepmemory``.
        options: The options of fsspec's file system, such as credentials.

    Attributes:
        url: The URL for messages, without a password.

    Raises:
        MissingExtraError: fsspec, or its package for this kind of URL, is not installed.
        StorageError: The URL names no bucket, or fsspec does not know this kind of URL.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url = redacted(url.rstrip("/"))
        self._address = url.rstrip("/")
        if not is_url(self._address):  # fsspec would take the rest for a path on this disk
            raise StorageError(f"{url} names no place in the object store: write one such as s3://bucket/folder.")
        self._options = options
        self._opened: tuple[int, Any, str] | None = None

    def _files(self) -> tuple[Any, str]:
        """Return the file system and the path of the folder there. A forked process opens its own file system."""
        if self._opened is None or self._opened[0] != os.getpid():
            core = require("fsspec", extra="object-store")
            try:
                files, path = core.core.url_to_fs(self._address, skip_instance_cache=True, **self._options)
            except Exception as error:  # each kind of store has errors of its own; an ImportError names the package to install
                if isinstance(error, ImportError) and self.url.startswith("s3://"):
                    raise MissingExtraError("s3fs", "object-store") from error
                raise StorageError(f"Cannot open {self.url}: {self._told(error)}") from error
            self._opened = os.getpid(), files, path
        return self._opened[1], self._opened[2]

    def _asked(self, name: str, ask: Callable[[Any, str], _T]) -> _T:
        files, folder = self._files()
        try:
            return ask(files, f"{folder}/{name}")
        except FileNotFoundError:
            raise
        except Exception as error:  # each kind of store has errors of its own
            raise StorageError(f"Cannot reach {self.url}/{name}: {type(error).__name__}: {self._told(error)}") from error

    def _told(self, error: Exception) -> str:
        return redact(str(error), self._address)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: There is no such file.
            StorageError: The store cannot be reached, or refuses.
        """
        return self._asked(name, lambda files, path: bytes(files.cat_file(path)))

    def find(self, name: str) -> bytes | None:
        """Return the content of a file; None where there is no such file."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file.

        Raises:
            StorageError: The store cannot be reached, or refuses.
        """
        self._put(name, lambda files, path: files.pipe_file(path, data))

    def download(self, name: str, path: Path) -> None:
        """Copy a file of the store to this machine, piece by piece.

        Raises:
            StorageError: There is no such file, the store cannot be reached, or the copy cannot be written.
        """
        try:
            self._asked(name, lambda files, remote: files.get_file(remote, str(path)))
        except FileNotFoundError as error:
            raise StorageError(f"{self.url}/{name} is missing: publish the model again.") from error

    def upload(self, name: str, path: Path) -> None:
        """Copy a file of this machine into the store, piece by piece.

        Raises:
            StorageError: The file cannot be read, or the store cannot be reached, or refuses.
        """
        self._put(name, lambda files, remote: files.put_file(str(path), remote))

    def _put(self, name: str, put: Callable[[Any, str], None]) -> None:
        def into_folder(files: Any, path: str) -> None:
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            put(files, path)

        try:
            self._asked(name, into_folder)
        except FileNotFoundError as error:
            raise StorageError(f"Cannot write {self.url}/{name}: {self._told(error)}") from error

    def names(self, folder: str) -> list[str]:
        """Return the names of what lies in a folder below the URL; none where there is no such folder.

        Raises:
            StorageError: The store cannot be reached, or refuses.
        """

        def names(files: Any, path: str) -> list[str]:
            return [str(one).rpartition("/")[2] for one in files.ls(path.rstrip("/"), detail=False, refresh=True)]

        try:
            return self._asked(folder, names)
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        """Delete a file.

        Raises:
            StorageError: The store cannot be reached, or refuses.
        """
        with contextlib.suppress(FileNotFoundError):
            self._asked(name, lambda files, path: files.rm_file(path))
