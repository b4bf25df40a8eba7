import numpy as np
import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels import LabelRows, Parents

PARENTS = Parents.of({"a1": "a", "a2": "a", "b1": "b"}, ["a1", "faq", "b1", "a2"])


def test_a_document_without_a_parent_is_its_own():
    assert PARENTS.names == ("a", "faq", "b")
    assert PARENTS.of_row.tolist() == [0, 1, 2, 0]
    assert PARENTS.documents_of(0).tolist() == [0, 3]
    assert PARENTS.documents_of(2).tolist() == [2]


def test_each_parent_is_found_once_by_its_best_document_and_the_first_of_equal_ones():
    scores = np.array([[0.5, 0.1, 0.7, 0.5], [0.2, 0.9, 0.1, 0.3]], dtype=np.float32)
    best, rows = PARENTS.best(scores)
    assert rows.tolist() == [[0, 1, 2], [3, 1, 2]]
    np.testing.assert_array_equal(best, np.take_along_axis(scores, rows, axis=1))
    assert PARENTS.top(scores, 2).tolist() == [[2, 0], [1, 3]]
    assert PARENTS.top(scores, 9).shape == (2, 3)


def test_nearest_agrees_with_a_walk_down_the_exact_ranking():
    rng = np.random.default_rng(0)
    corpus, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (60, 20))
    parents = Parents.of({f"{row}": f"page {row % 7}" for row in range(50)}, [str(row) for row in range(60)])
    for query, found in zip(queries, parents.nearest(queries, corpus, 5), strict=True):
        ranking = np.argsort(-(corpus @ query), kind="stable")
        firsts: dict[int, int] = {}
        for row in ranking.tolist():
            firsts.setdefault(parents.of_row[row], row)
        assert found.tolist() == list(firsts.values())[:5]


def test_labels_of_two_documents_of_a_parent_are_one_label():
    labels = PARENTS.labels(LabelRows.of_rows([{0: 0.5, 3: 1.0, 2: 0.25}, {}]))
    assert labels.weight_of(0) == {0: 1.0, 2: 0.25}
    assert len(labels) == 2 and not labels.labelled[1]


def test_the_nearest_document_answers_for_its_parent_and_the_nearest_ones_are_wrong_for_it():
    ids = [f"p#{row}" for row in range(1000)]
    corpus = np.linspace([1.0, 0.0], [0.0, 1.0], 1000, dtype=np.float32)
    parents = Parents.of(dict.fromkeys(ids, "p"), ids)
    labels = Relevance(["q", "r"], [[("p", 0.5)], [("p", -1.0)]], ["x", "y"], level="doc_uri")
    named = parents.documents(labels, np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32), ids, corpus)
    assert named.level is None and named.query_ids == ("x", "y")
    assert named.labels == ((("p#999", 0.5),), ())
    assert named.irrelevant[1] == tuple((f"p#{row}", -1.0) for row in range(10))


def test_the_level_stays_with_the_labels(tmp_path):
    labels = Relevance(["q", "r"], [[("p", 1.0)], [("gone", 1.0)]], level="doc_uri")
    labels.to_jsonl(tmp_path / "l.jsonl")
    assert Relevance.from_jsonl(tmp_path / "l.jsonl").level == "doc_uri"
    assert Relevance.from_jsonl(tmp_path / "l.jsonl") == labels != Relevance(labels.queries, labels.relevance)
    assert labels.take([1]).level == labels.prune({"p"}).level == (labels + labels).level == "doc_uri"
    assert (Relevance([], []) + labels).level == (labels + Relevance([], [])).level == "doc_uri"
    assert Relevance.of(labels.queries, labels.relevance).level == "doc_uri"
    assert "level='doc_uri'" in repr(labels)
    labels.to_beir(tmp_path)
    assert Relevance.from_beir(tmp_path, level="doc_uri").level == "doc_uri"


def test_labels_of_two_levels_do_not_mix(tmp_path):
    pages, parts = Relevance(["q"], [[("p", 1.0)]], level="doc_uri"), Relevance(["q"], [[("p#1", 1.0)]])
    with pytest.raises(InvalidRelevanceError, match="name parents by 'doc_uri' and those documents"):
        pages + parts
    (tmp_path / "l.jsonl").write_text(
        '{"query": "q", "relevance": ["p"], "level": "doc_uri"}\n{"query": "r", "relevance": ["p"]}\n'
    )
    with pytest.raises(InvalidRelevanceError, match="levels None and 'doc_uri'"):
        Relevance.from_jsonl(tmp_path / "l.jsonl")
    with pytest.raises(InvalidRelevanceError, match="level is the metadata key"):
        Relevance(["q"], [[("p", 1.0)]], level="")


def test_an_unknown_parent_is_named():
    with pytest.raises(InvalidRelevanceError, match="parent 'gone' is not in the corpus.*values of 'doc_uri'"):
        Relevance(["q"], [[("gone", 1.0)]], level="doc_uri").check({"p"})
