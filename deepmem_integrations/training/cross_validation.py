"""Cross-validation: every candidate is scored on queries that took no part in its training, in both views."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.candidates import CANDIDATES, TEMPERATURES, LinearSettings
from deepmem_integrations.training.data import TrainingData
from deepmem_integrations.training.folds import VIEWS, Fold, View, folds
from deepmem_integrations.training.hardware import device, single_threaded_operations

if TYPE_CHECKING:
    import torch

DEPTH = 10
"""The cut-off of the metrics that everything is chosen by, nDCG@10 and recall@10."""


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

    ndcg: NDArray[np.float64]
    recall: NDArray[np.float64]
    ndcg_by_popularity: NDArray[np.float64]
    recall_by_popularity: NDArray[np.float64]
    queries: str = "held-out training queries"

    @property
    def objective(self) -> NDArray[np.float64]:
        """(candidates, n) the mean of nDCG@10 and recall@10, which is maximised."""
        return (self.ndcg + self.recall) / 2

    @property
    def earned(self) -> NDArray[np.float64]:
        """(candidates, n) the objective, less what popularity alone gives.

        With shuffled labels a model still gains by favouring popular documents. Such a gain counts nothing here.
        """
        return self.objective - (self.ndcg_by_popularity + self.recall_by_popularity) / 2

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
    data: TrainingData, tick: Callable[[], None], validation: tuple[Vectors, LabelRows] | None = None
) -> dict[View, HeldOut]:
    """Score all candidates on queries that took no part in their training, in both views.

    The folds run side by side, in one thread each. Threads *inside* an operation would wait for one another at every step, which
    makes these small operations ten times slower on a busy machine.

    Args:
        data: The training data.
        tick: Called after each fold of each view, to show progress.
        validation: Queries ((v, d) float32 unit rows) and their labels, which take the place of the seen view.
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
    scores = {view: np.zeros((4, len(CANDIDATES), counts[view])) for view in VIEWS}
    with single_threaded_operations() as threads, ThreadPoolExecutor(threads) as pool:
        running = {pool.submit(_score_fold, whole, fold): (view, rows) for view, whole, fold, rows in work}
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


def _score_fold(data: TrainingData, fold: Fold) -> NDArray[np.float64]:
    """Train all candidates without the held-out queries of a fold, and score the candidates on these.

    A candidate ranks by ``unit(q + qW) · D + β kernel V · D``. Both products are computed once and combined for each candidate.

    Returns:
        (4, candidates, held-out queries): the four fields of `HeldOut`, in their order.
    """
    import torch

    train, labels = data.take(fold.train, fold.train_labels), fold.held_labels
    queries = data.queries[fold.held]
    # Without training queries, every setting leaves the queries as they are.
    settings = {candidate.linear for candidate in CANDIDATES}
    moved: dict[LinearSettings | None, Vectors] = dict.fromkeys(settings if not len(train.queries) else [None], queries)
    shifts: dict[float, Vectors] = dict.fromkeys(TEMPERATURES, np.zeros_like(queries))
    if len(train.queries):
        for negatives in ("labelled", "corpus"):
            for epochs, weight in train.linear(negatives).items():
                linear = QueryAdapter(queries.shape[1], linear=weight)
                moved[LinearSettings(negatives, epochs)] = linear.transform(queries)
        shifts = {temperature: attention.shift(queries) for temperature, attention in train.attentions().items()}

    where = device()
    corpus = torch.from_numpy(data.corpus).to(where)
    popularity = _popularity(labels, len(corpus))
    scores = np.zeros((4, len(CANDIDATES), len(queries)))
    for block in blocks(len(queries), len(corpus)):
        gains = _Gains(labels, block, popularity)
        attention = {t: torch.from_numpy(shift[block]).to(where) @ corpus.T for t, shift in shifts.items()}
        linear_scores = {key: torch.from_numpy(vectors[block]).to(where) @ corpus.T for key, vectors in moved.items()}
        for row, documents in enumerate(fold.answered[block]):
            for scored in linear_scores.values():
                scored[row, documents] = -torch.inf
        for index, candidate in enumerate(CANDIDATES):
            combined = linear_scores[candidate.linear]
            if candidate.attention:
                combined = torch.add(combined, attention[candidate.attention.temperature], alpha=candidate.attention.strength)
            scores[:, index, block] = gains.score(combined)
    return scores


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


_DISCOUNTS = 1 / np.log2(np.arange(2, DEPTH + 2))


class _Gains:
    """The labels of one block of queries as a dense array, by which rankings are scored."""

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
        """Score the rankings by (h, N) scores: (4, h) nDCG@10, recall@10, and both by popularity."""
        depth = min(DEPTH, scores.shape[1])
        top = scores.topk(depth, dim=1).indices.cpu().numpy()
        own = np.take_along_axis(self.own, top[None], axis=2).astype(np.float64)
        others = (self.popularity[:, top] - own) / self.others
        discounts = np.stack([_DISCOUNTS[:depth], np.ones(depth)])
        return np.concatenate([np.einsum("mhk,mk->mh", part, discounts) for part in (own, others)])
