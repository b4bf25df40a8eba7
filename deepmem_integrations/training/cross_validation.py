"""Cross-validation: every candidate is scored on queries that took no part in its training, in both views.

A candidate is scored on a shortlist for each query, and not on the whole corpus: on what a retriever would have at hand, and a
little more. That is exact as long as a candidate's ten best documents are in the shortlist.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.adapter import Attention, QueryAdapter
from deepmem_integrations.adapter.answers import answer_scores
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.candidates import ANSWER_TEMPERATURES, TEMPERATURES, Candidate, LinearSettings
from deepmem_integrations.training.data import TrainingData
from deepmem_integrations.training.folds import VIEWS, Fold, View, folds
from deepmem_integrations.training.hardware import single_threaded_operations

DEPTH = 10
"""The cut-off of the metrics that everything is chosen by, nDCG@10 and recall@10."""
NEAR, ANSWERED = 100, 50
"""How many of the nearest documents each linear part brings into a shortlist, and how many the attention part and the answers."""


Values = NDArray[np.floating]
"""(candidates, n) the value of each candidate on each query, between 0 and 1."""


@dataclass(frozen=True)
class HeldOut:
    """The scores of every candidate on every held-out query, in one view.

    Attributes:
        ndcg: (candidates, n) nDCG@10.
        recall: (candidates, n) recall@10.
        ndcg_by_popularity: (candidates, n) the mean nDCG@10 that the same ranking gets for the labels of the *other* held-out
            queries of its fold. It measures what a ranking owes to popular documents, and not to the query.
        recall_by_popularity: (candidates, n) the same for recall@10.
        queries: How reports call the queries.
    """

    ndcg: Values
    recall: Values
    ndcg_by_popularity: Values
    recall_by_popularity: Values
    queries: str = "held-out training queries"

    @property
    def objective(self) -> Values:
        """(candidates, n) the mean of nDCG@10 and recall@10, which is maximised."""
        return (self.ndcg + self.recall) / 2

    @property
    def earned(self) -> Values:
        """(candidates, n) the objective, less what popularity alone gives.

        With shuffled labels a model still gains by favouring popular documents. Such a gain counts nothing here.
        """
        return self.objective - (self.ndcg_by_popularity + self.recall_by_popularity) / 2

    def first(self, candidates: int) -> "HeldOut":
        """Return the scores of the first candidates alone."""
        return HeldOut(
            self.ndcg[:candidates],
            self.recall[:candidates],
            self.ndcg_by_popularity[:candidates],
            self.recall_by_popularity[:candidates],
            self.queries,
        )

    def take(self, rows: NDArray[np.int64], queries: str) -> "HeldOut":
        """Return the scores on these queries alone, under another name."""
        return HeldOut(
            self.ndcg[:, rows],
            self.recall[:, rows],
            self.ndcg_by_popularity[:, rows],
            self.recall_by_popularity[:, rows],
            queries,
        )


def cross_validate(
    data: TrainingData,
    candidates: Sequence[Candidate],
    tick: Callable[[], None],
    validation: tuple[Vectors, LabelRows, Sequence[str]] | None = None,
    *,
    popularity: bool = True,
) -> dict[View, HeldOut]:
    """Score all candidates on queries that took no part in their training, in both views.

    The folds run side by side, in one thread each. Threads *inside* an operation would wait for one another at every step, which
    makes these small operations ten times slower on a busy machine.

    Args:
        data: The training data.
        candidates: The candidates. Those that rank by words need ``data.words``.
        tick: Called after each fold of each view, to show progress.
        validation: Queries ((v, d) float32 unit rows), their labels and their texts, which take the place of the seen view.
        popularity: Whether to measure what popularity alone gives, which takes longer.
    """
    work: list[tuple[View, TrainingData, Fold, NDArray[np.int64]]] = []
    counts: dict[View, int] = dict.fromkeys(VIEWS, len(data.labels))
    for view in VIEWS:
        if view == "seen" and validation is not None:
            everything, fold = data.held_out(*validation)
            counts["seen"] = len(fold.held)
            work.append((view, everything, fold, np.arange(len(fold.held))))
        else:
            work += [(view, data, fold, fold.held) for fold in folds(data.labels, view, data.seed)]
    scores = {view: np.zeros((4, len(candidates), counts[view]), dtype=np.float32) for view in VIEWS}
    with single_threaded_operations() as threads, ThreadPoolExecutor(threads) as pool:
        running = {
            pool.submit(_score_fold, whole, fold, candidates, popularity): (view, rows) for view, whole, fold, rows in work
        }
        try:
            for future in as_completed(running):
                view, rows = running[future]
                scores[view][:, :, rows] = future.result()
                tick()
        finally:
            pool.shutdown(cancel_futures=True)
    held_out = {view: HeldOut(*scores[view]) for view in VIEWS}
    if validation is not None:
        held_out["seen"] = replace(held_out["seen"], queries="validation queries")
    return held_out


def _score_fold(data: TrainingData, fold: Fold, candidates: Sequence[Candidate], popularity: bool) -> Values:
    """Train all candidates without the held-out queries of a fold, and score the candidates on these.

    Returns:
        (4, candidates, held-out queries) float32: the four fields of `HeldOut`, in their order.
    """
    trained = _Trained.on(data.take(fold.train, fold.train_labels), candidates)
    popular = _popularity(fold.held_labels, len(data.corpus)) if popularity else None
    unit = data.words.unit if data.words else 1.0
    scores = np.zeros((4, len(candidates), len(fold.held)), dtype=np.float32)
    for block in blocks(len(fold.held), 8 * len(data.corpus)):
        shortlist = _shortlist(data, fold, block, trained)
        gains = _Gains(fold.held_labels, block, popular, shortlist.rows)
        for index, candidate in enumerate(candidates):
            scores[:, index, block] = gains.score(shortlist.score(candidate, unit))
    return scores


@dataclass(frozen=True)
class _Trained:
    """The parts of all candidates, trained on the training queries of a fold.

    Attributes:
        linear: Settings → the identity or the linear part alone.
        attentions: τ → the attention part with a strength of 1. Empty without training queries.
        labels: The labels of the training queries.
    """

    linear: dict[LinearSettings | None, QueryAdapter]
    attentions: dict[float, Attention]
    labels: LabelRows

    @classmethod
    def on(cls, train: TrainingData, candidates: Sequence[Candidate]) -> "_Trained":
        dimension = train.corpus.shape[1]
        linear: dict[LinearSettings | None, QueryAdapter] = {
            settings: QueryAdapter(dimension) for settings in {candidate.linear for candidate in candidates}
        }
        if not len(train.queries):  # then every setting leaves the queries as they are
            return cls(linear, {}, train.labels)
        for negatives in ("labelled", "corpus"):
            for epochs, weight in train.linear(negatives).items():
                linear[LinearSettings(negatives, epochs)] = QueryAdapter(dimension, linear=weight)
        return cls(linear, train.attentions(), train.labels)


@dataclass(frozen=True)
class _Shortlist:
    """The candidates' evidence for some queries on a few documents each.

    Attributes:
        rows: (h, S) int64, rows of the corpus. Short lists are filled up with row 0.
        filled: (h, S) bool, which entries only fill up.
        linear: Settings → (h, S) the cosines with the queries that the linear part turned.
        attention: τ → (h, S) what the attention part adds to them with a strength of 1, before the query has length 1 again.
        products: (settings, τ) → (h,) the product of the turned query and what the attention part adds to it.
        squares: τ → (h,) the squared length of what the attention part adds.
        words: (h, S) the scores by words.
        answers: τ → (h, S) the scores by remembered answers.
    """

    rows: NDArray[np.int64]
    filled: NDArray[np.bool_]
    linear: dict[LinearSettings | None, Vectors]
    attention: dict[float, Vectors]
    products: dict[tuple[LinearSettings | None, float], Vectors]
    squares: dict[float, Vectors]
    words: Vectors
    answers: dict[float, Vectors]

    def score(self, candidate: Candidate, word_unit: float) -> Vectors:
        """Score the documents as the candidate would: (h, S) float32."""
        cosines = self.linear[candidate.linear]
        if candidate.attention and self.attention:
            temperature, strength = candidate.attention.temperature, np.float32(candidate.attention.strength)
            squared = 1 + 2 * strength * self.products[candidate.linear, temperature] + strength**2 * self.squares[temperature]
            length = np.sqrt(np.maximum(squared, 1e-6))[:, None]
            cosines = np.asarray((cosines + strength * self.attention[temperature]) / length, dtype=np.float32)
        ranking = candidate.ranking(word_unit)
        scores = ranking.score(cosines, self.words, self.answers[ranking.answers_temperature])
        scores[self.filled] = -np.inf
        return scores


def _shortlist(data: TrainingData, fold: Fold, block: slice, trained: _Trained) -> _Shortlist:
    """Gather the evidence for a block of held-out queries."""
    held = fold.held[block]
    queries, corpus = data.queries[held], data.corpus
    turned = {settings: adapter.transform(queries) for settings, adapter in trained.linear.items()}
    shifts = {temperature: attention.shift(queries) for temperature, attention in trained.attentions.items()}
    cosines = {settings: vectors @ corpus.T for settings, vectors in turned.items()}
    pulls = {temperature: shift @ corpus.T for temperature, shift in shifts.items()}
    answered = _answers(trained, queries)
    found = [data.words.found[query] for query in held.tolist()] if data.words else [{} for _ in held]

    near = [_top(scores, NEAR) for scores in cosines.values()] + [_top(scores, ANSWERED) for scores in pulls.values()]
    lists = []
    for query in range(len(held)):
        answers = next(iter(answered.values()))[query] if answered else {}
        best = sorted(answers, key=answers.__getitem__, reverse=True)[:ANSWERED]
        brought = np.unique(np.concatenate([*(rows[query] for rows in near), [*found[query], *best]]).astype(np.int64))
        lists.append(np.setdiff1d(brought, fold.answered[block.start + query]))
    longest = max([DEPTH, *map(len, lists)])
    rows, filled = np.zeros((len(held), longest), dtype=np.int64), np.ones((len(held), longest), dtype=bool)
    for query, brought in enumerate(lists):
        rows[query, : len(brought)], filled[query, : len(brought)] = brought, False

    words = np.zeros(rows.shape, dtype=np.float32)
    if data.words:
        for query, brought in enumerate(lists):
            words[query, : len(brought)] = data.words.scores(int(held[query]), brought)
    answers_of = {temperature: np.zeros(rows.shape, dtype=np.float32) for temperature in ANSWER_TEMPERATURES}
    for temperature, of_queries in answered.items():
        for query, brought in enumerate(lists):
            scores = of_queries[query]
            answers_of[temperature][query, : len(brought)] = [scores.get(row, 0.0) for row in brought.tolist()]
    return _Shortlist(
        rows,
        filled,
        # What only fills up a list comes last, so that it takes no rank from a document.
        {
            settings: np.where(filled, np.float32(-_FAR), np.take_along_axis(scores, rows, axis=1))
            for settings, scores in cosines.items()
        },
        {temperature: np.take_along_axis(scores, rows, axis=1) for temperature, scores in pulls.items()},
        {(s, t): np.einsum("hd,hd->h", vectors, shift) for s, vectors in turned.items() for t, shift in shifts.items()},
        {temperature: np.einsum("hd,hd->h", shift, shift) for temperature, shift in shifts.items()},
        words,
        answers_of,
    )


def _answers(trained: _Trained, queries: Vectors) -> dict[float, list[dict[int, float]]]:
    """Score the remembered answers for each query: τ → row of the corpus → score."""
    if not trained.attentions:
        return {}
    keys, _, similarities = trained.attentions[TEMPERATURES[0]].attend(queries)
    return {
        temperature: [
            dict(zip(*(part.tolist() for part in answer_scores(*nearest, trained.labels, temperature)), strict=True))
            for nearest in zip(keys, similarities, strict=True)
        ]
        for temperature in ANSWER_TEMPERATURES
    }


def _top(scores: Vectors, k: int) -> NDArray[np.int64]:
    """Find the columns of the k largest scores of each row, in no order."""
    if k >= scores.shape[1]:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]


def _popularity(labels: LabelRows, corpus_size: int) -> NDArray[np.float64]:
    """Sum over all queries each document's gain, divided by the ideal DCG@10, and its share of the recall, as (2, N)."""
    total = np.zeros((2, corpus_size))
    for query in range(len(labels)):
        rows, weights = labels[query]
        total[0, rows] += weights / _ideal_dcg(weights)
        total[1, rows] += 1 / len(rows)
    return total


