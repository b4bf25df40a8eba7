import numpy as np
import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.judging import Agreement


def labels(*tables):
    """A query for each table of document → weight."""
    return Relevance([f"query {row}" for row in range(len(tables))], list(tables))


def test_kappa_is_that_of_the_formula():
    # 20 and 15 where both agree, 5 and 10 where they do not: observed 0.7, chance 0.5 × 0.6 + 0.5 × 0.4 = 0.5
    both = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    judged = labels(*({f"d{row}": first} for row, (first, _) in enumerate(both)))
    people = labels(*({f"d{row}": second} for row, (_, second) in enumerate(both)))
    found = Agreement.of(judged, people)
    assert found.kappa == pytest.approx(0.4)
    assert found.agreed == pytest.approx(0.7)
    assert (found.pairs, found.queries) == (50, 50)
    assert found.low == pytest.approx(0.14, abs=0.06)  # the analytic error of this κ is 0.13
    assert found.high == pytest.approx(0.65, abs=0.06)


def test_a_judge_at_random_agrees_by_chance():
    rng = np.random.default_rng(0)
    judged = labels(*({f"d{row}": int(rng.random() < 0.5) for row in range(10)} for _ in range(40)))
    people = labels(*({f"d{row}": int(rng.random() < 0.3) for row in range(10)} for _ in range(40)))
    found = Agreement.of(judged, people)
    assert found.low < 0 < found.high


def test_only_pairs_that_both_judged_count():
    people = labels({"a": 1, "b": 0, "c": 1}, {"a": 1})
    judged = Relevance(["query 0", "other"], [{"a": 1, "b": -1, "x": 1}, {"a": 1}])
    assert Agreement.of(judged, people).pairs == 2
    with pytest.raises(InvalidRelevanceError, match="No document was judged"):
        Agreement.of(Relevance(["other"], [{"a": 1}]), people)


def test_a_sample_of_one_kind_is_refused():
    with pytest.raises(InvalidRelevanceError, match="All 2 judged pairs of the sample are relevant"):
        Agreement.of(labels({"a": 1, "b": 0}), labels({"a": 1, "b": 1}))


def test_one_query_says_nothing_of_others():
    found = Agreement.of(labels({"a": 1, "b": 0, "c": 1}), labels({"a": 1, "b": 0, "c": 0}))
    assert (found.low, found.high) == (-1, 1)
