"""A `QueryAdapter` and a `Relevance` never change, and travel between processes."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter, Relevance

MODEL = Path(__file__).parent / "fixtures" / "adapter-v2.safetensors"


@pytest.fixture
def adapter():
    return QueryAdapter.load(MODEL)


@pytest.fixture
def labelled():
    return Relevance(["a", "b"], [[("x", 1.0), ("x", 2.0)], [("y", 1.0)]])


@pytest.mark.parametrize("name", ["dimension", "linear", "attention", "remembered_queries", "fingerprint", "metadata", "new"])
def test_an_adapter_takes_no_attribute(adapter, name):
    with pytest.raises(AttributeError, match=f"A QueryAdapter never changes, so its {name} cannot be set"):
        setattr(adapter, name, None)


@pytest.mark.parametrize("name", ["queries", "query_ids", "labels", "generated", "left_out", "documents", "new"])
def test_a_relevance_takes_no_attribute(labelled, name):
    with pytest.raises(AttributeError, match=f"A Relevance never changes, so its {name} cannot be set"):
        setattr(labelled, name, None)


def test_nothing_can_be_deleted(adapter, labelled):
    with pytest.raises(AttributeError, match="linear cannot be deleted"):
        del adapter.linear
    with pytest.raises(AttributeError, match="labels cannot be deleted"):
        del labelled.labels


def test_what_is_handed_out_is_a_copy_or_read_only(adapter, labelled):
    adapter.metadata["report"]["chosen"] = "something else"
    assert adapter.metadata["report"]["chosen"] != "something else"
    labelled.left_out["repeated documents merged"] = 7
    assert labelled.left_out == {"repeated documents merged": 1}
    for array in (adapter.linear, adapter.attention.keys, adapter.attention.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1.0


def test_what_was_passed_may_change_later():
    metadata = {"note": ["before"]}
    adapter = QueryAdapter(4, metadata=metadata)
    metadata["note"].append("after")
    assert adapter.metadata == {"note": ["before"]}


@pytest.mark.parametrize("travel", [lambda it: pickle.loads(pickle.dumps(it)), copy.copy, copy.deepcopy])
def test_both_travel(adapter, labelled, travel):
    x = np.arange(8, dtype=np.float32)
    assert travel(adapter).to_bytes() == adapter.to_bytes()
    np.testing.assert_array_equal(travel(adapter).transform(x), adapter.transform(x))
    assert travel(labelled) == labelled
    assert travel(labelled).left_out == labelled.left_out
    with pytest.raises(AttributeError, match="never changes"):
        travel(labelled).queries = ()


def test_the_former_name_of_the_labels_warns(labelled):
    with pytest.warns(DeprecationWarning, match=r"called Relevance\.labels now"):
        assert labelled.documents == labelled.labels
