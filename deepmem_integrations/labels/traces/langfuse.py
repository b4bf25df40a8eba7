"""Langfuse: observations and scores, as the API, the exports into files and object stores, and the SDK give them."""

from collections.abc import Iterator, Mapping
from typing import Any

from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.traces.entries import (
    Entry,
    Judgement,
    Span,
    document_in,
    documents_of,
    first_of,
    graded,
    list_of,
    mapping_of,
    moment_of,
    query_of,
    text_of,
)

_NO_JUDGEMENTS = ("TEXT", "CORRECTION")
"""The types of scores that are comments."""


def read(row: Mapping[str, Any]) -> Iterator[Entry]:
    """Read a trace with its observations and scores, an observation, or a score.

    Fields are named as in the API (``traceId``) or as in exports (``trace_id``). Older SDKs wrote what retrievers did as plain
    spans, which are known by their documents.
    """
    if any(name in row for name in ("observations", "scores")):
        return _trace(row)
    if first_of(row, "dataType", "data_type") is not None and "name" in row:
        return _score(row)
    if "type" in row:
        return _observation(row)
    if "id" in row and first_of(row, "traceId", "trace_id", "observationId", "observation_id") is None:
        return iter(())  # a trace of an export, which holds nothing that its observations do not
    raise InvalidRelevanceError(
        "a row of Langfuse is an observation with type, a score with name and dataType, or a trace with id"
    )


def _trace(row: Mapping[str, Any]) -> Iterator[Entry]:
    for name, part in (("observations", _observation), ("scores", _score)):
        for one in list_of(row.get(name)):
            if isinstance(one, Mapping):  # the list of all traces has ids alone
                yield from part({**one, "traceId": first_of(one, "traceId", "trace_id") or row.get("id")})


def _observation(row: Mapping[str, Any]) -> Iterator[Entry]:
    kind, documents = str(row.get("type")).upper(), documents_of(row.get("output"))
    texts = bool(documents) and all(found.text is not None and found.metadata for found in documents or ())
    retrieves = kind == "RETRIEVER" or (kind == "SPAN" and texts)
    yield Span(
        text_of(first_of(row, "traceId", "trace_id")),
        text_of(row.get("id")),
        text_of(first_of(row, "parentObservationId", "parent_observation_id")),
        query=query_of(row.get("input")) if retrieves else None,
        documents=documents or () if retrieves else None,
        time=moment_of(first_of(row, "startTime", "start_time")),
    )


def _score(row: Mapping[str, Any]) -> Iterator[Judgement]:
    kind, value = str(first_of(row, "dataType", "data_type")).upper(), row.get("value")
    subject = mapping_of(row.get("subject"))  # as version 3 of the API says of what a score is
    inside = subject.get("kind") == "observation"
    if kind in _NO_JUDGEMENTS or subject.get("kind") in ("session", "experiment"):
        return
    if kind == "CATEGORICAL" and not isinstance(value, str):
        value = None  # the number of the category
    values = (value, first_of(row, "stringValue", "string_value"))
    yield from graded(
        Judgement(
            str(row.get("name")),
            tuple(value for value in values if value is not None),
            text_of(first_of(row, "traceId", "trace_id") or first_of(subject, "traceId", "trace_id", "" if inside else "id")),
            text_of(first_of(row, "observationId", "observation_id") or (subject.get("id") if inside else None)),
            document=document_in(row.get("metadata")),
            machine=str(row.get("source")).upper() == "EVAL",
            time=moment_of(first_of(row, "updatedAt", "updated_at", "timestamp")),
        )
    )
