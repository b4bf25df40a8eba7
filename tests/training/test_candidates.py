from itertools import product

import pytest

from deepmem_integrations.training.candidates import ANSWERS, MANY, STRENGTHS, TRANSFORMS, WORDS, Candidate, rankings, transforms


@pytest.mark.parametrize(
    ("candidate", "name"),
    [
        (Candidate(), "identity"),
        (Candidate("corpus"), "linear(corpus)"),
        (Candidate(attention=2.0), "attention(β=2)"),
        (Candidate("labelled", 16.0), "linear(labelled) + attention(β=16)"),
        (Candidate("labelled", words=0.2, answers=0.4), "linear(labelled) + 0.2 words + 0.4 answers"),
        (Candidate(vector=False, words=1.0), "words alone"),
        (Candidate(vector=False, answers=1.0), "answers alone"),
        (Candidate(words=1.0, by_rank=True), "vectors and words fused by rank"),
    ],
)
def test_a_candidate_names_its_parts(candidate, name):
    assert str(candidate) == name


def test_the_identity_comes_first_and_every_pair_of_settings_is_there_once():
    assert TRANSFORMS[0] == Candidate()
    assert len({str(candidate) for candidate in TRANSFORMS}) == len(TRANSFORMS)
    assert len(TRANSFORMS) == 3 * (1 + len(STRENGTHS))
    for negatives, strength in product((None, "labelled", "corpus"), (0.0, *STRENGTHS)):
        assert Candidate(negatives, strength) in TRANSFORMS


def test_every_candidate_without_what_was_taught_is_one():
    candidates = rankings(words=True)
    assert {candidate.untaught for candidate in candidates} < set(candidates)
    assert Candidate("labelled", 2.0, words=0.2).untaught == Candidate(words=0.2)
    assert Candidate(vector=False, answers=1.0).untaught == Candidate()
    assert Candidate(vector=False, words=1.0).untaught == Candidate(vector=False, words=1.0)


@pytest.mark.parametrize("words", [True, False])
def test_rankings_differ_and_begin_with_the_transforms(words):
    candidates = rankings(words)
    assert candidates[: len(TRANSFORMS)] == TRANSFORMS
    assert len({str(candidate) for candidate in candidates}) == len(candidates)
    assert {candidate.words for candidate in candidates} == ({0.0, *WORDS} if words else {0.0})
    assert {candidate.answers for candidate in candidates} == {0.0, *ANSWERS, 1.0}
    assert not any(candidate.attention and candidate.answers for candidate in candidates)


def test_few_questions_do_not_try_the_greatest_strength():
    assert transforms(MANY) == TRANSFORMS
    assert {candidate.attention for candidate in transforms(MANY - 1)} == {0.0, *STRENGTHS[:-1]}
    few, many = rankings(True, MANY - 1), rankings(True, MANY)
    assert few == tuple(candidate for candidate in many if candidate.attention != STRENGTHS[-1])
    assert few[: len(transforms(MANY - 1))] == transforms(MANY - 1)
