import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepmem_integrations._vectors import blocks, first_same, largest, nearest, unit_rows
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError
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


@given(arrays(np.float32, (3, 4), elements=st.floats(-(2.0**126), 2.0**126, width=32)))
def test_rows_of_any_size_become_unit_rows(vectors):
    before = vectors.copy()
    if not np.abs(vectors).max(axis=1).all():
        with pytest.raises(InvalidVectorsError, match=r"Row \d is all zeros"):
            unit_rows(vectors, "row")
        return
    unit = unit_rows(vectors, "row")
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    exact = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(unit, exact, atol=1e-6)
    np.testing.assert_array_equal(vectors, before)


@given(st.integers(1, 2_000), st.integers(0, 1000))
def test_unit_rows_stay_as_they_are_however_they_are_batched(dimension, seed):
    vectors = np.random.default_rng(seed).normal(size=(5, dimension)) + 1
    unit = unit_rows(vectors, "row")
    np.testing.assert_array_equal(unit_rows(unit, "row"), unit)
    np.testing.assert_array_equal(unit_rows(np.concatenate([unit[:2], vectors[2:]]), "row"), unit)
    np.testing.assert_array_equal(np.concatenate([unit_rows(vectors[row : row + 1], "row") for row in range(5)]), unit)


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        ([["x"]], InvalidVectorsError, "The query vectors are not a matrix of numbers"),
        ([[1.0], [1.0, 2.0]], InvalidVectorsError, "not a matrix of numbers"),
        ([1.0, 2.0, 3.0], InvalidVectorsError, r"need the shape \(rows, dimension\); got \(3,\)"),
        ([[1.0, 2.0]], EmbeddingMismatchError, "have 2 dimensions where 3 are expected"),
        ([[1, 0, 0], [0, np.inf, 0]], InvalidVectorsError, r"Query vector 11 \(id 'b'\) holds NaN or infinity"),
        ([[1, 0, 0], [0, np.nan, 0]], InvalidVectorsError, r"Query vector 11 \(id 'b'\) holds NaN or infinity"),
        ([[0, 0, 0], [0, 1, 0]], InvalidVectorsError, r"Query vector 10 \(id 'a'\) is all zeros"),
    ],
)
def test_rows_that_cannot_be_used_are_named(vectors, error, message):
    with pytest.raises(error, match=message):
        unit_rows(vectors, "query vector", dimension=3, ids=["a", "b"], first=10)


@given(st.integers(0, 300), st.integers(0, 300))
def test_blocks_cover_every_row_once_and_stay_small(rows, columns):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepmem_integrations._vectors._BLOCK_FLOATS", 1_000)
        found = list(blocks(rows, columns))
    assert [row for block in found for row in range(block.start, block.stop)] == list(range(rows))
    assert all(block.stop - block.start == 1 or (block.stop - block.start) * columns <= 1_000 for block in found)


def test_a_row_is_the_same_as_another_and_not_as_one_far_along_a_chain():
    angles = 0.01 * np.arange(60)
    arc = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    first = first_same(arc, float(np.cos(0.015)))
    assert (arc * arc[first]).sum(axis=1).min() > np.cos(0.016)
    assert len(set(first.tolist())) == 30
