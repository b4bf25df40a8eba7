import numpy as np
import pytest

from deepmem_integrations.deeplake.tql import Condition, literal, where
from deepmem_integrations.errors import StoreError


def test_literals():
    assert literal("it's") == "'it''s'"
    assert [literal(v) for v in (True, False, 3, 2.5, np.int64(4), np.float32(0.5))] == ["true", "false", "3", "2.5", "4", "0.5"]
    for bad in (float("nan"), float("inf"), None, [1], "a\0b"):
        with pytest.raises(StoreError):
            literal(bad)


@pytest.mark.parametrize(
    ("filter", "clause"),
    [
        (None, ""),
        ({}, ""),
        ({"year": 2024}, "WHERE m['year'] = 2024"),
        ({"it's": "so"}, "WHERE m['it''s'] = 'so'"),
        ({"year": 2024, "lang": ["en", "de"]}, "WHERE m['year'] = 2024 AND m['lang'] IN ('en', 'de')"),
        ({"seen": None}, "WHERE m['seen'] IS NULL"),
        ({"ok": [True, False]}, "WHERE (m['ok'] = true OR m['ok'] = false)"),
        ({"metadata": {"year": 2024}}, "WHERE m['year'] = 2024"),
        ({"metadata": "a word"}, "WHERE m['metadata'] = 'a word'"),
        (Condition("m['a'] > 3"), "WHERE m['a'] > 3"),
    ],
)
def test_filters_become_clauses(filter, clause):
    assert where(filter, "m") == clause
    also = where(filter, "m", "id = 'a'")
    assert also == (f"WHERE ({clause.removeprefix('WHERE ')}) AND id = 'a'" if clause else "WHERE id = 'a'")


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ("year = 2024", "A filter is a dict such as .* got str"),
        ({3: 1}, "keys of a filter are strings; got 3"),
        ({"year": []}, "'year' lists no allowed value"),
        ({"year": {"a": 1}}, "compares with strings and finite numbers"),
        ({"year": [float("nan")]}, "compares with strings and finite numbers"),
        ({"a\0": 1}, "NUL"),
        ({"year": "\ud83d"}, "half of a surrogate pair"),
        ({"year": 2**63}, "integers of 64 bits, not with 9223372036854775808"),
        ({"year": [-(2**70)]}, "integers of 64 bits"),
    ],
)
def test_what_is_no_filter_is_named(filter, message):
    with pytest.raises(StoreError, match=message):
        where(filter, "m")