def _ideal_dcg(weights: NDArray[np.float32]) -> float:
    best = np.sort(weights)[::-1][:DEPTH]
    return float(best @ _DISCOUNTS[: len(best)])


_FAR = 1e3
_FEW_LABELS = 6
"""Up to this many labels a query, counting the ranks of the labelled documents costs less than finding the best documents."""
_DISCOUNTS = 1 / np.log2(np.arange(2, DEPTH + 2))


class _Gains:
    """The labels of one block of queries on their shortlists, by which rankings are scored.

    Where few documents have labels, the ranks of these alone are counted. Otherwise, and where popularity is measured, the best
    documents of each query are found.
    """

    def __init__(self, labels: LabelRows, block: slice, popularity: NDArray[np.float64] | None, rows: NDArray[np.int64]) -> None:
        own = np.zeros((2, *rows.shape), dtype=np.float32)
        for position, query in enumerate(range(block.start, block.stop)):
            documents, weights = labels[query]
            gain = dict(zip(documents.tolist(), (weights / _ideal_dcg(weights)).tolist(), strict=True))
            own[0, position] = [gain.get(row, 0.0) for row in rows[position].tolist()]
            own[1, position] = np.isin(rows[position], documents) / len(documents)
        self.labelled = np.nonzero(own[1])
        self.few = popularity is None and len(self.labelled[0]) <= _FEW_LABELS * len(rows)
        self.gains = own if popularity is None else np.concatenate([own, (popularity[:, rows] - own) / max(1, len(labels) - 1)])

    def score(self, scores: Vectors) -> Values:
        """Score the rankings by (h, S) scores.

        Returns:
            (4, h) nDCG@10, recall@10, and both by popularity, which are 0 where they are not measured.
        """
        values = np.zeros((4, len(scores)))
        if self.few:
            queries, columns = self.labelled
            ranks = (scores[queries] >= scores[queries, columns][:, None]).sum(axis=1)
            high = ranks <= DEPTH
            queries, columns, ranks = queries[high], columns[high], ranks[high]
            for metric, discounts in enumerate((_DISCOUNTS[ranks - 1], 1.0)):
                gains = self.gains[metric, queries, columns] * discounts
                values[metric] = np.bincount(queries, weights=gains, minlength=len(scores))
            return values
        top = np.argpartition(-scores, DEPTH - 1, axis=1)[:, :DEPTH]
        best = np.take_along_axis(scores, top, axis=1)
        order = np.argsort(-best, axis=1, kind="stable")
        top = np.take_along_axis(top, order, axis=1)
        counts = np.isfinite(np.take_along_axis(best, order, axis=1))  # what only fills up a list brings nothing
        gains = np.take_along_axis(self.gains, top[None], axis=2) * counts
        for metric in range(len(gains)):
            values[metric] = gains[metric] @ (np.ones(DEPTH) if metric % 2 else _DISCOUNTS)
        return values
