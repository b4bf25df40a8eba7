import numpy as np

from deepmem_integrations import train_adapter


def test_a_query_that_is_there_twice_is_merged(problem):
    vectors = np.concatenate([problem.train_queries[:40], problem.train_queries[:1]])
    labels = [*problem.train.take(range(40)).relevance, [("doc-299", 1.0)]]
    result = train_adapter(vectors, labels, problem.corpus, problem.ids)
    assert (result.report.queries, result.report.merged_queries) == (40, 1)


def test_vectors_of_one_text_that_differ_by_rounding_are_one_query(problem):
    vectors = np.concatenate([problem.train_queries[:40], problem.train_queries[:40] * 3 + 1e-6])
    result = train_adapter(vectors, problem.train.take(range(40)).relevance * 2, problem.corpus, problem.ids)
    assert (result.report.queries, result.report.merged_queries) == (len({v.tobytes() for v in problem.train_queries[:40]}), 40)
