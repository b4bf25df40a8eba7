"""Readers of LangChain's stores that keep documents in a table, and whose own searches return no ids or no scores.

The reader of such a store searches its table as well, since the table has what the store leaves out. The stores' own packages are
never imported.
"""

import json
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from langchain_core.documents import Document
from numpy.typing import NDArray

from deepmem_integrations.corpora.corpus import Batch
from deepmem_integrations.corpora.stores import BATCH, StoreCorpus, batches, lance_metric, milvus_rows, sql_texts
from deepmem_integrations.errors import StoreError

_Row = tuple[str, str, Any]
"""The id, the text and the metadata of a document."""


class TableCorpus(StoreCorpus):
    """The documents of a store that keeps them in a table, where they can be found by vector and by id."""

    options: ClassVar[tuple[str, ...]] = ()
    """The options of the store's search."""

    def find(self, vector: Sequence[float], k: int = 4, **options: Any) -> list[tuple[Document, float]]:
        """Search by vector, as the store's own search does.

        Args:
            vector: (d,), the query vector.
            k: How many documents to find.
            options: Options of the store's search.

        Returns:
            The documents with their ids and the store's own scores, best first.

        Raises:
            StoreError: The store's own search ignores such an option: a filter would be lost.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if lost := given.keys() - set(self.options):
            raise StoreError(
                f"The search of a {type(self.store).__name__} has no option {', '.join(sorted(lost))} and would ignore it. "
                "A store for each tenant, or another kind of store, keeps tenants apart."
                if "filter" in lost
                else f"The search of a {type(self.store).__name__} has no option {', '.join(sorted(lost))} and would ignore it."
            )
        return [(_document(row), score) for row, score in self._nearest(vector, k, given)]

    def measured(self, metric: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn scores into cosines, dot products, or, for L2 distance, squared distances."""
        return scores**2 if metric == "l2" else 1 - scores

    def read_documents(self) -> Iterator[Sequence[Document]]:
        for rows in self._rows():
            yield [_document(row) for row in rows]

    def fetch(self, ids: Sequence[str]) -> list[Document]:
        """Return the documents with these ids that pass the reader's filter."""
        wanted = set(ids)
        return [_document(row) for rows in self._rows() for row in rows if row[0] in wanted]

    def fetch_by(self, key: str, names: Sequence[str] | Sequence[int]) -> list[Document]:
        wanted = set(names)
        return [_document(row) for rows in self._rows() for row in rows if str((row[2] or {}).get(key)) in wanted]

    @abstractmethod
    def _nearest(self, vector: Sequence[float], k: int, options: dict[str, Any]) -> list[tuple[_Row, float]]:
        """Return the k rows that are nearest to a vector, with the store's own scores."""

    @abstractmethod
    def _rows(self) -> Iterator[list[_Row]]:
        """Yield batches of the ids, texts and metadata of all documents that pass the filter."""


