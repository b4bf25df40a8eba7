"""Phoenix, and whatever else writes OpenInference's spans: retrievers and rerankers, and annotations of spans and documents."""

from collections.abc import Iterator, Mapping
from typing import Any

from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.traces.entries import (
    Entry,
    Found,
    Judgement,
    Span,
    document_in,
    document_of,
    first_of,
    graded,
    mapping_of,
    moment_of,
    place_of,
    query_of,
    text_of,
)
from deepmem_integrations.labels.traces.spans import PlainSpan, at, hexadecimal, items_at, spans_of

_DOCUMENTS = {"RETRIEVER": "retrieval.documents", "RERANKER": "reranker.output_documents"}


def read(row: Mapping[str, Any]) -> Iterator[Entry]:
    """Read spans, or an annotation of a span, of a document at a place of a span, or of a trace."""
    if (spans := spans_of(row)) is not None:
        return (entry for span in spans for entry in _span(span))
    if first_of(row, "annotator_kind", "annotatorKind", "annotation_name") is not None:
        return graded(_annotation(row))
    raise InvalidRelevanceError(
        "a row of Phoenix is a span with attributes, or an annotation with name, annotator_kind and span_id"
    )


def _span(span: PlainSpan) -> Iterator[Entry]:
    kind = str(at(span.attributes, "openinference.span.kind") or span.kind or "").upper()
    retrieves = kind in _DOCUMENTS
    found = [document_of(one) for one in items_at(span.attributes, _DOCUMENTS[kind])] if retrieves else []
    asked = at(span.attributes, "reranker.query") if kind == "RERANKER" else None
    yield Span(
        *(span.trace, span.span, span.parent),
        query=query_of(asked or at(span.attributes, "input.value")) if retrieves else None,
        documents=tuple(one or Found() for one in found) if retrieves else None,
        time=moment_of(span.start),
    )
    for one in items_at(span.attributes, "annotations"):
        yield from graded(_annotation({"trace_id": span.trace, "span_id": span.span, **mapping_of(one.get("annotation"))}))


def _annotation(row: Mapping[str, Any]) -> Judgement:
    result = mapping_of(row.get("result"))
    row = {**row, **result}
    values = (first_of(row, "score", "result.score"), first_of(row, "label", "result.label"))
    position = place_of(
        first_of(row, "document_position", "documentPosition"),
        "document_position is the place of the document among the results, from 0",
    )
    return Judgement(
        str(first_of(row, "name", "annotation_name")),
        tuple(value for value in values if value is not None),
        hexadecimal(first_of(row, "trace_id", "traceId")),
        hexadecimal(first_of(row, "span_id", "context.span_id", "spanId")),
        document=document_in(row.get("metadata")) if position is None else position,
        machine=text_of(first_of(row, "annotator_kind", "annotatorKind")) in ("LLM", "CODE"),
        time=moment_of(first_of(row, "updated_at", "created_at")),
    )
