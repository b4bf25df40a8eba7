"""Folds of training queries, in two views, so that everything can be chosen without a test set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.labels import LabelRows

FOLDS = 3
"""How many folds a view has."""

View = Literal["seen", "unseen"]
"""The name of a view: see `deepmem_integrations.training.guard`."""
VIEWS: tuple[View, ...] = ("seen", "unseen")
"""The names of both views."""


@dataclass(frozen=True)
class Fold:
    """The queries that train and the queries that are held out in one round of the cross-validation.

    Attributes:
        train: The rows of the training queries.
        train_labels: The labels of the training queries.
        held: The rows of the held-out queries.
        held_labels: The labels that the held-out queries are scored by.
        answered: For each held-out query, rows of the corpus that answer the query as well but do not count. They are left out of
            its ranking.
    """

    train: NDArray[np.int64]
    train_labels: LabelRows
    held: NDArray[np.int64]
    held_labels: LabelRows
    answered: list[list[int]]


def folds(
    labels: LabelRows,
    view: View,
    seed: int,
    groups: NDArray[np.int64] | None = None,
    parents: NDArray[np.int64] | None = None,
) -> Iterator[Fold]:
    """Yield the folds of a view. Every query with a label is held out once.

    A fold holds out questions: while a query is held out, no other spelling of it trains. Queries whose documents were all judged
    irrelevant cannot be scored, so they are not held out.

    In the unseen view, a fold holds out a third of the labelled documents, and the queries whose rarest document is among these.
    The training queries lose their labels for these documents, and the held-out queries are scored by these documents alone. So
    no training label names a document that a held-out query asks for, even where labels connect all queries with one another.
    Training queries keep what they judged irrelevant: a document that is wrong for one query may be the answer to a later one.

    Args:
        labels: The labels of all queries.
        view: ``"seen"`` draws questions at random; ``"unseen"`` draws documents.
        seed: Fixes the draw.
        groups: (n,) int64, the question of each query: see `question_groups`. By default each query is a question.
        parents: (N,) int64, the parent of each document, where labels name parents. The unseen view then draws parents.
    """
    rng = np.random.default_rng(seed)
    n, labelled = len(labels), labels.labelled
    groups = np.arange(n) if groups is None else groups
    if view == "seen":
        fold_of_query = _drawn(groups, rng)
        for fold in range(FOLDS):
            held = np.flatnonzero((fold_of_query == fold) & labelled)
            train = np.flatnonzero(fold_of_query != fold)
            yield Fold(train, labels.take(train), held, labels.take(held), [[] for _ in held])
        return

    places = labels.documents if parents is None else parents[labels.documents]
    _, entries, counts = np.unique(places, return_inverse=True, return_counts=True)
    drawn = rng.permutation(len(counts)) % FOLDS
    count_of = dict(zip(labels.documents.tolist(), counts[entries].tolist(), strict=True))
    fold_of = dict(zip(labels.documents.tolist(), drawn[entries].tolist(), strict=True))
    weights = [labels.weight_of(query) for query in range(n)]
    rarest = [min(query, key=lambda row: (count_of[row], row), default=None) for query in weights]
    own = np.array([-1 if row is None else fold_of[row] for row in rarest])
    for fold in range(FOLDS):
        held = np.flatnonzero(own == fold)
        others = np.flatnonzero((own != fold) & ~np.isin(groups, groups[held]))
        kept = {query: {d: w for d, w in weights[query].items() if fold_of[d] != fold} for query in others.tolist()}
        yield Fold(
            others,
            LabelRows.of_rows(list(kept.values())),
            held,
            LabelRows.of_rows([{d: w for d, w in weights[query].items() if fold_of[d] == fold} for query in held.tolist()]),
            [[d for d in weights[query] if fold_of[d] != fold] for query in held.tolist()],
        )


def _drawn(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a fold for each group, of about as many queries each, and return the fold of each query."""
    sizes = np.bincount(groups)
    order = rng.permutation(len(sizes))
    before = np.cumsum(sizes[order]) - sizes[order]
    ends = np.cumsum([len(part) for part in np.array_split(groups, FOLDS)])
    fold_of_group = np.empty(len(sizes), dtype=np.int64)
    fold_of_group[order] = np.searchsorted(ends, before, side="right")
    return fold_of_group[groups]
