"""The full-text search of Postgres, over the tables of langchain-postgres and of LlamaIndex's Postgres store.

SQLAlchemy loads with the first search: these stores are built on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from deepmem_integrations._extras import require
from deepmem_integrations.corpora.stores import kind_of
from deepmem_integrations.errors import StoreError
from deepmem_integrations.words.analysis import STEMMERS, UNSTEMMED
from deepmem_integrations.words.stores.filtered import Scored, StoreSearch

_BY_LENGTH = 1
"""Postgres's flag: a rank is divided by 1 + the logarithm of the document's length."""


class PostgresWords(StoreSearch):
    """The full-text search of Postgres over the documents of a vector store.

    A document is found if it has one of the query's words, as by BM25, and is ranked by ``ts_rank``, divided by 1 + the logarithm
    of its length. (By ``ts_rank_cd``, a word that is repeated would outweigh many different words of the query.) Postgres has no
    idf: a rare word weighs no more than a common one, so `WordIndex` ranks better. Postgres leaves out stop words, so a query of
    stop words alone finds nothing, and it takes a run of Chinese, Japanese or Thai letters as one word.

    Stores of three kinds are known: ``PGVector`` and ``PGVectorStore`` of langchain-postgres, and LlamaIndex's ``PGVectorStore``.
    A stored column of words (``HybridSearchConfig(tsv_column=…)``, ``hybrid_search=True``) is used where there is one. Otherwise
    Postgres reads every document for every query, unless there is an index: ``CREATE INDEX ON … USING gin
    (to_tsvector('english', …))`` over the column of the texts.

    Args:
        store: The vector store. It must be opened for synchronous calls.
        language: ISO 639-1 code, or the name of a text search configuration of the database, such as ``simple``, which stems
            nothing. By default the store's own (LlamaIndex's ``text_search_config``, ``HybridSearchConfig.tsv_lang``), or
            ``english``. It should be the language of the stored column and of the index, if there are any.
        metadata: A filter of the store's own kind, which Postgres checks: a dictionary for langchain-postgres, and
            ``MetadataFilters`` for LlamaIndex.

    Raises:
        StoreError: The store is none of these, or is opened for asynchronous calls alone.
    """

    def __init__(self, store: Any, language: str | None = None, metadata: Any = None) -> None:
        kind = kind_of(store, _TABLES)
        if kind is None:
            raise StoreError(
                f"A search by words in Postgres needs a store among {', '.join(_TABLES)}; got {type(store).__name__}. "
                "For other stores, index the texts: WordIndex.build(folder, documents)."
            )
        self.store = store
        self.metadata = metadata
        self._table = _TABLES[kind](store)
        language = language or self._table.language()
        self.language = STEMMERS.get(language, "simple" if language in UNSTEMMED else language)

    def fetch(self, text: str, limit: int, ids: list[str] | None) -> Scored:
        """Search in the database, see `StoreSearch.fetch`."""
        alchemy = require("sqlalchemy", distribution="sqlalchemy")
        try:
            rows = self._table.rows(self._statement(alchemy, text, limit, ids))
        except alchemy.exc.SQLAlchemyError as error:
            why = getattr(error, "orig", None) or error
            raise StoreError(f"Postgres cannot search by words in the language {self.language!r}: {why}") from error
        return [(row.id, float(row.score)) for row in rows]

    def _statement(self, alchemy: Any, text: str, limit: int, ids: list[str] | None) -> Any:
        types, func, columns = (
            require("sqlalchemy.dialects.postgresql", distribution="sqlalchemy"),
            alchemy.func,
            self._table.columns(),
        )
        language, string = alchemy.literal(self.language, types.REGCONFIG()), alchemy.Text()
        # Postgres itself makes words of the query, and never reads an operator in it. A word may hold quotes and backslashes.
        text = text.replace("\0", " ")
        words = func.unnest(func.tsvector_to_array(func.to_tsvector(language, alchemy.literal(text, string))))
        word = alchemy.cast(words.column_valued("deepmem_word"), string)
        escaped = func.replace(func.replace(word, "\\", "\\\\"), "'", "''")
        joined = func.string_agg(func.concat("'", escaped, "'"), " | ")
        analysed = alchemy.select(alchemy.cast(joined, types.TSQUERY).label("words")).cte("deepmem_query")
        query = alchemy.select(analysed.c.words).scalar_subquery()
        there = func.to_tsvector(language, columns.text) if columns.words is None else columns.words
        name = alchemy.cast(columns.id, string)
        score = func.ts_rank(there, query, _BY_LENGTH)
        statement = alchemy.select(name.label("id"), score.label("score")).where(there.op("@@")(query))
        if self.metadata:
            statement = statement.where(self._table.check(self.metadata))
        if ids is not None:
            ids = [one for one in ids if "\0" not in one]  # which no string in Postgres has
            statement = statement.where(name == alchemy.any_(alchemy.literal(ids, types.ARRAY(string))))
        return statement.where(*columns.conditions).order_by(score.desc(), name).limit(limit)


class _Columns(NamedTuple):
    """The columns of a table: SQLAlchemy's objects, which quote the names.

    Attributes:
        id: The documents' ids.
        text: The texts.
        words: The column of type tsvector, if there is one.
        conditions: What makes a row a document of the store.
    """

    id: Any
    text: Any
    words: Any = None
    conditions: tuple[Any, ...] = ()


class _Table(ABC):
    """The table of one kind of store."""

    kind: ClassVar[str]

    def __init__(self, store: Any) -> None:
        self.store = store

    def language(self) -> str:
        """Return the text search configuration that the store has been made with."""
        return "english"

    @abstractmethod
    def columns(self) -> _Columns:
        """Return the table's columns."""

    @abstractmethod
    def check(self, metadata: Any) -> Any:
        """Return a condition for a filter of the store's own kind."""

    @abstractmethod
    def rows(self, statement: Any) -> Sequence[Any]:
        """Execute a statement through the store's own engine."""


