"""What makes a row of labels invalid, and how times are read."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from numbers import Real
from typing import Any

import numpy as np

from deepmem_integrations._unicode import well_formed
from deepmem_integrations.errors import InvalidRelevanceError

Time = datetime | str | int | float
"""A datetime, an ISO 8601 string, or POSIX seconds. A time without a time zone is in UTC."""

_EXAMPLE = '[("an id", 1.0)]'


def by_query(relevance: Mapping[str, Any], query_ids: Sequence[str] | None) -> list[Any]:
    """Put the labels of queries, query id → labels, into the order of the ids.

    Raises:
        InvalidRelevanceError: The queries have no ids, or none of them has an id of the mapping.
    """
    if query_ids is None:
        raise InvalidRelevanceError("relevance maps query ids to documents, so the queries need ids: pass query id → text.")
    known = set(query_ids)
    unknown = [name for name in relevance if name not in known]
    if unknown:
        raise InvalidRelevanceError(f"relevance has the query id {unknown[0]!r}, which no query has ({len(unknown)} in all).")
    return [relevance.get(name, []) for name in query_ids]


def as_lists(judged: Any) -> Any:
    """Return the labels of a query as lists, which may be arrays, as they come back from Parquet, or a mapping."""
    if isinstance(judged, Mapping):
        return list(judged.items())
    if isinstance(judged, np.ndarray):
        judged = judged.tolist()
    if not isinstance(judged, list | tuple):
        return judged
    return [label.tolist() if isinstance(label, np.ndarray) else label for label in judged]


def id_set(ids: Iterable[str], name: str) -> Collection[str]:
    """Return ids as a collection with a quick look-up, from any iterable, which is read once.

    Args:
        ids: The ids. A set or a mapping is returned as it is.
        name: What the caller calls them, for the message.

    Raises:
        InvalidRelevanceError: One id stands in place of a list, or what is listed are no ids.

    Example:
        >>> sorted(id_set(["b", "a", "b"], "query_ids"))
        ['a', 'b']
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InvalidRelevanceError(f"{name} is a list of ids; got {ids!r:.60}.")
    found: Collection[str] = ids if isinstance(ids, set | frozenset | Mapping) else list(ids)
    if not isinstance(first := next(iter(found), ""), str):  # of a million, the first tells enough
        raise InvalidRelevanceError(f"{name} is a list of ids, which are strings; it has {first!r:.60} ({type(first).__name__}).")
    return set(found) if isinstance(found, list) else found


def fault_of(query: Any, judged: Any, time: Any) -> tuple[str, str] | None:
    """Find what is wrong with a row, as (kind, particulars); None where nothing is."""
    if not isinstance(query, str):
        return "the query is not a string", f"got {type(query).__name__}"
    if not query.strip():
        return "the query is empty", ""
    if well_formed(query) != query:
        return "the query holds half of a surrogate pair", f"replace it: {query[:60]!r}"
    if isinstance(judged, str) or not isinstance(judged, Sequence):
        return "the relevance is not a list of (document id, weight)", f"got {judged!s:.60}, write {_EXAMPLE}"
    if not judged:
        return "no relevant document", ""
    for label in judged:
        if isinstance(label, str) or not isinstance(label, Sequence) or len(label) != 2:
            return "a label is not a (document id, weight)", f"got {label!s:.60}, write {_EXAMPLE}"
        document, weight = label
        if document is None or document == "":
            return "a document has no id", "take documents that have the store's ids, as memory.documents() gives them"
        if not isinstance(document, str):
            return "a document id is not a string", f"got {document!r}"
        if well_formed(document) != document:
            return "a document id holds half of a surrogate pair", f"got {document!r}"
        if isinstance(weight, bool | str) or not isinstance(weight, int | float | np.integer | np.floating):
            return "a weight is not a number", f"got {weight!r} for document {document!r}"
        if finite(weight) is None:
            return "a weight is NaN or infinite", f"document {document!r}"
    return None if time is None else fault_of_time(time)


def fault_of_time(time: Any) -> tuple[str, str] | None:
    """Find what is wrong with a time, as (kind, particulars); None where nothing is."""
    try:
        time_of(time)
    except (TypeError, ValueError, OverflowError, OSError):
        return "the time is no time", f"got {time!r:.60}, write a datetime, ISO 8601 (2026-11-28T09:30:00Z) or POSIX seconds"
    return None


def time_of(time: Time | None) -> datetime | None:
    """Return a time in UTC.

    Raises:
        TypeError, ValueError, OverflowError, OSError: It is no time.

    Example:
        >>> time_of("2026-11-28T10:30:00+01:00") == time_of(1795858200) == time_of(datetime(2026, 11, 28, 9, 30))
        True
    """
    if time is None:
        return None
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    elif isinstance(time, int | float | np.integer | np.floating) and not isinstance(time, bool):
        time = datetime.fromtimestamp(float(time), UTC)
    elif not isinstance(time, datetime):
        raise TypeError(f"{type(time).__name__} is no time")
    return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).astimezone(UTC)


def finite(value: Any) -> float | None:
    """Return a number as a float; None where it is no number, NaN, infinity, or an integer beyond every float.

    Example:
        >>> finite(2), finite(10**400), finite(True), finite("2")
        (2.0, None, None, None)
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
