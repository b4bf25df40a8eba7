"""The result of a judge's run: labels, how far the judge agrees with people, what was left out, and the usage."""

from collections.abc import Mapping
from dataclasses import dataclass

from deepmem_integrations.generation.budget import Usage
from deepmem_integrations.judging.agreement import Agreement
from deepmem_integrations.labels import Relevance


@dataclass(frozen=True)
class Judged:
    """The result of a run.

    Attributes:
        relevance: The labels. ``judges`` says of each query who judged, and ``left_out`` counts what was left out.
        grades: Query id → document id → grade.
        agreement: The agreement with the sample that people judged; None without a sample.
        failed: The queries with a request that failed after the client's retries: id → error.
        usage: The usage of the requests that were sent in this run.
        cost: The cost of ``usage`` in the currency of the budget's prices; None where the budget has no prices.
        recorded: The number of answers that came from the checkpoint.
        stopped: The reason why the run ended before it asked about all documents; empty where it asked about all of them.
    """

    relevance: Relevance
    grades: Mapping[str, Mapping[str, int]]
    agreement: Agreement | None
    failed: Mapping[str, str]
    usage: Usage
    cost: float | None
    recorded: int
    stopped: str

    def __str__(self) -> str:
        """Show the counts in a few lines."""
        lines = [
            f"{len(self.relevance)} queries judged, {sum(map(len, self.relevance.labels))} answers and "
            f"{sum(map(len, self.relevance.irrelevant))} irrelevant documents; "
            f"{self.usage.told(self.recorded, self.cost)}"
        ]
        lines += [f"agreement with people: {self.agreement}"] if self.agreement else []
        lines += [f"{count:>7} × {reason}" for reason, count in self.relevance.left_out.items()]
        return "\n".join([*lines, *([f"stopped: {self.stopped}"] if self.stopped else [])])
