"""Cross-validation: every candidate is scored on queries that took no part in its training, in both views.

A candidate is scored on a shortlist for each query, and not on the whole corpus: on what a retriever would have at hand, and a
little more. That is exact as long as a candidate's ten best documents are in the shortlist.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations._workers import Workers
from deepmem_integrations.adapter import Attention, QueryAdapter, Ranking
from deepmem_integrations.adapter.answers import answer_scores
from deepmem_integrations.labels import LabelRows, Parents, sum_by_group
from deepmem_integrations.training.candidates import TEMPERATURE, Candidate
from deepmem_integrations.training.checkpoint import TrainingCheckpoint
from deepmem_integrations.training.data import NEAR, TrainingData
from deepmem_integrations.training.folds import VIEWS, Fold, View, folds
from deepmem_integrations.training.hardware import single_threaded_operations
from deepmem_integrations.training.linear import Negatives

DEPTH = 10
"""The cut-off of the metrics that everything is chosen by, nDCG@10 and recall@10."""
ANSWERED = 50
"""How many documents the attention part and the answers bring into a shortlist, to which each linear part brings `NEAR`."""

HELD_OUT = "held-out training queries"
"""How reports call the queries of a training that are held out in turn."""

Values = NDArray[np.floating]
"""(candidates, n) the value of each candidate on each query, between 0 and 1, times the weight of the query."""


@dataclass(frozen=True)
class HeldOut:
    """The scores of every candidate on every held-out query, in one view.

    Attributes:
        ndcg: (candidates, n) nDCG@10.
        recall: (candidates, n) recall@10.
        ndcg_by_chance: (candidates, n) the mean nDCG@10 that the same ranking gets for labels that do not depend on the query:
            those of the *other* held-out queries of its fold, which measures what a ranking owes to popular documents; and, where
            it is known what was shown, labels by rank alone (`TrainingData.by_chance`).
        recall_by_chance: (candidates, n) the same for recall@10.
        queries: How reports call the queries.
    """

    ndcg: Values
    recall: Values
    ndcg_by_chance: Values
    recall_by_chance: Values
    queries: str = HELD_OUT

    @property
    def objective(self) -> Values:
        """(candidates, n) the mean of nDCG@10 and recall@10, which is maximised."""
        return (self.ndcg + self.recall) / 2

    @property
    def earned(self) -> Values:
        """(candidates, n) the objective, less what chance alone gives.

        With shuffled labels a model still gains by favouring popular documents, or what stood first. That counts nothing here.
        """
        return self.objective - (self.ndcg_by_chance + self.recall_by_chance) / 2

    def first(self, candidates: int) -> "HeldOut":
        """Return the scores of the first candidates alone."""
        return HeldOut(
            self.ndcg[:candidates],
            self.recall[:candidates],
            self.ndcg_by_chance[:candidates],
            self.recall_by_chance[:candidates],
            self.queries,
        )

    def by_question(self, groups: NDArray[np.int64]) -> "HeldOut":
        """Average the scores over the queries of each question, since spellings of one question are no more evidence than one.

        Args:
            groups: (n,) int64, the question of each query; −1 leaves a query out.
        """
        kept = groups >= 0
        counts = np.unique(groups[kept], return_counts=True)[1].astype(np.float32)

        def mean(values: Values) -> Values:
            return np.asarray(sum_by_group(values[:, kept].T, groups[kept]).T / counts)

        by_chance = mean(self.ndcg_by_chance), mean(self.recall_by_chance)
        return HeldOut(mean(self.ndcg), mean(self.recall), *by_chance, self.queries)

    def take(self, rows: NDArray[np.int64], queries: str, weight: float = 1.0) -> "HeldOut":
        """Return the scores on these queries alone, under another name.

        Args:
            rows: The queries.
            queries: How reports call them.
            weight: How much these queries count on average. In what is returned, they count 1.
        """

        def counted(values: Values) -> Values:
            return np.asarray(values[:, rows] / np.float32(weight))

        by_chance = counted(self.ndcg_by_chance), counted(self.recall_by_chance)
        return HeldOut(counted(self.ndcg), counted(self.recall), *by_chance, queries)


def cross_validate(
    data: TrainingData,
    candidates: Sequence[Candidate],
    tick: Callable[[], None],
    validation: tuple[Vectors, LabelRows, Sequence[str]] | None = None,
    *,
    chance: bool = True,
    weights: NDArray[np.float64] | None = None,
    workers: Workers | None = None,
    checkpoint: TrainingCheckpoint | None = None,
    basis: str = "",
) -> dict[View, HeldOut]:
    """Score all candidates on queries that took no part in their training, in both views.

    The folds run side by side, in one thread each. Threads *inside* an operation would wait for one another at every step, which
    makes these small operations ten times slower on a busy machine.

    Args:
        data: The training data.
        candidates: The candidates. Those that rank by words need ``data.words``.
        tick: Called after each fold of each view, to show progress.
        validation: Queries ((v, d) float32 unit rows), their labels and their texts, which take the place of the seen view.
        chance: Whether to measure what chance alone gives, which takes longer.
        weights: (n,) how much each training query counts, 1 on average; None for all alike.
        workers: Who trains and scores the folds; by default threads of this process.
        checkpoint: Keeps the scores of the folds that have ended.
        basis: What the scores depend on beside the corpus: see `TrainingCheckpoint.read`.
    """
    work: list[tuple[View, TrainingData, Fold, NDArray[np.int64]]] = []
    counts: dict[View, int] = dict.fromkeys(VIEWS, len(data.labels))
    for view in VIEWS:
        if view == "seen" and validation is not None:
            everything, fold = data.held_out(*validation)
            counts["seen"] = len(fold.held)
            work.append((view, everything, fold, np.arange(len(fold.held))))
        else:
            work += [(view, data, fold, fold.held) for fold in folds(data.labels, view, data.seed, data.groups, data.of_row)]
    scores = {view: np.zeros((4, len(candidates), counts[view]), dtype=np.float32) for view in VIEWS}
    unwritten: dict[int, Values] = {}

    def ended(number: int, values: Values) -> None:
        """Take the scores of a fold, and keep those that are not kept yet when that is due."""
        view, _, _, rows = work[number]
        scores[view][:, :, rows] = values
        if checkpoint is not None:
            unwritten[number] = values
            if checkpoint.due:
                for other, others in unwritten.items():
                    checkpoint.write(f"fold-{other}", {"scores": others}, basis)
                unwritten.clear()
        tick()

    left = []
    for number, (view, _, _, rows) in enumerate(work):
        parts = None if checkpoint is None else checkpoint.read(f"fold-{number}", basis)
        if parts is None or parts["scores"].shape != (4, len(candidates), len(rows)):
            left.append(number)
        else:
            scores[view][:, :, rows] = parts["scores"]
            tick()
    if workers is not None:
        whole = list({id(one): one for _, one, _, _ in work}.values())  # both views share the data, or validation has its own
        place = {id(one): number for number, one in enumerate(whole)}
        items = ((place[id(work[number][1])], work[number][2]) for number in left)
        for number, values in zip(left, workers.map(_score_fold_of, items, (whole, candidates, chance)), strict=True):
            ended(number, values)
    else:
        _score_in_threads({number: work[number][1:3] for number in left}, candidates, chance, ended)
    if weights is not None:
        for view in VIEWS:
            scores[view][:2] *= 1 if view == "seen" and validation is not None else weights.astype(np.float32)
    held_out = {view: HeldOut(*scores[view]) for view in VIEWS}
    if validation is not None:
        held_out["seen"] = replace(held_out["seen"], queries="validation queries")
    return held_out


def _score_in_threads(
    work: Mapping[int, tuple[TrainingData, Fold]],
    candidates: Sequence[Candidate],
    chance: bool,
    ended: Callable[[int, Values], None],
) -> None:
    """Score numbered folds in threads of this process, and hand the scores on as they come."""
    with single_threaded_operations() as threads, ThreadPoolExecutor(threads) as pool:
        running = {pool.submit(_score_fold, whole, fold, candidates, chance): number for number, (whole, fold) in work.items()}
        try:
            for future in as_completed(running):
                ended(running[future], future.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _score_fold_of(
    whole: Sequence[TrainingData], candidates: Sequence[Candidate], chance: bool, number: int, fold: Fold
) -> Values:
    """Score a fold of one of several data, in any process."""
    with single_threaded_operations():
        return _score_fold(whole[number], fold, candidates, chance)


def _score_fold(data: TrainingData, fold: Fold, candidates: Sequence[Candidate], chance: bool) -> Values:
    """Train all candidates without the held-out queries of a fold, and score the candidates on these.

    Returns:
        (4, candidates, held-out queries) float32: the four fields of `HeldOut`, in their order.
    """
    trained = _Trained.on(data.take(fold.train, fold.train_labels))
    parents, held_labels = data.parents, fold.held_labels
    if parents is not None:
        held_labels = parents.labels(held_labels)
    popular = _popularity(held_labels, len(data.corpus)) if chance else None
    unit = data.words.unit if data.words else 1.0
    of_transform: dict[Candidate, list[tuple[int, Ranking]]] = {}
    for index, candidate in enumerate(candidates):
        of_transform.setdefault(candidate.transform, []).append((index, candidate.ranking(unit)))
    scores = np.zeros((4, len(candidates), len(fold.held)), dtype=np.float32)
    for block in blocks(len(fold.held), 8 * len(data.corpus)):
        shortlist = _shortlist(data, fold, block, trained)
        united = None if parents is None else _United.of(parents, shortlist)
        rows = shortlist.rows if united is None else united.rows
        by_chance: NDArray[np.float64] | None = None
        if chance and data.by_chance is not None:
            by_chance = _by_chance(data, fold.held[block], rows if united else np.where(shortlist.filled, -1, rows))
        gains = _Gains(held_labels, block, popular, rows, by_chance)
        for transform, ranked in of_transform.items():
            cosines = shortlist.cosines(transform)
            for index, ranking in ranked:
                found = shortlist.score(ranking, cosines)
                scores[:, index, block] = gains.score(found if united is None else united.score(found))
    return scores


@dataclass(frozen=True)
class _Trained:
    """The parts of all candidates, trained on the training queries of a fold.

    Attributes:
        linear: Negatives → the linear part alone; None → the identity.
        attention: The attention part with a strength of 1; None without training queries.
        votes: The votes of the training queries for and against documents.
    """

    linear: dict[Negatives | None, QueryAdapter]
    attention: Attention | None
    votes: LabelRows

    @classmethod
    def on(cls, train: TrainingData) -> "_Trained":
        identity = QueryAdapter(train.corpus.shape[1])
        if not len(train.queries):  # then every setting leaves the queries as they are
            return cls({None: identity, "labelled": identity, "corpus": identity}, None, train.votes)
        labelled = corpus = QueryAdapter(identity.dimension, linear=train.linear("labelled"))
        if not train.all_labelled:
            corpus = QueryAdapter(identity.dimension, linear=train.linear("corpus"))
        return cls({None: identity, "labelled": labelled, "corpus": corpus}, train.attention(), train.votes)


@dataclass(frozen=True)
class _Shortlist:
    """The candidates' evidence for some queries on a few documents each.

    Attributes:
        rows: (h, S) int64, rows of the corpus. Short lists are filled up with row 0.
        filled: (h, S) bool, which entries only fill up.
        linear: Negatives → (h, S) the cosines with the queries that the linear part turned.
        attention: (h, S) what the attention part adds to them with a strength of 1, before the query has length 1 again.
        products: Negatives → (h,) the product of the turned query and what the attention part adds to it.
        squares: (h,) the squared length of what the attention part adds.
        words: (h, S) the scores by words.
        answers: (h, S) the scores by remembered answers.
    """

    rows: NDArray[np.int64]
    filled: NDArray[np.bool_]
    linear: dict[Negatives | None, Vectors]
    attention: Vectors
    products: dict[Negatives | None, Vectors]
    squares: Vectors
    words: Vectors
    answers: Vectors

    def cosines(self, transform: Candidate) -> Vectors:
        """Return the cosines of the documents with the queries as a transform moves them: (h, S) float32."""
        cosines, strength = self.linear[transform.linear], np.float32(transform.attention)
        if not strength:
            return cosines
        squared = 1 + 2 * strength * self.products[transform.linear] + strength**2 * self.squares
        length = np.sqrt(np.maximum(squared, 1e-6))[:, None]
        return np.asarray((cosines + strength * self.attention) / length, dtype=np.float32)

    def score(self, ranking: Ranking, cosines: Vectors) -> Vectors:
        """Score the documents as a ranking does: (h, S) float32."""
        scores = ranking.score(cosines, self.words, self.answers)
        if not ranking.vector:  # elsewhere, their cosine keeps them out
            scores[self.filled] = -_FAR
        return scores


@dataclass(frozen=True)
class _United:
    """The parents of the documents on shortlists, which count where their first document stands.

    Attributes:
        rows: (h, P) int64, the numbers of the parents. Short lists are filled up with −1.
        order: The entries of the shortlists, flat, by query and parent.
        starts: Where each query's each parent begins in ``order``.
        places: The place of each of these in ``rows``, flat.
    """

    rows: NDArray[np.int64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, parents: Parents, shortlist: _Shortlist) -> "_United":
        h, _ = shortlist.rows.shape
        numbers = np.where(shortlist.filled, -1, parents.of_row[shortlist.rows])
        keys = (np.arange(h)[:, None] * (len(parents.names) + 1) + numbers + 1).reshape(-1)
        order = np.argsort(keys, kind="stable")
        found, starts = np.unique(keys[order], return_index=True)
        queries, numbers = np.divmod(found, len(parents.names) + 1)
        counts = np.bincount(queries, minlength=h)
        columns = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
        width = max(DEPTH, int(counts.max(initial=0)))
        rows = np.full((h, width), -1, dtype=np.int64)
        rows[queries, columns] = numbers - 1
        return cls(rows, order, starts, queries * width + columns)

    def score(self, scores: Vectors) -> Vectors:
        """Return the score of each parent's best document, (h, P), from those of all documents."""
        best = np.full(self.rows.size, -_FAR, dtype=scores.dtype)
        best[self.places] = np.maximum.reduceat(scores.reshape(-1)[self.order], self.starts)
        return best.reshape(self.rows.shape)