class _PGVector(_Table):
    """langchain-postgres's older class: one table holds all collections."""

    kind = "langchain_postgres.PGVector"

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        if store.async_mode:
            raise StoreError(
                "This PGVector was opened with async_mode=True, and only a synchronous one can be searched by words. "
                "Open it a second time without async_mode, and pass that one."
            )

    def columns(self) -> _Columns:
        alchemy = require("sqlalchemy", distribution="sqlalchemy")
        table, collections = self.store.EmbeddingStore, self.store.CollectionStore
        collection = alchemy.select(collections.uuid).where(collections.name == self.store.collection_name)
        return _Columns(table.id, table.document, None, (table.collection_id == collection.scalar_subquery(),))

    def check(self, metadata: Any) -> Any:
        return self.store._create_filter_clause(metadata)

    def rows(self, statement: Any) -> Sequence[Any]:
        with self.store.session_maker() as session:
            return list(session.execute(statement))


class _PGVectorStore(_Table):
    """langchain-postgres's newer class: a table for each store."""

    kind = "langchain_postgres.PGVectorStore"

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._inner = store._PGVectorStore__vs
        if store._engine._loop is None:
            raise StoreError(
                "The engine of this PGVectorStore has no event loop of its own, so that only asynchronous calls reach it. Make "
                "one with PGEngine.from_connection_string(…), or with PGEngine.from_engine(…, loop=…)."
            )

    def language(self) -> str:
        config = self._inner.hybrid_search_config
        return (config and config.tsv_lang) or "english"

    def columns(self) -> _Columns:
        alchemy, inner = require("sqlalchemy", distribution="sqlalchemy"), self._inner
        stored = (inner.hybrid_search_config and inner.hybrid_search_config.tsv_column) or None

        def quoted(name: str) -> Any:
            return alchemy.sql.quoted_name(name, True)

        names = [inner.id_column, inner.content_column, *([stored] if stored else [])]
        columns = [alchemy.column(quoted(name)) for name in names]
        table = alchemy.table(quoted(inner.table_name), *columns, schema=quoted(inner.schema_name))
        return _Columns(*(table.c[name] for name in names))

    def check(self, metadata: Any) -> Any:
        clause, values = self._inner._create_filter_clause(metadata)
        return require("sqlalchemy", distribution="sqlalchemy").text(f"({clause})").bindparams(**values)

    def rows(self, statement: Any) -> Sequence[Any]:
        async def read() -> Sequence[Any]:
            async with self._inner.engine.connect() as connection:
                return list(await connection.execute(statement))

        found: Sequence[Any] = self.store._engine._run_as_sync(read())
        return found


class _IndexTable(_Table):
    """LlamaIndex's Postgres store."""

    kind = "llama_index.PGVectorStore"

    def language(self) -> str:
        return str(self.store.text_search_config)

    def columns(self) -> _Columns:
        self.store._initialize()
        table = self.store._table_class
        return _Columns(table.node_id, table.text, table.text_search_tsv if self.store.hybrid_search else None)

    def check(self, metadata: Any) -> Any:
        return _condition(require("sqlalchemy", distribution="sqlalchemy"), self.store._table_class.metadata_, metadata)

    def rows(self, statement: Any) -> Sequence[Any]:
        with self.store._session() as session:
            return list(session.execute(statement))


def _condition(alchemy: Any, column: Any, filter: Any) -> Any:
    """Return the condition of LlamaIndex's filters. LlamaIndex itself writes the values into the SQL; here they are bound."""
    operator = str(getattr(getattr(filter, "operator", None), "value", ""))
    if hasattr(filter, "filters"):
        operator = str(getattr(filter.condition, "value", filter.condition))
        inner = [_condition(alchemy, column, one) for one in filter.filters]
        if inner and operator in ("and", "or"):
            return alchemy.and_(*inner) if operator == "and" else alchemy.or_(*inner)
    elif operator in ("in", "nin") or operator in _COMPARISONS:
        value = column.op("->>", return_type=alchemy.Text())(alchemy.literal(filter.key, alchemy.Text()))
        if operator in ("in", "nin"):
            found = value.in_([str(one) for one in filter.value])
            return found if operator == "in" else alchemy.not_(found)
        if isinstance(filter.value, int | float):
            return alchemy.cast(value, alchemy.Float()).op(_COMPARISONS[operator])(float(filter.value))
        return value.op(_COMPARISONS[operator])(str(filter.value))
    raise StoreError(
        f"A search by words in Postgres cannot check the filter {operator or filter!r}. It checks {', '.join(_COMPARISONS)}, in "
        "and nin, joined by and, or. For others, pass filter= with the ids, or a function."
    )


_COMPARISONS: Mapping[str, str] = {"==": "=", "!=": "!=", ">": ">", "<": "<", ">=": ">=", "<=": "<="}


_TABLES: dict[str, type[_Table]] = {table.kind: table for table in (_PGVector, _PGVectorStore, _IndexTable)}
