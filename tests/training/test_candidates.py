from itertools import product

import pytest

from deepmem_integrations.training.candidates import (
    EPOCHS,
    STRENGTHS,
    TEMPERATURES,
    TRANSFORMS,
    AttentionSettings,
    Candidate,
    LinearSettings,
)


@pytest.mark.parametrize(
    ("candidate", "name"),
    [
        (Candidate(), "identity"),
        (Candidate(LinearSettings("corpus", 16)), "linear(corpus, 16 epochs)"),
        (Candidate(attention=AttentionSettings(0.1, 2.0)), "attention(τ=0.1, β=2)"),
        (
            Candidate(LinearSettings("labelled", 8), AttentionSettings(0.13, 16.0)),
            "linear(labelled, 8 epochs) + attention(τ=0.13, β=16)",
        ),
    ],
)
def test_a_candidate_names_its_parts(candidate, name):
    assert str(candidate) == name


def test_the_identity_comes_first_and_every_pair_of_settings_is_there_once():
    assert TRANSFORMS[0] == Candidate()
    assert len({str(candidate) for candidate in TRANSFORMS}) == len(TRANSFORMS)
    assert len(TRANSFORMS) == (1 + 2 * len(EPOCHS)) * (1 + len(TEMPERATURES) * len(STRENGTHS))
    for negatives, epochs, temperature, strength in product(("labelled", "corpus"), EPOCHS, TEMPERATURES, STRENGTHS):
        assert Candidate(LinearSettings(negatives, epochs), AttentionSettings(temperature, strength)) in TRANSFORMS
