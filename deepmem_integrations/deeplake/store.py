"""`DeepLakeStore`: a thin store over a Deep Lake v4 data set, which both frameworks' vector stores use.

Every text that reaches a query is escaped (see `tql`). A lock serialises all calls on a data set, since Deep Lake 4.7 fails when
one thread queries while another appends, and its bound queries deadlock between threads. Metadata comes back as it went in.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from deepmem_integrations._files import lasting_path
from deepmem_integrations._ordered import ordered
from deepmem_integrations._unicode import well_formed
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.deeplake.metadata import EXACT_METADATA, check_survives, decode, encode
from deepmem_integrations.deeplake.package import import_deeplake
from deepmem_integrations.deeplake.patience import patient
from deepmem_integrations.deeplake.tql import Filter, is_in, keys_of, literal, where
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError, StoreError

if TYPE_CHECKING:
    import deeplake

Metric = Literal["cos", "l2"]
"""Cosine similarity, where larger is nearer, or Euclidean distance, where smaller is nearer."""

_SCORE = "deepmem_score"
_ROW = "deepmem_row"
_BATCH = 4_096
"""How many documents are read at a time."""


@dataclass(frozen=True)
class Layout:
    """The names of a data set's columns."""

    id: str
    vector: str
    metadata: str
    text: str


LAYOUTS = (
    Layout(id="ids", vector="embeddings", metadata="metadata", text="documents"),
    Layout(id="id", vector="embedding", metadata="metadata", text="text"),
)
"""The layouts of langchain-deeplake and of llama-index-vector-stores-deeplake. New data sets have the first one."""


@dataclass(frozen=True)
class StoredDocument:
    """A document as a `DeepLakeStore` returns it.

    Attributes:
        id: The id of the document.
        text: The text.
        metadata: The metadata; JSON values come back exactly as they were added.
        vector: (d,) float32, as it was added; None where vectors were not asked for.
        score: The score by which a search ranked the document; None outside of a search.
    """

    id: str
    text: str
    metadata: dict[str, Any]
    vector: Vectors | None = None
    score: float | None = None


