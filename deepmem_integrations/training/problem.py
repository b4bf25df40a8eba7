"""What there is to learn from, and the candidates: the parts of an adapter and their settings."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import Attention, QueryAdapter, ValueSpace
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.attention import CorpusStatistics, target_means, value_space
from deepmem_integrations.training.folds import Fold
from deepmem_integrations.training.linear import Negatives, negative_rows, train_linear

EPOCHS = (8, 16)
TEMPERATURES = (0.1, 0.13, 0.16)
STRENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class LinearSettings:
    """A setting of the linear part."""

    negatives: Negatives
    epochs: int


@dataclass(frozen=True)
class AttentionSettings:
    """A setting of the attention part."""

    temperature: float
    strength: float


@dataclass(frozen=True)
class Candidate:
    """A pair of settings; without either it is the identity."""

    linear: LinearSettings | None = None
    attention: AttentionSettings | None = None

    def __str__(self) -> str:
        """E.g. ``linear(labelled, 8 epochs) + attention(τ=0.1, β=2)``."""
        parts = []
        if self.linear:
            parts.append(f"linear({self.linear.negatives}, {self.linear.epochs} epochs)")
        if self.attention:
            parts.append(f"attention(τ={self.attention.temperature:g}, β={self.attention.strength:g})")
        return " + ".join(parts) or "identity"


LINEARS: tuple[LinearSettings | None, ...] = (
    None,
    *(LinearSettings(negatives, epochs) for negatives in ("labelled", "corpus") for epochs in EPOCHS),
)
ATTENTIONS: tuple[AttentionSettings | None, ...] = (None, *(AttentionSettings(t, s) for t in TEMPERATURES for s in STRENGTHS))
CANDIDATES = tuple(Candidate(linear, attention) for linear in LINEARS for attention in ATTENTIONS)
"""The identity comes first."""


@dataclass(frozen=True)
class Problem:
    """What there is to learn from. Queries are unit rows; labels name rows of the corpus."""

    queries: Vectors
    labels: LabelRows
    corpus: Vectors
    statistics: CorpusStatistics
    seed: int

    def take(self, rows: NDArray[np.int64], labels: LabelRows) -> "Problem":
        """The problem with these queries alone, labelled so."""
        return Problem(self.queries[rows], labels, self.corpus, self.statistics, self.seed)

    def held_out(self, queries: Vectors, labels: LabelRows) -> "tuple[Problem, Fold]":
        """All queries train, and others ((v, d) float32 unit rows) are scored: the problem with both, and its one fold."""
        rows = np.arange(len(self.queries), len(self.queries) + len(queries))
        both = Problem(np.concatenate([self.queries, queries]), self.labels, self.corpus, self.statistics, self.seed)
        return both, Fold(np.arange(len(self.queries)), self.labels, rows, labels, [[] for _ in rows])

    def linear(self, negatives: Negatives, epochs: tuple[int, ...] = EPOCHS) -> dict[int, Vectors]:
        """Train the linear part: epoch → W."""
        rows = negative_rows(negatives, self.labels, len(self.corpus), self.seed)
        targets = target_means(self.labels, self.corpus)
        return train_linear(self.queries, targets, self.corpus[rows], epochs=epochs, seed=self.seed)

    def value_space(self) -> ValueSpace:
        """How documents become values of the attention."""
        return value_space(target_means(self.labels, self.corpus), self.labels, self.corpus, self.statistics)

    def attentions(self) -> dict[float, Attention]:
        """The attention part at strength 1: temperature → attention."""
        space = self.statistics.kernel_space(self.queries)
        values = self.value_space().place(target_means(self.labels, self.corpus))
        keys = space.place(self.queries)
        return {temperature: Attention(keys, values, temperature, 1.0, space) for temperature in TEMPERATURES}

    def fit(self, candidate: Candidate) -> QueryAdapter:
        """Train one candidate on all queries."""
        linear = attention = None
        if candidate.linear:
            linear = self.linear(candidate.linear.negatives, (candidate.linear.epochs,))[candidate.linear.epochs]
        if candidate.attention:
            attention = replace(self.attentions()[candidate.attention.temperature], strength=candidate.attention.strength)
        return QueryAdapter(self.corpus.shape[1], linear=linear, attention=attention)


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
