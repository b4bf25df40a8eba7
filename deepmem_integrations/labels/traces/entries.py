"""What the readers of all formats yield: spans, judgements, and labels; and how values of traces are read."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from deepmem_integrations._files import parse_json
from deepmem_integrations._texts import REF_DOC_ID
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.checking import Time, finite, time_of
from deepmem_integrations.labels.records import Kind


@dataclass(frozen=True)
class Found:
    """A document as a trace shows it. Any of its parts may be missing.

    Attributes:
        id: The id; None where the tracer does not write it.
        text: The text.
        metadata: The metadata, among which a key may name the document.
        score: The score by which the document was ranked.
    """

    id: str | None = None
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None


@dataclass(frozen=True)
class Span:
    """A step of a trace: that of a retriever has documents, and others tell which steps lie in one another.

    Attributes:
        trace: The id of the trace.
        span: The id of the step; None where the format has none.
        parent: The id of the step around it.
        query: The text that a retriever was asked; None where there is none that can be read.
        documents: What a retriever returned, best first; None for a step that is no retriever.
        time: When it began.
    """

    trace: str | None
    span: str | None
    parent: str | None = None
    query: str | None = None
    documents: tuple[Found, ...] | None = None
    time: Time | None = None


@dataclass(frozen=True)
class Judgement:
    """What was thought of a step, of a trace or of a document.

    Attributes:
        name: What the feedback is called: ``"thumb"``, ``"relevance"``, ``"click"``.
        values: The value in each form in which it is given: a number or truth value, then a label.
        trace: The id of the trace; None where only the span is known.
        span: The id of the step; None for the whole trace.
        document: The document: its place among the results, from 0, or what is known of it. None for the answer.
        position: The rank at which the document was clicked, from 1.
        machine: Whether a program judged, and no person.
        kind: What the feedback is where the format says so.
        time: When it was given.
    """

    name: str
    values: tuple[Any, ...]
    trace: str | None = None
    span: str | None = None
    document: int | Found | None = None
    position: int | None = None
    machine: bool = False
    kind: Kind | None = None
    time: Time | None = None


@dataclass(frozen=True)
class Labelled:
    """A query with its labels, from a format that has labels of its own.

    Attributes:
        query_id: The id of the query; None where it has none.
        query: The text.
        judged: Its documents with their weights.
        generated: Whether a language model wrote the query.
    """

    query_id: str | None
    query: str | None
    judged: tuple[tuple[Found, float], ...]
    generated: bool = False


Entry = Span | Judgement | Labelled
"""What a reader yields for a row."""


# ---- plain values ------------------------------------------------------------------------------------------------


def tidy(value: Any) -> Any:
    """Return a value of a table as JSON has it: None for NaN and NaT, lists for arrays, texts for UUIDs."""
    if isinstance(value, Mapping):
        return {str(key): tidy(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [tidy(item) for item in value]
    if isinstance(value, UUID):
        return str(value)
    return None if isinstance(value, float | datetime) and value != value else value


def unpacked(value: Any) -> Any:
    """Return what a text of JSON, or of Python as pandas writes it into CSV, holds; and anything else as it is.

    Example:
        >>> unpacked('{"query": "undo"}'), unpacked("['a', 'b']"), unpacked("[draft] undo a commit")
        ({'query': 'undo'}, ['a', 'b'], '[draft] undo a commit')
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        for read in (parse_json, ast.literal_eval):
            try:
                return read(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
    return value


def mapping_of(value: Any) -> Mapping[str, Any]:
    """Return the mapping that a value is or holds as text, and an empty one for anything else."""
    value = unpacked(value)
    return value if isinstance(value, Mapping) else {}


def list_of(value: Any) -> list[Any]:
    """Return the list that a value is or holds as text, and an empty one for anything else."""
    value = unpacked(value)
    return list(value) if isinstance(value, list | tuple) else []


def text_of(value: Any) -> str | None:
    """Return an id as a text; None where there is none."""
    if value is None or isinstance(value, bool) or value == "":
        return None
    return str(value) if isinstance(value, str | int) else str(int(value)) if _is_whole(value) else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def place_of(value: Any, said: str) -> int | None:
    """Return a place among results, which tables may write as 1.0 or as a text; None where there is none.

    Args:
        value: The value.
        said: What it is, for the message.

    Raises:
        InvalidRelevanceError: The value is no whole number from 0 on.

    Example:
        >>> place_of("2.0", "position is a place"), place_of(None, "position is a place")
        (2, None)
    """
    if value is None:
        return None
    if isinstance(value, bool) or not str(value).removesuffix(".0").isdecimal():
        raise InvalidRelevanceError(f"{said}; got {value!r}")
    return int(float(value))


def moment_of(value: Any) -> Time | None:
    """Return the time that a trace writes: a datetime, ISO 8601, or POSIX seconds, milli-, micro- or nanoseconds.

    Raises:
        InvalidRelevanceError: The value is none of these.

    Example:
        >>> moment_of("1795869429395018452").isoformat(), moment_of(1795869429395).isoformat()
        ('2026-11-28T12:37:09.395018+00:00', '2026-11-28T12:37:09.395000+00:00')
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str) and value.strip().lstrip("-").replace(".", "", 1).isdigit():
            value = float(value) if "." in value else int(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            unit = next((unit for unit in (10**9, 10**6, 10**3) if abs(value) >= 10**8 * unit), 1)
            return datetime.fromtimestamp(value / unit, UTC)
        return time_of(value)
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidRelevanceError(
            f"a time is ISO 8601 or POSIX seconds, milli-, micro- or nanoseconds; got {value!r:.60}"
        ) from None


# ---- queries and documents ------------------------------------------------------------------------------------------

_QUERY = (
    "query",
    "question",
    "user_query",
    "query_str",
    "search_query",
    "user_input",
    "str_or_query_bundle",
    "input",
    "value",
    "text",
)
_TEXT = ("page_content", "content", "text", "page_text")
_ID = ("id", "id_", "document_id", "doc_id", "node_id")
_SOURCE = "1"
"""Under which relationship LlamaIndex writes the source of a node."""
_LISTS = ("documents", "nodes", "source_nodes", "source_documents", "output", "results", "matches", "value")


def query_of(value: Any) -> str | None:
    """Find the query in what a retriever was given: a text, an object that has it under a usual name, or chat messages.

    Of messages, the last one of the user counts.

    Example:
        >>> query_of('{"query": "undo a commit"}'), query_of([{"role": "user", "content": "undo a commit"}])
        ('undo a commit', 'undo a commit')
    """
    for _ in range(6):
        value = unpacked(value)
        if isinstance(value, str):
            return value.strip() or None
        if isinstance(value, Mapping):
            names = [name for name in _QUERY if value.get(name) not in (None, "")]
            if not names and len(value) == 1:
                names = list(value)  # the one argument of a function, whatever its name
            messages = value.get("messages") or value.get("content")
            value = value[names[0]] if names else messages
        elif isinstance(value, list) and value:
            asked = [
                one for one in value if isinstance(one, Mapping) and (one.get("role") or one.get("type")) in ("user", "human")
            ]
            value = (asked or value)[-1]
        else:
            return None
    return None


def documents_of(value: Any) -> tuple[Found, ...] | None:
    """Find the documents in what a retriever returned; None where it returned none that can be read.

    Known are the documents of LangChain, plain and as its own serialization writes them, the nodes of LlamaIndex with and without
    scores, documents with scores as pairs, and bare texts.
    """
    for _ in range(4):
        value = unpacked(value)
        if isinstance(value, list | tuple):
            found = [document_of(one) for one in value]
            return None if None in found else tuple(one for one in found if one is not None)
        if not isinstance(value, Mapping):
            return None
        value = next((value[name] for name in _LISTS if isinstance(unpacked(value.get(name)), list | Mapping)), None)
    return None


def document_of(value: Any) -> Found | None:
    """Read one document: see `documents_of`."""
    if isinstance(value, str):
        return Found(text=value)
    score: Any = None
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], int | float):
        value, score = value
    if not isinstance(value, Mapping):
        return None
    for inner in ("node", "document"):
        if isinstance(value.get(inner), Mapping):
            score = value.get("score", score)
            value = value[inner]
    if isinstance(value.get("kwargs"), Mapping):  # LangChain's serialization, in which "id" is the path of the class
        value = value["kwargs"]
    text = next((value[name] for name in _TEXT if isinstance(value.get(name), str)), None)
    if text is None and isinstance(resource := value.get("text_resource"), Mapping):
        text = resource.get("text")
    name = next((found for key in _ID if (found := text_of(value.get(key))) is not None), None)
    if text is None and name is None and not isinstance(value.get("metadata"), Mapping | str):
        return None
    metadata = mapping_of(value.get("metadata"))
    if (source := text_of(mapping_of(mapping_of(value.get("relationships")).get(_SOURCE)).get("node_id"))) is not None:
        metadata = {REF_DOC_ID: source, **metadata}
    return Found(name, text if isinstance(text, str) else None, metadata, finite(value.get("score", score)))


def first_of(row: Mapping[str, Any], *names: str) -> Any:
    """Return the first value that a row has under one of the names."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def document_in(*metadata: Any) -> Found | None:
    """Return the document that feedback names in its metadata, under ``document_id``, where the tool has no other place."""
    for one in metadata:
        if (name := text_of(first_of(mapping_of(one), "document_id", "documentId"))) is not None:
            return Found(name)
    return None


def graded(judgement: Judgement) -> Iterator[Judgement]:
    """Yield a judgement; or, where its value maps ids of documents to grades, one for each of these."""
    grades: Sequence[Mapping[str, Any]] = [value for value in judgement.values if isinstance(value, Mapping)]
    if not grades:
        yield judgement
    for name, value in grades[0].items() if grades else ():
        yield Judgement(**{**vars(judgement), "values": (value,), "document": Found(str(name))})
