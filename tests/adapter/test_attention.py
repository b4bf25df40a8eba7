from dataclasses import replace

import numpy as np

from deepmem_integrations import QueryAdapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.adapter.lists import BUDGET, Lists


def test_very_many_keys_are_searched_in_lists_with_nearly_the_same_result(tmp_path):
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(300, 24))
    keys = unit_rows(topics[rng.integers(300, size=25_000)] + 0.5 * rng.normal(size=(25_000, 24)), "key")
    values = rng.normal(size=(25_000, 24)).astype(np.float32)
    exact = Attention(keys, values, temperature=0.1, strength=2.0)
    order, lists = Lists.of(keys)
    assert sorted(order.tolist()) == list(range(25_000))
    assert lists.starts[-1] == 25_000
    in_lists = replace(exact, keys=keys[order], values=values[order], lists=lists)
    queries = unit_rows(topics[rng.integers(300, size=200)] + 0.5 * rng.normal(size=(200, 24)), "query")
    expected, found = exact.shift(queries), in_lists.shift(queries)
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert np.median(error) < 1e-4
    assert error.mean() < 0.01
    assert 0 < max(part.stop - part.start for part in lists.closest_lists(queries[0])) < BUDGET
    adapter = QueryAdapter(24, attention=in_lists)
    again = QueryAdapter.load(adapter.save(tmp_path / "many.safetensors"))
    np.testing.assert_allclose(again.transform(queries), adapter.transform(queries), atol=1e-6)
    assert again.attention.lists is not None
