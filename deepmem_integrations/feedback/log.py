"""`FeedbackLog`: what was asked, what was shown, and what was thought of it."""

import contextlib
import hashlib
import logging
import os
import time
import uuid
import weakref
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime, timedelta
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from deepmem_integrations._files import lasting_path
from deepmem_integrations._unicode import well_formed
from deepmem_integrations.errors import FeedbackError, StorageError
from deepmem_integrations.feedback.exchange import read_file, write_file
from deepmem_integrations.feedback.writer import BATCH, Writer
from deepmem_integrations.labels import Relevance
from deepmem_integrations.labels.checking import Time, time_of
from deepmem_integrations.labels.clicks import as_on_page, click_probabilities, question_of
from deepmem_integrations.labels.policies import Policy, check_policy, judgements
from deepmem_integrations.labels.records import (
    Event,
    LoggedQuery,
    Shown,
    checked_grade,
    checked_id,
    checked_position,
)

if TYPE_CHECKING:
    from deepmem_integrations.feedback.database import Database, Selection

_logger = logging.getLogger(__name__)

_HASHED = "a query whose text the log does not keep"
"""Why a query of a log with hashes gives no label."""

_ANSWER: Any = object()
"""Stands for no document: a thumb on the answer."""
_CONTEXT: ContextVar[Mapping[str, str | None]] = ContextVar("deepmem feedback", default={})  # noqa: B039 - never changed
"""The tenant, the session and the user of what is recorded now."""
_UNRECORDED: ContextVar[bool] = ContextVar("deepmem unrecorded", default=False)
_TIMEOUT = 10.0
"""For how many seconds a flush waits."""


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """Record no query inside a ``with`` block, in this thread or task and those that it starts: for queries that no user asks.

    What evaluates or judges a retriever does so by itself.

    Example:
        >>> import tempfile
        >>> log = FeedbackLog(tempfile.mkdtemp() + "/feedback.db")
        >>> with unrecorded():
        ...     query_id = log.record("is the service up?", ["doc-7"])
        >>> log.stats()["queries"]
        0
        >>> log.close()
    """
    token = _UNRECORDED.set(True)
    try:
        yield
    finally:
        _reset(_UNRECORDED, token)


def _reset(variable: ContextVar[Any], token: Token[Any]) -> None:
    try:
        variable.reset(token)
    except ValueError:
        _logger.warning(
            "A block of unrecorded() or FeedbackLog.context() was entered in one thread or task and left in another, as by a "
            "generator that a web framework runs in its threads. Queries inside may not know of the block: enter it where the "
            "retriever is called, or make the generator async."
        )