def _shortlist(data: TrainingData, fold: Fold, block: slice, trained: _Trained) -> _Shortlist:
    """Gather the evidence for a block of held-out queries."""
    held = fold.held[block]
    queries, corpus = data.queries[held], data.corpus
    turned = {negatives: adapter.transform(queries) for negatives, adapter in trained.linear.items()}
    shift = trained.attention.shift(queries) if trained.attention else np.zeros_like(queries)
    cosines = {negatives: vectors @ corpus.T for negatives, vectors in turned.items()}
    pulls = shift @ corpus.T
    answers_of = _answers(trained, queries)
    found = [data.words.found[query] for query in held.tolist()] if data.words else [{} for _ in held]

    def top(scores: Vectors, k: int) -> NDArray[np.int64]:
        return _top(scores, k) if data.parents is None else data.parents.top(scores, k)

    near = [data.near[held], *(top(scores, NEAR) for negatives, scores in cosines.items() if negatives), top(pulls, ANSWERED)]
    lists = []
    for query in range(len(held)):
        answered, votes = answers_of[query]
        best = answered[np.argsort(-votes, kind="stable")[: min(ANSWERED, np.count_nonzero(votes > 0))]]
        brought = np.unique(np.concatenate([*(rows[query] for rows in near), list(found[query]), best]).astype(np.int64))
        if data.shown is not None and (shown := data.shown[held[query]]) is not None:
            brought = shown
        left_out = fold.answered[block.start + query]
        if data.of_row is not None:  # the other documents of the same parents answer the query as well
            lists.append(brought[~np.isin(data.of_row[brought], data.of_row[left_out])])
        else:
            lists.append(np.setdiff1d(brought, left_out))
    longest = max([DEPTH, *map(len, lists)])
    rows, filled = np.zeros((len(held), longest), dtype=np.int64), np.ones((len(held), longest), dtype=bool)
    for query, brought in enumerate(lists):
        rows[query, : len(brought)], filled[query, : len(brought)] = brought, False

    words, answers = np.zeros(rows.shape, dtype=np.float32), np.zeros(rows.shape, dtype=np.float32)
    for query, brought in enumerate(lists):
        if data.words:
            words[query, : len(brought)] = data.words.scores(int(held[query]), brought)
        answered, votes = answers_of[query]
        if len(answered):
            place = np.minimum(np.searchsorted(answered, brought), len(answered) - 1)
            answers[query, : len(brought)] = np.where(answered[place] == brought, votes[place], 0)
    return _Shortlist(
        rows,
        filled,
        # What only fills up a list comes last, so that it takes no rank from a document.
        {
            negatives: np.where(filled, np.float32(-_FAR), np.take_along_axis(scores, rows, axis=1))
            for negatives, scores in cosines.items()
        },
        np.take_along_axis(pulls, rows, axis=1),
        {negatives: np.einsum("hd,hd->h", vectors, shift) for negatives, vectors in turned.items()},
        np.einsum("hd,hd->h", shift, shift),
        words,
        answers,
    )


