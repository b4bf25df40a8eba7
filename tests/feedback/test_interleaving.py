from collections import Counter

import pytest
from langchain_core.documents import Document

from deepmem_integrations.feedback import interleave


def test_each_ranking_has_the_same_chance_of_each_rank():
    one, other = [f"a{i}" for i in range(10)], [f"b{i}" for i in range(10)]
    first = Counter(interleave(one, other, seed=seed)[0][0] for seed in range(400))
    assert set(first) == {"a", "b"}
    assert 160 < first["a"] < 240
    shown = interleave(one, other, seed=0)
    assert Counter(name[0] for name in shown) == {"a": 5, "b": 5}
    assert [name for name in shown if name[0] == "a"] == one[:5], "in the order of its ranking"


def test_documents_that_several_rankings_find_are_shown_once():
    assert sorted(interleave(["a", "b"], ["b", "a"], ["a"])) == ["a", "b"]
    assert interleave(["a", "a", "b"], k=2) == ["a", "b"]
    assert interleave([], ["a"], []) == ["a"]
    assert interleave() == []


def test_documents_are_told_apart_by_a_key():
    found, plain = ([Document("text", id=name, metadata={"score": score}) for name in "abc"] for score in (1, 2))
    assert sorted(document.id for document in interleave(found, plain, key=lambda document: document.id)) == ["a", "b", "c"]


def test_a_seed_fixes_the_draft():
    rankings = [f"a{i}" for i in range(10)], [f"b{i}" for i in range(10)]
    assert interleave(*rankings, seed="a question") == interleave(*rankings, seed="a question")
    assert len({tuple(interleave(*rankings, seed=f"question {i}")) for i in range(20)}) > 10


def test_no_document_at_all_is_no_list():
    with pytest.raises(ValueError, match="got 0"):
        interleave(["a"], k=0)


def test_rankings_may_be_generators():
    draft = interleave((name for name in "abc"), ["c", "d"], k=3, seed=0)
    assert draft == interleave(list("abc"), ["c", "d"], k=3, seed=0)


def test_documents_that_cannot_be_told_apart_are_refused():
    found = [Document(text) for text in "abc"]
    with pytest.raises(TypeError, match="A Document cannot be told apart from others: give a key"):
        interleave(found, found[::-1])
    with pytest.raises(ValueError, match="A document has no id"):
        interleave(found, found[::-1], key=lambda document: document.id)