class LanceDBCorpus(TableCorpus):
    """The documents of a LanceDB table. Its scores are squared distances, or 1 minus a similarity."""

    kind = "langchain_community.LanceDB"
    options = ("filter", "prefilter", "metrics", "name")

    @property
    def metric(self) -> str:
        # The store's own `distance` only turns scores into relevance; without an index, LanceDB searches by L2 distance.
        return lance_metric(self.store.get_table(), self.store._vector_key)

    def measured(self, metric: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return scores if metric == "l2" else 1 - scores

    def read_vectors(self) -> Iterator[Batch]:
        key, vector = self.store._id_key, self.store._vector_key
        for batch in self._batches(self.filter, key, vector):
            yield batch[key].to_pylist(), np.array(batch[vector].to_pylist(), dtype=np.float32)

    def fetch(self, ids: Sequence[str]) -> list[Document]:
        named = f"{self.store._id_key} IN ({sql_texts(ids)})"
        return [_document(row) for rows in self._rows(_and(_condition(self.filter), named)) for row in rows]

    def fetch_by(self, key: str, names: Sequence[str] | Sequence[int]) -> list[Document]:
        named = f"CAST(metadata.`{key}` AS STRING) IN ({sql_texts(list(map(str, names)))})"
        return [_document(row) for rows in self._rows(_and(_condition(self.filter), named)) for row in rows]

    def _nearest(self, vector: Sequence[float], k: int, options: dict[str, Any]) -> list[tuple[_Row, float]]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No results found")
            found = self.store._query(list(vector), k, **options)
        return list(zip(self._of(found), found["_distance"].to_pylist(), strict=True))

    def _rows(self, where: Any = None) -> Iterator[list[_Row]]:
        columns = self.store._id_key, self.store._text_key, "metadata"
        for batch in self._batches(where or self.filter, *columns):
            yield self._of(batch)

    def _of(self, found: Any) -> list[_Row]:
        columns = (found[name].to_pylist() for name in (self.store._id_key, self.store._text_key, "metadata"))
        return list(zip(*columns, strict=True))

    def _batches(self, filter: Any, *columns: str) -> Iterator[Any]:
        table = self.store.get_table()
        if table is not None:
            yield from table.search().where(_condition(filter)).select(list(columns)).to_batches(BATCH)


class MilvusCorpus(StoreCorpus):
    """The documents of a Milvus collection. Its filters are expressions."""

    kind = "langchain_milvus.Milvus"
    tells_numbers = True
    filter_option = "expr"

    @property
    def metric(self) -> str:
        for index in self.store._get_indexes():
            if index["field"] == self.store._vector_field:
                name = str(index["index_param"]["metric_type"]).lower()
                return {"ip": "dot"}.get(name, name)
        return "l2"

    @property
    def metadata_id(self) -> str:
        return str(self.store._primary_field)

    def read_vectors(self) -> Iterator[Batch]:
        key, vector = self.store._primary_field, self.store._vector_field
        for rows in self._read(key, vector):
            yield [str(row[key]) for row in rows], np.array([row[vector] for row in rows], dtype=np.float32)

    def read_documents(self) -> Iterator[Sequence[Document]]:
        for rows in self._read("*"):
            names = [str(row[self.store._primary_field]) for row in rows]
            found = [self.store._parse_document(dict(row)) for row in rows]
            yield [document.model_copy(update={"id": name}) for name, document in zip(names, found, strict=True)]

    def having(self, key: str, names: Sequence[str] | Sequence[int]) -> Any:
        place = f'{self.store._metadata_field}["{key}"]' if self.store._metadata_field else key
        return self._and(f"{place} in [{_quoted(names)}]")

    def with_ids(self, ids: Sequence[str]) -> Any:
        """Return the reader's filter, narrowed to documents with these ids."""
        if not self.store.auto_id:
            return self._and(f"{self.store._primary_field} in [{_quoted(ids)}]")
        return self._and(f"{self.store._primary_field} in {[int(name) for name in ids if name.isdecimal()]}")

    def _and(self, condition: str) -> str:
        return f"({self.filter}) and {condition}" if self.filter else condition

    def _read(self, *columns: str) -> Iterator[list[Any]]:
        return milvus_rows(self.store.client, self.store.collection_name, self.filter or "", list(columns))


class SQLiteVecCorpus(TableCorpus):
    """The documents of a table in SQLite with sqlite-vec, named by the numbers of their rows. Its scores are distances."""

    kind = "langchain_community.SQLiteVec"
    filters = False
    _MOST = 4_096
    """sqlite-vec finds no more documents than these."""

    @property
    def metric(self) -> str:
        made = self._select("SELECT sql FROM sqlite_master WHERE name = ?", [f"{self.store._table}_vec"])
        words = str(made[0][0]).lower().replace(" ", "") if made else ""
        return next((name for name in ("cosine", "l1") if f"distance_metric={name}" in words), "l2")

    def read_vectors(self) -> Iterator[Batch]:
        for rows in self._read("text_embedding"):
            yield [str(row[0]) for row in rows], np.array([np.frombuffer(row[1], dtype="<f4") for row in rows])

    def fetch(self, ids: Sequence[str]) -> list[Document]:
        numbers = [int(name) for name in ids if name.isdecimal()]
        return [_document(_sql_row(row)) for row in self._where(f"rowid IN ({', '.join('?' * len(numbers))})", numbers)]

    def fetch_by(self, key: str, names: Sequence[str] | Sequence[int]) -> list[Document]:
        value = "CAST(json_extract(metadata, ?) AS TEXT)"
        rows = self._where(f"{value} IN ({', '.join('?' * len(names))})", [f"$.{json.dumps(key)}", *names])
        return [_document(_sql_row(row)) for row in rows]

    def _where(self, condition: str, values: Sequence[Any]) -> list[Any]:
        return self._select(f"SELECT rowid, text, metadata FROM {self.store._table} WHERE {condition}", values)

    def _nearest(self, vector: Sequence[float], k: int, options: dict[str, Any]) -> list[tuple[_Row, float]]:
        table = self.store._table
        found = self._select(
            f"SELECT e.rowid, text, metadata, distance FROM {table} AS e JOIN {table}_vec AS v ON v.rowid = e.rowid "
            "WHERE v.text_embedding MATCH ? AND k = ? ORDER BY distance",
            [np.asarray(vector, dtype="<f4").tobytes(), min(k, self._MOST)],
        )
        return [(_sql_row(row), float(row[3])) for row in found]

    def _rows(self) -> Iterator[list[_Row]]:
        for rows in self._read("text", "metadata"):
            yield [_sql_row(row) for row in rows]

    def _read(self, *columns: str) -> Iterator[list[Any]]:
        query = f"SELECT rowid, {', '.join(columns)} FROM {self.store._table} WHERE rowid > ? ORDER BY rowid LIMIT {BATCH}"
        last = -1
        while rows := self._select(query, [last]):
            yield rows
            last = rows[-1][0]

    def _select(self, query: str, values: Sequence[Any]) -> list[Any]:
        found: list[Any] = self.store._connection.execute(query, list(values)).fetchall()
        return found


class SKLearnCorpus(TableCorpus):
    """The documents of a store that keeps them in lists, and searches them with scikit-learn. Its scores are distances."""

    kind = "langchain_community.SKLearnVectorStore"
    filters = False

    @property
    def metric(self) -> str:
        neighbors = self.store._neighbors
        name = str(neighbors.metric)
        return "l2" if name in ("euclidean", "l2") or (name == "minkowski" and neighbors.p == 2) else name

    @property
    def metadata_id(self) -> str:
        return "id"

    def read_vectors(self) -> Iterator[Batch]:
        for rows in batches(range(len(self.store._ids))):
            yield [str(self.store._ids[row]) for row in rows], np.array([self.store._embeddings[row] for row in rows])

    def _nearest(self, vector: Sequence[float], k: int, options: dict[str, Any]) -> list[tuple[_Row, float]]:
        k = min(k, len(self.store._ids))  # scikit-learn refuses to look for more
        found = self.store._similarity_index_search_with_score(list(vector), k=k) if k else []
        return [(self._row(int(row)), float(distance)) for row, distance in found]

    def _rows(self) -> Iterator[list[_Row]]:
        for rows in batches(range(len(self.store._ids))):
            yield [self._row(row) for row in rows]

    def _row(self, row: int) -> _Row:
        return str(self.store._ids[row]), self.store._texts[row], self.store._metadatas[row]


class DuckDBCorpus(TableCorpus):
    """The documents of a table in DuckDB, which ranks by cosine similarity. Its scores are similarities."""

    kind = "langchain_community.DuckDB"
    filters = False

    def measured(self, metric: str, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return scores

    def read_vectors(self) -> Iterator[Batch]:
        for rows in self._read(self.store._vector_key):
            yield [row[0] for row in rows], np.array([row[1] for row in rows], dtype=np.float32)

    def fetch(self, ids: Sequence[str]) -> list[Document]:
        return [
            _document(_sql_row(row)) for row in self._select(f"WHERE {self.store._id_key} IN (SELECT unnest(?))", [list(ids)])
        ]

    def _nearest(self, vector: Sequence[float], k: int, options: dict[str, Any]) -> list[tuple[_Row, float]]:
        cosine = f"list_cosine_similarity({self.store._vector_key}, ?::FLOAT[])"
        query = np.asarray(vector, dtype=np.float32).tolist()
        found = self._select(f"ORDER BY {cosine} DESC LIMIT {int(k)}", [query, query], cosine)
        return [(_sql_row(row), float(row[3])) for row in found]

    def _rows(self) -> Iterator[list[_Row]]:
        for rows in self._read(self.store._text_key, "metadata"):
            yield [_sql_row(row) for row in rows]

    def _select(self, rest: str, values: Sequence[Any], *columns: str) -> list[Any]:
        key, text, table = self.store._id_key, self.store._text_key, self.store._table_name
        return self._run(f"SELECT {', '.join([key, text, 'metadata', *columns])} FROM {table} {rest}", values)

    def _read(self, *columns: str) -> Iterator[list[Any]]:
        key, table, last = self.store._id_key, self.store._table_name, ""
        query = f"SELECT {', '.join([key, *columns])} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {BATCH}"
        while rows := self._run(query, [last]):
            yield rows
            last = rows[-1][0]

    def _run(self, query: str, values: Sequence[Any]) -> list[Any]:
        # A connection of DuckDB's serves one thread at a time; a cursor is a connection of its own to the same database.
        found: list[Any] = self.store._connection.cursor().execute(query, list(values)).fetchall()
        return found


def _document(row: _Row) -> Document:
    name, text, metadata = row
    return Document(id=str(name), page_content=text or "", metadata=dict(metadata or {}))


def _sql_row(row: Any) -> _Row:
    return str(row[0]), row[1], json.loads(row[2]) if row[2] else {}


def _condition(filter: Any) -> Any:
    """Write a filter as LanceDB's SQL, as the store itself does with a dict."""
    if isinstance(filter, dict):
        return " AND ".join(f"{key} = {sql_texts([str(value)])}" for key, value in filter.items())
    return filter


def _and(condition: Any, other: str) -> str:
    return f"({condition}) AND {other}" if condition else other


def _quoted(names: Sequence[str] | Sequence[int]) -> str:
    """Write texts, or whole numbers, as Milvus reads them."""
    return ", ".join(
        str(name) if isinstance(name, int) else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names
    )
