"""Choose the parts and their strength on held-out training queries, so that nobody is worse off.

Each candidate is scored by cross-validation in two views. *Seen*: queries are held out at random, so that most ask for
documents that training queries asked for too. *Unseen*: documents are held out together with queries that ask for them, so
that no training label names them. The choice is the best candidate in the seen view among those that hold up in the unseen
view, and the identity unless the choice beats it by more than chance, corrected for having picked the best of many.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.adapter import Memory, QueryAdapter
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.linear import Negatives, negative_rows, train_linear
from deepmem_integrations.training.memory import Whitening, memory_values, target_means

if TYPE_CHECKING:
    import torch

DEPTH = 10
"""Everything is chosen by nDCG@10 and recall@10."""
FOLDS = 3
EPOCHS = (4, 8, 16)
TEMPERATURES = (0.05, 0.1)
STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)
SIGNIFICANCE = 0.05
RESAMPLES = 1_000

View = Literal["seen", "unseen"]
VIEWS: tuple[View, ...] = ("seen", "unseen")


@dataclass(frozen=True)
class Linear:
    """A setting of the linear part."""

    negatives: Negatives
    epochs: int


@dataclass(frozen=True)
class Attention:
    """A setting of the memory part."""

    temperature: float
    strength: float


@dataclass(frozen=True)
class Candidate:
    """A pair of settings; without either it is the identity."""

    linear: Linear | None = None
    memory: Attention | None = None

    def __str__(self) -> str:
        """E.g. ``linear(labelled, 8 epochs) + memory(τ=0.1, β=2)``."""
        parts = []
        if self.linear:
            parts.append(f"linear({self.linear.negatives}, {self.linear.epochs} epochs)")
        if self.memory:
            parts.append(f"memory(τ={self.memory.temperature:g}, β={self.memory.strength:g})")
        return " + ".join(parts) or "identity"


LINEARS: tuple[Linear | None, ...] = (
    None,
    *(Linear(negatives, epochs) for negatives in ("labelled", "corpus") for epochs in EPOCHS),
)
MEMORIES: tuple[Attention | None, ...] = (None, *(Attention(t, s) for t in TEMPERATURES for s in STRENGTHS))
CANDIDATES = tuple(Candidate(linear, memory) for linear in LINEARS for memory in MEMORIES)
"""The identity comes first."""


@dataclass(frozen=True)
class Problem:
    """What there is to learn from. Queries are unit rows; labels name rows of the corpus."""

    queries: Vectors
    labels: LabelRows
    corpus: Vectors
    whitening: Whitening
    seed: int

    def take(self, rows: NDArray[np.int64], labels: LabelRows) -> "Problem":
        """The problem with these queries alone, labelled so."""
        return Problem(self.queries[rows], labels, self.corpus, self.whitening, self.seed)

    def linear(self, negatives: Negatives, epochs: tuple[int, ...] = EPOCHS) -> dict[int, Vectors]:
        """Train the linear part: epoch → W."""
        rows = negative_rows(negatives, self.labels, len(self.corpus), self.seed)
        targets = target_means(self.labels, self.corpus)
        return train_linear(self.queries, targets, self.corpus[rows], epochs=epochs, seed=self.seed)

    def memory_values(self) -> Vectors:
        """The values of the memory part."""
        return memory_values(target_means(self.labels, self.corpus), self.labels, self.corpus, self.whitening)

    def fit(self, candidate: Candidate) -> QueryAdapter:
        """Train one candidate on all queries."""
        linear = memory = None
        if candidate.linear:
            linear = self.linear(candidate.linear.negatives, (candidate.linear.epochs,))[candidate.linear.epochs]
        if candidate.memory:
            setting = candidate.memory
            memory = Memory(self.queries, self.memory_values(), setting.temperature, setting.strength)
        return QueryAdapter(self.corpus.shape[1], linear=linear, memory=memory)


@dataclass(frozen=True)
class HeldOut:
    """Scores of every candidate on every held-out query, in one view.

    Attributes:
        ndcg: (candidates, n) nDCG@10.
        recall: (candidates, n) recall@10.
        ndcg_by_popularity: (candidates, n) the mean nDCG@10 that the same ranking gets for the labels of the *other* held-out
            queries of its fold: what it owes to knowing which documents are asked for a lot, not to the query.
        recall_by_popularity: Likewise.
    """

    ndcg: NDArray[np.float64]
    recall: NDArray[np.float64]
    ndcg_by_popularity: NDArray[np.float64]
    recall_by_popularity: NDArray[np.float64]

    @property
    def objective(self) -> NDArray[np.float64]:
        """(candidates, n) what is maximised: the mean of nDCG@10 and recall@10."""
        return (self.ndcg + self.recall) / 2

    @property
    def earned(self) -> NDArray[np.float64]:
        """(candidates, n) the objective less what popularity alone gives.

        With shuffled labels a model still gains by favouring popular documents; it earns nothing here.
        """
        return self.objective - (self.ndcg_by_popularity + self.recall_by_popularity) / 2


@dataclass(frozen=True)
class Choice:
    """The chosen candidate and why."""

    candidate: Candidate
    reason: str


def cross_validate(problem: Problem, tick: Callable[[], None]) -> dict[View, HeldOut]:
    """Score all candidates on held-out queries in both views. Calls ``tick`` once a fold and view.

    The folds run side by side, one thread each. Threads *inside* an operation would wait for each other at every step,
    which on a busy machine makes these small operations ten times slower.
    """
    scores: dict[View, NDArray[np.float64]] = {view: np.zeros((4, len(CANDIDATES), len(problem.labels))) for view in VIEWS}
    with single_threaded_operations() as threads, ThreadPoolExecutor(threads) as pool:
        running = {
            pool.submit(_score_fold, problem, fold): (view, fold)
            for view in VIEWS
            for fold in folds(problem.labels, view, problem.seed)
        }
        try:
            for future in as_completed(running):
                view, fold = running[future]
                scores[view][:, :, fold.held] = future.result()
                tick()
        finally:
            pool.shutdown(cancel_futures=True)
    return {view: HeldOut(*scores[view]) for view in VIEWS}


@contextmanager
def single_threaded_operations() -> Iterator[int]:
    """Let every torch operation run in the thread that calls it; yields how many threads torch would have used.

    The setting belongs to the whole process: of several trainings at once, the last to end restores it.
    """
    import torch

    with _threads_lock:
        _threads_before.append(_threads_before[0] if _threads_before else torch.get_num_threads())
        torch.set_num_threads(1)
        threads = _threads_before[0]
    try:
        yield threads
    finally:
        with _threads_lock:
            _threads_before.pop()
            if not _threads_before:
                torch.set_num_threads(threads)


_threads_lock = threading.Lock()
_threads_before: list[int] = []


@dataclass(frozen=True)
class Fold:
    """What trains and what is held out in one round of the cross-validation.

    Attributes:
        train: Rows of the training queries.
        train_labels: Their labels.
        held: Rows of the held-out queries.
        held_labels: The labels they are scored by.
        answered: For each held-out query, corpus rows that answer it too but do not count: they are left out of its ranking.
    """

    train: NDArray[np.int64]
    train_labels: LabelRows
    held: NDArray[np.int64]
    held_labels: LabelRows
    answered: list[list[int]]


def folds(labels: LabelRows, view: View, seed: int) -> Iterator[Fold]:
    """Yield the folds of a view; every query is held out once.

    In the unseen view, a fold holds out a third of the labelled documents and the queries whose rarest document is among
    them. Training queries lose their labels for these documents, and held-out queries are scored by these documents alone.
    So no training label names a document that is asked for, even where labels connect all queries with each other, and
    nothing else is lost.
    """
    rng = np.random.default_rng(seed)
    n = len(labels)
    if view == "seen":
        for held in np.array_split(rng.permutation(n), FOLDS):
            train = np.setdiff1d(np.arange(n), held)
            yield Fold(train, labels.take(train), np.sort(held), labels.take(np.sort(held)), [[] for _ in held])
        return

    documents, counts = np.unique(labels.documents, return_counts=True)
    count_of = dict(zip(documents.tolist(), counts.tolist(), strict=True))
    drawn = rng.permutation(len(documents)) % FOLDS
    fold_of = dict(zip(documents.tolist(), drawn.tolist(), strict=True))
    weights = [labels.weight_of(query) for query in range(n)]
    own = np.array([fold_of[min(query, key=lambda row: (count_of[row], row))] for query in weights])
    for fold in range(FOLDS):
        held = np.flatnonzero(own == fold)
        others = np.flatnonzero(own != fold)
        kept = {query: {d: w for d, w in weights[query].items() if fold_of[d] != fold} for query in others.tolist()}
        yield Fold(
            others,
            LabelRows.of_rows(list(kept.values())),
            held,
            LabelRows.of_rows([{d: w for d, w in weights[query].items() if fold_of[d] == fold} for query in held.tolist()]),
            [[d for d in weights[query] if fold_of[d] != fold] for query in held.tolist()],
        )


def choose(views: dict[View, HeldOut], *, max_unseen_loss: float, seed: int) -> Choice:
    """Pick the best candidate in the seen view that holds up in the unseen view and beats the identity for sure.

    Args:
        views: Of `cross_validate`.
        max_unseen_loss: Points (of 100) of nDCG@10 and of recall@10, each, that the choice may lie below the best candidate
            of the unseen view.
        seed: Fixes the bootstrap.
    """
    seen, unseen = views["seen"], views["unseen"]
    best_unseen = int(unseen.objective.mean(axis=1).argmax())
    allowed = np.ones(len(CANDIDATES), dtype=bool)
    for scores in (unseen.ndcg, unseen.recall):
        means = scores.mean(axis=1)
        allowed &= means >= means[best_unseen] - max_unseen_loss / 100
    for scores in (seen.ndcg, seen.recall, unseen.ndcg, unseen.recall):
        allowed &= ~_surely_below_identity(scores)
    allowed[0] = True

    best = int(np.where(allowed, seen.objective.mean(axis=1), -np.inf).argmax())
    if best == 0:
        return Choice(CANDIDATES[0], "no candidate did better than the identity on held-out training queries")
    z, threshold = _max_statistic(seen.earned, best, seed)
    if not z > threshold:
        return Choice(
            CANDIDATES[0],
            f"{CANDIDATES[best]} came out best on held-out training queries, but not by more than chance "
            f"(z = {z:.1f}, where the best of {len(CANDIDATES) - 1} candidates needs {threshold:.1f})",
        )
    place = "best for unseen answers too"
    if best != best_unseen:
        place = f"within {max_unseen_loss:g} points of the best for unseen answers, {CANDIDATES[best_unseen]}"
    return Choice(
        CANDIDATES[best],
        f"best on held-out training queries (z = {z:.1f}, chance reaches {threshold:.1f}), {place}",
    )


def _surely_below_identity(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(candidates,) whether the 95% interval of the paired difference to the identity lies below 0."""
    difference = scores - scores[0]
    error = difference.std(axis=1) / np.sqrt(difference.shape[1])
    return np.asarray(difference.mean(axis=1) + 1.96 * error < 0)


