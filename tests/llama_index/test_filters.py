"""Every filter operator and nesting, as Deep Lake runs it, against the same filter in plain Python."""

import operator
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import StoreError
from deepmem_integrations.llama_index.filters import condition

VALUES = [
    *(0, 1, 2, 2.5, -3, 2**53, 1e300, True, False),
    *("", "a", "b", "ab", "Ab", "1", "it's", "x' OR 1=1 --", "é"),
    *(["a", "b"], ["ab"], ["it's"], [1, 2], [2.5], []),
    *(None, {"q": 1}),
]
METADATA = [{"v": value, "w": VALUES[row - 3], "row": row} for row, value in enumerate(VALUES)] + [{"row": -1}, {"w": "a"}]
IDS = [f"document {row}" for row in range(len(METADATA))]
NUMBERS = [value for value in VALUES if type(value) in (int, float)]
TEXTS = [value for value in VALUES if isinstance(value, str)]

ORDER = {
    FilterOperator.GT: operator.gt,
    FilterOperator.GTE: operator.ge,
    FilterOperator.LT: operator.lt,
    FilterOperator.LTE: operator.le,
}


@pytest.fixture(scope="module")
def store():
    store = DeepLakeStore(f"mem://{uuid.uuid4().hex}")
    store.add(IDS, np.random.default_rng(0).normal(size=(len(IDS), 4)), None, METADATA)
    return store


def holds(part, metadata):
    """What a filter means: LlamaIndex's own definition, with False where Python has no answer."""
    if isinstance(part, MetadataFilters):
        results = [holds(each, metadata) for each in part.filters]
        if part.condition == FilterCondition.NOT:
            return not any(results)
        return any(results) if part.condition == FilterCondition.OR and results else all(results)
    found, value = metadata.get(part.key), part.value
    match part.operator:
        case FilterOperator.IS_EMPTY:
            return found in (None, "", [])
        case FilterOperator.NE | FilterOperator.NIN if found is None:
            return True
        case _ if found is None:
            return False
        case FilterOperator.EQ:
            return found == value
        case FilterOperator.NE:
            return found != value
        case FilterOperator.IN:
            return found in value
        case FilterOperator.NIN:
            return found not in value
        case FilterOperator.CONTAINS | FilterOperator.TEXT_MATCH:
            return contains(found, value)
        case FilterOperator.ANY:
            return any(contains(found, each) for each in value)
        case FilterOperator.ALL:
            return all(contains(found, each) for each in value)
        case FilterOperator.TEXT_MATCH_INSENSITIVE:
            return isinstance(found, str) and value.lower() in found.lower()
    try:
        return ORDER[part.operator](found, value)
    except TypeError:
        return False


def contains(found, value):
    if isinstance(found, str):
        return isinstance(value, str) and value in found
    return value in found if isinstance(found, list) else found == value


def right(filters):
    return [name for name, metadata in zip(IDS, METADATA, strict=True) if holds(filters, metadata)]


def found(store, filters):
    return [document.id for document in store.find(condition(filters, store))]


def leaf(key, operator, value):
    return MetadataFilter(key=key, operator=operator, value=value)


ONE = [FilterOperator.EQ, FilterOperator.NE, *ORDER]
LEAVES = (
    [leaf("v", each, value) for each in ONE for value in NUMBERS + TEXTS]
    + [leaf("v", each, value) for each in (FilterOperator.EQ, FilterOperator.NE) for value in (["a", "b"], [1, 2], [])]
    + [leaf("v", FilterOperator.CONTAINS, value) for value in ("a", "ab", "it's", 1, 2.5, "x' OR 1=1 --", "é")]
    + [
        leaf("v", each, value)
        for each in (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY)
        for value in (["a", "it's"], ["zz"], [1, 7], [2.5], [])
    ]
    + [leaf("v", FilterOperator.ALL, value) for value in (["a", "b"], ["a"], [1, 2], ["a", "zz"])]
    + [
        leaf("v", each, value)
        for each in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)
        for value in ("a", "A", "AB", "t's", "É")
    ]
    + [leaf(key, FilterOperator.IS_EMPTY, None) for key in ("v", "w", "nowhere")]
    + [leaf("nowhere", each, 1) for each in ONE]
)


