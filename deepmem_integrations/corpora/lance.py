"""`LanceCorpus`, which reads documents and their vectors from a Lance data set, on disk or in an object store."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deepmem_integrations._extras import require
from deepmem_integrations._files import lasting_path
from deepmem_integrations._redaction import redacted
from deepmem_integrations.corpora.arrow import ArrowCorpus, ArrowShard, Columns, reading
from deepmem_integrations.corpora.shards import shard_rows
from deepmem_integrations.errors import StoreError


class LanceCorpus(ArrowCorpus):
    """The documents of a Lance data set: a column of ids, a column of vectors, and, for words, a column of texts.

    The data set is read in shards of rows, on this machine or on a cluster, at the version that it has when a training begins:
    see `DeepMemory.train`. A training gives the model that it gives over an array of the same vectors. The vectors are compared
    by cosine similarity.

    Args:
        path: The data set, a folder or a URL such as ``s3://bucket/pages.lance``. A table of LanceDB is one as well.
        id: The column of ids, texts or whole numbers.
        vector: The column of vectors: lists of numbers, all of one length.
        text: The column of texts; where there is none, no words can be indexed. All further columns are metadata.
        version: The number or the tag of a version; by default the newest one at any time.
        storage_options: Lance's options for the object store, such as ``{"aws_access_key_id": …, "aws_secret_access_key": …}``.
            By default, the environment of the machine that reads tells the credentials.

    Raises:
        MissingExtraError: pylance, the package of Lance, is not installed.

    Example:
        >>> import lance, pyarrow
        >>> path = getfixture("tmp_path") / "pages.lance"
        >>> table = pyarrow.table({"id": ["page-1"], "vector": [[3.0, 4.0]], "text": ["How to install"], "lang": ["en"]})
        >>> _ = lance.write_dataset(table, path)
        >>> corpus = LanceCorpus(path)
        >>> len(corpus), corpus.dimension
        (1, 2)
        >>> [(document.id, document.text, document.metadata) for batch in corpus.documents() for document in batch]
        [('page-1', 'How to install', {'lang': 'en'})]
    """

    kind = "lance"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        id: str = "id",
        vector: str = "vector",
        text: str = "text",
        version: int | str | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        require("lance", extra="lance")
        self.path = lasting_path(path)
        self.version = version
        super().__init__(Columns(id, vector, text))
        self._options = dict(storage_options or {})

    def shards(self) -> Sequence["LanceShard"]:
        """Return the shards, in the order of the data set.

        Raises:
            StoreError: The data set cannot be read or lacks a column.
        """
        with reading(self.path):
            data_set = _opened(self.path, self._options, self.version)
            self.columns.check(redacted(self.path), data_set.schema)
            version, files, count = int(data_set.version), _files_of(data_set), data_set.count_rows()
        whole = LanceShard(self.path, self._options, self.columns, 0, count, version, files)
        dimension = whole.dimension() if count else None
        if dimension is None:
            return []
        cuts = shard_rows(count, dimension)
        shared = (self.path, self._options, self.columns)
        return [LanceShard(*shared, cut.start, cut.stop - cut.start, version, files) for cut in cuts]

    def in_shards(self) -> "LanceCorpus":
        """Return the corpus at the version that the data set has now.

        Raises:
            StoreError: The data set cannot be read.
        """
        with reading(self.path):
            version = int(_opened(self.path, self._options, self.version).version)
        return LanceCorpus(**{**self.to_json(), "version": version})

    def fingerprint(self) -> str:
        """Return the version of the data set and a fingerprint of its files' names.

        Raises:
            StoreError: The data set cannot be read.
        """
        with reading(self.path):
            data_set = _opened(self.path, self._options, self.version)
            return f"{_files_of(data_set)} {data_set.version}"

    def to_json(self) -> dict[str, Any]:
        """Return the arguments, for another process."""
        return {"path": self.path, **asdict(self.columns), "version": self.version, "storage_options": self._options}

    def __repr__(self) -> str:
        """Name the data set, without the options."""
        return f"LanceCorpus({redacted(self.path)!r})"


@dataclass(frozen=True)
class LanceShard(ArrowShard):
    """Some rows of a Lance data set at one version.

    Attributes:
        version: The version.
        files: A fingerprint of the version's files, by which another data set at the same path is told.
    """

    version: int
    files: str

    def read(self, columns: list[str] | None, rows: int) -> Iterator[Any]:
        """Yield record batches of at most so many rows, of exactly so many but the last where vectors are among the columns."""
        with reading(self.url):
            data_set = _opened(self.url, self.options, self.version)
            if _files_of(data_set) != self.files:
                raise StoreError(f"The Lance data set {self.place} was deleted and made again while it was read: start anew.")
            there = data_set.schema.names
            if columns is None:
                columns = [name for name in there if name != self.columns.vector]
            self.columns.check_names(self.place, there, columns)
            if self.columns.vector not in columns:
                yield from self._scan(data_set, columns, 0, self.count, rows).to_batches()
                return
            for start in range(0, self.count, rows):  # a scan ends a batch where a file ends, and reads many batches ahead
                scan = self._scan(data_set, columns, start, min(rows, self.count - start), rows)
                yield from scan.to_table().combine_chunks().to_batches()

    def _scan(self, data_set: Any, columns: list[str], start: int, count: int, rows: int) -> Any:
        place = {"offset": self.first + start, "limit": count, "batch_size": rows, "scan_in_order": True}
        return data_set.scanner(columns=columns, **place)


def _opened(path: str, options: dict[str, Any], version: int | str | None) -> Any:
    try:
        return require("lance", extra="lance").dataset(path, version=version, storage_options=options or None)
    except ValueError as error:
        if str(error).startswith("Dataset at path"):  # was not found, says lance, with places in its own source
            raise StoreError(f"Cannot read {redacted(path)}: there is no Lance data set.") from error
        raise


def _files_of(data_set: Any) -> str:
    """Return a fingerprint of the names of a version's files, which are random."""
    names = (file.path for fragment in data_set.get_fragments() for file in fragment.data_files())
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
