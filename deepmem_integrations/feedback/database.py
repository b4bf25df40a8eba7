"""The three tables of a feedback log, in SQLite or Postgres."""

import contextlib
import itertools
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deepmem_integrations._extras import require
from deepmem_integrations._files import user_path
from deepmem_integrations.errors import FeedbackError, StorageError
from deepmem_integrations.labels.clicks import Looks, as_on_page, question_of
from deepmem_integrations.labels.records import Event, LoggedQuery, Shown, clean

require("sqlalchemy", extra="feedback")

import sqlalchemy as sql  # noqa: E402 - after the check above
from sqlalchemy.dialects import postgresql, sqlite  # noqa: E402
from sqlalchemy.exc import (  # noqa: E402
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.pool import NullPool  # noqa: E402
from sqlalchemy.schema import CreateIndex, CreateTable  # noqa: E402

_logger = logging.getLogger(__name__)

_PATIENCE = 10.0
"""For how many seconds SQLite waits while another process writes."""
_PATIENCE_OF_WRITER = "PRAGMA busy_timeout=500"
"""The thread that writes the queue tries again by itself, and is not to hold up the end of a process or a fork."""
_CHUNK = 500
"""How many queries are read or deleted at a time."""
_MAKING = 0x6465_6570_6D65_6D
"""The lock under which one process makes the tables in Postgres."""

_TABLES = sql.MetaData()
QUERIES = sql.Table(
    "deepmem_queries",
    _TABLES,
    sql.Column("query_id", sql.Text, primary_key=True),
    sql.Column("asked_at", sql.Double, nullable=False, index=True),
    sql.Column("query_text", sql.Text),
    sql.Column("text_hash", sql.Text),
    sql.Column("run_id", sql.Text, index=True),
    sql.Column("model", sql.Text),
    sql.Column("tenant", sql.Text),
    sql.Column("session_id", sql.Text, index=True),
    sql.Column("user_id", sql.Text, index=True),
)
SHOWN = sql.Table(
    "deepmem_shown",
    _TABLES,
    sql.Column("query_id", sql.Text, primary_key=True),
    sql.Column("position", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("document_id", sql.Text, nullable=False),
    sql.Column("score", sql.Double),
    sql.Column("channels", sql.JSON, nullable=False),
)
# No foreign keys: the process that hears of a thumb may be faster than the one that writes the query.
EVENTS = sql.Table(
    "deepmem_events",
    _TABLES,
    sql.Column("event_id", sql.Text, primary_key=True),
    sql.Column("query_id", sql.Text, nullable=False, index=True),
    sql.Column("happened_at", sql.Double, nullable=False, index=True),
    sql.Column("kind", sql.Text, nullable=False),
    sql.Column("document_id", sql.Text),
    sql.Column("value", sql.Double),
    sql.Column("position", sql.Integer),
    sql.Column("source", sql.Text),
    sql.Column("user_id", sql.Text, index=True),
)


@dataclass(frozen=True)
class Selection:
    """Which queries are meant. What is None does not restrict them.

    Attributes:
        query_ids: The ids of the queries, or of their runs.
        tenant: The tenant.
        session: The session.
        user: The user.
        since: The earliest time, in POSIX seconds.
        until: The time before which they were asked, in POSIX seconds.
        judged: Whether to leave out queries of which nothing is known but what was shown.
    """

    query_ids: tuple[str, ...] | None = None
    tenant: str | None = None
    session: str | None = None
    user: str | None = None
    since: float | None = None
    until: float | None = None
    judged: bool = False

    def conditions(self) -> list[sql.ColumnElement[bool]]:
        """Return the conditions that a query fulfils."""
        columns = QUERIES.c
        found: list[sql.ColumnElement[bool]] = []
        if self.query_ids is not None:
            found.append(columns.query_id.in_(self.query_ids) | columns.run_id.in_(self.query_ids))
        for column, value in (("tenant", self.tenant), ("session_id", self.session), ("user_id", self.user)):
            if value is not None:
                found.append(columns[column] == value)
        if self.since is not None:
            found.append(columns.asked_at >= self.since)
        if self.until is not None:
            found.append(columns.asked_at < self.until)
        if self.judged:
            found.append(sql.exists().where(EVENTS.c.query_id.in_([columns.query_id, columns.run_id])))
        return found


class Database:
    """The tables, behind SQLAlchemy.

    Args:
        place: The path of an SQLite file, or a URL of SQLAlchemy's for SQLite or Postgres. Tables that are missing are made.

    Raises:
        MissingExtraError: SQLAlchemy, or the driver of the URL, is not installed.
        FeedbackError: The place is a database of another kind, or one in memory.
        StorageError: The database cannot be opened.
    """

    def __init__(self, place: str) -> None:
        self._engine, self.place = _engine(place)
        self._insert: Any = (postgresql if self._postgres else sqlite).insert
        self._lock = threading.RLock()
        self._connection: sql.Connection | None = None
        with self._errors("open"), self._engine.begin() as connection:
            if not self._postgres:
                _make_tables(connection)
                self._file = _file_at(self.place)
                return
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_MAKING)))
            # Making an index locks its table, even where the index is there, and two openings would wait for each other's writes.
            if not all(map(sql.inspect(connection).has_table, _TABLES.tables)):
                _make_tables(connection)

    @property
    def _postgres(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Turn SQLAlchemy's errors into ours, without the statement, which holds what users asked."""
        try:
            yield
        except (DataError, IntegrityError) as error:
            raise FeedbackError(f"The feedback log {self.place} cannot hold an entry: {error.orig}") from None
        except SQLAlchemyError as error:
            if isinstance(error, StatementError) and not isinstance(error, DBAPIError):  # the statement was never sent
                raise FeedbackError(f"The feedback log {self.place} cannot hold an entry: {error.orig}") from None
            reason = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
            raise StorageError(f"Cannot {doing} the feedback log {self.place}: {reason[0]}.") from None

    @contextlib.contextmanager
    def _connected(self, doing: str) -> Iterator[sql.Connection]:
        with self._errors(doing):
            self._follow_file()
            with self._engine.connect() as connection:
                yield connection

    def _follow_file(self) -> None:
        """Make the log anew where its file was deleted, moved or replaced: what is written to a file without a name is lost.

        Raises:
            StorageError: The folder of the file is gone, or the file cannot be made.
        """
        if self._postgres or _file_at(self.place) == self._file:
            return
        with self._lock:
            if _file_at(self.place) == self._file:  # another thread was quicker
                return
            path = Path(self.place)
            if not path.parent.is_dir():  # a disk that is not there for a while, for one, is there again later
                raise StorageError(f"The folder of the feedback log {self.place} is gone.")
            self._leave_connection()
            _make_file(path)
            with self._engine.begin() as connection:
                _make_tables(connection)
            self._file = _file_at(self.place)
        _logger.warning(
            "The file of the feedback log %s was deleted, moved or replaced. The log goes on in the file that is there now.",
            self.place,
        )

    # ---- writing -----------------------------------------------------------------------------------------------

    def write(self, entries: Sequence[LoggedQuery | Event]) -> None:
        """Do the same as `add`, over a connection that stays open, and without waiting long for other processes.

        Raises:
            StorageError: The database cannot be written now.
            FeedbackError: An entry cannot be stored at all. Nothing is written.
        """
        rows = _rows(entries)
        with self._errors("write"), self._lock:
            try:
                self._follow_file()
                if self._connection is None:
                    self._connection = self._engine.connect()
                    if not self._postgres:
                        self._connection.exec_driver_sql(_PATIENCE_OF_WRITER)
                        self._connection.commit()
                with self._connection.begin():
                    self._add(self._connection, rows)
            except BaseException:
                self._close()
                raise

    def add(self, entries: Sequence[LoggedQuery | Event]) -> None:
        """Write queries and events in one transaction. What the log holds already stays as it is.

        Raises:
            StorageError: The database cannot be written.
            FeedbackError: An entry cannot be stored at all. Nothing is written.
        """
        with self._connected("write") as connection, connection.begin():
            self._add(connection, _rows(entries))

    def _add(self, connection: sql.Connection, rows: Mapping[sql.Table, Sequence[Mapping[str, Any]]]) -> None:
        for table, these in rows.items():
            if these:
                connection.execute(self._insert(table).on_conflict_do_nothing(), these)

    def release(self) -> None:
        """Close the connection that `write` keeps open."""
        with self._lock:
            self._close()

    def abandon(self) -> None:
        """Leave the connection to the process that this one was forked from: closing it here could harm the file."""
        self._leave_connection()
        self._lock = threading.RLock()

    def _leave_connection(self) -> None:
        """Forget the connection without closing it. SQLite would delete helper files by their names, which may be another's."""
        if self._connection is not None:
            _ABANDONED.append(self._connection)
        self._connection = None

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    # ---- reading -----------------------------------------------------------------------------------------------

    def read(self, selection: Selection) -> Iterator[LoggedQuery]:
        """Yield queries in the order of time, each with what was shown and with its events.

        Raises:
            StorageError: The database cannot be read.
        """
        after: tuple[float, str] | None = None
        ordered = sql.select(QUERIES).order_by(QUERIES.c.asked_at, QUERIES.c.query_id).limit(_CHUNK)
        for condition in selection.conditions():
            ordered = ordered.where(condition)
        with self._connected("read") as connection:
            while True:
                here = ordered
                if after is not None:
                    here = here.where(
                        sql.tuple_(QUERIES.c.asked_at, QUERIES.c.query_id)
                        > sql.tuple_(sql.literal(after[0]), sql.literal(after[1]))
                    )
                rows = connection.execute(here).all()
                yield from self._whole(connection, [LoggedQuery(**_fields(row, _QUERY)) for row in rows])
                if len(rows) < _CHUNK:
                    return
                after = (rows[-1].asked_at, rows[-1].query_id)

    def _whole(self, connection: sql.Connection, queries: Sequence[LoggedQuery]) -> Iterator[LoggedQuery]:
        """Add what was shown and the events to queries."""
        shown: dict[str, dict[int, Shown]] = defaultdict(dict)
        names = [query.query_id for query in queries]
        for row in connection.execute(sql.select(SHOWN).where(SHOWN.c.query_id.in_(names))):
            shown[row.query_id][row.position] = Shown(row.document_id, row.score, row.channels)
        events: dict[str, list[Event]] = defaultdict(list)
        runs = [query.run_id for query in queries if query.run_id is not None]
        found = sql.select(EVENTS).where(EVENTS.c.query_id.in_([*names, *runs]))
        for row in connection.execute(found.order_by(EVENTS.c.happened_at, EVENTS.c.event_id)):
            events[row.query_id].append(Event(**_fields(row, _EVENT)))
        for query in queries:
            places = shown[query.query_id]
            mine = [*events[query.query_id], *(events[query.run_id] if query.run_id not in (None, query.query_id) else ())]
            yield replace(
                query,
                shown=tuple(places.get(position) for position in range(1, max(places, default=0) + 1)),
                events=tuple(sorted(mine, key=lambda event: (event.time, event.event_id))),
            )

    def strays(self) -> Iterator[Event]:
        """Yield the events whose query the log does not hold.

        Raises:
            StorageError: The database cannot be read.
        """
        known = sql.exists().where((QUERIES.c.query_id == EVENTS.c.query_id) | (QUERIES.c.run_id == EVENTS.c.query_id))
        with self._connected("read") as connection:
            for row in connection.execute(sql.select(EVENTS).where(~known).order_by(EVENTS.c.happened_at)):
                yield Event(**_fields(row, _EVENT))

    def looks(self, selection: Selection) -> Iterator[Looks]:
        """Yield what was shown and opened for each query that asks what a query with a click asks: see `question_of`.

        Whoever opened something, and asks the same again, did not pass it over: of a user's queries, or else of a session's,
        those without a click are left out where another one has a click.

        Raises:
            StorageError: The database cannot be read.
        """
        asked = sql.func.coalesce(QUERIES.c.query_text, QUERIES.c.text_hash)
        asker = sql.func.coalesce(QUERIES.c.user_id, QUERIES.c.session_id)
        columns, conditions = (QUERIES.c.query_id, asked, QUERIES.c.tenant, asker), selection.conditions()
        clicks = sql.select(*columns, EVENTS.c.document_id, EVENTS.c.position).join(
            EVENTS, EVENTS.c.query_id.in_([QUERIES.c.query_id, QUERIES.c.run_id])
        )
        clicks = clicks.where(EVENTS.c.kind == "click", *conditions).order_by(EVENTS.c.happened_at, EVENTS.c.event_id)
        opened: dict[str, dict[str, int | None]] = defaultdict(dict)
        questions: set[Hashable] = set()
        found: set[tuple[Hashable, str]] = set()
        with self._connected("read") as connection:
            for query_id, text, tenant, who, document_id, position in connection.execute(clicks):
                question = question_of(text, tenant)
                opened[query_id][document_id] = position
                questions.add(question)
                if who is not None:
                    found.add((question, who))
            if not questions:
                return
            lists = sql.select(*columns, SHOWN.c.position, SHOWN.c.document_id).join(
                SHOWN, SHOWN.c.query_id == QUERIES.c.query_id
            )
            ordered = lists.where(*conditions).order_by(QUERIES.c.query_id, SHOWN.c.position)
            rows = connection.execution_options(yield_per=_CHUNK).execute(ordered)
            for (query_id, text, tenant, who), places in itertools.groupby(rows, key=lambda row: tuple(row[:4])):
                question = question_of(text, tenant)
                if question in questions and (query_id in opened or (question, who) not in found):
                    shown = {position: document_id for *_, position, document_id in places}
                    clicked = opened.get(query_id, {})
                    by_rank = [shown.get(rank) for rank in range(1, max(shown) + 1)]
                    yield Looks(question, as_on_page(by_rank, clicked), clicked)

    def counts(self) -> dict[str, Any]:
        """Return the numbers of queries, documents shown and events of each kind, and the first and last time.

        Raises:
            StorageError: The database cannot be read.
        """
        columns, count = QUERIES.c, sql.func.count
        distinct = [count(sql.distinct(columns[name])) for name in ("user_id", "session_id", "tenant")]
        sums = sql.select(count(), *distinct, sql.func.min(columns.asked_at), sql.func.max(columns.asked_at))
        kinds = sql.select(EVENTS.c.kind, EVENTS.c.document_id.is_not(None), EVENTS.c.value, count()).group_by(
            EVENTS.c.kind, EVENTS.c.document_id.is_not(None), EVENTS.c.value
        )
        judged = sql.select(count()).select_from(QUERIES).where(*Selection(judged=True).conditions())
        with self._connected("read") as connection:
            queries, users, sessions, tenants, first, last = connection.execute(sums.select_from(QUERIES)).one()
            found: dict[str, int] = defaultdict(int)
            for kind, of_document, value, number in connection.execute(kinds):
                found[_counted_as(kind, bool(of_document), value)] += number
            return {
                "queries": queries,
                "queries_with_feedback": connection.execute(judged).scalar_one(),
                "documents_shown": connection.execute(sql.select(count()).select_from(SHOWN)).scalar_one(),
                **{name: found[name] for name in _COUNTED},
                "users": users,
                "sessions": sessions,
                "tenants": tenants,
                "first": first,
                "last": last,
            }

    # ---- forgetting --------------------------------------------------------------------------------------------

    def delete(self, selection: Selection) -> int:
        """Delete queries with all that belongs to them, and the events of the same user or age. Returns the number of queries.

        Raises:
            StorageError: The database cannot be written.
        """
        deleted = 0
        with self._connected("write") as connection:
            chosen = sql.select(QUERIES.c.query_id, QUERIES.c.run_id).where(*selection.conditions()).limit(_CHUNK)
            while rows := connection.execute(chosen).all():
                names = [row.query_id for row in rows]
                runs = [row.run_id for row in rows if row.run_id is not None]
                for table in (EVENTS, SHOWN, QUERIES):
                    connection.execute(sql.delete(table).where(table.c.query_id.in_(names)))
                shared = sql.select(QUERIES.c.query_id).where(QUERIES.c.run_id == EVENTS.c.query_id).exists()
                connection.execute(sql.delete(EVENTS).where(EVENTS.c.query_id.in_(runs), ~shared))
                connection.commit()
                deleted += len(rows)
            events: list[sql.ColumnElement[bool]] = []
            if selection.user is not None:
                events.append(EVENTS.c.user_id == selection.user)
            if selection.until is not None:
                events.append(EVENTS.c.happened_at < selection.until)
            if selection.query_ids is not None:
                events.append(EVENTS.c.query_id.in_(selection.query_ids))
            if events:
                connection.execute(sql.delete(EVENTS).where(*events))
            connection.commit()
            if not self._postgres:
                # Without this, what was deleted would stay in the log of the latest changes.
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
        return deleted


_ABANDONED: list[sql.Connection] = []
"""Connections of the parent process. They are kept so that nothing closes them."""
_COUNTED = (
    *("thumbs_up_on_documents", "thumbs_down_on_documents", "thumbs_up_on_answers", "thumbs_down_on_answers"),
    *("thumbs_taken_back", "clicks", "citations", "grades"),
)


def _make_tables(connection: sql.Connection) -> None:
    """Make what is missing of the tables and their indexes."""
    for table in _TABLES.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index, if_not_exists=True))


