"""What corpora of Arrow record batches share: `ParquetCorpus` and `LanceCorpus`."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._extras import require
from deepmem_integrations._redaction import redact, redacted
from deepmem_integrations._vectors import blocks
from deepmem_integrations.corpora.corpus import Batch
from deepmem_integrations.corpora.shards import ShardedCorpus
from deepmem_integrations.deeplake import StoredDocument
from deepmem_integrations.errors import DeepMemoryError, InvalidVectorsError, StoreError

ROWS = 10_000
"""How many rows are read at once where vectors are not among the columns."""


@dataclass(frozen=True)
class Columns:
    """The names of the columns."""

    id: str
    vector: str
    text: str

    def check(self, place: str, schema: Any) -> None:
        """Check that the columns of ids and of vectors are there.

        Args:
            place: What has the columns, for error messages.
            schema: The Arrow schema.

        Raises:
            StoreError: A column is missing, or the ids are neither texts nor whole numbers.
        """
        self.check_names(place, schema.names, [self.id, self.vector])
        types = require("pyarrow.types", extra="parquet")
        kind = schema.field(self.id).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
            raise StoreError(f"The column {self.id!r} of {place} holds {kind}, where ids are texts or whole numbers.")

    def check_names(self, place: str, there: list[str], needed: list[str]) -> None:
        """Check that columns are there.

        Raises:
            StoreError: A column is missing.
        """
        if missing := [name for name in needed if name not in there]:
            raise StoreError(
                f"{place} has no column {missing[0]!r}. Its columns are {', '.join(map(repr, there))}: say which are meant, with "
                "id=…, vector=… and text=…."
            )


@dataclass(frozen=True)
class ArrowShard(ABC):
    """Some rows that are read as Arrow record batches.

    Attributes:
        url: Where the rows lie.
        options: The options by which that is opened.
        columns: The names of the columns.
        first: The number of the first document in the corpus.
        count: How many documents the shard has.
    """

    url: str
    options: dict[str, Any] = field(repr=False)  # there may be keys in it
    columns: Columns
    first: int
    count: int

    @property
    def place(self) -> str:
        """Where the rows lie, for messages."""
        return redacted(self.url)

    @abstractmethod
    def read(self, columns: list[str] | None, rows: int) -> Iterator[Any]:
        """Yield Arrow record batches of at most so many rows; without columns, of all but the vectors.

        Raises:
            StoreError: The rows cannot be read, or a column is missing.
        """

    def batches(self) -> Iterator[Batch]:
        """Yield (ids, (n, d) vectors) batches of at most about 32 MB.

        Raises:
            StoreError: The rows cannot be read, or a document has no id.
            InvalidVectorsError: A vector is missing or has another length than the others.
        """
        if (dimension := self.dimension()) is not None:
            yield from self.read_vectors(next(blocks(self.count, dimension)).stop)

    def dimension(self) -> int | None:
        """Return the length of the first vector; None where there is none."""
        for _, matrix in self.read_vectors(rows=1):
            return int(matrix.shape[1])
        return None

    def read_vectors(self, rows: int) -> Iterator[tuple[list[str], NDArray[Any]]]:
        """Yield (ids, (n, d) vectors) batches of at most so many rows."""
        number = self.first
        for batch in self.read([self.columns.id, self.columns.vector], rows):
            ids = self.ids_of(batch)
            yield ids, self._matrix(batch.column(batch.schema.get_field_index(self.columns.vector)), ids, number)
            number += len(ids)

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (ids, texts) batches."""
        for batch in self.read([self.columns.id, self.columns.text], ROWS):
            ids = self.ids_of(batch)
            texts = batch.column(batch.schema.get_field_index(self.columns.text)).to_pylist()
            for name, text in zip(ids, texts, strict=True):
                if not isinstance(text, str | None):
                    raise StoreError(f"The document {name!r} in {self.place} has no text in the column {self.columns.text!r}.")
            yield ids, [text or "" for text in texts]  # a picture, for one, has none

    def ids_of(self, batch: Any) -> list[str]:
        """Return the ids of a record batch."""
        column = batch.column(batch.schema.get_field_index(self.columns.id))
        if column.null_count:
            raise StoreError(f"A document in {self.place} has no id in the column {self.columns.id!r}.")
        return [str(name) for name in column.to_pylist()]

    def _matrix(self, column: Any, ids: list[str], first: int) -> NDArray[Any]:
        """Return the vectors of a column, (n, d)."""
        pyarrow, compute = require("pyarrow", extra="parquet"), require("pyarrow.compute", extra="parquet")
        column = getattr(column, "storage", column)  # of a tensor
        kind = column.type
        if not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)):
            raise StoreError(f"The column {self.columns.vector!r} of {self.place} holds {kind}; lists of numbers are needed.")
        lengths = compute.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        values = column.flatten()
        if (lengths != lengths[0]).any() or lengths[0] <= 0 or values.null_count:
            missing = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
            if len(missing):  # the row in which the first missing number lies, however long the rows are
                row = int(np.searchsorted(np.cumsum(np.maximum(lengths, 0)), missing[0], side="right"))
            else:
                row = int(np.flatnonzero((lengths != lengths[0]) | (lengths <= 0))[0])
            what = f"{lengths[row]} numbers where others have {lengths[0]}" if lengths[row] >= 0 else "no vector"
            what = "a number that is missing in its batch" if values.null_count else what
            raise InvalidVectorsError(
                f"Corpus vector {first + row} (id {ids[row]!r}) in {self.place}: column {self.columns.vector!r} has {what}."
            )
        matrix: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(len(ids), -1)
        return matrix


