"""The result of a run: the queries that it wrote, everything that it left out or skipped, and its usage."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepmem_integrations.generation.budget import Usage
from deepmem_integrations.labels import Relevance


@dataclass(frozen=True)
class GeneratedQuery:
    """A written query with its provenance.

    Attributes:
        id: The ids of the documents that the query was written for, and a number: ``"doc-1/0"``.
        text: The text of the query.
        documents: The documents that answer the query, as (id, weight): first those that the query was written for, then those
            that were judged to answer the query as well.
        kind: The kind of the query, as it was asked for.
        model: The name of the language model that wrote the query.
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
        text: The text of the query; empty where the whole answer was unusable.
        document: The id of the document that the query was written for.
        filter: The name of the filter.
        detail: The reason.
    """

    text: str
    document: str
    filter: str
    detail: str


@dataclass(frozen=True)
class Generation:
    """The result of a run.

    Attributes:
        queries: The queries that were written and kept.
        rejected: The queries that a filter left out.
        skipped: The documents that were not asked about: id → reason.
        failed: The documents whose request failed after the client's retries: id → error. A run with the same checkpoint asks
            about them again.
        usage: The usage of the requests that were sent in this run.
        cost: The cost of ``usage`` in the currency of the budget's prices; None where the budget has no prices.
        recorded: The number of answers that came from the checkpoint.
        stopped: The reason why the run ended before it asked about all documents; empty where it asked about all of them.

    Example:
        >>> from deepmem_integrations.generation import Extractive, QueryGenerator
        >>> generator = QueryGenerator(Extractive(), queries_per_document=1, progress=False)
        >>> documents = [("doc-1", "Run git revert to undo a commit. The history stays as it was."), ("doc-2", "To do.")]
        >>> generation = generator.generate(documents)
        >>> generation.queries[0].text, generation.skipped
        ('Run git revert to undo a commit.', {'doc-2': 'too short'})
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
        """The labels. ``left_out`` counts, for each reason, the queries and documents that were left out."""
        return labels(self.queries, self.rejected, self.skipped, self.failed)

    def __str__(self) -> str:
        """Show the counts in a few lines."""
        lines = [f"{len(self.queries)} queries kept, {len(self.rejected)} left out; {self.usage.told(self.recorded, self.cost)}"]
        lines += [f"{count:>7} × {reason}" for reason, count in self.relevance.left_out.items()]
        return "\n".join([*lines, *([f"stopped: {self.stopped}"] if self.stopped else [])])


def labels(
    queries: Sequence[GeneratedQuery],
    rejected: Sequence[RejectedQuery],
    skipped: Mapping[str, str],
    failed: Mapping[str, str],
) -> Relevance:
    """Return the queries as a `Relevance` whose ``left_out`` counts everything that was left out."""
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
