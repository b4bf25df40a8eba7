"""What a training tried, what it chose and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deepmem_integrations.evaluation import Interval


@dataclass(frozen=True)
class ViewReport:
    """Held-out scores of the choice in one view; means between 0 and 1.

    Attributes:
        base: ``ndcg@10`` and ``recall@10`` of the untransformed queries.
        chosen: Those of the chosen candidate.
        gains: Their paired differences with 95% intervals.
    """

    base: Mapping[str, float]
    chosen: Mapping[str, float]
    gains: Mapping[str, Interval]


@dataclass(frozen=True)
class TrainingReport:
    """Everything here was measured on training queries that were held out in turn; the test split took no part.

    Attributes:
        chosen: The candidate, e.g. ``linear(labelled, 8 epochs) + memory(τ=0.1, β=2)``, or ``identity``.
        reason: Why.
        seen: Held-out queries drawn at random; None where there were too few queries to hold any out.
        unseen: Held-out queries whose documents no training query asks for.
        queries: How many labelled queries the training used, after merging those with the same vector.
        documents: The size of the corpus.
        labelled_documents: How many documents carry a label.
        merged_queries: How many queries were merged into another one with the same vector.
        candidates: Each candidate's mean held-out scores.
        seconds: Wall time of the training.
        seed: The seed.
        max_unseen_loss: The tolerance, in points.
    """

    chosen: str
    reason: str
    seen: ViewReport | None
    unseen: ViewReport | None
    queries: int
    documents: int
    labelled_documents: int
    merged_queries: int
    seconds: float
    seed: int
    max_unseen_loss: float
    candidates: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.queries} labelled queries, {self.labelled_documents} of {self.documents} documents labelled, "
            f"{self.seconds:.1f} s",
            f"chosen: {self.chosen}",
            f"why:    {self.reason}",
        ]
        for name, view in (("seen answers", self.seen), ("unseen answers", self.unseen)):
            if view:
                lines += [
                    f"{name:<15} {metric:<10} {100 * view.base[metric]:5.1f} → {100 * view.chosen[metric]:5.1f}   {gain}"
                    for metric, gain in view.gains.items()
                ]
        if self.seen:
            lines.append("(held-out training queries, 3-fold cross-validation; 95% intervals)")
        return "\n".join(lines)
