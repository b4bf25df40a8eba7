import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Attention
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError
from tests.adapter.helpers import make_adapter, unit
from tests.peak import peak_of


def test_transform_is_the_formula_of_its_docstring():
    adapter = make_adapter()
    x = unit(np.random.default_rng(1).normal(size=(5, 4)))
    attention = adapter.attention
    y = unit(x + x @ adapter.linear)
    z = unit(y + attention.strength * np.exp((x @ attention.keys.T - 1) / attention.temperature) @ attention.values)
    np.testing.assert_allclose(adapter.transform(x), z, atol=1e-5)


@given(arrays(np.float32, (3, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_rows_come_back_with_length_one_and_the_argument_is_left_alone(vectors):
    before = vectors.copy()
    if not np.abs(vectors).max(axis=1).all():
        with pytest.raises(InvalidVectorsError, match="all zeros"):
            make_adapter().transform(vectors)
        return
    moved = make_adapter().transform(vectors)
    assert moved.dtype == np.float32
    assert moved.shape == vectors.shape
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, before)


def test_one_vector_and_many_agree_and_length_does_not_matter():
    adapter = make_adapter()
    x = np.random.default_rng(2).normal(size=(5, 4))
    many = adapter.transform(x)
    for row in range(5):
        np.testing.assert_allclose(adapter.transform(x[row].tolist()), many[row], atol=1e-6)
        np.testing.assert_allclose(adapter.transform(1000 * x[row]), many[row], atol=1e-6)


def test_the_identity_keeps_directions():
    x = unit(np.random.default_rng(0).normal(size=(3, 4)))
    adapter = QueryAdapter(4)
    assert adapter.is_identity
    np.testing.assert_allclose(adapter.transform(x), x, atol=1e-6)
    assert "identity" in repr(adapter)


def test_a_row_that_cancels_out_stays_where_it_was():
    adapter = QueryAdapter(2, linear=-np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(adapter.transform([0.0, 3.0]), [0.0, 1.0])


def test_bad_vectors_are_refused():
    adapter = make_adapter()
    with pytest.raises(EmbeddingMismatchError, match="5 dimensions where 4"):
        adapter.transform(np.ones(5))
    with pytest.raises(InvalidVectorsError, match="Query vector 1 holds NaN"):
        adapter.transform([[1, 1, 1, 1], [1, 1, np.nan, 1]])
    with pytest.raises(InvalidVectorsError, match="need the shape"):
        adapter.transform(np.ones((1, 2, 4)))


def test_a_large_batch_is_done_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    keys, values = unit(rng.normal(size=(2_000, 4))), rng.normal(size=(2_000, 4))
    attention = Attention(keys.astype(np.float32), values.astype(np.float32), temperature=0.1, strength=2.0)
    adapter = QueryAdapter(4, attention=attention)
    x = rng.normal(size=(2_000, 4))
    whole, all_at_once = peak_of(lambda: adapter.transform(x))
    assert all_at_once > 2_000 * 2_000 * 4, "the similarities of every query and every key"
    monkeypatch.setattr("deepmem_integrations._vectors._BLOCK_FLOATS", 100_000)
    found, in_blocks = peak_of(lambda: adapter.transform(x))
    np.testing.assert_allclose(found, whole, atol=1e-6)
    assert in_blocks < all_at_once / 3


# ---- an adapter never changes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dimension", "linear", "attention", "remembered_queries", "fingerprint", "metadata", "new"])
def test_attributes_are_neither_set_nor_deleted(name):
    adapter = make_adapter()
    data = adapter.to_bytes()
    with pytest.raises(AttributeError):
        setattr(adapter, name, None)
    with pytest.raises(AttributeError):
        delattr(adapter, name)
    assert adapter.to_bytes() == data


def test_metadata_goes_in_and_comes_out_as_a_copy():
    given = {"report": {"chosen": "identity"}}
    adapter = QueryAdapter(4, metadata=given)
    given["report"]["chosen"] = "changed"
    adapter.metadata["report"]["chosen"] = "changed"
    adapter.metadata["more"] = 1
    assert adapter.metadata == {"report": {"chosen": "identity"}}
    grown = adapter.with_metadata(more=1)
    grown.metadata["report"]["chosen"] = "changed"
    assert grown.metadata == {"report": {"chosen": "identity"}, "more": 1}
    assert adapter.metadata == {"report": {"chosen": "identity"}}, "the old adapter is as it was"


def test_no_array_of_an_adapter_can_be_written_through():
    linear = np.zeros((4, 4), dtype=np.float32)
    adapter = make_adapter(linear=linear)
    for array in (adapter.linear, adapter.attention.keys, adapter.attention.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 7
    linear[0, 0] = 7  # the caller's own array stays the caller's


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda adapter: pickle.loads(pickle.dumps(adapter))])
def test_a_copy_is_the_same_and_does_not_change_either(again):
    adapter = make_adapter()
    other = again(adapter)
    assert other.to_bytes() == adapter.to_bytes()
    x = np.random.default_rng(1).normal(size=(5, 4))
    np.testing.assert_array_equal(other.transform(x), adapter.transform(x))
    with pytest.raises(AttributeError, match="never changes"):
        other.linear = None