def _max_statistic(scores: NDArray[np.float64], best: int, seed: int) -> tuple[float, float]:
    """Compare one candidate's gain over the identity with what the luckiest of all candidates gains by chance.

    The largest studentised bootstrap deviation over the candidates gives the threshold (White's reality check, 2000;
    Hansen's studentised version, 2005), so that picking the winner is paid for.

    Returns:
        The candidate's z, and the z that chance reaches in 5% of the resamples.
    """
    gains = scores[1:] - scores[0]
    n = gains.shape[1]
    mean = gains.mean(axis=1)
    error = np.maximum(gains.std(axis=1) / np.sqrt(n), 1e-9)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    largest = ((drawn @ gains.T - mean) / error).max(axis=1)
    return float(mean[best - 1] / error[best - 1]), float(np.quantile(largest, 1 - SIGNIFICANCE))


def _score_fold(problem: Problem, fold: Fold) -> NDArray[np.float64]:
    """Scores of all candidates, trained without the held-out queries of a fold, on these: (4, candidates, held-out queries).

    A candidate's ranking is that of ``unit(q + qW) · D + β kernel V · D``: both products are computed once and combined.
    """
    import torch

    train, labels = problem.take(fold.train, fold.train_labels), fold.held_labels
    queries, keys = problem.queries[fold.held], train.queries
    moved: dict[Linear | None, Vectors] = {None: queries}
    shifts: dict[float, Vectors] = dict.fromkeys(TEMPERATURES, np.zeros_like(queries))
    if len(keys):
        for negatives in ("labelled", "corpus"):
            for epochs, weight in train.linear(negatives).items():
                linear = QueryAdapter(queries.shape[1], linear=weight)
                moved[Linear(negatives, epochs)] = linear.transform(queries)
        values = train.memory_values()
        shifts = {t: Memory(keys, values, t, 1.0).shift(queries) for t in TEMPERATURES}

    corpus = torch.from_numpy(problem.corpus)
    popularity = _popularity(labels, len(corpus))
    scores = np.zeros((4, len(CANDIDATES), len(queries)))
    for block in blocks(len(queries), len(corpus)):
        gains = _Gains(labels, block, popularity)
        memory = {t: torch.from_numpy(shift[block]) @ corpus.T for t, shift in shifts.items()}
        linear_scores = {key: torch.from_numpy(vectors[block]) @ corpus.T for key, vectors in moved.items()}
        for row, documents in enumerate(fold.answered[block]):
            for scored in linear_scores.values():
                scored[row, documents] = -torch.inf
        for index, candidate in enumerate(CANDIDATES):
            combined = linear_scores.get(candidate.linear, linear_scores[None])
            if candidate.memory:
                combined = torch.add(combined, memory[candidate.memory.temperature], alpha=candidate.memory.strength)
            scores[:, index, block] = gains.score(combined)
    return scores


