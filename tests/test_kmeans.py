import numpy as np
import pytest

from deepmem_integrations._kmeans import assign, spherical_kmeans
from deepmem_integrations._vectors import unit_rows
from tests.peak import peak_of


@pytest.fixture
def clusters():
    """Four tight clusters of 50 unit rows, far from each other: the rows, the cluster of each, and the true centres."""
    rng = np.random.default_rng(0)
    centres = np.eye(4, 8, dtype=np.float32)
    of = rng.permutation(np.repeat(np.arange(4), 50))
    return unit_rows(centres[of] + 0.1 * rng.normal(size=(200, 8)), "row"), of, centres


def test_the_centres_of_clusters_that_lie_apart_are_found(clusters):
    vectors, of, centres = clusters
    start = np.stack([vectors[of == cluster][0] for cluster in range(4)])
    found = spherical_kmeans(vectors, start, rounds=5)
    means = unit_rows(np.stack([vectors[of == cluster].mean(axis=0) for cluster in range(4)]), "mean")
    np.testing.assert_allclose(found, means, atol=1e-5)
    assert (found @ centres.T).argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert np.diag(found @ centres.T).min() > 0.99
    rows, cosines = assign(vectors, found)
    assert rows.tolist() == of.tolist()
    np.testing.assert_allclose(cosines, np.einsum("nd,nd->n", vectors, found[of]), atol=1e-6)


def test_centres_move_a_round_at_a_time(clusters):
    vectors, _, _ = clusters
    start = unit_rows(np.random.default_rng(1).normal(size=(4, 8)), "centre")
    before = start.copy()
    np.testing.assert_array_equal(spherical_kmeans(vectors, start, rounds=0), before)
    once = spherical_kmeans(vectors, start, rounds=1)
    rows = (vectors @ start.T).argmax(axis=1)
    for centre in np.unique(rows):
        mean = vectors[rows == centre].mean(axis=0)
        np.testing.assert_allclose(once[centre], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(spherical_kmeans(vectors, once, rounds=2), spherical_kmeans(vectors, start, rounds=3), atol=1e-6)
    np.testing.assert_array_equal(start, before)


def test_a_centre_that_nothing_is_nearest_to_stays(clusters):
    vectors, _, centres = clusters
    lonely = -unit_rows(np.ones((1, 8)), "centre")
    found = spherical_kmeans(vectors, np.concatenate([centres, lonely]), rounds=3)
    np.testing.assert_array_equal(found[4], lonely[0])
    assert np.isfinite(found).all()


def test_a_centre_whose_vectors_cancel_out_stays():
    vectors = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    centres = np.array([[0, 1]], dtype=np.float32)
    np.testing.assert_array_equal(spherical_kmeans(vectors, centres, rounds=2), centres)


def test_many_vectors_are_compared_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    vectors, centres = unit_rows(rng.normal(size=(2_000, 8)), "row"), unit_rows(rng.normal(size=(500, 8)), "centre")
    whole, all_at_once = peak_of(lambda: assign(vectors, centres))
    monkeypatch.setattr("deepmem_integrations._vectors._BLOCK_FLOATS", 50_000)
    found, in_blocks = peak_of(lambda: assign(vectors, centres))
    np.testing.assert_array_equal(found[0], whole[0])
    np.testing.assert_allclose(found[1], whole[1], atol=1e-6)
    assert in_blocks < all_at_once / 3
