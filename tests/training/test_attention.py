import numpy as np
import pytest

from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.attention import CorpusStatistics, target_means, value_space


def test_memory_values_are_whitened_targets_of_mean_alignment_one():
    rng = np.random.default_rng(0)
    corpus = rng.normal(size=(50, 6)).astype(np.float32) + 2
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    labels = LabelRows.of_rows([{3: 1.0}, {7: 1.0, 9: 1.0}, {11: 2.0}])
    statistics = CorpusStatistics.empty(6).add(corpus[:20]).add(corpus[20:])
    np.testing.assert_allclose(statistics.mean, corpus.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(statistics.covariance, np.cov(corpus.T, bias=True), atol=1e-6)
    covariance = corpus.T.astype(float) @ corpus / 50
    ridge = 0.01 * np.trace(covariance) / 6 * np.eye(6)
    np.testing.assert_allclose(statistics.value_map(), np.linalg.inv(covariance + ridge), rtol=1e-3)
    targets = target_means(labels, corpus)
    np.testing.assert_allclose(targets[1], corpus[[7, 9]].mean(axis=0), atol=1e-6)
    values = value_space(targets, labels, corpus, statistics).place(targets)
    best = [max(corpus[row] @ values[query] for row in labels.weight_of(query)) for query in range(3)]
    assert np.mean(best) == pytest.approx(1, abs=1e-4)
