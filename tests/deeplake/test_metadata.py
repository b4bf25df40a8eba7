import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.deeplake.metadata import check_survives, decode, encode
from deepmem_integrations.errors import StoreError

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXTS, children, max_size=3),
    max_leaves=5,
)


@settings(max_examples=25)
@given(st.dictionaries(TEXTS, st.dictionaries(TEXTS, JSON, max_size=3), min_size=1, max_size=3))
def test_any_id_and_any_json_metadata_come_back_exactly(documents):
    store = DeepLakeStore(f"mem://{uuid.uuid4().hex}")
    store.add(["other", *documents], np.ones((len(documents) + 1, 4)), None, [{}, *documents.values()])
    for name, metadata in documents.items():
        found = store.get([name])
        assert [d.id for d in found] == [name]
        assert found[0].metadata == metadata
        assert list(map(type, found[0].metadata.values())) == list(map(type, metadata.values()))


@given(st.dictionaries(TEXTS, JSON, max_size=3))
def test_json_is_exact(metadata):
    assert decode(encode(metadata, "x")) == metadata


@pytest.mark.parametrize("metadata", [{"a": (1, 2)}, {1: 2}, {"a": float("nan")}, {"a": {1, 2}}, ["a"], "a", None])
def test_what_json_would_change_is_refused(metadata):
    with pytest.raises(StoreError, match=r"metadata of document 'x' (cannot be stored|would not come back)"):
        encode(metadata, "x")


@pytest.mark.parametrize("value", [1, 2.5, True, "a", ["a", "b"], [], {"a": {"b": 1}}, 2**63 - 1, -(2**63)])
def test_what_other_tools_data_sets_keep(value):
    check_survives(["x"], [{"v": value}])


@pytest.mark.parametrize("value", [None, [1, 2], ["a", 1], 2**63, -(2**63) - 1, {"a": {"b": None}}])
def test_what_other_tools_data_sets_would_change_is_refused(value):
    with pytest.raises(StoreError, match="document 'y' would not come back as it is: this data set was made by another tool"):
        check_survives(["x", "y"], [{}, {"v": value}])
