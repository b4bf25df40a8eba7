"""What a run has written, left out, skipped and used."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepmem_integrations.generation.budget import Usage
from deepmem_integrations.labels import Relevance


@dataclass(frozen=True)
class GeneratedQuery:
    """A query and where it comes from.

    Attributes:
        id: The ids of the documents it was written for, and a number.
        text: What it says.
        documents: The documents that answer it, as (id, weight): those it was written for first, then those that were judged
            to answer it as well.
        kind: As asked for.
        model: That wrote it.
    """

    id: str
    text: str
    documents: tuple[tuple[str, float], ...]
    kind: str
    model: str


@dataclass(frozen=True)
class RejectedQuery:
    """A query that a filter left out.

    Attributes:
        text: What it says; empty where the whole answer was of no use.
        document: The id of the document it was written for.
        filter: Which filter.
        detail: Why.
    """

    text: str
    document: str
    filter: str
    detail: str


@dataclass(frozen=True)
class Generation:
    """A run.

    Attributes:
        queries: What was written and kept.
        rejected: What a filter left out.
        skipped: Documents that were not asked about: id → reason.
        failed: Documents whose request failed after the client's retries: id → error. A run with the same checkpoint asks again.
        usage: Of the requests that were sent in this run.
        cost: In the currency of the budget's prices; None where no price is given.
        recorded: Answers that came from the checkpoint.
        stopped: Why the run ended before all documents were asked about; empty where it did not.
    """

    queries: tuple[GeneratedQuery, ...]
    rejected: tuple[RejectedQuery, ...]
    skipped: Mapping[str, str]
    failed: Mapping[str, str]
    usage: Usage
    cost: float | None
    recorded: int
    stopped: str

    @property
    def relevance(self) -> Relevance:
        """The labels; ``left_out`` counts what was left out and why."""
        return labels(self.queries, self.rejected, self.skipped, self.failed)

    def __str__(self) -> str:
        """A few lines with the counts."""
        cost = "" if self.cost is None else f", cost {self.cost:.2f}"
        lines = [
            f"{len(self.queries)} queries kept, {len(self.rejected)} left out; {self.usage.requests} requests sent, "
            f"{self.recorded} answers from the checkpoint, {self.usage.input_tokens:,} input and "
            f"{self.usage.output_tokens:,} output tokens{cost}"
        ]
        lines += [f"{count:>7} × {reason}" for reason, count in self.relevance.left_out.items()]
        return "\n".join([*lines, *([f"stopped: {self.stopped}"] if self.stopped else [])])


def labels(
    queries: Sequence[GeneratedQuery],
    rejected: Sequence[RejectedQuery],
    skipped: Mapping[str, str],
    failed: Mapping[str, str],
) -> Relevance:
    """A `Relevance` of the queries, with counts of what was left out."""
    counts = Counter(f"query: {one.filter}" for one in rejected)
    counts.update(f"document: {reason}" for reason in skipped.values())
    counts.update("document: request failed" for _ in failed)
    return Relevance(
        [query.text for query in queries],
        [query.documents for query in queries],
        [query.id for query in queries],
        generated=True,
        left_out=counts,
    )
