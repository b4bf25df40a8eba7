"""`ParquetCorpus`, which reads documents and their vectors from Parquet files, on disk or in an object store."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._extras import require
from deepmem_integrations._vectors import blocks
from deepmem_integrations.corpora.corpus import Batch
from deepmem_integrations.corpora.shards import ShardedCorpus
from deepmem_integrations.deeplake import StoredDocument
from deepmem_integrations.errors import DeepMemoryError, InvalidVectorsError, MissingExtraError, StoreError

SHARD_ROWS = 100_000
"""How many rows a shard has at least, where its file has so many; row groups are never cut."""
_BUFFER = 1 << 22
"""How many bytes of a column are read at once: a large row group is never held as a whole."""
_FOOTERS_TOGETHER = 16
"""How many files' footers are read at once."""
_ROWS = 10_000
"""How many rows are read at once where vectors are not among the columns."""


class ParquetCorpus(ShardedCorpus):
    """The documents of Parquet files: a column of ids, a column of vectors, and, for words, a column of texts.

    The files are read in shards of some row groups each, on this machine or on a cluster: see `DeepMemory.train`. The vectors are
    compared by cosine similarity.

    Args:
        path: A file, a folder, or a pattern with ``*``, or several of them: on disk, or a URL that fsspec reads, such as
            ``s3://bucket/pages``. Files come in the order of their names. In a folder, what begins with ``.`` or ``_`` is left
            out, which is how Spark and Delta Lake name what is no data.
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
        self.paths = [str(one) for one in (path if isinstance(path, list | tuple) else [path])]
        self._columns = _Columns(id, vector, text)
        self._options = dict(storage_options or {})

    def shards(self) -> Sequence["ParquetShard"]:
        """Return the shards, in the order of the files' names and of their rows.

        Raises:
            StoreError: There is no file, or a file cannot be read or lacks a column.
        """
        files = self._files()
        with ThreadPoolExecutor(_FOOTERS_TOGETHER) as pool:
            groups = pool.map(lambda url: _row_groups(url, self._options, self._columns), files)
            shards: list[ParquetShard] = []
            first = 0
            for url, counts in zip(files, groups, strict=True):
                start = 0
                while start < len(counts):
                    stop = start + 1
                    while stop < len(counts) and sum(counts[start:stop]) < SHARD_ROWS:
                        stop += 1
                    count = sum(counts[start:stop])
                    if count:
                        group = tuple(range(start, stop))
                        shards.append(ParquetShard(url, self._options, self._columns, group, first, count))
                    first, start = first + count, stop
        return shards

    @property
    def dimension(self) -> int:
        """The dimension of the vectors, from the first row.

        Raises:
            StoreError: There is no document, or the files cannot be read.
        """
        for shard in self.shards()[:1]:
            for _, matrix in shard.read_vectors(rows=1):
                return int(matrix.shape[1])
        raise StoreError(f"{', '.join(self.paths)} has no documents.")

    def known(self, ids: Collection[str]) -> set[str]:
        """Return those of the given ids that the files have. The column of ids alone is read.

        Raises:
            StoreError: The files cannot be read.
        """
        pyarrow, compute = require("pyarrow", extra="parquet"), require("pyarrow.compute", extra="parquet")
        wanted = pyarrow.array(sorted(ids), pyarrow.string())
        found: set[str] = set()
        for shard in self.shards():
            for batch in shard.read([self._columns.id], _ROWS):
                column = batch.column(0).cast(pyarrow.string())
                found.update(column.filter(compute.is_in(column, value_set=wanted)).to_pylist())
        return found

    def documents(self) -> Iterator[Sequence[StoredDocument]]:
        """Yield batches of all documents, without their vectors.

        Raises:
            StoreError: The files cannot be read, or a document has no id.
        """
        names = self._columns
        for shard in self.shards():
            for batch in shard.read(None, _ROWS):
                rows, ids = batch.to_pylist(), shard.ids_of(batch)
                texts = [row.pop(names.text, None) or "" for row in rows]
                for row in rows:
                    row.pop(names.id, None)
                yield [StoredDocument(name, text, row) for name, text, row in zip(ids, texts, rows, strict=True)]

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (ids, texts) batches of all documents, for a word index.

        Raises:
            StoreError: There is no column of texts, or a document has no id or no text.
        """
        for shard in self.shards():
            yield from shard.texts()

    def to_json(self) -> dict[str, Any]:
        """Return the arguments, for another process."""
        columns = {"id": self._columns.id, "vector": self._columns.vector, "text": self._columns.text}
        return {"path": self.paths, **columns, "storage_options": self._options}

    def _files(self) -> list[str]:
        found: list[str] = []
        for path in self.paths:
            with _reading(path):
                files, place = _file_system(path, self._options)
                files.invalidate_cache()
                if any(sign in place for sign in "*?[") and not files.exists(place):
                    names = files.glob(place)
                elif files.isdir(place):
                    names = [name for name in files.find(place) if _is_data(str(name), place)]
                else:
                    names = [place]
                found += [files.unstrip_protocol(name) for name in sorted(names)]
        if not found:
            raise StoreError(f"There is no Parquet file in {', '.join(self.paths)}.")
        return found

    def __repr__(self) -> str:
        """Name the files, without the options."""
        return f"ParquetCorpus({', '.join(map(repr, self.paths))})"


@dataclass(frozen=True)
class _Columns:
    """The names of the columns."""

    id: str
    vector: str
    text: str


