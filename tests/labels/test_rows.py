import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations import Relevance
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidRelevanceError, InvalidVectorsError
from deepmem_integrations.labels import LabelRows, labelled_vectors


def test_labels_become_rows_of_the_corpus_with_a_largest_weight_of_one():
    relevance = Relevance(["p", "q"], [[("b", 2.0), ("a", 1.0)], [("c", 0.5)]])
    labels = LabelRows.of(relevance, {"a": 10, "b": 11, "c": 12})
    assert len(labels) == 2
    assert labels.weight_of(0) == {11: 1.0, 10: 0.5}
    assert labels.weight_of(1) == {12: 1.0}
    rows, weights = labels[0]
    assert rows.tolist() == [11, 10]
    assert weights.tolist() == [1.0, 0.5]
    assert labels.starts.tolist() == [0, 2, 3]
    assert labels.weights.dtype == np.float32


def test_weights_of_any_size_keep_their_ratio_and_none_becomes_zero():
    labels = LabelRows.of_rows([{0: 10.0**300, 1: 5 * 10.0**299}, {2: 1e-300}, {3: 1e300, 4: 1e-300}])
    assert labels.weights[:3].tolist() == [1.0, 0.5, 1.0]
    assert labels.weights[3] == 1
    assert 0 < labels.weights[4] < 1e-5


def test_some_queries_are_taken_in_the_order_asked_for():
    labels = LabelRows.of_rows([{0: 1.0}, {1: 1.0, 2: 0.5}, {3: 1.0}])
    taken = labels.take(np.array([2, 1]))
    assert [taken.weight_of(query) for query in range(len(taken))] == [{3: 1.0}, {1: 1.0, 2: 0.5}]


def test_vectors_and_labels_that_belong_together():
    given = [[("c", 1.0), ("b", 0)], [("a", 2.0)]]
    queries, labels, irrelevant, ids = labelled_vectors(2 * np.eye(3)[:2], given, ["a", "b", "c"], dimension=3)
    np.testing.assert_allclose(queries, np.eye(3)[:2])
    assert [labels.weight_of(query) for query in range(2)] == [{2: 1.0}, {0: 1.0}]
    assert [irrelevant.weight_of(query) for query in range(2)] == [{1: 1.0}, {}]
    assert ids == ("0", "1")
    relevance = Relevance(["q"], [[("b", 1.0)]], ["mine"])
    assert labelled_vectors(np.eye(3)[:1], relevance, ["a", "b", "c"], dimension=3)[3] == ("mine",)


@pytest.mark.parametrize(
    ("vectors", "labels", "error", "message"),
    [
        (np.eye(3)[:2], [[("a", 1.0)]], InvalidRelevanceError, "2 query vectors for 1 labelled"),
        (np.ones((0, 3)), [], InvalidRelevanceError, "There is no labelled query"),
        (np.eye(3)[:1], [[("z", 1.0)]], InvalidRelevanceError, "Row 0 .*'z' is not in the corpus"),
        (np.eye(3)[:1], [[]], InvalidRelevanceError, "Row 0 .*no relevant document"),
        (np.ones((1, 2)), [[("a", 1.0)]], EmbeddingMismatchError, "2 dimensions where 3"),
        (np.zeros((1, 3)), [[("a", 1.0)]], InvalidVectorsError, "all zeros"),
    ],
)
def test_vectors_and_labels_that_do_not_belong_together(vectors, labels, error, message):
    with pytest.raises(error, match=message):
        labelled_vectors(vectors, labels, ["a", "b"], dimension=3)


# ---- judged irrelevant -----------------------------------------------------------------------------------------------


def test_the_strength_of_a_judgement_is_0_to_1_and_is_not_scaled():
    relevance = Relevance(["p", "q", "r"], [[("a", 4.0), ("b", 0)], [("a", -0.5)], [("b", -3), ("c", -0.25)]])
    rows = {"a": 0, "b": 1, "c": 2}
    irrelevant = LabelRows.of_irrelevant(relevance, rows)
    assert [irrelevant.weight_of(query) for query in range(3)] == [{1: 1.0}, {0: 0.5}, {1: 1.0, 2: 0.25}]
    assert irrelevant.take(np.array([1, 0])).weight_of(0) == {0: 0.5}, "not scaled to 1"
    labels = LabelRows.of(relevance, rows)
    assert labels.labelled.tolist() == [True, False, False]
    assert [labels.weight_of(query) for query in range(3)] == [{0: 1.0}, {}, {}]


LABELS = st.lists(st.dictionaries(st.integers(0, 6), st.floats(0.125, 1.0, width=32), max_size=4), max_size=6)


def as_dicts(labels):
    return [labels.weight_of(query) for query in range(len(labels))]


@given(LABELS, LABELS, st.randoms())
def test_labels_are_joined_taken_and_subtracted_as_mappings_are(one, other, random):
    n = min(len(one), len(other))
    one, other = one[:n], other[:n]
    labels, others = LabelRows.of_rows(one), LabelRows.of_rows(other)
    given = as_dicts(labels)
    assert as_dicts(labels.joined(others)) == given + as_dicts(others)
    assert [set(rows) for rows in labels.document_lists()] == [set(query) for query in given]
    order = random.sample(range(n), n)
    assert as_dicts(labels.take(np.array(order, dtype=np.int64))) == [given[row] for row in order]
    assert as_dicts(labels.without(others)) == [
        {d: w for d, w in mine.items() if d not in theirs} for mine, theirs in zip(given, other, strict=True)
    ]
    kept = np.arange(7) % 2 == 0
    left = [{d: w for d, w in query.items() if d % 2 == 0} for query in given]
    assert as_dicts(labels.only(kept)) == left
    scaled = [{d: w / max(query.values()) for d, w in query.items()} for query in left]
    assert as_dicts(labels.only(kept).scaled()) == [pytest.approx(query) for query in scaled]
    signed = labels.signed(others.without(labels), 0.5)
    assert as_dicts(signed) == [
        pytest.approx(mine | {d: -0.5 * w for d, w in theirs.items() if d not in mine})
        for mine, theirs in zip(given, as_dicts(others), strict=True)
    ]


def test_labels_of_the_same_owner_are_united():
    labels = LabelRows.of_rows([{0: 1.0, 1: 0.5}, {4: 1.0}, {}, {1: 1.0, 2: 0.25}])
    assert as_dicts(labels.united(np.array([0, 2, 2, 0]), 4)) == [{0: 1.0, 1: 1.0, 2: 0.25}, {}, {4: 1.0}, {}]
