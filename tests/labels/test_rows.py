import numpy as np
import pytest

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
    queries, labels, ids = labelled_vectors(2 * np.eye(3)[:2], [[("c", 1.0)], [("a", 2.0)]], ["a", "b", "c"], dimension=3)
    np.testing.assert_allclose(queries, np.eye(3)[:2])
    assert [labels.weight_of(query) for query in range(2)] == [{2: 1.0}, {0: 1.0}]
    assert ids == ("0", "1")
    relevance = Relevance(["q"], [[("b", 1.0)]], ["mine"])
    assert labelled_vectors(np.eye(3)[:1], relevance, ["a", "b", "c"], dimension=3)[2] == ("mine",)


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