def test_the_leaves_cover_every_operator():
    assert {part.operator for part in LEAVES} == set(FilterOperator)


@pytest.mark.parametrize("name", [each.name for each in FilterOperator])
def test_every_operator(store, name):
    for part in LEAVES:
        if part.operator == FilterOperator[name]:
            filters = MetadataFilters(filters=[part])
            assert found(store, filters) == right(filters), part


NESTED = st.recursive(
    st.sampled_from([part.model_copy(update={"key": key}) for part in LEAVES for key in ("v", "w")]),
    lambda parts: st.builds(
        MetadataFilters, filters=st.lists(parts, min_size=1, max_size=3), condition=st.sampled_from([*FilterCondition, None])
    ),
    max_leaves=6,
)


@settings(max_examples=60)
@given(parts=st.lists(NESTED, max_size=2), condition=st.sampled_from(FilterCondition))
def test_conditions_nest_as_they_like(store, parts, condition):
    filters = MetadataFilters(filters=parts, condition=condition if parts else FilterCondition.AND)
    assert found(store, filters) == right(filters)


def test_keys_and_values_cannot_break_out_of_a_filter(store):
    for key in ("x'] = 1 OR metadata['v", "v'", "é", ""):
        for value in ("' OR true --", "'", "a"):
            assert found(store, MetadataFilters(filters=[leaf(key, FilterOperator.EQ, value)])) == []


def test_what_cannot_be_compared_is_refused(store):
    for part in (
        leaf("v", FilterOperator.EQ, None),
        leaf("v", FilterOperator.GT, ["a"]),
        leaf("v", FilterOperator.CONTAINS, ["a"]),
        leaf("v", FilterOperator.IN, "a"),
        leaf("v", FilterOperator.TEXT_MATCH_INSENSITIVE, None),
    ):
        with pytest.raises(StoreError, match=r"The filter on 'v' with the operator .* compares with .* use 'is_empty'"):
            found(store, MetadataFilters(filters=[part]))
    with pytest.raises(StoreError, match="finite numbers"):
        found(store, MetadataFilters(filters=[leaf("v", FilterOperator.GT, float("nan"))]))


@pytest.mark.parametrize("operator", [FilterOperator.ALL, FilterOperator.ANY, FilterOperator.IN, FilterOperator.NIN])
@pytest.mark.parametrize("value", [[], [-3], [-0.5, 2]])
def test_empty_lists_and_negative_numbers_are_as_llama_index_has_them(tmp_path, operator, value):
    """Before, ``all []`` held where the key is missing."""
    store = DeepLakeStore(tmp_path / "ds")
    metadatas = {"none": {}, "list": {"v": [-3, 2]}, "empty": {"v": []}, "other": {"v": [1]}}
    if operator in (FilterOperator.IN, FilterOperator.NIN):
        metadatas = {"none": {}, "minus": {"v": -3}, "two": {"v": 2}, "half": {"v": -0.5}}
    store.add(list(metadatas), np.eye(4), metadatas=list(metadatas.values()))
    filters = MetadataFilters(filters=[MetadataFilter(key="v", value=value, operator=operator)])
    holds = {
        FilterOperator.ALL: lambda there: all(item in there for item in value),
        FilterOperator.ANY: lambda there: any(item in there for item in value),
        FilterOperator.IN: lambda there: there in value,
        FilterOperator.NIN: lambda there: there not in value,
    }[operator]
    found = {document.id for document in store.find(condition(filters, store))}
    missing = {"none"} if operator == FilterOperator.NIN else set()
    assert found == missing | {name for name, metadata in metadatas.items() if "v" in metadata and holds(metadata["v"])}