def _answers(trained: _Trained, queries: Vectors) -> list[tuple[NDArray[np.int64], Vectors]]:
    """Score the remembered answers for each query: rows of the corpus, ascending, and their scores."""
    if trained.attention is None:
        return [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))] * len(queries)
    keys, _, similarities = trained.attention.attend(queries)
    return [answer_scores(*nearest, trained.votes, TEMPERATURE) for nearest in zip(keys, similarities, strict=True)]


def _top(scores: Vectors, k: int) -> NDArray[np.int64]:
    """Find the columns of the k largest scores of each row, in no order."""
    if k >= scores.shape[1]:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]


def _by_chance(data: TrainingData, queries: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what documents on shortlists gain in nDCG and recall by their ranks alone, (2, h, S); 0 where none were shown.

    Args:
        data: The training data.
        queries: (h,) the queries of the shortlists.
        rows: (h, S) the rows of the documents, or numbers of the parents; −1 fills up.
    """
    gains = np.zeros((2, *rows.shape))
    for position, query in enumerate(queries.tolist()):
        expected = None if data.by_chance is None else data.by_chance[query]
        if expected is None or data.shown is None or data.shown[query] is None:
            continue
        names = data.shown[query] if data.of_row is None else data.of_row[data.shown[query]]
        gain_of: dict[int, NDArray[np.float64]] = {}
        for name, gain in zip(names.tolist(), expected.T, strict=True):
            gain_of[name] = np.maximum(gain_of.get(name, 0.0), gain)
        own = np.array([gain_of.get(row, np.zeros(2)) for row in rows[position].tolist()]).T
        # Where documents were left out, a label is one of the others.
        gains[:, position] = own * (sum(gain_of.values()) / np.maximum(own.sum(axis=1), 1e-12))[:, None]
    return gains


def _popularity(labels: LabelRows, corpus_size: int) -> NDArray[np.float64]:
    """Sum over all queries each document's gain, divided by the ideal DCG@10, and its share of the recall, as (2, N)."""
    total = np.zeros((2, corpus_size))
    for query in range(len(labels)):
        rows, weights = labels[query]
        total[:, rows] += label_gains(weights)
    return total


def label_gains(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return what each label of one query adds to nDCG@10 at the first rank, and to recall: (2, labels)."""
    best = np.sort(weights)[::-1][:DEPTH]
    return np.stack([weights / (best @ _DISCOUNTS[: len(best)]), np.full(len(weights), 1 / max(1, len(weights)))]).reshape(2, -1)


_FAR = 1e3
_DISCOUNTS = 1 / np.log2(np.arange(2, DEPTH + 2))


class _Gains:
    """The labels of one block of queries on their shortlists, by which rankings are scored.

    The scores are sorted, which is fast, without the documents that they belong to; the ranks of the labelled documents are then
    counted. Where chance is measured, the best documents themselves are found.
    """

    def __init__(
        self,
        labels: LabelRows,
        block: slice,
        popularity: NDArray[np.float64] | None,
        rows: NDArray[np.int64],
        by_chance: NDArray[np.float64] | None = None,
    ) -> None:
        own = np.zeros((2, *rows.shape), dtype=np.float32)
        for position, query in enumerate(range(block.start, block.stop)):
            documents, weights = labels[query]
            gain = dict(zip(documents.tolist(), label_gains(weights)[0].tolist(), strict=True))
            own[0, position] = [gain.get(row, 0.0) for row in rows[position].tolist()]
            own[1, position] = np.isin(rows[position], documents) / len(documents)
        self.labelled = np.nonzero(own[1])
        self.gains = own[:, self.labelled[0], self.labelled[1]]
        self.all = None
        if popularity is not None:
            others = (popularity[:, rows] - own) / max(1, len(labels) - 1)
            self.all = np.concatenate([own, others if by_chance is None else others + by_chance])

    def score(self, scores: Vectors) -> Values:
        """Score the rankings by (h, S) scores.

        Returns:
            (4, h) nDCG@10, recall@10, and both by chance, which are 0 where they are not measured.
        """
        values = np.zeros((4, len(scores)))
        if self.all is None:
            best = np.sort(scores, axis=1)[:, -DEPTH - 1 :]  # one more, to know whether the last ones are equal
            own = scores[self.labelled]
            high = np.flatnonzero(own >= best[self.labelled[0], -DEPTH])
            queries, own = self.labelled[0][high], own[high]
            ranks = (best[queries] >= own[:, None]).sum(axis=1)
            high, queries, ranks = high[ranks <= DEPTH], queries[ranks <= DEPTH], ranks[ranks <= DEPTH]
            for metric, discounts in enumerate((_DISCOUNTS[ranks - 1], 1.0)):
                values[metric] = np.bincount(queries, self.gains[metric, high] * discounts, minlength=len(scores))
            return values
        top = np.argpartition(-scores, DEPTH - 1, axis=1)[:, :DEPTH]
        best = np.take_along_axis(scores, top, axis=1)
        order = np.argsort(-best, axis=1, kind="stable")
        top = np.take_along_axis(top, order, axis=1)
        there = np.take_along_axis(best, order, axis=1) > -_FAR / 2  # what only fills up a list brings nothing
        gains = np.take_along_axis(self.all, top[None], axis=2) * there
        for metric in range(len(gains)):
            values[metric] = gains[metric] @ (np.ones(DEPTH) if metric % 2 else _DISCOUNTS)
        return values
