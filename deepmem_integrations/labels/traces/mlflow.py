"""MLflow: traces with their spans and assessments, as ``Trace.to_json``, ``search_traces`` and the server give them."""

from collections.abc import Iterator, Mapping
from typing import Any

from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.traces.entries import (
    Entry,
    Judgement,
    Span,
    document_in,
    document_of,
    documents_of,
    first_of,
    graded,
    list_of,
    mapping_of,
    moment_of,
    query_of,
    text_of,
    unpacked,
)
from deepmem_integrations.labels.traces.spans import hexadecimal

EXPECTED = "expected_retrieved_context"
"""The expectation that names the documents which should be found."""


def read(row: Mapping[str, Any]) -> Iterator[Entry]:
    """Read a trace: an object with ``info`` and ``data``, or a row of a data frame of traces."""
    whole = mapping_of(row.get("trace")) or row
    info, data = mapping_of(whole.get("info")) or whole, mapping_of(whole.get("data")) or whole
    trace = text_of(first_of(info, "trace_id", "request_id"))
    if trace is None or "spans" not in data:
        raise InvalidRelevanceError("a row of MLflow is a trace, with trace_id in its info and spans in its data")
    return _entries(trace, list_of(data["spans"]), list_of(info.get("assessments")))


def _entries(trace: str, spans: list[Any], assessments: list[Any]) -> Iterator[Entry]:
    for span in map(mapping_of, spans):
        attributes = mapping_of(span.get("attributes"))
        retrieves = unpacked(attributes.get("mlflow.spanType")) == "RETRIEVER"
        inputs, outputs = attributes.get("mlflow.spanInputs"), attributes.get("mlflow.spanOutputs")
        yield Span(
            trace,
            hexadecimal(span.get("span_id") or mapping_of(span.get("context")).get("span_id")),
            hexadecimal(first_of(span, "parent_span_id", "parent_id")),
            query=query_of(inputs) if retrieves else None,
            documents=documents_of(outputs) or () if retrieves else None,
            time=moment_of(first_of(span, "start_time_unix_nano", "start_time")),
        )
    for one in map(mapping_of, assessments):
        if one.get("valid", True) is not False:  # one that was corrected later
            yield from _assessment(trace, one)


def _assessment(trace: str, row: Mapping[str, Any]) -> Iterator[Judgement]:
    name = str(first_of(row, "assessment_name", "name"))
    about = (trace, hexadecimal(row.get("span_id")))
    time = moment_of(first_of(row, "last_update_time", "create_time", "last_update_time_ms", "create_time_ms"))
    if (expected := _value(row.get("expectation"))) is not None:
        for one in list_of(expected) if name == EXPECTED else ():
            found = document_of(one if not isinstance(one, Mapping) or "metadata" in one else {**one, "metadata": one})
            if found is not None:
                yield Judgement(name, (1.0,), *about, document=found, kind="grade", time=time)
        return
    value = _value(row.get("feedback"))
    machine = str(mapping_of(row.get("source")).get("source_type")).upper() not in ("HUMAN", "SOURCE_TYPE_UNSPECIFIED")
    document = document_in(row.get("metadata"))
    yield from graded(Judgement(name, () if value is None else (value,), *about, document, machine=machine, time=time))


def _value(holder: Any) -> Any:
    holder = mapping_of(holder)
    return (
        unpacked(mapping_of(holder.get("serialized_value")).get("value")) if "serialized_value" in holder else holder.get("value")
    )
