import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations.generation.sampling import coverage_order


def blobs(sizes, seed=0, dimension=16):
    """Clusters of very different sizes, and which one each row belongs to."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), dimension))
    of = np.repeat(np.arange(len(sizes)), sizes)
    vectors = (centres[of] + 0.1 * rng.normal(size=(len(of), dimension))).astype(np.float32)
    order = rng.permutation(len(of))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True))[order], of[order]


@pytest.mark.parametrize("seed", range(3))
def test_a_few_documents_cover_small_topics_too(seed):
    vectors, of = blobs([900, 50, 20, 10, 10, 5, 3, 2], seed)
    order = coverage_order(vectors, 16, seed=seed)
    assert len(set(of[order[:16]])) >= 7
    at_random = np.random.default_rng(seed).permutation(len(vectors))[:16]
    assert len(set(of[order[:16]])) > len(set(of[at_random])) + 2


@given(st.integers(0, 40), st.integers(1, 60), st.integers(0, 3))
def test_the_order_holds_every_document_once(documents, count, seed):
    vectors = np.random.default_rng(1).normal(size=(documents, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = coverage_order(vectors, count, seed=seed)
    assert sorted(order) == list(range(documents))
    assert (coverage_order(vectors, count, seed=seed) == order).all()


def test_equal_documents_do_not_disturb():
    order = coverage_order(np.tile(np.float32([1, 0]), (10, 1)), 5, seed=0)
    assert sorted(order) == list(range(10))
