"""OpenTelemetry's conventions for generative AI: spans of the operation ``retrieval``, and results of evaluations."""

from collections.abc import Iterator, Mapping
from typing import Any

from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.traces.entries import Entry, Found, Judgement, Span, document_of, graded, moment_of, query_of
from deepmem_integrations.labels.traces.spans import PlainSpan, at, items_at, spans_of

EVALUATION = "gen_ai.evaluation.result"
"""The event by which feedback on a span is told, at a span or in a log."""

_DOCUMENTS = "gen_ai.retrieval.documents"


def read(row: Mapping[str, Any]) -> Iterator[Entry]:
    """Read a request of OTLP with spans or logs, or a span."""
    if (spans := spans_of(row)) is None:
        raise InvalidRelevanceError(
            "a row of OpenTelemetry is a request with resourceSpans or resourceLogs, or a span with attributes"
        )
    return (entry for span in spans for entry in _span(span))


def _span(span: PlainSpan) -> Iterator[Entry]:
    retrieves = at(span.attributes, "gen_ai.operation.name") == "retrieval"
    asked = at(span.attributes, "gen_ai.retrieval.query.text") or at(span.attributes, "input.value")
    yield Span(
        *(span.trace, span.span, span.parent),
        query=query_of(asked) if retrieves else None,
        documents=tuple(document_of(one) or Found() for one in items_at(span.attributes, _DOCUMENTS)) if retrieves else None,
        time=moment_of(span.start),
    )
    for name, attributes in span.events:
        if name == EVALUATION:
            values = (at(attributes, "gen_ai.evaluation.score.value"), at(attributes, "gen_ai.evaluation.score.label"))
            given = tuple(value for value in values if value is not None)
            # The convention does not say who judged.
            yield from graded(
                Judgement(str(at(attributes, "gen_ai.evaluation.name")), given, span.trace, span.span, machine=True)
            )
