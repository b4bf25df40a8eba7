"""Decide whether a new model takes the place of the one in use, by a paired test on held-out queries that neither has learned.

Both models rank the held-out queries as a retriever does, and each query counts by the mean of its nDCG@10 and its recall@10, the
two metrics of `deepmem_integrations.training.guard`. Where the labels say what was shown (`Relevance.shown`), as those of clicks
do, the query counts by the nDCG@10 of what was shown, in the order that each model gives it, and the more the rarer the ranks of
its labels are. On the whole corpus, such labels would favour whatever search showed the documents: see
`deepmem_integrations.training.exposure`. The new model is put in use where

1. it is better on average,
2. the 95% interval of the difference, over questions, lies above −1 point: it is surely not worse by more than that, and
3. neither metric alone is worse beyond chance.

Why this rule? With 50 questions, a plain "better on average" takes 3 in 10 of the models that are a point worse. "Better beyond
chance" takes 1 in 10 of those that are a point better, and a team with few labels would keep its first model for years. The
margin of rule 2 lies between: 1 in 25 of those that are a point worse, and 1 in 4 of those that are a point better (1 in 3 with
100 questions). It blocks nothing for ever: with each label the interval gets narrower, and new models get better against the old
one, since every comparison is with the model in use, not with the last refused one. `bash benchmarks/run retraining --parts rule`
shows it.

Without a model in use, or where that is the identity, the new model is compared with plain retrieval. The training has made that
comparison already, on several times as many queries that it held out in turn, and has paid for having many candidates. So rule 2
is left out there: the new model need only be better on average on the held-out questions as well. Where there are too few
questions to compare on, a model in use stays in use; without one, the choice of the training stands. A model in use that ranks by
a search by words which is not at hand stays in use as well: without its words it is not what serves.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors
from deepmem_integrations._workers import Workers
from deepmem_integrations.adapter import QueryAdapter, Ranking
from deepmem_integrations.corpora import ShardedCorpus
from deepmem_integrations.errors import EmbeddingMismatchError, MissingExtraError, StorageError
from deepmem_integrations.evaluation import FETCHED, WITH, Evaluation, Interval, bootstrap_mean, evaluate
from deepmem_integrations.labels import Relevance, sum_by_group
from deepmem_integrations.retraining.questions import seen_by_group
from deepmem_integrations.retraining.shown import ShownDocuments
from deepmem_integrations.words import LexicalSearch, check_searchable, search_name

InUse = Literal["always", "if better", "never"]
"""When a new model replaces the one in use."""
IN_USE: dict[str, InUse] = {"always": "always", "if-better": "if better", "never": "never"}
"""What the shell and forms write, in one word, and what `DeepMemory.train` takes."""
FEWEST = 20
"""The fewest held-out questions to decide on."""
MARGIN = 0.01
"""How much worse a new model may be at the lower end of the 95% interval, on the scale from 0 to 1."""
METRICS = ("ndcg@10", "recall@10")
"""The metrics of the test, on the whole corpus."""
NDCG_OF_SHOWN = "ndcg@10 of what was shown"
"""The metric of queries whose labels say what was shown."""
MEAN = "mean"
"""The name of what decides where there are several metrics."""


@dataclass(frozen=True)
class HeldOutQueries:
    """Queries that took no part in the training of the new model.

    Attributes:
        vectors: (n, d) float32 unit rows, untransformed.
        labels: Their labels.
    """

    vectors: Vectors
    labels: Relevance


@dataclass(frozen=True)
class Decision:
    """Whether a new model is put in use, and why.

    Attributes:
        better: Whether the new model is put in use.
        reason: Why.
        against: The model that was in use; None where there was none.
        questions: How many held-out questions decided.
        learned: How many held-out queries were left out because the model in use had learned them, or, where too few were left
            without them, took part although it had.
        scores: ``"new model"`` and ``"model in use"`` (or ``"without model"``) → metric → mean, between 0 and 1.
        gains: Metric → the paired difference, new model minus model in use, with its 95% interval.
    """

    better: bool
    reason: str
    against: str | None
    questions: int = 0
    learned: int = 0
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    gains: Mapping[str, Interval] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, which the audit log and the model's file keep."""
        return asdict(self)


