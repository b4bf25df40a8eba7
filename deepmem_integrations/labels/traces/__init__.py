"""Labels from the traces of tools: a reader for each format, and one way to join, resolve and count what they read."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.carrying import Documents
from deepmem_integrations.labels.checking import Time, time_of
from deepmem_integrations.labels.policies import Policy, check_policy
from deepmem_integrations.labels.traces import clients, langfuse, langsmith, mlflow, otel, phoenix, ragas, trec, ubi
from deepmem_integrations.labels.traces.entries import Entry, Labelled
from deepmem_integrations.labels.traces.joining import Feedback, Joined
from deepmem_integrations.labels.traces.joining import Row as LabelledRow
from deepmem_integrations.labels.traces.resolving import How, Resolver
from deepmem_integrations.labels.traces.rows import Row, Traces, rows_of
from deepmem_integrations.labels.traces.weighing import Weights

_logger = logging.getLogger(__name__)

Format = Literal["langsmith", "langfuse", "phoenix", "otel", "ubi", "mlflow", "ragas", "trec"]
"""The formats of traces and of test sets that are read."""
FORMATS: tuple[Format, ...] = get_args(Format)
READERS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Entry]]] = {
    "langsmith": langsmith.read,
    "langfuse": langfuse.read,
    "phoenix": phoenix.read,
    "otel": otel.read,
    "ubi": ubi.read,
    "mlflow": mlflow.read,
    "ragas": ragas.read,
}
"""Format → a function that reads a row. TREC has files of lines, and is read by `trec`."""
LONGEST_QUERY = 2000
"""Longer queries are left out by default: they are prompts."""
LOST: tuple[How, ...] = ("ambiguous", "unmatched")
"""How a document comes to give no label."""

__all__ = [
    "FORMATS",
    "LONGEST_QUERY",
    "LOST",
    "Feedback",
    "Format",
    "LabelledRow",
    "TraceReport",
    "Traces",
    "Weights",
    "read_traces",
]


@dataclass(frozen=True)
class TraceReport:
    """What was read from traces, and what gave no label.

    Attributes:
        spans: How many steps of traces there were, of all kinds.
        searches: How many of them were searches, by a retriever.
        judgements: How many judgements of answers and documents there were.
        documents: How the judged documents were found: ``"id"``, ``"key"`` (a metadata key) or ``"text"`` → count; and
            ``"ambiguous"`` (several documents came into question) and ``"unmatched"``, which give no label.
        left_out: What else gave no label: reason → count.
    """

    spans: int
    searches: int
    judgements: int
    documents: Mapping[How, int]
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        """Say it for people, the reasons a line each."""
        found = ", ".join(f"{self.documents[how]:,} {said}" for how, said in _SAID.items())
        lines = [f"{self.spans:,} spans, {self.searches:,} searches, {self.judgements:,} judgements; judged documents: {found}"]
        return "\n".join([*lines, *(f"left out: {count:,} × {reason}" for reason, count in self.left_out.items())])


_SAID: Mapping[How, str] = {
    "id": "found by id",
    "key": "by metadata",
    "text": "by text",
    "ambiguous": "ambiguous",
    "unmatched": "not found",
}


def read_traces(
    traces: Traces,
    format: Format,
    *,
    policy: Policy = "judged",
    documents: Documents | None = None,
    id_key: str | None = None,
    level: str | None = None,
    feedback: Feedback | None = None,
    weights: Weights | None = None,
    longest_query: int = LONGEST_QUERY,
    on_invalid: Literal["raise", "drop"] = "raise",
    project: str | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> tuple[list[LabelledRow], TraceReport]:
    """Read traces, and return the labelled queries with a report, which is logged, too: see `Relevance.from_traces`."""
    if on_invalid not in ("raise", "drop"):
        raise InvalidRelevanceError(f"on_invalid is 'raise' or 'drop'; got {on_invalid!r}.")
    if format not in FORMATS:
        raise InvalidRelevanceError(f"format is one of {', '.join(map(repr, FORMATS))}; got {format!r}.")
    check_policy(policy)
    if format in ("ragas", "trec") and (policy != "judged" or feedback is not None or weights is not None):
        raise InvalidRelevanceError(
            f"The format {format!r} holds labels and no feedback: leave policy, feedback and weights out."
        )
    if format == "ubi" and feedback is None:
        feedback = {"click": "click"}
    joined = Joined(Resolver(documents, id_key, level), longest_query)
    faults: list[str] = []

    def at_fault(message: str) -> None:
        if on_invalid == "raise":
            raise InvalidRelevanceError(f'{message}. Read on without such rows with on_invalid="drop".')
        faults.append(message)

    start, end = map(_moment, (since, until))
    for row in _rows(traces, format, project, start, end):
        if isinstance(row, Labelled):
            joined.add(row, "")
            continue
        if row.value is None:
            at_fault(f"{row.where}: {row.fault}")
            continue
        try:
            entries = list(READERS[format](row.value))
        except InvalidRelevanceError as error:
            at_fault(f"{row.where}: {error}")
            continue
        for entry in entries:
            joined.add(entry, row.where)
    unread: list[str] = []
    labelled = joined.rows(policy, feedback, weights, unread)
    for message in unread:
        at_fault(message)
    if not joined.searches and not labelled and not joined.left_out and not faults:
        raise InvalidRelevanceError(
            f"The traces hold no search: none of {joined.spans} spans is a retriever's. Is the format right?"
        )
    left_out = Counter(joined.left_out)
    if start is not None or end is not None:
        within = [row for row in labelled if _within(row, start, end)]
        left_out["a query that was asked at another time"] += len(labelled) - len(within)
        labelled = within
    if faults:
        left_out["a row that cannot be read"] = len(faults)
        _logger.warning("%d rows of traces cannot be read; the first: %s.", len(faults), faults[0])
    counts = {how: joined.documents[how] for how in _SAID}
    report = TraceReport(joined.spans, len(joined.searches), len(joined.judgements), counts, dict(+left_out))
    _logger.log(logging.WARNING if any(counts[how] for how in LOST) else logging.INFO, "Labels from traces: %s", report)
    return labelled, report


def _moment(when: Time | None) -> datetime | None:
    try:
        return time_of(when)
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidRelevanceError(f"A time is a datetime, ISO 8601 or POSIX seconds; got {when!r:.60}.") from None


def _within(row: LabelledRow, start: datetime | None, end: datetime | None) -> bool:
    when = None if row.time is None else time_of(row.time)
    return when is not None and (start is None or when >= start) and (end is None or when < end)


def _rows(
    traces: Any, format: Format, project: str | None, since: datetime | None, until: datetime | None
) -> Iterator[Row | Labelled]:
    if format == "trec":
        return trec.read(traces)
    live = clients.rows_of_client(traces, project, since, until)
    if live is None and project is not None:
        raise InvalidRelevanceError("project is for the clients of LangSmith, Phoenix and MLflow; files and rows are read whole.")
    return rows_of(traces if live is None else live)