def _popularity(labels: LabelRows, corpus_size: int) -> NDArray[np.float64]:
    """(2, N): the sum over queries of a document's gain over the ideal DCG@10, and of its share of the recall."""
    total = np.zeros((2, corpus_size))
    for query in range(len(labels)):
        rows, weights = labels[query]
        total[0, rows] += weights / _ideal_dcg(weights)
        total[1, rows] += 1 / len(rows)
    return total


def _ideal_dcg(weights: NDArray[np.float32]) -> float:
    best = np.sort(weights)[::-1][:DEPTH]
    return float(best @ _DISCOUNTS[: len(best)])


_DISCOUNTS = 1 / np.log2(np.arange(2, DEPTH + 2))


class _Gains:
    """Scores rankings of one block of queries; holds their labels as a dense block."""

    def __init__(self, labels: LabelRows, block: slice, popularity: NDArray[np.float64]) -> None:
        rows = range(block.start, block.stop)
        self.own = np.zeros((2, len(rows), popularity.shape[1]), dtype=np.float32)
        for position, query in enumerate(rows):
            documents, weights = labels[query]
            self.own[0, position, documents] = weights / _ideal_dcg(weights)
            self.own[1, position, documents] = 1 / len(documents)
        self.popularity = popularity
        self.others = max(1, len(labels) - 1)

    def score(self, scores: "torch.Tensor") -> NDArray[np.float64]:
        """(h, N) scores → (4, h): nDCG@10, recall@10, and both by popularity."""
        depth = min(DEPTH, scores.shape[1])
        top = scores.topk(depth, dim=1).indices.numpy()
        own = np.take_along_axis(self.own, top[None], axis=2).astype(np.float64)
        others = (self.popularity[:, top] - own) / self.others
        discounts = np.stack([_DISCOUNTS[:depth], np.ones(depth)])
        return np.concatenate([np.einsum("mhk,mk->mh", part, discounts) for part in (own, others)])
