"""A small problem with something to learn."""

import uuid
from dataclasses import dataclass, replace

import numpy as np

from deepmem_integrations import Relevance


@dataclass(frozen=True)
class Problem:
    """Queries that ask for documents in words of their own: a fixed rotation and noise lie between the two."""

    corpus: np.ndarray
    ids: list[str]
    train_queries: np.ndarray
    train: Relevance
    test_queries: np.ndarray
    test: Relevance
    turn: np.ndarray | None = None
    """Turns the vectors of all other texts, for another embedding model."""


def make_problem(seed: int = 0, *, documents: int = 300, train: int = 240, test: int = 120, dimension: int = 32) -> Problem:
    rng = np.random.default_rng(seed)
    corpus = rng.normal(size=(documents, dimension)).astype(np.float32)
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    habit = 0.35 * rng.normal(size=(dimension, dimension)) / np.sqrt(dimension)
    shift = 0.25 * rng.normal(size=dimension)
    ids = [f"doc-{row}" for row in range(documents)]

    def ask(count: int, name: str) -> tuple[np.ndarray, Relevance]:
        asked = rng.choice(documents // 2, size=count)
        vectors = corpus[asked] + corpus[asked] @ habit * 2 + shift + 0.18 * rng.normal(size=(count, dimension))
        labels = [[(ids[row], 1.0)] for row in asked]
        return vectors.astype(np.float32), Relevance([f"{name} {i}" for i in range(count)], labels)

    return Problem(corpus, ids, *ask(train, "train"), *ask(test, "test"))


def with_uuids(problem: Problem) -> Problem:
    """The same problem with ids that Qdrant takes, too."""
    names = {name: str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in problem.ids}

    def renamed(labels):
        return Relevance(labels.queries, [[(names[name], weight) for name, weight in row] for row in labels.labels])

    return replace(problem, ids=list(names.values()), train=renamed(problem.train), test=renamed(problem.test))
