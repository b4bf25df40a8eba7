import numpy as np
import pytest

from deepmem_integrations.labels.clicks import Looks, click_probabilities


def simulated(asked, right=0.9, wrong=0.1, seed=0):
    """Users who look at rank r with probability 1/r; the right documents of a question, and a list in another order each time."""
    rng = np.random.default_rng(seed)
    looks, answers = [], {}
    for question, times in enumerate(asked):
        answers[question] = {f"{question}-{rng.integers(10)}"}
        for _ in range(times):
            shown = [f"{question}-{number}" for number in rng.permutation(10)]
            seen = [name for rank, name in enumerate(shown, start=1) if rng.random() < 1 / rank]
            looks.append(Looks(question, shown, {n for n in seen if rng.random() < (right if n in answers[question] else wrong)}))
    return looks, answers


def test_right_and_wrong_clicks_are_told_apart_where_questions_repeat():
    looks, answers = simulated([20] * 60)
    before = [name in answers[one.question] for one in looks for name in one.opened]
    found = click_probabilities(looks)
    kept = [(value, name in answers[question]) for question, row in found.items() for name, value in row.items() if value > 0]
    assert np.mean(before) < 0.6
    assert np.mean([right for _, right in kept]) > 0.85
    sure = [right for value, right in kept if value > 0.9]
    assert len(sure) > 40
    assert np.mean(sure) > 0.9, "probabilities mean what they say"
    opened = {(one.question, name) for one in looks for name in one.opened}
    assert {(question, name) for question, row in found.items() for name in row} == opened


def test_clicks_of_questions_that_are_asked_once_all_stay():
    looks, _ = simulated([1] * 200)
    found = click_probabilities(looks)
    assert all(0 < value < 1 for row in found.values() for value in row.values())
    assert sum(map(len, found.values())) == sum(len(one.opened) for one in looks)


def test_clicks_that_depend_on_the_rank_alone_are_never_certain():
    looks, _ = simulated([6] * 100, right=0.3, wrong=0.3)
    values = [value for row in click_probabilities(looks).values() for value in row.values()]
    assert np.mean([value > 0.95 for value in values]) < 0.1


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([], {}),
        ([Looks("q", [], ())], {}),
        ([Looks("q", [None, None], ())], {}),
        ([Looks("q", [None, "a"], ())], {}),
    ],
)
def test_nothing_opened_says_nothing(looks, expected):
    assert click_probabilities(looks) == expected


def test_a_document_that_is_shown_twice_and_lists_of_any_length_do_no_harm():
    found = click_probabilities([Looks("q", ["a", None, "a", *map(str, range(500))], {"a", "499", "elsewhere"})])
    assert set(found["q"]) == {"a", "499"}