@dataclass(frozen=True)
class ParquetShard:
    """Some row groups of a Parquet file.

    Attributes:
        url: The file.
        options: The options of fsspec's file system.
        columns: The names of the columns.
        groups: The numbers of the row groups, which follow one another.
        first: The number of the first document in the corpus.
        count: How many documents the shard has.
    """

    url: str
    options: dict[str, Any]
    columns: _Columns
    groups: tuple[int, ...]
    first: int
    count: int

    def batches(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of at most about 32 MB.

        Raises:
            StoreError: The file cannot be read, or a document has no id.
            InvalidVectorsError: A vector is missing or has another length than the others.
        """
        rows = None
        for _, matrix in self.read_vectors(rows=1):
            rows = next(blocks(self.count, matrix.shape[1])).stop
            break
        if rows is not None:
            yield from self.read_vectors(rows)

    def read_vectors(self, rows: int) -> Iterator[tuple[list[str], NDArray[Any]]]:
        """Yield (ids, (n, d) vectors) batches of at most so many rows."""
        number = self.first
        for batch in self.read([self.columns.id, self.columns.vector], rows):
            ids = self.ids_of(batch)
            yield ids, self._matrix(batch.column(batch.schema.get_field_index(self.columns.vector)), ids, number)
            number += len(ids)

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (ids, texts) batches."""
        for batch in self.read([self.columns.id, self.columns.text], _ROWS):
            ids = self.ids_of(batch)
            texts = batch.column(batch.schema.get_field_index(self.columns.text)).to_pylist()
            for name, text in zip(ids, texts, strict=True):
                if not isinstance(text, str):
                    raise StoreError(f"The document {name!r} in {self.url} has no text in the column {self.columns.text!r}.")
            yield ids, texts

    def read(self, columns: list[str] | None, rows: int) -> Iterator[Any]:
        """Yield pyarrow's record batches of at most so many rows; without columns, of all but the vectors."""
        with _opened(self.url, self.options) as file:
            there = file.schema_arrow.names
            if columns is None:
                columns = [name for name in there if name != self.columns.vector]
            _check_columns(self.url, there, columns)
            yield from file.iter_batches(rows, row_groups=list(self.groups), columns=columns, use_threads=False)

    def ids_of(self, batch: Any) -> list[str]:
        """Return the ids of a record batch."""
        column = batch.column(batch.schema.get_field_index(self.columns.id))
        if column.null_count:
            raise StoreError(f"A document in {self.url} has no id in the column {self.columns.id!r}.")
        return [str(name) for name in column.to_pylist()]

    def _matrix(self, column: Any, ids: list[str], first: int) -> NDArray[Any]:
        """Return the vectors of a column, (n, d)."""
        pyarrow, compute = require("pyarrow", extra="parquet"), require("pyarrow.compute", extra="parquet")
        column = getattr(column, "storage", column)  # of a tensor
        kind = column.type
        if not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)):
            raise StoreError(f"The column {self.columns.vector!r} of {self.url} holds {kind}, where lists of numbers are needed.")
        lengths = compute.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        values = column.flatten()
        if (lengths != lengths[0]).any() or lengths[0] <= 0 or values.null_count:
            row = int(np.flatnonzero((lengths != lengths[0]) | (lengths <= 0))[0]) if not values.null_count else 0
            what = f"{lengths[row]} numbers where others have {lengths[0]}" if lengths[row] >= 0 else "no vector"
            what = "a number that is missing in its batch" if values.null_count else what
            raise InvalidVectorsError(
                f"Corpus vector {first + row} (id {ids[row]!r}) in {self.url}: column {self.columns.vector!r} has {what}."
            )
        matrix: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(len(ids), -1)
        return matrix


def _is_data(name: str, folder: str) -> bool:
    """Tell whether a file of a folder is one of documents."""
    parts = name.removeprefix(folder).split("/")
    return name.endswith(".parquet") and not any(part.startswith((".", "_")) for part in parts)


def _check_columns(url: str, there: list[str], needed: list[str]) -> None:
    if missing := [name for name in needed if name not in there]:
        raise StoreError(
            f"{url} has no column {missing[0]!r}. Its columns are {', '.join(map(repr, there))}: say which are meant, "
            "ParquetCorpus(…, id=…, vector=…, text=…)."
        )


def _row_groups(url: str, options: Mapping[str, Any], columns: _Columns) -> list[int]:
    """Return the numbers of rows of a file's row groups."""
    with _opened(url, options) as file:
        there = file.schema_arrow.names
        _check_columns(url, there, [columns.id, columns.vector])
        types = require("pyarrow.types", extra="parquet")
        kind = file.schema_arrow.field(columns.id).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
            raise StoreError(f"The column {columns.id!r} of {url} holds {kind}, where ids are texts or whole numbers.")
        return [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]


def _file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        files, place = require("fsspec.core", extra="parquet").url_to_fs(url, **options)
    except ImportError as error:  # fsspec knows the kind of URL, and lacks the package for it
        raise MissingExtraError(error.name or "s3fs", "object-store") from error
    return files, str(place)


@contextlib.contextmanager
def _opened(url: str, options: Mapping[str, Any]) -> Iterator[Any]:
    """Open a file, with pages read as they are needed."""
    with _reading(url):
        files, place = _file_system(url, options)
        with files.open(place, "rb", cache_type="none") as file:
            yield require("pyarrow.parquet", extra="parquet").ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)


@contextlib.contextmanager
def _reading(url: str) -> Iterator[None]:
    """Turn the errors of fsspec, of its packages and of pyarrow into a StoreError."""
    try:
        yield
    except (DeepMemoryError, GeneratorExit):
        raise
    except Exception as error:
        raise StoreError(f"Cannot read {url}: {type(error).__name__}: {error}") from error
