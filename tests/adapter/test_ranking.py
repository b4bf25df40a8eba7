import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepmem_integrations.adapter import Ranking

COSINES = np.array([0.9, 0.5, 0.1, 0.3], dtype=np.float32)
WORDS = np.array([0.0, 2.0, 8.0, 0.0], dtype=np.float32)
ANSWERS = np.array([0.0, 0.0, 0.0, 0.5], dtype=np.float32)


def test_the_score_is_the_weighted_sum():
    ranking = Ranking(words=0.1, answers=2.0)
    np.testing.assert_allclose(ranking.score(COSINES, WORDS, ANSWERS), COSINES + 0.1 * WORDS + 2 * ANSWERS, atol=1e-6)
    np.testing.assert_allclose(Ranking(vector=0, words=1).score(COSINES, WORDS, ANSWERS), WORDS)
    np.testing.assert_allclose(Ranking(vector=0, answers=1).score(COSINES, WORDS, ANSWERS), ANSWERS)


def test_by_rank_it_is_reciprocal_rank_fusion():
    scores = Ranking(words=1, by_rank=True).score(COSINES, WORDS, ANSWERS)
    # Documents 0 and 3 have no word of the query, so words give them nothing.
    np.testing.assert_allclose(scores, [1 / 61, 1 / 62 + 1 / 62, 1 / 64 + 1 / 61, 1 / 63], rtol=1e-6)


@given(arrays(np.float32, (3, 2, 5), elements=st.floats(0, 50, width=32, allow_subnormal=False)))
def test_rows_are_scored_by_themselves(channels):
    for ranking in (Ranking(words=0.5, answers=1.5), Ranking(words=1, by_rank=True)):
        both = ranking.score(*channels)
        for row in range(2):
            np.testing.assert_array_equal(both[row], ranking.score(*channels[:, row]))


@pytest.mark.parametrize(
    ("ranking", "name", "alone"),
    [
        (Ranking(), "vector", True),
        (Ranking(words=0.05), "vector + 0.05 words", False),
        (Ranking(answers=0.4, answers_temperature=0.16), "vector + 0.4 answers(τ=0.16)", False),
        (Ranking(vector=0, words=1), "words", False),
        (Ranking(words=1, by_rank=True), "vector + words by rank", False),
    ],
)
def test_a_ranking_names_its_weights(ranking, name, alone):
    assert str(ranking) == name
    assert ranking.vectors_alone is alone
