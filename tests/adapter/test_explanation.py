import json

import numpy as np
import pytest

from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.errors import EmbeddingMismatchError


def test_explain_names_who_moved_a_query(grown_from, problem):
    explanation = grown_from.explain(problem.train_queries[5] * 7, top=3)
    first = explanation.influences[0]
    assert first.query_ids == (problem.train.query_ids[5],)
    assert first.texts == (problem.train.queries[5],)
    assert dict(first.documents) == dict(problem.train.labels[5])
    assert first.similarity == pytest.approx(1, abs=1e-3)
    assert len(explanation.influences) == 3
    shares = [influence.share for influence in grown_from.explain(problem.train_queries[5], top=100).influences]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    query = unit_rows(problem.train_queries[5:6], "query vector")[0]
    angle = np.degrees(np.arccos(grown_from.transform(query) @ query))
    assert explanation.degrees == pytest.approx(angle, abs=0.1)
    assert (explanation.linear_degrees > 0) == (grown_from.linear is not None)
    assert json.loads(json.dumps(explanation.to_json()))["influences"][0]["texts"] == [problem.train.queries[5]]
    assert repr(problem.train.queries[5]) in str(explanation)


def test_explain_without_attention_says_how_far_it_turned(grown_from, problem):
    explanation = grown_from.linear_only().explain(problem.test_queries[0])
    assert explanation.influences == ()
    assert explanation.attention_degrees == pytest.approx(0, abs=0.05)
    with pytest.raises(EmbeddingMismatchError):
        grown_from.explain(np.ones(3))
