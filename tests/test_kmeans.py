import numpy as np
import pytest

from deepmem_integrations._kmeans import assign, spherical_kmeans


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def clusters():
    """Three clusters of forty unit vectors each, and the true middles."""
    rng = np.random.default_rng(0)
    middles = unit(np.eye(3, 8))
    return unit(np.repeat(middles, 40, axis=0) + 0.1 * rng.normal(size=(120, 8))), middles


def test_separated_clusters_are_found(clusters):
    vectors, middles = clusters
    centres = spherical_kmeans(vectors, vectors[[0, 40, 80]], rounds=5)
    assert (np.sum(centres * middles, axis=1) > 0.99).all()
    rows, cosines = assign(vectors, centres)
    np.testing.assert_array_equal(rows, np.repeat([0, 1, 2], 40))
    np.testing.assert_allclose(cosines, np.sum(vectors * centres[rows], axis=1), atol=1e-6)


def test_a_round_is_the_mean_of_what_is_nearest(clusters):
    vectors, _ = clusters
    centres = vectors[[3, 50, 110]]
    rows = (vectors @ centres.T).argmax(axis=1)
    expected = unit(np.stack([vectors[rows == row].mean(axis=0) for row in range(3)]))
    np.testing.assert_allclose(spherical_kmeans(vectors, centres, rounds=1), expected, atol=1e-5)


def test_a_centre_that_nothing_is_nearest_to_stays(clusters):
    vectors, _ = clusters
    lonely = unit(-vectors.mean(axis=0))
    centres = spherical_kmeans(vectors, np.stack([vectors[0], lonely]), rounds=3)
    np.testing.assert_array_equal(centres[1], lonely)


def test_blocks_change_nothing(clusters, monkeypatch):
    vectors, middles = clusters
    whole = assign(vectors, middles)
    monkeypatch.setattr("deepmem_integrations._vectors._BLOCK_FLOATS", 10)
    for found, expected in zip(assign(vectors, middles), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
