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


def folds(labels: LabelRows, view: View, seed: int) -> Iterator[Fold]:
    """Yield the folds of a view. Every query is held out once.

    In the unseen view, a fold holds out a third of the labelled documents, and the queries whose rarest document is among these.
    The training queries lose their labels for these documents, and the held-out queries are scored by these documents alone. So
    no training label names a document that a held-out query asks for, even where labels connect all queries with one another.

    Args:
        labels: The labels of all queries.
        view: ``"seen"`` draws queries at random; ``"unseen"`` draws documents.
        seed: Fixes the draw.
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