class DeepLakeStore:
    """Documents, metadata and vectors in a Deep Lake v4 data set, searched by cosine similarity.

    The data set is opened if it exists, and else created with the first documents. All methods may be called from any thread. A
    pickle of a store holds its path, its token and its credentials.

    Args:
        path: A local folder, ``mem://…``, or ``s3://``, ``gcs://``, ``az://``, ``al://`` with ``creds`` or ``token``.
        read_only: Whether to open without the right to write; the data set must exist.
        version: The version to stay at, whatever others write, as `snapshot` finds it. The store is then read-only.
        overwrite: Whether to delete an existing data set and start empty.
        token: The Activeloop token, for ``al://`` paths.
        creds: The credentials of the cloud storage, e.g. ``{"aws_access_key_id": …, "aws_secret_access_key": …}`` with an
            ``"endpoint_url"``.

    Raises:
        MissingExtraError: ``deeplake`` is not installed.
        StoreError: The path is a ``hub://`` path of v3, the data set has columns in neither of the known layouts, or it cannot be
            opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = DeepLakeStore(f"{folder}/data")
        ...     store.add(["a", "b"], [[1.0, 0.0], [0.0, 1.0]], ["first", "second"], [{"n": 1}, {"n": 2}])
        ...     [(found.id, found.text, found.metadata) for found in store.search([0.1, 0.9], 1)]
        [('b', 'second', {'n': 2})]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        version: str | None = None,
        overwrite: bool = False,
        token: str | None = None,
        creds: Mapping[str, str] | None = None,
    ) -> None:
        self.path = lasting_path(path)
        if token is not None and not isinstance(token, str):
            raise StoreError(f"token is a string; got {type(token).__name__}. An embedding model is passed as embedding=….")
        read_only = read_only or version is not None
        if read_only and overwrite:
            raise StoreError("read_only, or a version, and overwrite exclude each other.")
        if self.path.startswith("hub://"):
            raise StoreError(
                f"{self.path!r} is a Deep Lake v3 path, which version 4 cannot open. "
                "Use al://<organisation>/<name> for Activeloop's cloud, or a local path."
            )
        self.read_only, self.version = read_only, version
        self._deeplake = import_deeplake()
        self._lock = threading.RLock()
        self._access: dict[str, Any] = {"token": token, "creds": dict(creds) if creds else None}
        self._dataset: Any = None
        self.layout = LAYOUTS[0]
        if not self._open(overwrite) and read_only:
            raise StoreError(f"There is no Deep Lake data set at {self.path!r} to open read-only.")

    @patient()
    def _open(self, overwrite: bool = False) -> bool:
        with self._errors("open"):
            if overwrite and self._deeplake.exists(self.path, **self._access):
                self._deeplake.delete(self.path, **self._access)
        return self._open_if_there()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path and the credentials: another process opens the data set itself."""
        options = {"read_only": self.read_only, "version": self.version, **self._access}
        return _reopen, (type(self), self.path, options, self._open())

    def __copy__(self) -> "DeepLakeStore":
        """Return the store itself, so that copies of what holds it see what is written through one another."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "DeepLakeStore":
        """Return the store itself: see `__copy__`."""
        return self

    @patient()
    def __len__(self) -> int:
        """Count the documents."""
        with self._lock:
            return len(self._dataset) if self._open_if_there() else 0

    @property
    def dataset(self) -> "deeplake.Dataset | deeplake.ReadOnlyDataset | None":
        """The Deep Lake data set itself; None before the first document."""
        return self._dataset  # type: ignore[no-any-return]

    @property
    @patient()
    def dimension(self) -> int | None:
        """The length of the vectors; None before the first document."""
        if not self._open_if_there():
            return None
        return int(self._dataset.schema[self.layout.vector].dtype.shape[0])

    def snapshot(self) -> "DeepLakeStore | None":
        """Return a read-only store that stays at the newest commit, which other processes open by its arguments: see `access`.

        Returns:
            The store; None where there is no document yet, or where this process alone has the data set (``mem://``).
        """
        if self.path.startswith("mem://") or not len(self):
            return None
        return DeepLakeStore(self.path, version=self.version or self._newest_version(), **self._access)

    @patient()
    def _newest_version(self) -> str:
        with self._lock, self._errors("open"):
            return str(self._deeplake.open_read_only(self.path, **self._access).version)

    @property
    def access(self) -> dict[str, Any]:
        """The arguments by which another process opens the store: the path, the version, the token and the credentials."""
        return {"path": self.path, "version": self.version, **self._access}

    @patient(writes=True)
    def add(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        texts: Sequence[str] | None = None,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Add documents in one commit. A document replaces one with the same id. If an error is raised, nothing is written.

        Args:
            ids: n non-empty ids. Of documents with the same id, the last one stays.
            vectors: (n, d), any real dtype.
            texts: The n texts; by default all texts are empty.
            metadatas: The n mappings of JSON values; by default all mappings are empty.

        Raises:
            StoreError: The store is read-only, lengths differ, an id is empty or no string, or metadata is not JSON (NaN and
                infinity are not: they would make every later query on metadata fail). Nothing was written.
            InvalidVectorsError: A vector holds NaN or infinity, or is all zeros. Nothing was written.
            EmbeddingMismatchError: The store holds vectors of another dimension. Nothing was written.
        """
        self._must_be_writable()
        ids = ordered(ids, "ids", StoreError)
        if not ids:
            return
        try:
            matrix = np.asarray(vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidVectorsError(f"The vectors are not a matrix of numbers: {error}.") from error
        texts = [""] * len(ids) if texts is None else ordered(texts, "texts", StoreError)
        metadatas = [{}] * len(ids) if metadatas is None else ordered(metadatas, "metadatas", StoreError)
        if not len(ids) == len(matrix) == len(texts) == len(metadatas):
            raise StoreError(
                f"Got {len(ids)} ids, {len(matrix)} vectors, {len(texts)} texts and {len(metadatas)} metadatas; "
                "their numbers must be the same."
            )
        for row, name in enumerate(ids):
            if not isinstance(name, str) or not name or "\0" in name:
                raise StoreError(f"Row {row}: the id {name!r} is not a non-empty string without NUL characters.")
            if not isinstance(texts[row], str):
                raise StoreError(f"The text of document {name!r} is not a string but {type(texts[row]).__name__}.")
            try:
                f"{name}{texts[row]}".encode()
            except UnicodeEncodeError as error:
                raise StoreError(f"The id or the text of document {name!r} is no valid Unicode: {error}.") from error
        unit_rows(matrix, "vector", ids=ids)
        encoded = [encode(metadata, name) for name, metadata in zip(ids, metadatas, strict=True)]
        last = list({name: row for row, name in enumerate(ids)}.values())

        with self._lock, self._errors("write"):
            created = not self._open_if_there()
            if created:
                self._dataset = self._create(matrix.shape[1])
            if matrix.shape[1] != self.dimension:
                raise EmbeddingMismatchError(
                    f"The store {self.path!r} holds vectors of {self.dimension} dimensions; got {matrix.shape[1]}."
                )
            columns: dict[str, Any] = {
                self.layout.id: [ids[row] for row in last],
                self.layout.vector: matrix[last],
                self.layout.text: [texts[row] for row in last],
                self.layout.metadata: [json.loads(encoded[row]) for row in last],
                EXACT_METADATA: [encoded[row] for row in last],
            }
            present = self._columns()
            unknown = present - columns.keys()
            if unknown:
                raise StoreError(f"The data set has columns this store cannot fill: {sorted(unknown)}.")
            if EXACT_METADATA not in present:
                check_survives(columns[self.layout.id], columns[self.layout.metadata])
            with self._all_or_nothing(created):
                replaced = self._rows_of(columns[self.layout.id])
                self._dataset.append({name: values for name, values in columns.items() if name in present})
                self._delete_rows(replaced)

    def get(self, ids: Sequence[str], *, with_vectors: bool = False, filter: Filter | None = None) -> list[StoredDocument]:
        """Return the documents with these ids, in this order; unknown ids are left out.

        Args:
            ids: The ids.
            with_vectors: Whether to return the documents' vectors as well.
            filter: Metadata that the documents must have.
        """
        ids = _id_list(ids)
        if not ids or not self._open():
            return []
        clause = self.where(filter, is_in(self.layout.id, ids))
        found = {document.id: document for document in self._select(clause, with_vectors)}
        return [found[name] for name in dict.fromkeys(ids) if name in found]

    def find(self, filter: Filter | None = None, *, limit: int | None = None) -> list[StoredDocument]:
        """Return the documents whose metadata passes the filter, in the order of the data set."""
        return self._select(f"{self.where(filter)} {'' if limit is None else f'LIMIT {int(limit)}'}", False)

    @patient(writes=True)
    def delete(self, ids: Sequence[str]) -> int:
        """Delete the documents with these ids in one commit. Unknown ids are ignored.

        Returns:
            How many documents were deleted.
        """
        self._must_be_writable()
        with self._lock, self._errors("write"):
            rows = self._rows_of(_id_list(ids)) if self._open_if_there() else []
            if rows:
                with self._all_or_nothing():
                    self._delete_rows(rows)
            return len(rows)

    @patient(writes=True)
    def clear(self) -> None:
        """Delete the data set with its whole folder. The next `add` creates a new one, of any dimension."""
        self._must_be_writable()
        with self._lock, self._errors("delete"):
            if self._open_if_there():
                self._deeplake.delete(self.path, **self._access)
            self._dataset = None
            self.layout = LAYOUTS[0]

    def search(
        self,
        vector: ArrayLike,
        k: int = 10,
        *,
        filter: Filter | None = None,
        with_vectors: bool = False,
        metric: Metric = "cos",
    ) -> list[StoredDocument]:
        """Find the k documents nearest to a vector, best first.

        Args:
            vector: (d,), of any length but 0.
            k: How many documents to find, at least 1.
            filter: Metadata that the documents must have.
            with_vectors: Whether to return the documents' vectors as well.
            metric: The metric to rank by. Scores are cosine similarities, or Euclidean distances.

        Raises:
            InvalidVectorsError: The vector holds NaN or infinity, or is all zeros.
            EmbeddingMismatchError: The store holds vectors of another dimension.
        """
        _check_k(k)
        given = np.asarray(vector, dtype=np.float32)
        unit = unit_rows(given[None], "query vector", dimension=self.dimension)[0]
        array = f"ARRAY[{','.join(map(repr, (unit if metric == 'cos' else given).tolist()))}]"
        column = self.layout.vector
        nearest = f"COSINE_SIMILARITY({column}, {array})" if metric == "cos" else f"L2_NORM({column} - {array})"
        order = f"ORDER BY {nearest} {'DESC' if metric == 'cos' else 'ASC'} LIMIT {int(k)}"
        return self._select(f"{self.where(filter)} {order}", with_vectors, f", {nearest} AS {_SCORE}")

    def hybrid_search(
        self,
        text: str,
        vector: ArrayLike,
        k: int = 10,
        *,
        fetch_k: int = 50,
        filter: Filter | None = None,
        alpha: float = 0.5,
    ) -> list[StoredDocument]:
        """Find the k best documents of two rankings: by cosine similarity, and by BM25 over the texts.

        The two scores have no common scale, so the ranks are fused: a document's score is the sum of 1 / (60 + rank) over the
        rankings that have the document (reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009).

        Args:
            text: The words to look for.
            vector: (d,), of any length but 0.
            k: How many documents to find, at least 1.
            fetch_k: How many documents of each ranking take part, at least k.
            filter: Metadata that the documents must have.
            alpha: The weight of the vectors' ranking, from 0 (the words alone) to 1 (the vectors alone).

        Raises:
            StoreError: The data set has no text index, which `create_text_index` creates.
        """
        _check_k(k)
        if not 0 <= alpha <= 1:
            raise StoreError(f"alpha lies between 0 (words) and 1 (vectors); got {alpha!r}.")
        fetch_k = max(k, fetch_k)
        words = f"BM25_SIMILARITY({self.layout.text}, {literal(well_formed(text))})"
        rankings = (
            self.search(vector, fetch_k, filter=filter),
            self._select(f"{self.where(filter)} ORDER BY {words} DESC LIMIT {fetch_k}", False),
        )
        scores: dict[str, float] = {}
        documents: dict[str, StoredDocument] = {}
        for ranking, weight in zip(rankings, (2 * alpha, 2 - 2 * alpha), strict=True):
            for rank, document in enumerate(ranking if weight else [], start=1):
                scores[document.id] = scores.get(document.id, 0.0) + weight / (60 + rank)
                documents[document.id] = document
        best = sorted(scores, key=lambda name: -scores[name])[:k]
        return [replace(documents[name], score=scores[name]) for name in best]

    @patient(writes=True)
    def create_text_index(self) -> None:
        """Index the texts for `hybrid_search`. Once is enough: texts that are added later are indexed, too.

        Raises:
            StoreError: The store is read-only or has no documents yet.
        """
        self._must_be_writable()
        with self._lock, self._errors("index"):
            if not self._open_if_there():
                raise StoreError(f"There is no data set at {self.path!r} yet: add documents first.")
            types = self._deeplake.types
            with contextlib.suppress(self._deeplake.IndexAlreadyExistsError):
                self._dataset[self.layout.text].create_index(types.TextIndex(types.BM25))
                self._dataset.commit()

    @patient()
    def query(self, tql: str) -> list[StoredDocument]:
        """Find documents with a query in Deep Lake's own language, TQL.

        Args:
            tql: A whole query, ``SELECT * WHERE …``. It must select the columns of ids, texts and metadata.

        Raises:
            StoreError: Deep Lake cannot run the query, or the query does not select one of these columns.
        """
        with self._lock, self._errors("query"):
            if not self._open_if_there():
                return []
            view = self._dataset.query(tql)
            selected = {column.name for column in view.schema.columns}
            metadata = EXACT_METADATA if EXACT_METADATA in selected else self.layout.metadata
            needed = [self.layout.id, self.layout.text, metadata]
            if missing := set(needed) - selected:
                raise StoreError(f"The query does not select {', '.join(sorted(missing))}: start it with SELECT *.")
            columns = [view[name][:] for name in needed] if len(view) else [[], [], []]
        return [StoredDocument(name, text or "", decode(value)) for name, text, value in zip(*columns, strict=True)]

    def ids(self) -> list[str]:
        """Return all ids, in the order of the data set."""
        return [name for batch in self.id_batches() for name in batch]

    def id_batches(self) -> Iterator[list[str]]:
        """Yield batches of all ids, in the order of the data set."""
        for (batch,) in self._scan([self.layout.id]):
            yield list(batch)

    def rows(self, start: int, stop: int) -> tuple[list[str], Vectors]:
        """Return the ids and the vectors of some documents, (stop − start, d) float32, by their place in the data set.

        Args:
            start: The place of the first document.
            stop: The place behind the last one. Others' writes move places, but for a store at a version.
        """
        ids, vectors = self._columns_of(start, stop, self.layout.vector)
        return ids, np.asarray(vectors, dtype=np.float32).reshape(len(ids), -1)

    def row_texts(self, start: int, stop: int) -> tuple[list[str], list[str]]:
        """Return the ids and the texts of some documents, by their place in the data set: see `rows`."""
        ids, texts = self._columns_of(start, stop, self.layout.text)
        return ids, [text or "" for text in texts]

    @patient()
    def _columns_of(self, start: int, stop: int, column: str) -> tuple[list[str], Any]:
        with self._lock, self._errors("read"):
            if start >= stop or not self._open_if_there():
                return [], []
            return list(self._dataset[self.layout.id][start:stop]), self._dataset[column][start:stop]

    def vectors(self) -> Iterator[tuple[list[str], Vectors]]:
        """Yield (ids, (n, d) float32 vectors) batches of all documents that are committed when the iteration starts."""
        for names, vectors in self._scan([self.layout.id, self.layout.vector]):
            yield names, np.asarray(vectors, dtype=np.float32)

    def metadata(self) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
        """Yield (ids, metadata) batches of all documents that are committed when the iteration starts."""
        for ids, metadatas in self._scan([self.layout.id, self._metadata_column()]):
            yield ids, [decode(metadata) for metadata in metadatas]

    def documents(self) -> Iterator[list[StoredDocument]]:
        """Yield batches of all documents that are committed when the iteration starts, without their vectors."""
        for ids, texts, metadatas in self._scan([self.layout.id, self.layout.text, self._metadata_column()]):
            yield [
                StoredDocument(id=name, text=text or "", metadata=decode(metadata))
                for name, text, metadata in zip(ids, texts, metadatas, strict=True)
            ]

    def where(self, filter: Filter | None, also: str = "") -> str:
        """Write the WHERE clause of a filter: see `tql.where`.

        TQL has no test for a missing key once any document has a list there. The documents without the key are then found in the
        metadata, which are read in full.

        Args:
            filter: The filter.
            also: A further condition in TQL, which must hold as well.

        Raises:
            StoreError: The argument is no filter, or holds a value that no query can compare with.
        """
        if isinstance(filter, Mapping) and self._open():
            wanted = keys_of(filter)
            missing = {key: None for key, value in wanted.items() if value is None and isinstance(key, str)}
            if missing and not self._answers(where(missing, self.layout.metadata)):
                filter = {key: value for key, value in wanted.items() if key not in missing}
                names = [
                    name
                    for ids, metadatas in self.metadata()
                    for name, metadata in zip(ids, metadatas, strict=True)
                    if all(metadata.get(key) is None for key in missing)
                ]
                without = is_in(self.layout.id, names) if names else "false"
                also = f"{without} AND {also}" if also else without
        return where(filter, self.layout.metadata, also)

    @patient()
    def _answers(self, clause: str) -> bool:
        """Tell whether Deep Lake can evaluate a condition on the documents that there are."""
        try:
            with self._lock:
                self._dataset.query(f"SELECT {self.layout.id} {clause}")
        except Exception:  # Deep Lake's many error classes have no common base; if it is another error, the query itself tells
            return False
        return True

    @patient()
    def refresh(self) -> None:
        """Load what other writers have committed since the data set was opened; a store at a version stays there."""
        with self._lock, self._errors("refresh"):
            if self._open_if_there() and self.version is None:
                self._dataset.refresh()

    # ---- inside ------------------------------------------------------------------------------------------------

    def _create(self, dimension: int) -> "deeplake.Dataset":
        types = self._deeplake.types
        schema = {
            self.layout.id: types.Text(),
            self.layout.vector: types.Embedding(dimension),
            self.layout.metadata: types.Dict(),
            self.layout.text: types.Text(),
            EXACT_METADATA: types.Text(),
        }
        return self._deeplake.create(self.path, schema=schema, **self._access)  # type: ignore[no-any-return]

    def _open_if_there(self) -> bool:
        """Open the data set unless it is open, and tell whether it is: another writer may have created it meanwhile."""
        with self._lock, self._errors("open"):
            if self._dataset is None and self._deeplake.exists(self.path, **self._access):
                opener = self._deeplake.open_read_only if self.read_only else self._deeplake.open
                dataset = opener(self.path, **self._access)
                if self.version not in (None, dataset.version):
                    try:
                        dataset = dataset.history[self.version].open()
                    except self._deeplake.VersionNotFoundError as error:
                        raise StoreError(
                            f"The data set {self.path!r} has no version {self.version!r}: a data set that was deleted and made "
                            "again has none of its earlier versions."
                        ) from error
                self.layout = self._find_layout({column.name for column in dataset.schema.columns})
                self._dataset = dataset
            return self._dataset is not None

    @contextlib.contextmanager
    def _all_or_nothing(self, created: bool = False) -> Iterator[None]:
        """Commit at the end. After a failure, take back what is not committed, and delete a data set that was made for it."""
        try:
            yield
            self._dataset.commit()
        except BaseException:
            with contextlib.suppress(Exception):
                if created:
                    self._dataset = None
                    self._deeplake.delete(self.path, **self._access)
                else:
                    self._dataset.rollback()
            raise

    @patient()
    def _metadata_column(self) -> str:
        """Return the column that gives metadata back as it was added, if there is one, and else the dict column."""
        exact = self._open_if_there() and EXACT_METADATA in self._columns()
        return EXACT_METADATA if exact else self.layout.metadata

    def _columns(self) -> set[str]:
        return {column.name for column in self._dataset.schema.columns}

    def _find_layout(self, columns: set[str]) -> Layout:
        for layout in LAYOUTS:
            if columns >= {layout.id, layout.vector, layout.metadata, layout.text}:
                return layout
        raise StoreError(
            f"The data set {self.path!r} has the columns {sorted(columns)}; expected "
            + " or ".join(f"{layout.id}, {layout.vector}, {layout.metadata}, {layout.text}" for layout in LAYOUTS)
            + "."
        )

    def _must_be_writable(self) -> None:
        if self.read_only:
            raise StoreError(f"The data set {self.path!r} was opened read-only.")

    @contextlib.contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        """Turn Deep Lake's own errors into a StoreError that names the path."""
        try:
            yield
        except (StoreError, InvalidVectorsError, EmbeddingMismatchError):
            raise
        except Exception as error:
            if "BM25_SIMILARITY cannot be used without index" in str(error):
                raise StoreError(
                    f"The data set {self.path!r} has no text index to search words with: create it once with create_text_index() "
                    "(db.store.create_text_index() for a vector store of LangChain or LlamaIndex)."
                ) from error
            raise StoreError(f"Deep Lake cannot {verb} {self.path!r}: {error}") from error

    def _rows_of(self, ids: Sequence[str]) -> list[int]:
        if not ids:
            return []
        inner = f"SELECT {self.layout.id}, ROW_NUMBER() AS {_ROW}"
        view = self._dataset.query(f"SELECT {_ROW} FROM ({inner}) WHERE {is_in(self.layout.id, ids)}")
        return [int(row) for row in view[_ROW][:]] if len(view) else []

    def _delete_rows(self, rows: Sequence[int]) -> None:
        for row in sorted(rows, reverse=True):
            self._dataset.delete(row)

    def _scan(self, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield columns in batches from a second handle, which stays at the commit at which it was opened."""
        snapshot, total = self._second_handle()
        for start in range(0, total, _BATCH):
            yield self._batch(snapshot, columns, start, min(start + _BATCH, total))

    @patient()
    def _second_handle(self) -> tuple[Any, int]:
        with self._errors("read"):
            if not self._open_if_there():
                return None, 0
            snapshot = self._dataset if self.version else self._deeplake.open_read_only(self.path, **self._access)
            return snapshot, len(snapshot)

    @patient()
    def _batch(self, snapshot: Any, columns: Sequence[str], start: int, stop: int) -> tuple[Any, ...]:
        with self._lock, self._errors("read"):
            return tuple(snapshot[column][start:stop] for column in columns)

    @patient()
    def _select(self, rest: str, with_vectors: bool, score: str = "") -> list[StoredDocument]:
        with self._lock, self._errors("query"):
            if not self._open_if_there():
                return []
            layout = self.layout
            names = [layout.id, layout.text, self._metadata_column()]
            names += [layout.vector] if with_vectors else []
            # Deep Lake orders and filters only by columns that are selected.
            selected = dict.fromkeys([*names, layout.metadata, layout.vector])
            view = self._dataset.query(f"SELECT {', '.join(selected)}{score} {rest}")
            if not len(view):
                return []
            columns = {name: view[name][:] for name in names}
            scores = view[_SCORE][:] if score else None
        metadata = columns[names[2]]
        return [
            StoredDocument(
                id=columns[layout.id][row],
                text=columns[layout.text][row] or "",  # a column of nothing but empty texts comes back as None
                metadata=decode(metadata[row]),
                vector=np.asarray(columns[layout.vector][row], dtype=np.float32) if with_vectors else None,
                score=float(scores[row]) if scores is not None else None,
            )
            for row in range(len(metadata))
        ]


def _reopen(kind: type[DeepLakeStore], path: str, options: dict[str, Any], there: bool) -> DeepLakeStore:
    """Open a data set again that was open where the store was pickled.

    Raises:
        StoreError: The data set was there, and is not here.
    """
    store = kind(path, **options)
    if there and not store._open():
        raise StoreError(f"There is no Deep Lake data set at {path!r} here. One at mem://… stays in the process that made it.")
    return store


def _check_k(k: int) -> None:
    if not isinstance(k, int | np.integer) or k < 1:
        raise StoreError(f"k is the number of documents to return, 1 or more; got {k!r}.")


def _id_list(ids: Sequence[str]) -> list[str]:
    """Return the ids as a list. A bare string is refused, and not taken for a list of its characters."""
    if isinstance(ids, str | bytes):
        raise StoreError(f"Ids come as a list: [{ids!r}], not {ids!r}.")
    return list(ids)