def check_in_use(in_use: str) -> None:
    """Refuse anything but the three answers to when a new model replaces the one in use.

    Raises:
        ValueError: It is none of them.
    """
    if in_use not in get_args(InUse):
        raise ValueError(f"in_use is 'always', 'if better' or 'never'; got {in_use!r}.")


def decide(
    new: QueryAdapter,
    held_out: HeldOutQueries | None,
    corpus_ids: list[str] | None,
    corpus: Vectors | ShardedCorpus,
    *,
    in_use: tuple[str, QueryAdapter | None] | None,
    searches: tuple[LexicalSearch, ...] = (),
    corpus_parents: Mapping[str, str] | None = None,
    workers: Workers | None = None,
) -> Decision:
    """Compare a new model with the model in use.

    Args:
        new: The new model.
        held_out: Queries that the new model has not learned; None where there are none.
        corpus_ids: The N ids; None of a corpus in shards.
        corpus: (N, d) float32 unit rows, or a corpus in shards.
        in_use: The name of the model in use, and the model, which is None where it cannot be read; None where no model is in use.
        searches: The searches by words at hand. Each model ranks with the one that it was trained with.
        corpus_parents: Document id → parent, where the labels name parents.
        workers: Who searches the shards; by default this process.

    Returns:
        The decision.
    """
    name, old = in_use if in_use is not None else (None, None)
    rival = f"the model in use, {name}" if old is not None else "plain retrieval"
    note = f"; the model in use, {name}, cannot be read" if name is not None and old is None else ""
    if old is not None:
        try:
            old.check(new.fingerprint)
        except EmbeddingMismatchError:
            old, rival = None, "plain retrieval"
            note = f"; the model in use, {name}, belongs to another embedding model and cannot be compared"
    if held_out is None or not any(held_out.labels.labels):
        return _too_few(name, 0, note)
    by_name = {search_name(search): search for search in reversed(searches)}
    if old is not None and old.ranking is not None and old.ranking.words and (why := _unsearchable(old.ranking, by_name)):
        reason = (
            f"the model in use, {name}, ranks by the words of a {old.ranking.search}, {why}: it cannot be compared, and stays"
        )
        return Decision(False, reason, name)

    def measured(adapter: QueryAdapter | None) -> Evaluation:
        words = by_name.get(adapter.ranking.search) if adapter is not None and adapter.ranking is not None else None
        ranked = {"adapter": adapter, "words": words, "corpus_parents": corpus_parents, "workers": workers}
        return evaluate(*(held_out.vectors, held_out.labels, corpus, corpus_ids), top_k=[10, FETCHED], **ranked)  # type: ignore[arg-type]

    ours, theirs = measured(new), measured(old)
    groups = ours.groups
    scored = np.array([bool(judged) for judged in held_out.labels.labels])
    learned = seen_by_group(old.remembered(held_out.vectors), groups) if old is not None else np.zeros(len(scored), dtype=bool)
    rows = np.flatnonzero(scored & ~learned)
    count = int((scored & learned).sum())
    questions, all_questions = len(np.unique(groups[rows])), len(np.unique(groups[scored]))
    on = f"{questions} held-out questions"
    if questions < FEWEST:
        if all_questions < FEWEST:
            return _too_few(name, all_questions, note)
        # The model in use knows answers of these: who beats it even so is better.
        rows, questions = np.flatnonzero(scored), all_questions
        on = f"{questions} held-out questions, of which the model in use has learned {count} queries and is favoured by them"
    judged = held_out.labels.take(rows.tolist())
    named = {name for shown in judged.shown for name in shown or ()}
    there = corpus.known(named) if isinstance(corpus, ShardedCorpus) else named.intersection(corpus_ids or ())
    shown = ShownDocuments.of(judged, groups[rows], there, corpus_parents or {})
    new_scores, old_scores = (_scores(evaluation, rows, shown) for evaluation in (ours, theirs))
    scores = {
        "new model": _means(new_scores, groups[rows]),
        "model in use" if old is not None else "without model": _means(old_scores, groups[rows]),
    }
    differences = {metric: values - old_scores[metric] for metric, values in new_scores.items()}
    if len(differences) > 1:
        differences[MEAN] = np.nanmean(list(differences.values()), axis=0)
    # A question with many spellings counts like one with a single spelling: who asks often is not more questions.
    columns = _by_question(np.stack(list(differences.values()), axis=1), groups[rows])
    gains = dict(zip(differences, bootstrap_mean(columns), strict=True))
    better, verdict = _verdict(gains, plain=old is None or (old.is_identity and old.ranking is None))
    measures = ", ".join(f"{metric} {gain}" for metric, gain in gains.items())
    return Decision(better, f"{verdict} {rival}, on {on}: {measures}{note}", name, questions, count, scores, gains)


