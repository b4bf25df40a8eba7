import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmem_integrations import Relevance
from deepmem_integrations.errors import StorageError
from deepmem_integrations.retraining import Questions


def labelled(*numbers, form="What is topic {}?"):
    return Relevance([form.format(i) for i in numbers], [[(f"doc-{i}", 1.0)] for i in numbers])


@pytest.fixture
def questions(tmp_path):
    return Questions(tmp_path / "questions.json")


def test_about_the_share_is_held_out_and_nothing_is_on_both_sides(questions):
    train, held, _ = questions.hold_out(labelled(*range(1000)))
    assert not set(train.queries) & set(held.queries)
    assert len(train) + len(held) == 1000
    assert 160 < len(held) < 240


def test_a_question_stays_held_out_whatever_comes(questions):
    held = set(questions.hold_out(labelled(*range(100)))[1].queries)
    for _ in range(3):  # in other spellings, in another order, with other questions, and with another share
        everything = labelled(*range(300), form="Please: what is topic {}?") + labelled(*reversed(range(200)))
        train, later, _ = questions.hold_out(everything, 0.1)
        assert held <= set(later.queries)
        spellings = {query.lower().replace("?", "") for query in held}
        assert not {query.lower().replace("please: ", "").replace("?", "") for query in train.queries} & spellings


def test_a_question_of_many_spellings_is_not_held_out_for_that(questions):
    forms = [
        f"{polite} what is topic {{}}{end}" for polite in ("", "Hello,", "Please,", "Hi,", "Hey:") for end in ("?", ".", "!", "")
    ]
    trained = set(questions.hold_out(labelled(*range(60)))[0].queries)
    for form in forms:
        train = questions.hold_out(labelled(*range(60)) + labelled(*range(60), form=form))[0]
        assert trained <= set(train.queries)


@settings(max_examples=20)
@given(st.permutations(list(range(40))))
def test_the_order_of_the_queries_changes_nothing(tmp_path_factory, order):
    def held(numbers):
        return set(Questions(tmp_path_factory.mktemp("q") / "questions.json").hold_out(labelled(*numbers))[1].queries)

    assert held(order) == held(range(40))


def test_questions_that_turn_out_to_be_the_same_are_held_out_if_one_was(questions):
    labels = labelled(*range(50))
    train, held, _ = questions.hold_out(labels)
    both = Relevance([held.queries[0], train.queries[0]], [[("doc", 1.0)]] * 2)
    number = train.queries[0].split()[-1].rstrip("?"), held.queries[0].split()[-1].rstrip("?")
    assert number[0] != number[1]
    same = Relevance([held.queries[0], " ".join(reversed(held.queries[0].rstrip("?").split()))], [[("doc", 1.0)]] * 2)
    assert len(questions.hold_out(same)[1]) == 2
    assert len(questions.hold_out(both)[1]) == 1


def test_validation_queries_lose_spellings_of_held_out_questions(questions):
    held = questions.hold_out(labelled(*range(60)))[1]
    _, again, validation = questions.hold_out(labelled(*range(60)), validation=labelled(*range(60), form="what is topic {}"))
    assert again == held
    assert validation is not None
    assert len(validation) == 60 - len(held)


def test_the_file_holds_no_text(questions):
    questions.hold_out(labelled(*range(20)))
    assert "topic" not in questions.path.read_text()
    assert set(json.loads(questions.path.read_text())) == {"version", "held_out", "trained"}


def test_a_lost_file_is_drawn_again_alike(questions):
    held = questions.hold_out(labelled(*range(100)))[1]
    questions.path.unlink()
    assert questions.hold_out(labelled(*range(100)))[1] == held


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"version": 1}', '{"held_out": "x", "trained": ""}', '{"held_out": 1, "trained": 2}']
)
def test_a_damaged_file_is_an_error(questions, content):
    questions.path.write_text(content)
    with pytest.raises(StorageError, match=r"questions.json is damaged .* Put a copy back, or delete the file"):
        questions.hold_out(labelled(1))


@pytest.mark.parametrize("share", [0, 1, -0.1, np.nan])
def test_the_share_is_between_0_and_1(questions, share):
    with pytest.raises(ValueError, match="held_out is a share"):
        questions.hold_out(labelled(1), share)