class FeedbackLog:
    """What users asked, which documents they were shown, and what they thought of them.

    A retriever with ``record=log`` writes every query into the log, with the documents that it returned, and each of these says
    in ``metadata["deepmem"]["query_id"]`` to which query it belongs. The application tells the rest: `thumb`, `click`, `cite`
    and `grade`. `labels` turns all of it into a `Relevance`.

    Neither a query nor a verb waits for the disk: entries are queued, and a thread of the process writes them within a moment.
    What `flush` has acknowledged is on the disk, also if the process is killed afterwards. If the storage is away, entries wait
    in the queue; if the queue is full, they are dropped and counted, and the log says so once. Many threads and processes may
    use one log, forked ones included. A log that is pickled opens the same database again.

    Args:
        place: The path of an SQLite file on a local disk, which only its owner may read, or the URL of a Postgres database for
            many machines, ``"postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"``. Tables are made where they are missing.
        texts: Whether to keep the texts of queries. False keeps hashes in their place, by which `labels` finds texts of yours.
        hash_key: A secret for the hashes. Without one, whoever has the log can find out which hash a guessed text has.
        keep_days: After how many days queries are forgotten, with all that belongs to them. None keeps them.
        queue_size: How many entries may wait to be written.

    Raises:
        MissingExtraError: SQLAlchemy is not installed.
        FeedbackError: The place is a database of another kind, or an option is out of range.
        StorageError: The database cannot be opened.

    Example:
        >>> import tempfile
        >>> log = FeedbackLog(tempfile.mkdtemp() + "/feedback.db")
        >>> query_id = log.record("how do I undo a commit?", ["doc-7", "doc-3"])  # a retriever with record=log does this
        >>> log.thumb(query_id, "doc-7", up=False)
        >>> log.click(query_id, "doc-3", position=2)
        >>> labels = log.labels(policy="clicks")
        >>> [name for name, _ in labels.labels[0]], labels.irrelevant
        (['doc-3'], ((('doc-7', -1.0),),))
        >>> log.close()
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        *,
        texts: bool = True,
        hash_key: str = "",
        keep_days: float | None = None,
        queue_size: int = 10_000,
    ) -> None:
        from deepmem_integrations.feedback.database import Database

        if keep_days is not None and not (isinstance(keep_days, int | float) and keep_days > 0):
            raise FeedbackError(f"keep_days is a number of days above 0, or None; got {keep_days!r}.")
        if not isinstance(queue_size, int) or queue_size < 1:
            raise FeedbackError(f"queue_size is a number of entries, 1 or more; got {queue_size!r}.")
        if not isinstance(hash_key, str):
            raise FeedbackError(f"hash_key is a text; got {type(hash_key).__name__}.")
        if len(hash_key.encode()) > hashlib.blake2b.MAX_KEY_SIZE:
            raise FeedbackError(f"hash_key has at most {hashlib.blake2b.MAX_KEY_SIZE} bytes.")
        self.texts, self.keep_days = texts, keep_days
        self._options = {"texts": texts, "hash_key": hash_key, "keep_days": keep_days, "queue_size": queue_size}
        self._hash_key = hash_key.encode()
        self._said_nameless = False
        place = os.fspath(place)
        self._database = Database(place)
        self._place = lasting_path(place)
        self._writer: Writer[LoggedQuery | Event] = Writer(
            self._database,
            name=self._database.place,
            limit=queue_size,
            upkeep=None if keep_days is None else partial(_forget_old, self._database, keep_days),
        )
        weakref.finalize(self, self._writer.retire).atexit = False  # at the end of a process, writers are closed

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how the log is opened, and not what waits to be written. A process opens it once, however often it comes."""
        return _opened, (self._place, self._options)

    def __copy__(self) -> "FeedbackLog":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "FeedbackLog":
        return self  # a copy of a retriever writes into the same log

    def __repr__(self) -> str:
        """Show the place, without a password."""
        return f"FeedbackLog({self._database.place!r})"

    # ---- what happens ------------------------------------------------------------------------------------------

    def record(
        self,
        query: str,
        shown: Iterable[Shown | str | tuple[str, float | None] | None],
        *,
        model: str | None = None,
        tenant: str | None = None,
        session: str | None = None,
        user: str | None = None,
        run_id: str | None = None,
    ) -> str:
        """Record a query and the documents that were shown. Retrievers with ``record=log`` call this method.

        Args:
            query: The text.
            shown: The documents, best first: their ids, (id, score) pairs, or `Shown`; None in the place of a document without an
                id.
            model: The model that served.
            tenant: The tenant; by default that of `context`.
            session: The session or conversation; by default that of `context`.
            user: The user; by default that of `context`.
            run_id: An id by which others know the query, such as that of a trace. The verbs take it as they take the query's.

        Returns:
            The id of the query.

        Raises:
            FeedbackError: The query is no text, or what was shown is none of these.
        """
        if not isinstance(query, str):
            raise FeedbackError(f"query is the text of a query; got {query!r:.60} ({type(query).__name__}).")
        if isinstance(shown, str | bytes | Mapping | set | frozenset) or not isinstance(shown, Iterable):
            raise FeedbackError(
                f"shown is a list of ids, or of (id, score) pairs, best first; got {shown!r:.60} ({type(shown).__name__})."
            )
        context = _CONTEXT.get()
        text = well_formed(query)
        logged = LoggedQuery(
            uuid.uuid4().hex,
            text if self.texts else None,
            None if self.texts else self._hash(text),
            time.time(),
            tuple(map(_shown, shown)),
            run_id=run_id,
            model=model,
            tenant=tenant or context.get("tenant"),
            session=session or context.get("session"),
            user=user or context.get("user"),
        )
        if logged.shown and not any(logged.shown) and not self._said_nameless:
            self._said_nameless = True
            _logger.warning(
                "The documents that were shown have no ids, so that no feedback can name them: give documents ids when they are "
                "added to the store. This message comes once."
            )
        if not _UNRECORDED.get():
            self._writer.put(logged)
        return logged.query_id

    @contextlib.contextmanager
    def context(self, *, session: str | None = None, user: str | None = None, tenant: str | None = None) -> Iterator[None]:
        """Say whose queries and feedback are recorded inside a ``with`` block, in this thread or task and those that it starts.

        Example:
            >>> import tempfile
            >>> log = FeedbackLog(tempfile.mkdtemp() + "/feedback.db")
            >>> with log.context(session="s-1", user="u-9"):
            ...     query_id = log.record("how do I undo a commit?", ["doc-7"])
            >>> log.get(query_id).user
            'u-9'
            >>> log.close()
        """
        given = {"session": session, "user": user, "tenant": tenant}
        token = _CONTEXT.set({**_CONTEXT.get(), **{name: value for name, value in given.items() if value is not None}})
        try:
            yield
        finally:
            _reset(_CONTEXT, token)

    def thumb(
        self,
        query_id: str,
        document_id: str = _ANSWER,
        *,
        up: bool | None,
        source: str | None = None,
        user: str | None = None,
    ) -> None:
        """Record a thumb on a document, or on the answer. A later thumb takes the place of an earlier one.

        Args:
            query_id: The id of the query, or of its run. The log need not hold the query yet.
            document_id: The document. Leave it out for a thumb on the answer as a whole.
            up: True for a thumb up, False for a thumb down, None where a thumb is taken back.
            source: Who judged, such as ``"support agent"``.
            user: The user; by default that of `context`.

        Raises:
            FeedbackError: An argument has the wrong type.
        """
        if document_id is None:
            raise FeedbackError("The document has no id: document_id is None. For a thumb on the answer, leave document_id out.")
        if document_id is not _ANSWER:
            checked_id("document_id", document_id)
        if up is not None and not isinstance(up, bool):
            raise FeedbackError(f"up is True, False or None; got {up!r}.")
        value = None if up is None else 1.0 if up else -1.0
        self._put(query_id, "thumb", {None if document_id is _ANSWER else document_id: value}, source=source, user=user)

    def click(
        self,
        query_id: str,
        document_id: str,
        position: int | None = None,
        *,
        source: str | None = None,
        user: str | None = None,
    ) -> None:
        """Record that a user opened a document.

        Args:
            query_id: The id of the query, or of its run.
            document_id: The document.
            position: The rank at which the page showed the document, 1 for the first; by default the rank in the log.
            source: What recorded the click.
            user: The user; by default that of `context`.

        Raises:
            FeedbackError: An argument has the wrong type, or the position is no rank.
        """
        position = checked_position(position)
        self._put(query_id, "click", {checked_id("document_id", document_id): 1.0}, position, source=source, user=user)

    def cite(self, query_id: str, document_ids: Iterable[str], *, source: str | None = None, user: str | None = None) -> None:
        """Record which documents the answer cites.

        Args:
            query_id: The id of the query, or of its run.
            document_ids: The documents.
            source: What wrote the answer, such as the name of a language model.
            user: The user; by default that of `context`.

        Raises:
            FeedbackError: An argument has the wrong type.
        """
        if isinstance(document_ids, str):
            raise FeedbackError(f"document_ids is a list of ids: write [{document_ids!r}].")
        cited = {checked_id("document_ids", document): 1.0 for document in document_ids}
        self._put(query_id, "cite", cited, source=source, user=user)

    def grade(
        self, query_id: str, grades: Mapping[str, float | None], *, source: str | None = None, user: str | None = None
    ) -> None:
        """Record grades of documents, as an expert or a judge gives them. A later grade takes the place of an earlier one.

        Args:
            query_id: The id of the query, or of its run.
            grades: Document id → the weight of the label: above 0 how well the document answers, 0 or below where it does not.
                None takes an earlier grade back.
            source: Who judged, such as ``"support agent"``.
            user: The user; by default that of `context`.

        Raises:
            FeedbackError: An argument has the wrong type, or a grade is no finite number.
        """
        if not isinstance(grades, Mapping):
            raise FeedbackError(f"grades maps document ids to weights, as {{'doc-7': 1.0}}; got {type(grades).__name__}.")
        graded = {
            checked_id("grades", document): None if value is None else checked_grade(document, value)
            for document, value in grades.items()
        }
        self._put(query_id, "grade", graded, source=source, user=user)

    def _put(
        self,
        query_id: str,
        kind: Any,
        values: Mapping[Any, float | None],
        position: int | None = None,
        *,
        source: str | None,
        user: str | None,
    ) -> None:
        checked_id("query_id", query_id)
        user, now = user or _CONTEXT.get().get("user"), time.time()
        for document, value in values.items():
            self._writer.put(Event(query_id, kind, document, value, position, source, user, now))

    # ---- the queue ---------------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """How many entries this process has dropped, because its queue was full or the database refused them."""
        return self._writer.dropped

    def flush(self, timeout: float = _TIMEOUT) -> None:
        """Wait until everything that this process has recorded is on the disk.

        Args:
            timeout: For how many seconds to wait.

        Raises:
            StorageError: Entries were not written in time, and stay queued; or entries were dropped since the last flush.
        """
        self._writer.flush(timeout)

    def close(self, timeout: float = _TIMEOUT) -> None:
        """Write what is queued, and close the connection. A log that is used afterwards opens again.

        The end of a process closes its logs by itself, unless it is killed.

        Raises:
            StorageError: See `flush`; entries that were not written in time are dropped.
        """
        self._writer.close(timeout)

    def __enter__(self) -> "FeedbackLog":
        """Return the log."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the log."""
        self.close()

    # ---- what is known -----------------------------------------------------------------------------------------

    def get(self, query_id: str) -> LoggedQuery:
        """Return a query, what was shown, and the events about it.

        Args:
            query_id: The id of the query, or of its run.

        Raises:
            FeedbackError: The log holds no such query.
            StorageError: The log cannot be read.
        """
        for query in self._read(query_ids=(checked_id("query_id", query_id),)):
            return query
        raise FeedbackError(f"The feedback log {self._database.place} holds no query with the id {query_id!r}.")

    def queries(
        self,
        *,
        tenant: str | None = None,
        session: str | None = None,
        user: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        judged: bool = False,
    ) -> Iterator[LoggedQuery]:
        """Yield queries in the order of time, with the ranks, scores and channels of what was shown and with all events.

        Args:
            tenant: Only those of a tenant.
            session: Only those of a session.
            user: Only those of a user.
            since: Only those asked at this time or later: a datetime, ISO 8601 or POSIX seconds, in UTC without a time zone.
            until: Only those asked before this time.
            judged: Only those of which more is known than what was shown.

        Raises:
            StorageError: The log cannot be read.
        """
        whose = {"tenant": tenant, "session": session, "user": user}
        return self._read(**whose, since=_seconds(since), until=_seconds(until), judged=judged)

    def labels(
        self,
        policy: Policy,
        *,
        tenant: str | None = None,
        since: Time | None = None,
        until: Time | None = None,
        texts: Iterable[str] = (),
    ) -> Relevance:
        """Return the labels that follow from the log, one row for each query of which something is known.

        A thumb on a document and a grade are labels by themselves, under every policy; the latest about a document counts. What
        else happened says less than a label, so the policy is named:

        - ``"judged"``: nothing else counts.
        - ``"cited"``: the documents that the answer cites are labels, or judged irrelevant where the answer has a thumb down.
        - ``"first"``: the answer's thumb speaks of the document that was shown first.
        - ``"shared"``: the answer's thumb speaks of all k documents that were shown, with a weight of 1/k each.
        - ``"clicks"``: a document that was opened is a label, whose weight is the probability that it is right: see
          `deepmem_integrations.labels.clicks.click_probabilities`. A click that is likelier wrong than right, because others who
          asked the same passed the document over, is left out. A document that was not opened is not judged. The labels say what
          was shown (`Relevance.shown`), from which a training knows how much users look at each rank.

        Args:
            policy: What counts.
            tenant: Only queries of a tenant.
            since: Only queries asked at this time or later: see `queries`.
            until: Only queries asked before this time.
            texts: For a log with hashes: the texts of queries, from records of your own.

        Returns:
            A `Relevance` with the ids and the times of the log. Its ``left_out`` counts what gave no label. A logged warning says
            what to do where the log keeps hashes, and ``texts`` lack the texts of some queries.

        Raises:
            FeedbackError: There is no such policy, or the tenant is no text.
            StorageError: The log cannot be read.
        """
        check_policy(policy)
        if isinstance(texts, str):
            raise FeedbackError(f"texts is a list of texts: write [{texts!r:.60}].")
        only = {"tenant": tenant, "since": _seconds(since), "until": _seconds(until)}
        weights: Mapping[Hashable, Mapping[str, float]] = {}
        if policy == "clicks":
            self._settle()
            weights = click_probabilities(self._database.looks(self._selection(**only)))
        known = {self._hash(well_formed(text)): well_formed(text) for text in texts}
        rows: list[tuple[str, str, list[tuple[str, float]], float, list[str] | None]] = []
        left_out: Counter[str] = Counter()
        for query in self._read(**only, judged=True):
            question = question_of(query.text or query.text_hash, query.tenant)
            found, reason = judgements(policy, query, weights.get(question, {}))
            if reason is not None:
                left_out[reason] += 1
            text = query.text if query.text is not None else known.get(query.text_hash or "")
            if found and not (text or "").strip():
                left_out[_HASHED if query.text is None else "an empty query"] += 1
            elif found:
                shown = _page(query) if policy == "clicks" and query.document_ids else None
                rows.append((query.query_id, text or "", list(found.items()), query.time, shown))
        everything = not any(only.values())  # nobody knows when, and of whom, the other queries were
        if everything and (strays := sum(1 for _ in self._database.strays())):
            left_out["feedback on a query that is not in the log"] = strays
        if left_out[_HASHED]:
            _logger.warning(
                "%d of %d queries with feedback give no label: the log keeps hashes of their texts, and a training needs texts. "
                "Pass the texts that users may have asked, from records of your own: labels(policy, texts=[…]), or "
                "`deepmem feedback labels … --texts FILE`, a text a line.%s",
                left_out[_HASHED],
                left_out[_HASHED] + len(rows),
                " Those that were passed have other hashes: open the log with the hash_key= that it was written with."
                if known and not rows
                else "",
            )
        query_ids, queries, labels, times, lists = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        return Relevance(queries, labels, query_ids, times=times, shown=lists, left_out=left_out)

    def stats(self) -> dict[str, Any]:
        """Return what the log holds as JSON values: numbers of queries and of events of each kind, the first and the last time.

        ``"dropped"`` counts the entries that this process has dropped.

        Raises:
            StorageError: The log cannot be read.
        """
        self._settle()
        counts = self._database.counts()
        for name in ("first", "last"):
            if counts[name] is not None:
                counts[name] = datetime.fromtimestamp(counts[name], UTC).isoformat()
        return {**counts, "dropped": self.dropped}

    # ---- what is forgotten -------------------------------------------------------------------------------------

    def forget(
        self,
        query_ids: Iterable[str] | None = None,
        *,
        user: str | None = None,
        session: str | None = None,
        older_than: timedelta | datetime | None = None,
    ) -> int:
        """Delete queries with all that belongs to them, for good: SQLite overwrites their bytes.

        Give one of the four. What another process still has in its queue, for a moment, is not deleted.

        Args:
            query_ids: The ids of queries, or of their runs.
            user: A user, whose feedback on other queries is deleted, too.
            session: A session.
            older_than: An age, or a time; a time without a time zone is in UTC.

        Returns:
            How many queries were deleted.

        Raises:
            FeedbackError: None of the four, or more than one, is given.
            StorageError: The log cannot be written.
        """
        given = {"query_ids": query_ids, "user": user, "session": session, "older_than": older_than}
        if sum(value is not None for value in given.values()) != 1:
            raise FeedbackError("Say what to forget with one of query_ids, user, session and older_than, and with one alone.")
        if isinstance(query_ids, str):
            raise FeedbackError(f"query_ids is a list of ids: write [{query_ids!r}].")
        self._settle()
        if query_ids is not None:
            ids = list(query_ids)
            pieces = (tuple(ids[start : start + 1000]) for start in range(0, len(ids), 1000))
            return sum(self._database.delete(self._selection(query_ids=piece)) for piece in pieces)
        if older_than is not None:
            if isinstance(older_than, int | float):
                raise FeedbackError(f"older_than is an age, such as timedelta(days={older_than!r}), or a time; got a number.")
            until = datetime.now(UTC) - older_than if isinstance(older_than, timedelta) else older_than
            return self._database.delete(self._selection(until=_seconds(until)))
        return self._database.delete(self._selection(user=user, session=session))

    # ---- files -------------------------------------------------------------------------------------------------

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write everything into a file of JSON lines, a query a line, that only its owner may read. `import_from` reads it.

        Returns:
            The number of queries.

        Raises:
            StorageError: The log cannot be read, or the file cannot be written. A file that was there before is unchanged.
        """
        return write_file(path, self._read(), self._database.strays())

    def import_from(self, path: str | os.PathLike[str]) -> int:
        """Add what `export` wrote, also that of another log. Queries and events that the log holds stay as they are.

        A log with ``texts=False`` takes hashes of the texts.

        Returns:
            The number of queries in the file.

        Raises:
            FeedbackError: A line is nothing that `export` writes; the message names the line. The lines before it may be added.
            StorageError: The file cannot be read, or the log cannot be written.
        """
        count, batch = 0, list[LoggedQuery | Event]()
        for entry in read_file(path):
            batch.append(self._without_text(entry) if isinstance(entry, LoggedQuery) else entry)
            count += isinstance(entry, LoggedQuery)
            if len(batch) == BATCH:
                self._database.add(batch)
                batch.clear()
        self._database.add(batch)
        return count

    # ---- helpers -----------------------------------------------------------------------------------------------

    def _without_text(self, query: LoggedQuery) -> LoggedQuery:
        if self.texts or query.text is None:
            return query
        return LoggedQuery(**{**vars(query), "text": None, "text_hash": self._hash(well_formed(query.text))})

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._hash_key, digest_size=16).hexdigest()

    def _settle(self) -> None:
        """Write what this process has queued, so that it is read or forgotten. Drops are no matter here."""
        if self._writer.pending:
            with contextlib.suppress(StorageError):
                self._writer.flush(_TIMEOUT)

    def _selection(self, **only: Any) -> "Selection":
        from deepmem_integrations.feedback.database import Selection

        for name in ("user", "session", "tenant"):
            if only.get(name) is not None:
                checked_id(name, only[name])
        return Selection(**only)

    def _read(self, **only: Any) -> Iterator[LoggedQuery]:
        self._settle()
        return self._database.read(self._selection(**only))


_OPENED: dict[tuple[Any, ...], FeedbackLog] = {}
"""The logs that came to this process by pickle."""


def _opened(place: str, options: Mapping[str, Any]) -> FeedbackLog:
    key = (place, *sorted(options.items()))
    if key not in _OPENED:
        _OPENED.setdefault(key, FeedbackLog(place, **options))
    return _OPENED[key]


def _forget_old(database: "Database", days: float) -> None:
    from deepmem_integrations.feedback.database import Selection

    database.delete(Selection(until=time.time() - 86400 * days))


def _shown(one: Any) -> Shown | None:
    if one is None or isinstance(one, Shown):
        return one
    name, score = one if isinstance(one, tuple | list) and len(one) == 2 else (one, None)
    if not isinstance(name, str) or not (score is None or isinstance(score, Real)):
        raise FeedbackError(
            f"shown holds ids, which are strings, (id, score) pairs, or None for a document without an id; got {one!r:.60} "
            f"({type(one).__name__})."
        )
    return Shown(name, None if score is None else float(score))


def _page(query: LoggedQuery) -> list[str]:
    """Return the ids of what was shown, as the page showed it where clicks tell."""
    page = as_on_page([None if one is None else one.document_id for one in query.shown], query.clicked)
    return [name for name in page if name is not None]


def _seconds(when: Time | None) -> float | None:
    try:
        moment = time_of(when)
    except (TypeError, ValueError, OverflowError, OSError):
        raise FeedbackError(
            f"A time is a datetime, an ISO 8601 string or POSIX seconds; got {when!r:.60} ({type(when).__name__})."
        ) from None
    return None if moment is None else moment.timestamp()


def ids_in_metadata(query_id: str, run_id: str | None) -> dict[str, str]:
    """Return what a document's metadata say of the query that found it."""
    return {"query_id": query_id} if run_id is None else {"query_id": query_id, "run_id": run_id}