def _counted_as(kind: str, of_document: bool, value: float | None) -> str:
    if kind != "thumb":
        return {"click": "clicks", "cite": "citations", "grade": "grades"}[kind]
    if value is None:
        return "thumbs_taken_back"
    return f"thumbs_{'up' if value > 0 else 'down'}_on_{'documents' if of_document else 'answers'}"


def _rows(entries: Sequence[LoggedQuery | Event]) -> dict[sql.Table, list[dict[str, Any]]]:
    """Return table → the rows that entries make there."""
    rows: dict[sql.Table, list[dict[str, Any]]] = {QUERIES: [], SHOWN: [], EVENTS: []}
    for given in entries:
        if isinstance(given, Event):
            rows[EVENTS].append(_row(clean(given), _EVENT))
            continue
        entry = clean(given)
        rows[QUERIES].append(_row(entry, _QUERY))
        rows[EVENTS] += [_row(event, _EVENT) for event in entry.events]
        rows[SHOWN] += [
            {
                "query_id": entry.query_id,
                "position": position,
                "document_id": one.document_id,
                "score": one.score,
                "channels": dict(one.channels),
            }
            for position, one in enumerate(entry.shown, start=1)
            if one is not None
        ]
    return rows


_QUERY = {
    "query_id": "query_id",
    "asked_at": "time",
    "query_text": "text",
    "text_hash": "text_hash",
    "run_id": "run_id",
    "model": "model",
    "tenant": "tenant",
    "session_id": "session",
    "user_id": "user",
}
_EVENT = {
    "event_id": "event_id",
    "query_id": "query_id",
    "happened_at": "time",
    "kind": "kind",
    "document_id": "document_id",
    "value": "value",
    "position": "position",
    "source": "source",
    "user_id": "user",
}
"""Column → attribute, of a query and of an event."""


