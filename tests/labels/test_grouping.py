import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations._vectors import blocks, unit_rows
from deepmem_integrations.labels import grouping
from deepmem_integrations.labels.grouping import document_groups, drop_shared, question_groups
from tests.peak import peak_of

LABELS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=15)


def shared(documents, one, other):
    return {d for row in one for d in documents[row]} & {d for row in other for d in documents[row]}


@given(LABELS, st.integers(0, 3))
def test_groups_share_no_document_and_do_not_fall_apart(documents, seed):
    groups = document_groups(documents, largest=len(documents), rng=np.random.default_rng(seed))
    assert sorted(row for group in groups for row in group) == list(range(len(documents)))
    for number, group in enumerate(groups):
        assert all(not shared(documents, group, other) for other in groups[:number])
        reached, left = group[:1], set(group[1:])
        while near := [row for row in left if shared(documents, reached, [row])]:
            reached, left = reached + near, left - set(near)
        assert not left, "not connected with the rest of its group"


@pytest.mark.parametrize(("largest", "sizes"), [(3, [1, 3]), (2, [1, 1, 1, 1])])
def test_a_group_that_is_too_large_is_broken_up(largest, sizes):
    chain = [["a", "b"], ["b", "c"], ["c", "d"], ["z"]]
    groups = document_groups(chain, largest=largest, rng=np.random.default_rng(0))
    assert sorted(map(len, groups)) == sizes


def test_the_order_is_drawn():
    documents = [[row] for row in range(20)]
    orders = [document_groups(documents, largest=1, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@given(LABELS, st.data())
def test_what_shares_a_document_with_the_held_out_part_is_dropped_and_counted(documents, data):
    held = data.draw(st.lists(st.sampled_from(range(len(documents))), unique=True))
    rows, dropped = drop_shared(documents, held)
    others = [row for row in range(len(documents)) if row not in held]
    assert rows == [row for row in others if not shared(documents, [row], held)]
    assert dropped == len(others) - len(rows)


# ---- spellings of a question -----------------------------------------------------------------------------------------

SUBJECTS = ["lions", "tigers", "whales", "eagles", "rivers", "mountains", "planets", "castles", "violins", "clocks"]
QUESTIONS = [f"What is known about the oldest {subject} of Europe in 1900" for subject in SUBJECTS]
SPELLINGS = {
    "polite": "please tell me {}",
    "thanks": "{}, thanks a lot!",
    "case": str.upper,
    "contraction": lambda text: text.replace("What is", "what's"),
    "order": lambda text: " ".join(reversed(text.split())),
    "typo": lambda text: text.replace("Europe", "Eruope"),
    "letters": lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalpha() else c for c in text),  # full width
}


@pytest.mark.parametrize("kind", SPELLINGS)
def test_spellings_of_a_question_are_one_group(kind):
    spell = SPELLINGS[kind]
    spellings = [spell.format(text) if isinstance(spell, str) else spell(text) for text in QUESTIONS]
    documents = [[subject] for subject in SUBJECTS] * 2
    groups = question_groups(QUESTIONS + spellings, None, documents)
    assert groups.tolist() == list(range(10)) * 2


def test_questions_that_differ_in_a_number_or_in_their_answers_are_different():
    years = [text.replace("1900", "1901") for text in QUESTIONS]
    both = [[subject] for subject in SUBJECTS] * 2
    assert len(set(question_groups(QUESTIONS + years, None, both).tolist())) == 20
    polite = [f"please tell me {text}" for text in QUESTIONS]
    apart = [[subject] for subject in SUBJECTS] + [[f"other {subject}"] for subject in SUBJECTS]
    assert len(set(question_groups(QUESTIONS + polite, None, apart).tolist())) == 20
    same = question_groups([text.upper() for text in QUESTIONS] + QUESTIONS, None, apart)
    assert same.tolist() == list(range(10)) * 2, "the same words are the same question, whatever was clicked"


def test_vectors_tell_spellings_apart_where_there_are_no_texts():
    rng = np.random.default_rng(0)
    questions = rng.normal(size=(30, 24)) + 8 * rng.normal(size=24)  # all in one direction, as in E5's space
    spellings = questions + 0.25 * rng.normal(size=(30, 24))
    vectors = np.concatenate([questions, spellings])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert (vectors @ vectors.T).min() > 0.9
    assert question_groups(None, vectors, [["one", "and the same"]] * 60).tolist() == list(range(30)) * 2
    assert len(set(question_groups(None, vectors, [[row] for row in range(60)]).tolist())) == 60


def test_a_chain_is_cut_and_never_between_equal_words():
    # Each vector is near to the next, and far from the one after the next but two.
    angles = np.radians(np.arange(0, 340, 10))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = question_groups(None, vectors, [["d"]] * len(vectors))
    assert 5 < len(set(groups.tolist())) < len(vectors)
    texts = [f"words {row % 5}" for row in range(len(vectors))]
    groups = question_groups(texts, vectors, [["d"]] * len(vectors))
    assert all(groups[row] == groups[row % 5] for row in range(len(vectors)))


def test_texts_without_words_and_single_queries_are_fine():
    assert question_groups(["???", "!!!", "🙂", "???"], None, [["d"]] * 4).tolist() == [0, 1, 2, 0]
    assert question_groups(["a"], np.ones((1, 2), dtype=np.float32), [["d"]]).tolist() == [0]
    assert question_groups([], None, []).tolist() == []


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "a b", "b a c"]), st.sets(st.integers(0, 3), min_size=1)), min_size=1))
def test_groups_are_numbered_by_their_first_query(rows):
    groups = question_groups([text for text, _ in rows], None, [sorted(documents) for _, documents in rows]).tolist()
    assert list(dict.fromkeys(groups)) == list(range(max(groups) + 1))


def test_a_question_that_is_asked_again_and_again_is_compared_once(monkeypatch):
    compared = []
    monkeypatch.setattr(grouping, "blocks", lambda rows, columns: compared.append(rows) or blocks(rows, columns))
    texts = ["How do I reset my password?"] * 3_000 + ["how do I reset a password?", "where is the office?"]
    groups = question_groups(texts, None, [["reset"]] * 3_001 + [["office"]])
    assert groups.tolist() == [0] * 3_001 + [1]
    assert compared == [2]


def test_thousands_of_spellings_of_one_question_need_little_memory():
    """Before, each pair of them stood in two sets: 2 GB for 4,000 of them."""
    rng = np.random.default_rng(0)
    vectors = unit_rows(np.repeat(np.eye(2, 8, dtype=np.float32), 1_500, axis=0) + 0.01 * rng.standard_normal((3_000, 8)), "")
    groups, peak = peak_of(lambda: question_groups(None, vectors, [["reset"]] * 3_000))
    assert groups.tolist() == [0] * 1_500 + [1] * 1_500
    assert peak < 3e8
