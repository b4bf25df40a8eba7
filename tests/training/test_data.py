import numpy as np

from deepmem_integrations.training.candidates import TRANSFORMS
from tests.training.helpers import as_problem


def test_memory_alone_is_attention_over_the_training_queries(problem):
    given = as_problem(problem)
    candidate = next(c for c in TRANSFORMS if c.linear is None and c.attention)
    adapter = given.fit(candidate)
    assert adapter.linear is None
    space = adapter.attention.space
    places = (given.queries - given.queries.mean(axis=0)) @ space.projection
    np.testing.assert_allclose(adapter.attention.keys, places / np.linalg.norm(places, axis=1, keepdims=True), atol=1e-5)
    assert len(adapter.attention.keys) > adapter.attention.neighbours
    x = given.queries[:3]
    similarity = adapter.attention.space.place(x) @ adapter.attention.keys.T
    for row in range(3):
        near = np.argsort(-similarity[row])[: adapter.attention.neighbours]
        factors = adapter.attention.strength * np.exp((similarity[row, near] - 1) / adapter.attention.temperature)
        np.testing.assert_allclose(adapter.attention.shift(x)[row], factors @ adapter.attention.values[near], atol=1e-5)