def _row(entry: LoggedQuery | Event, names: Mapping[str, str]) -> dict[str, Any]:
    return {column: getattr(entry, name) for column, name in names.items()}


def _fields(row: Any, names: Mapping[str, str]) -> dict[str, Any]:
    return {name: getattr(row, column) for column, name in names.items()}


def _engine(place: str) -> tuple[sql.Engine, str]:
    """Return the engine of a place, and the place as messages may show it."""
    if "://" in place:
        try:
            url = sql.make_url(place)
        except ArgumentError:
            raise FeedbackError("This is no URL of a database: write postgresql+psycopg://USER:PASSWORD@HOST/DATABASE.") from None
    else:
        url = sql.URL.create("sqlite", database=user_path(place))
    kind, name = url.get_backend_name(), url.database or ""
    if kind not in ("sqlite", "postgresql"):
        raise FeedbackError(f"A feedback log is an SQLite file or a Postgres database; got {kind}://….")
    if kind == "sqlite":
        if name in ("", ":memory:") or name.startswith("file:"):
            raise FeedbackError("A feedback log in SQLite is a file, such as feedback.db; one in memory would be gone at once.")
        name = os.path.abspath(name)  # a process may change its folder
        url = url.set(database=name)
        _make_file(Path(name))
        engine = sql.create_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={"timeout": _PATIENCE, "check_same_thread": False},
        )
        sql.event.listen(engine, "connect", _set_up_sqlite)
        return engine, name
    try:
        return sql.create_engine(url, poolclass=NullPool, hide_parameters=True), url.render_as_string(hide_password=True)
    except ModuleNotFoundError as error:
        raise FeedbackError(
            f"The driver {url.get_driver_name()} for {url.drivername}://… is not installed ({error.name}). Install psycopg and "
            'write postgresql+psycopg://…: pip install "psycopg[binary]".'
        ) from None
    except NoSuchModuleError:
        raise FeedbackError(f"SQLAlchemy knows no driver {url.drivername}: write postgresql+psycopg://….") from None


def _make_file(path: Path) -> None:
    """Make the file for its owner alone. SQLite gives its helper files the same rights."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StorageError(f"Cannot open the feedback log {path}: {error.strerror or error}.") from error


def _file_at(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another one of the same name; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _set_up_sqlite(connection: Any, record: Any) -> None:
    """Let readers and a writer of several processes work at a time, and what is deleted be gone."""
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA secure_delete=ON")
    finally:
        cursor.close()
