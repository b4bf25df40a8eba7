"""``index.json``: the state of a word index, which is replaced atomically."""

import json
import mmap
import os
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from deepmem_integrations._files import MOST_STATE, is_plain_name, open_regular, parse_json, write_text
from deepmem_integrations.errors import StorageError
from deepmem_integrations.words.arrays import damaged

FORMAT = "deepmem-words"
FORMAT_VERSION = 1

INDEX = "index.json"
"""The name of the file."""


@dataclass(frozen=True)
class Stamp:
    """Which file a manifest was read from.

    Attributes:
        identity: Inode, time of the last change, and size.
        held: A map of the file. While it exists, no other file gets the inode, so that another file has another identity, however
            fast files follow one another.
    """

    identity: tuple[int, int, int]
    held: mmap.mmap | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Manifest:
    """What ``index.json`` holds.

    Attributes:
        generation: A number that grows with every change.
        language: ISO 639-1 code, or None.
        analysis: The signature of the `Analysis`.
        k1: BM25's k1.
        b: BM25's b.
        documents: The number of documents.
        length: How many terms the documents have in all.
        fingerprint: See `WordIndex.fingerprint`.
        segments: For each segment ``name``, ``bytes``, ``sha256``, and ``deleted``: None, or the same of the file of its deleted
            rows.
    """

    generation: int
    language: str | None
    analysis: str
    k1: float
    b: float
    documents: int
    length: int
    fingerprint: str
    segments: list[dict[str, Any]]

    @staticmethod
    def read(path: Path) -> tuple["Manifest", Stamp]:
        """Read a manifest, and the stamp of its file."""
        try:
            with open_regular(path) as file:
                data = file.read(MOST_STATE)
                # Windows does not replace files that are mapped.
                held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if data and os.name == "posix" else None
                stamp = Stamp(identity_of(os.fstat(file.fileno())), held)
        except (FileNotFoundError, NotADirectoryError):
            raise StorageError(
                f"There is no word index in {path.parent}. "
                f"Build one from the documents: WordIndex.build({str(path.parent)!r}, …)."
            ) from None
        except OSError as error:
            raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
        try:
            values = parse_json(data)
            if values.pop("format") != FORMAT:
                raise ValueError("the file is no word index")
            version = values.pop("version")
            if isinstance(version, int) and version > FORMAT_VERSION:
                raise StorageError(
                    f"The word index in {path.parent} was written in format {version}, newer than this package knows "
                    f"({FORMAT_VERSION}). Upgrade deepmem-integrations, or build the index again."
                )
            checksum = values.pop("checksum")
            if checksum != _json_checksum(values):
                raise ValueError("its checksum does not match")
            found = Manifest(**values)
            for entry in found.segments:
                for listed in (entry, entry["deleted"]):
                    if listed is not None and not is_plain_name(listed["name"]):
                        raise ValueError(f"{listed['name']!r} is no name of a file")
            return found, stamp
        except StorageError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise damaged(path, str(error) or repr(error)) from error

    def write(self, path: Path) -> None:
        """Replace the manifest atomically."""
        values = dict(vars(self))
        envelope = {"format": FORMAT, "version": FORMAT_VERSION, "checksum": _json_checksum(values), **values}
        write_text(path, json.dumps(envelope, indent=1))


def _json_checksum(values: dict[str, Any]) -> str:
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def identity_of(status: os.stat_result) -> tuple[int, int, int]:
    """Return the identity of a file, see `Stamp`."""
    return status.st_ino, status.st_mtime_ns, status.st_size