class ArrowCorpus(ShardedCorpus):
    """Documents whose ids, vectors and texts are columns. A subclass cuts the shards and says where they lie.

    Args:
        columns: The names of the columns.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    @abstractmethod
    def shards(self) -> Sequence[ArrowShard]:
        """Return the shards (see `ShardedCorpus.shards`)."""

    @property
    def dimension(self) -> int:
        """The dimension of the vectors, from the first row.

        Raises:
            StoreError: There is no document, or it cannot be read.
        """
        for shard in self.shards()[:1]:
            if (dimension := shard.dimension()) is not None:
                return dimension
        raise StoreError(f"{self!r} has no documents.")

    def known(self, ids: Collection[str]) -> set[str]:
        """Return those of the given ids that are there. The column of ids alone is read.

        Raises:
            StoreError: The documents cannot be read.
        """
        pyarrow, compute = require("pyarrow", extra="parquet"), require("pyarrow.compute", extra="parquet")
        wanted = pyarrow.array(sorted(ids), pyarrow.string())
        found: set[str] = set()
        for shard in self.shards():
            for batch in shard.read([self.columns.id], ROWS):
                column = batch.column(0).cast(pyarrow.string())
                found.update(column.filter(compute.is_in(column, value_set=wanted)).to_pylist())
        return found

    def documents(self) -> Iterator[Sequence[StoredDocument]]:
        """Yield batches of all documents, without their vectors.

        Raises:
            StoreError: The documents cannot be read, or a document has no id.
        """
        names = self.columns
        for shard in self.shards():
            for batch in shard.read(None, ROWS):
                rows, ids = batch.to_pylist(), shard.ids_of(batch)
                texts = [row.pop(names.text, None) or "" for row in rows]
                for row in rows:
                    row.pop(names.id, None)
                yield [StoredDocument(name, text, row) for name, text, row in zip(ids, texts, rows, strict=True)]

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (ids, texts) batches of all documents, for a word index.

        Raises:
            StoreError: There is no column of texts, or a document has no id. A null is an empty text.
        """
        for shard in self.shards():
            yield from shard.texts()


@contextlib.contextmanager
def reading(url: str) -> Iterator[None]:
    """Turn the errors of pyarrow, of Lance and of file systems into a StoreError."""
    try:
        yield
    except (DeepMemoryError, GeneratorExit):
        raise
    except Exception as error:
        raise StoreError(f"Cannot read {redacted(url)}: {type(error).__name__}: {redact(str(error), url)}") from error
