import numpy as np

from deepmem_integrations import train_adapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.merging import have_twins, merge_twins


def test_a_query_that_is_there_twice_is_merged(problem):
    vectors = np.concatenate([problem.train_queries[:40], problem.train_queries[:1]])
    labels = [*problem.train.take(range(40)).relevance, [("doc-299", 1.0)]]
    result = train_adapter(vectors, labels, problem.corpus, problem.ids)
    assert (result.report.queries, result.report.merged_queries) == (40, 1)


def test_vectors_of_one_text_that_differ_by_rounding_are_one_query(problem):
    vectors = np.concatenate([problem.train_queries[:40], problem.train_queries[:40] * 3 + 1e-6])
    result = train_adapter(vectors, problem.train.take(range(40)).relevance * 2, problem.corpus, problem.ids)
    assert (result.report.queries, result.report.merged_queries) == (len({v.tobytes() for v in problem.train_queries[:40]}), 40)


# ---- the functions themselves ----------------------------------------------------------------------------------------


def labels_of(labels):
    return [labels.weight_of(query) for query in range(len(labels))]


def test_twins_unite_their_documents_and_the_larger_weight_stays():
    one, two = unit_rows([[1, 2, 3], [3, 1, 0]], "row")
    labels = LabelRows.of_rows([{0: 1.0, 1: 0.5}, {4: 1.0}, {0: 0.25, 1: 1.0, 2: 0.25}])
    order, merged, queries, merged_labels = merge_twins(np.stack([one, two, one]), labels)
    assert order.tolist() == [0, 2, 1], "sorted by their vectors, in the given order where these are equal"
    assert merged.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(queries, [one, two])
    assert labels_of(merged_labels) == [{0: 1.0, 1: 1.0, 2: 0.25}, {4: 1.0}]


def test_the_order_of_the_rows_changes_nothing():
    rng = np.random.default_rng(0)
    queries = unit_rows(rng.normal(size=(30, 12)), "row")
    queries[20:] = queries[:10]
    labels = LabelRows.of_rows([{int(row): 1.0} for row in rng.integers(50, size=30)])
    order, merged, kept, kept_labels = merge_twins(queries, labels)
    assert len(kept) == 20
    np.testing.assert_array_equal(kept[merged], queries[order])
    for position, row in enumerate(order):
        assert labels.weight_of(row).keys() <= kept_labels.weight_of(merged[position]).keys()
    shuffled = rng.permutation(30)
    _, _, again, again_labels = merge_twins(queries[shuffled], labels.take(shuffled))
    np.testing.assert_array_equal(again, kept)
    assert labels_of(again_labels) == labels_of(kept_labels)


def test_vectors_that_differ_by_rounding_are_twins_and_near_ones_are_not():
    rng = np.random.default_rng(0)
    queries = unit_rows(rng.normal(size=(20, 16)), "row")
    rounded = unit_rows(queries.astype(np.float16), "row")
    near = unit_rows(queries + 0.005 * rng.normal(size=queries.shape), "row")
    assert have_twins(queries, rounded[::-1]).all()
    assert not have_twins(queries, near).any()
    assert have_twins(queries, rounded[:3]).tolist() == [True] * 3 + [False] * 17
    labels = LabelRows.of_rows([{0: 1.0}] * 60)
    assert len(merge_twins(np.concatenate([queries, rounded, near]), labels)[2]) == 40
