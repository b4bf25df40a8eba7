"""The report of a training: what was tried, what was chosen, and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deepmem_integrations.evaluation import Interval


@dataclass(frozen=True)
class ViewReport:
    """The held-out scores of the choice in one view. Means lie between 0 and 1.

    Attributes:
        queries: The number and the kind of the queries, e.g. ``240 held-out training queries``.
        base: ``ndcg@10`` and ``recall@10`` of the untransformed queries.
        chosen: ``ndcg@10`` and ``recall@10`` of the chosen candidate.
        gains: The paired differences of the two with 95% intervals.
    """

    queries: str
    base: Mapping[str, float]
    chosen: Mapping[str, float]
    gains: Mapping[str, Interval]


@dataclass(frozen=True)
class RankingReport:
    """The report on the ranking of a retriever.

    Attributes:
        chosen: The candidate, e.g. ``linear(labelled) + 0.2 words + 0.4 answers``.
        reason: Why the candidate was chosen.
        seen: The scores on held-out queries drawn at random, or on the validation queries.
        unseen: The scores on held-out queries whose documents no training query asks for.
        channels: The mean held-out scores without a model, of the transform alone, of words and answers alone, of the common
            hybrid (RRF), and of the chosen ranking.
        runner_up: The mean held-out scores of the ranking that would have been chosen in place of this one; None where none held
            up.
    """

    chosen: str
    reason: str
    seen: ViewReport
    unseen: ViewReport
    channels: list[dict[str, Any]]
    runner_up: Mapping[str, Any] | None = None

    def lines(self) -> list[str]:
        """Say it in a few lines for people."""
        lines = [f"a retriever ranks by: {self.chosen}", f"why:    {self.reason}"]
        for name, view in (("seen answers", self.seen), ("unseen answers", self.unseen)):
            lines += _view_lines(name, view)
        lines.append(f"{'':<18}{'seen nDCG@10':>14}{'recall@10':>11}{'unseen nDCG@10':>16}{'recall@10':>11}")
        for row in self.channels:
            values = [100 * row[f"{view} {metric}"] for view in ("seen", "unseen") for metric in ("ndcg@10", "recall@10")]
            lines.append("{:<18}{:>14.1f}{:>11.1f}{:>16.1f}{:>11.1f}".format(row["candidate"], *values))
        return lines


@dataclass(frozen=True)
class TrainingReport:
    """The report of a training.

    All scores were measured on training queries that were held out in turn, or on the validation queries of the caller.

    Attributes:
        chosen: The transform, e.g. ``linear(labelled) + attention(β=2)``, or ``identity``.
        reason: Why the transform was chosen.
        seen: The transform's scores on held-out queries drawn at random, or on the validation queries; None where there were too
            few queries.
        unseen: The same on held-out queries whose documents no training query asks for.
        ranking: The report on the ranking of a retriever; None where there were too few queries.
        agreement: By how many standard errors queries lie nearer to their own documents than to other queries' documents. None
            where users could only label what the vectors had found, and there were no validation queries.
        queries: How many labelled queries the training used, after queries with the same vector were merged.
        generated: How many of these queries a language model wrote.
        documents: How many documents the corpus has.
        ranked_documents: How many documents took part in training and selection: all, unless the corpus is very large.
        labelled_documents: How many documents carry a label.
        merged_queries: How many queries were merged into another one with the same vector.
        shown: Up to which rank of the untransformed search the labels go, where they name nothing else, as clicks on what it had
            shown do; or 0. The scores then compare how candidates order what was shown.
        near_duplicates: How many of the queries are further spellings of a question that another one asks: see
            `deepmem_integrations.labels.grouping`. Spellings are held out together, and count as one question in all scores.
        irrelevant: How many judgements say that a document is irrelevant.
        validation_left_out: How many validation queries were left out for being training queries too, or because all of their
            documents were judged irrelevant.
        candidates: The mean held-out scores of each transform.
        seconds: How many seconds the training took.
        seed: The seed.
        max_unseen_loss: The limit of loss on unseen answers, in points; None where loss was not limited.
    """

    chosen: str
    reason: str
    seen: ViewReport | None
    unseen: ViewReport | None
    ranking: RankingReport | None
    agreement: float | None
    queries: int
    generated: int
    documents: int
    ranked_documents: int
    labelled_documents: int
    merged_queries: int
    validation_left_out: int
    seconds: float
    seed: int
    max_unseen_loss: float | None
    shown: int = 0
    candidates: list[dict[str, Any]] = field(default_factory=list, repr=False)
    near_duplicates: int = 0
    irrelevant: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Say it in a few lines for people."""
        labels = f"{self.queries:,} labelled queries"
        if self.generated:
            labels += f" ({self.generated:,} written by a language model)"
        if self.irrelevant:
            labels += f" and {self.irrelevant:,} judgements that a document is irrelevant"
        lines = [
            f"{labels}, {self.labelled_documents:,} of {self.documents:,} documents labelled, {self.seconds:.1f} s",
            f"chosen: {self.chosen}",
            f"why:    {self.reason}",
        ]
        if self.near_duplicates:
            questions = self.queries - self.near_duplicates
            lines.append(f"spellings: they ask {questions:,} different questions; all spellings of one are held out together")
        if self.ranked_documents < self.documents:
            kept = "the labelled ones, the nearest to queries, and others at random"
            lines.append(f"corpus: a sample of {self.ranked_documents:,} documents: {kept}")
        if self.shown:
            lines.append(
                f"labels: they name only what the untransformed search has in its first {self.shown}, as clicks on its results "
                "do, so candidates are compared by how they order these. Labels from beyond, or validation queries, tell more."
            )
        for name, view in (("seen answers", self.seen), ("unseen answers", self.unseen)):
            if view:
                lines += _view_lines(name, view)
        if self.seen and self.unseen:
            measured = sorted({self.seen.queries, self.unseen.queries}, reverse=True)
            lines.append(f"(95% intervals; measured on {' and '.join(measured)})")
        if self.unseen and self.max_unseen_loss is None and self.unseen.gains["recall@10"].high < 0:
            lines.append(
                "Documents without a label rank lower than before. Label them, too, or limit the loss with max_unseen_loss=1."
                if self.labelled_documents < self.documents
                else "Documents that are added from now on rank lower, until they have labels and a new training includes them."
            )
        if self.ranking:
            lines += self.ranking.lines()
        return "\n".join(lines)


def _view_lines(name: str, view: ViewReport) -> list[str]:
    return [
        f"{name:<15} {metric:<10} {100 * view.base[metric]:5.1f} → {100 * view.chosen[metric]:5.1f}   {gain}"
        for metric, gain in view.gains.items()
    ]
