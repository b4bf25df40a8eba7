"""What a feedback log holds: queries with what was shown, and events with what users thought of it."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from deepmem_integrations._unicode import well_formed
from deepmem_integrations.errors import FeedbackError
from deepmem_integrations.labels.checking import fault_of_time, finite

Kind = Literal["thumb", "click", "cite", "grade"]
"""What an event says: a thumb, a click, a citation by the answer, or a grade."""

LONGEST_ID = 500
"""How many characters an id has at most. Postgres refuses longer ones in an index."""
_LARGEST = 2**31 - 1
"""The largest number that a column of integers holds."""


@dataclass(frozen=True)
class Shown:
    """A document in its place among the results of a query.

    Attributes:
        document_id: The id of the document.
        score: The score by which the document was ranked; None where the search tells no scores.
        channels: What found the document → its rank there, from 1: ``{"vector": 3, "words": 1}``.
    """

    document_id: str
    score: float | None = None
    channels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """What was thought of a document, or of the answer.

    Attributes:
        query_id: The id of the query, or of its run.
        kind: What the event says.
        document_id: The document; None for the answer.
        value: 1 for a thumb up, a click and a citation, −1 for a thumb down, or the grade; None for a thumb or a
            grade that is taken back.
        position: The rank at which the document was clicked, from 1; None where the log knows it.
        source: Who said so, such as ``"support agent"``.
        user: Who said so, as the application knows its users.
        time: When, in POSIX seconds.
        event_id: The id of the event.
    """

    query_id: str
    kind: Kind
    document_id: str | None
    value: float | None
    position: int | None = None
    source: str | None = None
    user: str | None = None
    time: float = 0.0
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class LoggedQuery:
    """A query, the results that were shown, and the events about them.

    Attributes:
        query_id: The id of the query.
        text: The text; None where the log keeps hashes.
        text_hash: The hash of the text where the log keeps hashes.
        time: When the query was asked, in POSIX seconds.
        shown: The documents by rank; None where a document had no id.
        run_id: The id of the retriever's run, as callbacks know it.
        model: The model that served; None where there was none.
        tenant: The tenant.
        session: The session or conversation.
        user: The user.
        events: What was thought of it, in the order of time.
    """

    query_id: str
    text: str | None
    text_hash: str | None
    time: float
    shown: tuple[Shown | None, ...] = ()
    run_id: str | None = None
    model: str | None = None
    tenant: str | None = None
    session: str | None = None
    user: str | None = None
    events: tuple[Event, ...] = ()

    @property
    def document_ids(self) -> list[str]:
        """The ids of the documents that were shown, by rank."""
        return [one.document_id for one in self.shown if one is not None]

    @property
    def clicked(self) -> dict[str, int | None]:
        """Document that was clicked → its rank on the page, from 1; None where nobody told, which is its rank in ``shown``."""
        return {event.document_id: event.position for event in self.events if event.kind == "click" and event.document_id}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, which `of_json` reads."""
        return {
            **{name: getattr(self, name) for name in _OF_QUERY},
            "shown": [None if one is None else {**asdict(one), "channels": dict(one.channels)} for one in self.shown],
            "events": [asdict(event) for event in self.events],
        }

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "LoggedQuery":
        """Read what `to_json` returned.

        Raises:
            FeedbackError: The values are no such query.
        """
        query = cls(
            **{name: _read(values, name) for name in _OF_QUERY},
            shown=tuple(None if one is None else _shown(one) for one in _list(values, "shown")),
            events=tuple(event_of_json(event) for event in _list(values, "events")),
        )
        if not query.query_id or query.time is None:
            raise FeedbackError("A query has a query_id and a time.")
        return query


_OF_QUERY = tuple(one.name for one in fields(LoggedQuery) if one.name not in ("shown", "events"))


def event_of_json(values: Any) -> Event:
    """Read the JSON values of an event.

    Raises:
        FeedbackError: The values are no event.
    """
    if not isinstance(values, Mapping):
        raise FeedbackError(f"An event is an object; got {values!r:.60}.")
    event = Event(**{one.name: _read(values, one.name) for one in fields(Event)})
    if not event.query_id or not event.event_id or event.time is None or event.kind not in get_args(Kind):
        raise FeedbackError(f"An event has a query_id, an event_id, a time, and a kind of {get_args(Kind)}; got {values!r:.200}.")
    return event


