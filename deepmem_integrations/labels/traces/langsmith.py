"""LangSmith: runs and feedback, as the API, the bulk export and `langsmith.Client` give them."""

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

_MACHINES = ("model", "auto_eval")
"""The types of ``feedback_source`` that are no person's; ``"app"`` and ``"api"`` come from LangSmith's page and from yours."""


def read(row: Mapping[str, Any]) -> Iterator[Entry]:
    """Read a run with the runs inside it, or a row of feedback.

    Feedback mostly hangs on the root run, whose id is that of the trace. A run tells the mean of its feedback
    (``feedback_stats``) as well, which counts where the rows of feedback are not given.
    """
    if "run_type" in row:
        return _run(row)
    if "key" in row and (first_of(row, "run_id", "trace_id") is not None):
        return _feedback(row)
    raise InvalidRelevanceError("a row of LangSmith is a run with run_type, or feedback with key and run_id")


def _run(row: Mapping[str, Any]) -> Iterator[Entry]:
    span = text_of(row.get("id"))
    trace = text_of(row.get("trace_id")) or span
    retrieves = str(row["run_type"]).lower() == "retriever" and row.get("error") is None
    around = list_of(row.get("parent_run_ids"))  # from the outermost one; in place of the parent in newer answers of the API
    yield Span(
        *(trace, span, text_of(row.get("parent_run_id") or (around[-1] if around else None))),
        query=query_of(row.get("inputs")) if retrieves else None,
        documents=documents_of(row.get("outputs")) or () if retrieves else None,
        time=moment_of(row.get("start_time")),
    )
    for name, stats in mapping_of(row.get("feedback_stats")).items():
        if isinstance(stats, Mapping) and stats.get("avg") is not None:
            yield Judgement(name, (stats["avg"],), trace, span)
    for child in map(mapping_of, list_of(row.get("child_runs"))):
        yield from _run({"trace_id": trace, "run_type": None, **child})


def _feedback(row: Mapping[str, Any]) -> Iterator[Judgement]:
    source = mapping_of(row.get("feedback_source"))
    trace, span = text_of(row.get("trace_id")), text_of(row.get("run_id"))
    yield from graded(
        Judgement(
            str(row["key"]),
            tuple(value for value in (row.get("score"), mapping_of(row.get("value")) or row.get("value")) if value is not None),
            trace or span,
            span,
            document=document_in(row.get("extra"), source.get("metadata")),
            machine=source.get("type") in _MACHINES,
            time=moment_of(first_of(row, "modified_at", "created_at")),
        )
    )
