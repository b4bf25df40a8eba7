"""User Behavior Insights (UBI) 1.3: the queries and the events of a search page, as OpenSearch stores and exports them."""

from collections.abc import Iterator, Mapping
from typing import Any

from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.traces.entries import (
    Entry,
    Found,
    Judgement,
    Span,
    list_of,
    mapping_of,
    moment_of,
    place_of,
    query_of,
    text_of,
)

IMPRESSION = "impression"
"""The action that says that a document was on the screen; it judges nothing."""


def read(row: Mapping[str, Any]) -> Iterator[Entry]:
    """Read a query with its hits, or an event."""
    row = mapping_of(row.get("_source")) or row
    query_id = text_of(row.get("query_id"))
    if "action_name" not in row and (query_id is None or "user_query" not in row):
        raise InvalidRelevanceError("a row of UBI is a query with query_id and user_query, or an event with action_name")
    time = moment_of(row.get("timestamp"))
    hits = tuple(Found(text_of(hit)) for hit in list_of(row.get("query_response_hit_ids")))
    if "action_name" not in row or (row.get("user_query") is not None and query_id is not None):
        yield Span(query_id, query_id, query=query_of(row.get("user_query")), documents=hits, time=time)
    if "action_name" in row:
        attributes = mapping_of(row.get("event_attributes"))
        thing, place = (mapping_of(attributes.get(name)) for name in ("object", "position"))
        name = text_of(thing.get("object_id") or row.get("event_attributes.object.object_id"))
        ordinal = place.get("ordinal", row.get("event_attributes.position.ordinal"))
        rank = place_of(ordinal, "event_attributes.position.ordinal is the rank of the object, from 1")
        action = str(row["action_name"])
        kind = "click" if action == "click" else None
        document = None if name is None else Found(name)
        yield Judgement(action, (1.0,), query_id, query_id, document, rank or None, kind=kind, time=time)  # type: ignore[arg-type]