def _list(values: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = values.get(name, [])
    if not isinstance(found, list):
        raise FeedbackError(f"{name} is a list; got {found!r:.60}.")
    return found


def _shown(values: Any) -> Shown:
    if not isinstance(values, Mapping) or not isinstance(values.get("document_id"), str):
        raise FeedbackError(f"A document that was shown is an object with a document_id; got {values!r:.60}.")
    channels = values.get("channels") or {}
    if not isinstance(channels, Mapping) or not all(type(rank) is int for rank in channels.values()):
        raise FeedbackError(f"channels map names to ranks; got {channels!r:.60}.")
    return Shown(values["document_id"], _read(values, "score"), dict(channels))


_NUMBERS = {"score": "finite number", "value": "finite number", "time": "number of POSIX seconds"}


def _read(values: Mapping[str, Any], name: str) -> Any:
    value: Any = values.get(name)
    if value is None or name == "position":
        return checked_position(value)
    kind = _NUMBERS.get(name, "string")
    found = value if kind == "string" else finite(value)
    if not isinstance(found, str if kind == "string" else float) or (name == "time" and fault_of_time(found)):
        raise FeedbackError(f"{name} is a {kind}; got {value!r:.60}.")
    return found


# ---- what a database can hold ----------------------------------------------------------------------------------


def plain(text: Any) -> str | None:
    r"""Return a text that every database holds. Postgres refuses ``\0``, and UTF-8 half of a surrogate pair.

    Example:
        >>> plain("a\0b"), plain(7), plain(None)
        ('a�b', '7', None)
    """
    return None if text is None else well_formed(str(text)).replace("\0", "\ufffd")


_Entry = TypeVar("_Entry", LoggedQuery, Event)


def clean(entry: _Entry) -> _Entry:
    """Return an entry that every database holds, whatever a search has returned."""
    texts: dict[str, Any] = {one.name: plain(getattr(entry, one.name)) for one in fields(entry) if one.name not in _NO_TEXT}
    texts |= {name: text[:LONGEST_ID] for name, text in texts.items() if name in _INDEXED and text is not None}
    if isinstance(entry, Event):
        return replace(entry, **texts)
    shown = tuple(
        None if one is None else Shown(plain(one.document_id) or "", _score(one.score), dict(one.channels)) for one in entry.shown
    )
    return replace(entry, **texts, shown=shown, events=tuple(map(clean, entry.events)))


def _score(score: Any) -> float | None:
    """Return a score as a float, also that of a `decimal.Decimal` or of an array; None where it is none."""
    try:
        return finite(float(score))
    except (TypeError, ValueError, OverflowError):
        return None


_INDEXED = ("query_id", "event_id", "run_id", "session", "user")
_NO_TEXT = ("shown", "events", "time", "value", "position")


def checked_id(name: str, value: Any) -> str:
    """Check an id that a user gives.

    Raises:
        FeedbackError: The id is no string, is empty, or is too long.
    """
    if not isinstance(value, str) or not value:
        raise FeedbackError(f"{name} is a string that is not empty; got {value!r} ({type(value).__name__}).")
    if name == "query_id" and len(value) > LONGEST_ID:
        raise FeedbackError(f"query_id has at most {LONGEST_ID} characters; got {len(value)}: {value!r:.60}….")
    return value


def checked_position(value: Any) -> int | None:
    """Check a rank that a user gives.

    Raises:
        FeedbackError: The position is no whole number from 1.
    """
    if value is None:
        return None
    try:
        position = value.__index__()
    except AttributeError:
        position = 0
    if isinstance(value, bool) or not 1 <= position <= _LARGEST:
        raise FeedbackError(f"position is the rank of the document, 1 for the first; got {value!r}.")
    return int(position)


def checked_grade(document_id: str, value: Any) -> float:
    """Check a grade that a user gives.

    Raises:
        FeedbackError: The grade is no finite number.
    """
    if (grade := finite(value)) is None:
        raise FeedbackError(f"A grade is a finite number; {document_id!r} has {value!r:.60}.")
    return grade
