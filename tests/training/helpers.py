"""The problem of the shared fixtures as training sees it, and made-up scores of candidates."""

import numpy as np

from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.attention import CorpusStatistics
from deepmem_integrations.training.candidates import TRANSFORMS
from deepmem_integrations.training.cross_validation import HeldOut
from deepmem_integrations.training.data import TrainingData


def as_problem(given, seed=0):
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
    rows = {name: row for row, name in enumerate(given.ids)}
    corpus = unit(given.corpus)
    return TrainingData.of(
        unit(given.train_queries),
        LabelRows.of(given.train, rows),
        corpus,
        CorpusStatistics.empty(corpus.shape[1]).add(corpus),
        seed,
    )


def held_out(**means):
    """Scores of all candidates: the identity at 0.5, others as given, with a little noise."""
    rng = np.random.default_rng(0)
    base = np.full((len(TRANSFORMS), 200), 0.5) + 0.05 * rng.normal(size=200)
    for index, mean in means.get("gains", {}).items():
        base[index] += mean + 0.05 * rng.normal(size=200)
    zero = np.zeros_like(base)
    return HeldOut(base, base, zero, zero)
