"""The spans of OpenTelemetry, in each form in which files hold them, as plain spans with nested attributes."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deepmem_integrations.labels.traces.entries import first_of, list_of, mapping_of, text_of

_WANTED = ("annotations", "gen_ai", "input", "openinference", "reranker", "retrieval")
"""The first parts of the names of attributes that are read."""


@dataclass(frozen=True)
class PlainSpan:
    """A span, or the record of a log that belongs to one.

    Attributes:
        trace: The id of the trace, in hexadecimal digits.
        span: The id of the span, likewise.
        parent: The id of the span around it.
        start: When it began, as it is written.
        attributes: The attributes, nested: ``{"input": {"value": …}}``.
        events: (name, nested attributes) of each event.
        kind: What Phoenix calls the kind of the span.
    """

    trace: str | None
    span: str | None
    parent: str | None = None
    start: Any = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    kind: str | None = None


def spans_of(row: Mapping[str, Any]) -> Iterator[PlainSpan] | None:
    """Return the spans of a row, or None where the row is something else.

    Known are a request of OTLP in JSON, as the collector writes it into files; a span of it; a span as OpenTelemetry's Python SDK
    and Phoenix write it; and a row of Phoenix's data frames.
    """
    for whole, scopes, parts in (("resourceSpans", "scopeSpans", "spans"), ("resourceLogs", "scopeLogs", "logRecords")):
        if whole in row:
            return (
                _of_otlp(mapping_of(part))
                for resource in list_of(row[whole])
                for scope in list_of(mapping_of(resource).get(scopes))
                for part in list_of(mapping_of(scope).get(parts))
            )
    if "attributes" not in row and not any(name.startswith("attributes.") for name in row):
        return None
    return iter([_of_otlp(row) if "spanId" in row else _of_json(row)])


def _of_otlp(row: Mapping[str, Any]) -> PlainSpan:
    events = tuple((str(one.get("name")), nested(_attributes(one))) for one in map(mapping_of, list_of(row.get("events"))))
    attributes, name = nested(_attributes(row)), first_of(row, "eventName", "event_name")
    if name is not None:  # the record of a log
        return PlainSpan(hexadecimal(row.get("traceId")), hexadecimal(row.get("spanId")), events=((str(name), attributes),))
    trace, span, parent = (hexadecimal(row.get(name)) for name in ("traceId", "spanId", "parentSpanId"))
    return PlainSpan(trace, span, parent, row.get("startTimeUnixNano"), attributes, events)


def _of_json(row: Mapping[str, Any]) -> PlainSpan:
    context = mapping_of(row.get("context"))
    attributes: dict[str, Any] = dict(mapping_of(row.get("attributes")))
    attributes |= {name.removeprefix("attributes."): row[name] for name in row if name.startswith("attributes.")}
    events = (mapping_of(one) for one in list_of(row.get("events")))
    return PlainSpan(
        hexadecimal(first_of(row, "context.trace_id", "trace_id") or context.get("trace_id")),
        hexadecimal(first_of(row, "context.span_id", "span_id") or context.get("span_id")),
        hexadecimal(first_of(row, "parent_id", "parent_span_id")),
        first_of(row, "start_time", "start_time_unix_nano"),
        nested({name: value for name, value in attributes.items() if value is not None}),
        tuple((str(one.get("name")), nested(mapping_of(one.get("attributes")))) for one in events),
        text_of(row.get("span_kind")),
    )


def hexadecimal(value: Any) -> str | None:
    """Return the id of a trace or span as lower-case hexadecimal digits, which Python writes after ``0x``, and MLflow in base 64.

    Example:
        >>> hexadecimal("0x609D7F721992AD67"), hexadecimal("YJ1/chmSrWc=")
        ('609d7f721992ad67', '609d7f721992ad67')
    """
    text = text_of(value)
    if text is None:
        return None
    plain = text.lower().removeprefix("0x")
    if re.fullmatch("([0-9a-f]{16}){1,2}", plain):
        return plain
    if len(text) in (12, 24) and text.endswith("="):
        try:
            return base64.b64decode(text, validate=True).hex()
        except binascii.Error:
            pass
    return text


def _attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(one.get("key")): _value(one.get("value")) for one in map(mapping_of, list_of(row.get("attributes")))}


def _value(value: Any) -> Any:
    """Return the value of OTLP's ``AnyValue``."""
    if not isinstance(value, Mapping):
        return value
    if "arrayValue" in value:
        return [_value(one) for one in list_of(mapping_of(value["arrayValue"]).get("values"))]
    if "kvlistValue" in value:
        return _attributes({"attributes": mapping_of(value["kvlistValue"]).get("values")})
    for name, convert in (("stringValue", str), ("boolValue", bool), ("intValue", int), ("doubleValue", float)):
        if name in value:
            return convert(value[name])
    return None


def nested(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Nest the attributes that are read, by the dots in their names.

    Example:
        >>> nested({"retrieval.documents.1.document.id": "b", "retrieval.documents.0.document.id": "a", "llm.model": "m"})
        {'retrieval': {'documents': {'1': {'document': {'id': 'b'}}, '0': {'document': {'id': 'a'}}}}}
    """
    return _nested({name: value for name, value in attributes.items() if name.split(".", 1)[0] in _WANTED})


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        here = tree
        for part in path:
            inner = here.setdefault(part, {})
            if not isinstance(inner, dict):
                inner = here[part] = {}
            here = inner
        if isinstance(value, Mapping):
            value = _nested(value)
        here[last] = {**here[last], **value} if isinstance(here.get(last), dict) and isinstance(value, dict) else value
    return tree


def at(tree: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path of nested attributes, or None."""
    here: Any = tree
    for part in path.split("."):
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def items_at(tree: Mapping[str, Any], path: str) -> list[Mapping[str, Any]]:
    """Return the items of a list of attributes in their order: the list itself, or what stands under 0, 1, 2, …."""
    value = at(tree, path)
    if isinstance(value, Mapping):
        value = [value[key] for key in sorted((key for key in value if key.isdecimal()), key=int)]
    return [_nested(mapping_of(one)) for one in list_of(value)]
