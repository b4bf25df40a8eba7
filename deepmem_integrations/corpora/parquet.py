"""`ParquetCorpus`, which reads documents and their vectors from Parquet files, on disk or in an object store."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from deepmem_integrations._extras import require
from deepmem_integrations._files import lasting_path
from deepmem_integrations._redaction import redacted
from deepmem_integrations.corpora.arrow import ArrowCorpus, ArrowShard, Columns, reading
from deepmem_integrations.errors import MissingExtraError, StoreError

SHARD_ROWS = 100_000
"""How many rows a shard has at least, where its file has so many; row groups are never cut."""
_BUFFER = 1 << 22
"""How many bytes of a column are read at once: a large row group is never held as a whole."""
_ENDINGS = (".parquet", ".parq", ".pq")
_MAGIC = b"PAR1"
_SMALLEST = 12
"""How many bytes a Parquet file has at least."""
_FILES_TOGETHER = 16
"""How many files' footers are read at once."""


class ParquetCorpus(ArrowCorpus):
    """The documents of Parquet files: a column of ids, a column of vectors, and, for words, a column of texts.

    The files are read in shards of some row groups each, on this machine or on a cluster: see `DeepMemory.train`. The vectors are
    compared by cosine similarity.

    Args:
        path: A file, a folder, or a pattern with ``*``, or several of them: on disk, or a URL that fsspec reads, such as
            ``s3://bucket/pages``. Files come in the order of their names. In a folder, what begins with ``.`` or ``_`` is left
            out, which is how Spark and Delta Lake name what is no data, and so are linked folders and files of other kinds.
        id: The column of ids, texts or whole numbers.
        vector: The column of vectors: lists of numbers, all of one length.
        text: The column of texts; where there is none, no words can be indexed. All further columns are metadata.
        storage_options: The options of fsspec's file system, such as ``{"key": …, "secret": …}``. By default, the environment and
            the configuration of the machine that reads tell the credentials.

    Raises:
        MissingExtraError: pyarrow or fsspec is not installed, or fsspec's package for this kind of URL.

    Example:
        >>> import pyarrow, pyarrow.parquet
        >>> path = getfixture("tmp_path") / "pages.parquet"
        >>> table = pyarrow.table({"id": ["page-1"], "vector": [[3.0, 4.0]], "text": ["How to install"], "lang": ["en"]})
        >>> pyarrow.parquet.write_table(table, path)
        >>> corpus = ParquetCorpus(path)
        >>> len(corpus), corpus.dimension
        (1, 2)
        >>> [(document.id, document.text, document.metadata) for batch in corpus.documents() for document in batch]
        [('page-1', 'How to install', {'lang': 'en'})]
    """

    kind = "parquet"

    def __init__(
        self,
        path: Any,
        *,
        id: str = "id",
        vector: str = "vector",
        text: str = "text",
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        require("pyarrow.parquet", extra="parquet")
        require("fsspec", extra="parquet")
        self.paths = [lasting_path(one) for one in (path if isinstance(path, list | tuple) else [path])]
        super().__init__(Columns(id, vector, text))
        self._options = dict(storage_options or {})

    def shards(self) -> Sequence["ParquetShard"]:
        """Return the shards, in the order of the files' names and of their rows.

        Raises:
            StoreError: There is no file, or a file cannot be read or lacks a column.
        """
        files = self._files()
        with ThreadPoolExecutor(_FILES_TOGETHER) as pool:
            footers = pool.map(lambda url: _footer(url, self._options, self.columns), files)
            shards: list[ParquetShard] = []
            first = 0
            for url, (state, counts) in zip(files, footers, strict=True):
                start = 0
                while start < len(counts):
                    stop = start + 1
                    while stop < len(counts) and sum(counts[start:stop]) < SHARD_ROWS:
                        stop += 1
                    count = sum(counts[start:stop])
                    if count:
                        group = tuple(range(start, stop))
                        shards.append(ParquetShard(url, self._options, self.columns, first, count, group, state))
                    first, start = first + count, stop
        return shards

    def fingerprint(self) -> str:
        """Return a fingerprint of the names, sizes and times of the files.

        Raises:
            StoreError: There is no file, or the files cannot be read.
        """
        files = self._files()
        with ThreadPoolExecutor(_FILES_TOGETHER) as pool:
            states = list(pool.map(lambda url: _state(url, self._options), files))
        return hashlib.sha256(json.dumps([*zip(files, states, strict=True)]).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return the arguments, for another process."""
        return {"path": self.paths, **asdict(self.columns), "storage_options": self._options}

    def _files(self) -> list[str]:
        found: list[str] = []
        for path in self.paths:
            with reading(path):
                files, place = _file_system(path, self._options)
                files.invalidate_cache()
                if any(sign in place for sign in "*?[") and not files.exists(place):
                    names = files.glob(place)
                elif files.isdir(place):
                    names = _data_files(files, place)
                else:
                    names = [place]
                found += [files.unstrip_protocol(name) for name in sorted(names)]
        if not found:
            raise StoreError(f"There is no Parquet file in {', '.join(map(redacted, self.paths))}.")
        return found

    def __repr__(self) -> str:
        """Name the files, without the options."""
        return f"ParquetCorpus({', '.join(repr(redacted(path)) for path in self.paths)})"


@dataclass(frozen=True)
class ParquetShard(ArrowShard):
    """Some row groups of a Parquet file.

    Attributes:
        groups: The numbers of the row groups, which follow one another.
        state: What file systems said of the file when the shards were cut, by which another one in its place is told.
    """

    groups: tuple[int, ...]
    state: tuple[str, ...]

    def read(self, columns: list[str] | None, rows: int) -> Iterator[Any]:
        """Yield pyarrow's record batches of at most so many rows; without columns, of all but the vectors."""
        with _opened(self.url, self.options) as file:
            self._check_state()
            there = file.schema_arrow.names
            if columns is None:
                columns = [name for name in there if name != self.columns.vector]
            self.columns.check_names(self.place, there, columns)
            yield from file.iter_batches(rows, row_groups=list(self.groups), columns=columns, use_threads=False)
        self._check_state()

    def _check_state(self) -> None:
        if _state(self.url, self.options) != self.state:
            raise StoreError(
                f"The file {self.place} was written while it was read: start anew. Where several machines read, all must "
                "see the same file."
            )


def _data_files(files: Any, folder: str) -> list[str]:
    """Return the files of a folder that hold documents. Hive and Athena give theirs names without an ending."""
    found: list[str] = []
    unsure: list[str] = []
    for name, known in files.find(folder, detail=True).items():
        ending = PurePosixPath(name).suffix.lower()
        if any(part.startswith((".", "_")) for part in name.removeprefix(folder).split("/")):
            continue
        if ending in _ENDINGS:
            found.append(name)
        elif not ending and (known.get("type") == "file" or known.get("islink")) and (known.get("size") or 0) >= _SMALLEST:
            unsure.append(name)

    def is_parquet(name: str) -> bool:
        try:
            return bool(files.cat_file(name, start=0, end=len(_MAGIC)) == _MAGIC)
        except OSError:  # a link to nothing, for one
            return False

    with ThreadPoolExecutor(_FILES_TOGETHER) as pool:
        found += [name for name, is_data in zip(unsure, pool.map(is_parquet, unsure), strict=True) if is_data]
    return found


def _footer(url: str, options: Mapping[str, Any], columns: Columns) -> tuple[tuple[str, ...], list[int]]:
    """Return the state of a file, and the numbers of rows of its row groups."""
    state = _state(url, options)
    with _opened(url, options) as file:
        columns.check(redacted(url), file.schema_arrow)
        return state, [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]


def _state(url: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what file systems say of a file that changes with it."""
    with reading(url):
        files, place = _file_system(url, options)
        files.invalidate_cache()
        known = files.info(place)
    names = ("size", "mtime", "LastModified", "Last-Modified", "last_modified", "updated", "ETag", "etag", "Content-MD5")
    state = {name: known[name] for name in names if known.get(name) is not None}
    return tuple(str(value) for value in (state if len(state) > 1 else {**state, "created": known.get("created")}).values())


def _file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        files, place = require("fsspec.core", extra="parquet").url_to_fs(url, **options)
    except ImportError as error:  # fsspec knows the kind of URL, and lacks the package for it
        raise MissingExtraError(error.name or "s3fs", "object-store") from error
    return files, str(place)


@contextlib.contextmanager
def _opened(url: str, options: Mapping[str, Any]) -> Iterator[Any]:
    """Open a file, with pages read as they are needed."""
    with reading(url):
        files, place = _file_system(url, options)
        with files.open(place, "rb", cache_type="none") as file:
            yield require("pyarrow.parquet", extra="parquet").ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
