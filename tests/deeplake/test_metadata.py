import datetime
import functools
import json
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


DEEP = functools.reduce(lambda inner, _: {"k": inner}, range(5000), 1)


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ({"fine": 1, "a": (1, 2)}, "under the key 'a' stands a tuple"),
        ({1: 2}, "the key 1 is no string"),
        ({"a": {"b": [0, float("nan")]}}, r"under the key 'a\.b\[1\]' stands nan"),
        ({"a": {1, 2}}, "stands a set"),
        ({"a": b"x"}, "stands a bytes"),
        ({"a": {"b": {3: 4}}}, r"under the key 'a\.b' the key 3 is no string"),
        ({"a": ["x\ud83d"]}, r"under the key 'a\[0\]' the text holds half of a surrogate pair"),
        ({"a\ud83d": 1}, "the key .* holds half of a surrogate pair"),
        ({"a": datetime.date(2026, 1, 1)}, "stands a date"),
        (DEEP, "nested too deeply"),
        (["a"], "they are a list"),
        ("a", "they are a str"),
        (None, "they are a NoneType"),
    ],
)
def test_what_would_not_come_back_is_refused_and_named(metadata, fault):
    with pytest.raises(StoreError, match=f"metadata of document 'x' cannot be stored: .*{fault}"):
        encode(metadata, "x")


@pytest.mark.parametrize("value", [np.int64(3), np.float32(1.5), np.bool_(True), np.str_("x"), 2**70, -(2**70), [np.int32(1)]])
def test_numbers_of_numpy_and_large_ones_are_stored(value):
    store = DeepLakeStore(f"mem://{uuid.uuid4().hex}")
    store.add(["a", "b"], np.ones((2, 4)), None, [{"v": value}, {"v": 1}])
    assert store.get(["a"])[0].metadata == {"v": value}
    json.dumps(store.get(["a"])[0].metadata)


@pytest.mark.parametrize("value", [1, 2.5, True, "a", ["a", "b"], [], {"a": {"b": 1}}, 2**63 - 1, -(2**63)])
def test_what_other_tools_data_sets_keep(value):
    check_survives(["x"], [{"v": value}])


@pytest.mark.parametrize("value", [None, [1, 2], ["a", 1], 2**63, -(2**63) - 1, {"a": {"b": None}}])
def test_what_other_tools_data_sets_would_change_is_refused(value):
    with pytest.raises(StoreError, match="'y' would not come .* made by another tool, and changes .* the key 'v'"):
        check_survives(["x", "y"], [{}, {"v": value}])