def _unsearchable(ranking: Ranking, searches: Mapping[str, LexicalSearch]) -> str:
    """Say why nobody can rank by the words that a model has learned to weigh; empty where somebody can."""
    search = searches.get(ranking.search)
    if search is None:
        return "which is not at hand or is damaged (pass it as words=…, or --words in a shell; memory.refresh() builds an index)"
    try:
        check_searchable(search)
    except (StorageError, MissingExtraError) as error:
        return f"which cannot be searched here ({error})"
    return ""


def _verdict(gains: Mapping[str, Interval], *, plain: bool = False) -> tuple[bool, str]:
    *metrics, decisive = gains
    mean = gains[decisive]
    worse = [metric for metric in metrics if gains[metric].high < 0]
    if mean.high < 0:
        return False, "worse beyond chance than"
    if worse:
        return False, f"{' and '.join(worse)} worse beyond chance than with"
    if mean.mean <= 0:
        return False, "no better than"
    if mean.low <= -MARGIN and plain:
        return True, "better on average, as the training found on its own held-out queries, than"
    if mean.low <= -MARGIN:
        return False, f"better on average, but not surely within {100 * MARGIN:g} point of being as good as"
    return True, "better beyond chance than" if mean.low > 0 else "better on average, and surely hardly worse, than"


def _too_few(name: str | None, questions: int, note: str) -> Decision:
    few = f"{questions} held-out questions are too few to compare models ({FEWEST} are needed)"
    if name is None:
        return Decision(True, f"{few}, and no model is in use: the choice of the training stands", name, questions)
    if note:
        return Decision(True, f"{few}: the choice of the training stands{note}", name, questions)
    return Decision(False, f"{few}: the model in use stays until there are more labels", name, questions)


def _scores(evaluation: Evaluation, rows: NDArray[np.int64], shown: ShownDocuments) -> dict[str, NDArray[np.float64]]:
    """Score a model on some queries by the metrics of the test: metric → (number of rows,), NaN where another metric counts."""
    known = shown.known
    found = [evaluation.found[WITH][row] for row in rows.tolist()]
    scores = {metric: np.where(known, np.nan, evaluation.per_query[WITH][metric][rows]) for metric in METRICS}
    scores[NDCG_OF_SHOWN] = shown.ndcg(found) * shown.weights
    return {metric: values for metric, values in scores.items() if not np.isnan(values).all()}


def _means(scores: Mapping[str, NDArray[np.float64]], groups: NDArray[np.int64]) -> dict[str, float]:
    """Average the scores over questions, as the gains are, so that the difference of two means is the gain."""
    return {metric: float(np.nanmean(_by_question(values[:, None], groups))) for metric, values in scores.items()}


def _by_question(differences: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average the differences of the spellings of each question, (number of questions, columns) float64."""
    known = np.isfinite(differences)
    sums, counts = (sum_by_group(rows, groups) for rows in (np.where(known, differences, 0.0), known.astype(np.float64)))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
