"""Very many keys, in lists that grow and shrink with them."""

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.adapter import Attention, RememberedQueries, ValueSpace, lists, sorted_into_lists
from deepmem_integrations.labels import LabelRows

DIMENSION, KEYS, DOCUMENTS = 12, 400, 40


@pytest.fixture
def many(monkeypatch):
    """An adapter with 400 keys, which count as very many, and the query of each key."""
    monkeypatch.setattr(lists, "MANY_KEYS", 100)
    monkeypatch.setattr("deepmem_integrations.adapter.query_adapter.MANY_KEYS", 100)
    monkeypatch.setattr(lists, "BUDGET", KEYS)  # the closest lists are all of them, so that nothing is missed
    rng = np.random.default_rng(0)
    queries = unit_rows(rng.normal(size=(KEYS, DIMENSION)), "query")
    space = ValueSpace(np.zeros(DIMENSION, np.float32), np.eye(DIMENSION, dtype=np.float32), 1.0)
    remembered = RememberedQueries(
        query_ids=tuple(f"q{row}" for row in range(KEYS)),
        texts=None,
        owners=np.arange(KEYS),
        labels=LabelRows.of_rows([{row % DOCUMENTS: 1.0, (row + 1) % DOCUMENTS: 0.5} for row in range(KEYS)]),
        document_ids=tuple(f"d{row}" for row in range(DOCUMENTS)),
        documents=rng.normal(size=(DOCUMENTS, DIMENSION)).astype(np.float32),
        space=space,
        trained=KEYS,
        trained_in_all=KEYS,
        irrelevant=LabelRows.of_strengths([{(row + 2) % DOCUMENTS: -1.0} if row % 3 else {} for row in range(KEYS)]),
    )
    bare = Attention(queries[:1], queries[:1], temperature=0.1, strength=2.0)
    attention, remembered = sorted_into_lists(bare, queries, remembered)
    return QueryAdapter(DIMENSION, attention=attention, remembered_queries=remembered), queries


def check(adapter, queries, labels):
    """Check that each query is remembered with its answers, and that the adapter is as one whose lists are made anew."""
    attention, remembered = adapter.attention, adapter.remembered_queries
    assert attention.lists.starts[-1] == len(attention.keys) == len(np.unique(remembered.owners))
    np.testing.assert_allclose(
        np.einsum("nd,nd->n", attention.keys[remembered.owners], np.stack([queries[n] for n in remembered.query_ids])),
        1,
        atol=1e-4,
    )
    for row, name in enumerate(remembered.query_ids):
        assert {document for document, weight in remembered.documents_of(row).items() if weight > 0} == labels[name]
    found = np.argmax(attention.keys @ attention.lists.centroids.T, axis=1)
    assert (np.diff(found) >= 0).all(), "every key lies in the list of its closest centroid"
    attention, remembered = sorted_into_lists(attention, attention.keys, remembered)
    anew = QueryAdapter(DIMENSION, attention=attention, remembered_queries=remembered)
    asked = np.random.default_rng(1).normal(size=(30, DIMENSION))
    np.testing.assert_allclose(adapter.transform(asked), anew.transform(asked), atol=1e-5)
    assert adapter.answers(asked[0]) == pytest.approx(anew.answers(asked[0]), abs=1e-5)
    again = QueryAdapter.from_bytes(adapter.to_bytes())
    np.testing.assert_array_equal(again.transform(asked), adapter.transform(asked))


def test_lists_grow_and_shrink_as_queries_are_remembered_and_forgotten(many):
    adapter, vectors = many
    queries = {f"q{row}": vector for row, vector in enumerate(vectors)}
    labels = {f"q{row}": {f"d{row % DOCUMENTS}", f"d{(row + 1) % DOCUMENTS}"} for row in range(KEYS)}
    check(adapter, queries, labels)
    centroids = adapter.attention.lists.centroids

    new = unit_rows(np.random.default_rng(2).normal(size=(30, DIMENSION)), "query")
    more = np.concatenate([new, new[:2], vectors[:1]])  # two queries twice, and one that has a key already
    grown = adapter.remember(more, [[("d3", 1.0)]] * 33, query_ids=[f"new{row}" for row in range(33)])
    queries |= {f"new{row}": vector for row, vector in enumerate(more)}
    labels |= {f"new{row}": {"d3"} for row in range(33)}
    assert len(grown.attention.keys) == KEYS + 30
    assert grown.attention.lists.centroids is not None and (grown.attention.lists.centroids == centroids).all()
    check(grown, queries, labels)

    gone = [f"q{row}" for row in range(0, KEYS, 5)] + ["new1", "new31"]
    less = grown.forget(query_ids=gone)
    assert len(less.attention.keys) == KEYS + 30 - KEYS // 5 - 1 + 1  # new32 keeps the key of q0
    check(less, queries, labels)

    moved = less.relabel({"d3": {"e": 1.0}}, {"e": np.ones(DIMENSION)})
    labels = {name: {"e" if one == "d3" else one for one in names} for name, names in labels.items()}
    assert moved.attention.keys is less.attention.keys or (moved.attention.keys == less.attention.keys).all()
    check(moved, queries, labels)


def test_lists_are_made_anew_once_twice_or_half_as_many_keys_are_there(many):
    adapter, _ = many
    new = np.random.default_rng(3).normal(size=(KEYS + 10, DIMENSION))
    grown = adapter.remember(new, [[("d1", 1.0)]] * len(new))
    assert len(grown.attention.lists.centroids) > len(adapter.attention.lists.centroids)
    half = adapter.forget(query_ids=[f"q{row}" for row in range(KEYS // 2 + 10)])
    assert len(half.attention.lists.centroids) < len(adapter.attention.lists.centroids)
    few = adapter.forget(query_ids=[f"q{row}" for row in range(KEYS - 50)])
    assert few.attention.lists is None
    assert isinstance(few.attention.values, np.ndarray)


def test_the_values_of_keys_in_lists_are_computed_as_all_are(many):
    remembered = many[0].remembered_queries
    rows = np.random.default_rng(4).permutation(KEYS).reshape(4, 100)
    np.testing.assert_array_equal(many[0].attention.values[rows], remembered.values[rows])


def test_a_million_keys_are_compared_with_more_lists_than_some():
    wide = lists.Lists(np.eye(2_000, 4, dtype=np.float32), np.arange(2_001) * 500)
    looked = sum(part.stop - part.start for part in wide.closest_lists(np.ones(4, np.float32)))
    assert looked == lists.DEPTH * 500 > lists.BUDGET
