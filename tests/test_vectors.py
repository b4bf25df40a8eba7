import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations._vectors import largest, nearest
from tests.peak import peak_of


@given(st.integers(1, 60), st.integers(0, 1000))
def test_nearest_is_a_full_sort_cut_off(k, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, size=(4, 40)).astype(np.float32)  # many ties
    expected = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, 40)]
    np.testing.assert_array_equal(largest(scores, min(k, 40)), expected)


def test_a_large_search_is_done_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    queries, corpus = rng.normal(size=(1_000, 8)).astype(np.float32), rng.normal(size=(1_000, 8)).astype(np.float32)
    whole, all_at_once = peak_of(lambda: nearest(queries, corpus, 5))
    monkeypatch.setattr("deepmem_integrations._vectors._BLOCK_FLOATS", 50_000)
    found, in_blocks = peak_of(lambda: nearest(queries, corpus, 5))
    np.testing.assert_array_equal(found, whole)
    assert in_blocks < all_at_once / 3
