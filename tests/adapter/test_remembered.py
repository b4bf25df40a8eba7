"""Remembering, forgetting and explaining, without the corpus and without a training."""

from dataclasses import replace

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter, Relevance, train_adapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.adapter.remembered import AGAINST, AWAY, RememberedQueries, ValueSpace
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidRelevanceError, InvalidVectorsError
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.words import Found


def rebuilt(adapter, problem, rows, without=()):
    """The attention part from scratch: the remaining queries, with the adapter's own spaces and scale, and numpy alone."""
    space, values = adapter.attention.space, adapter.remembered_queries.space
    merged = {}
    for row in rows:
        labels = {d: w for d, w in problem.train.labels[row] if d not in without}
        if labels:
            _, kept = merged.setdefault(problem.train_queries[row].tobytes(), (problem.train_queries[row], {}))
            for document, weight in labels.items():
                kept[document] = max(weight, kept.get(document, 0))
    keys = space.place(unit_rows(np.stack([vector for vector, _ in merged.values()]), "query vector"))
    corpus = unit_rows(problem.corpus, "corpus vector")
    targets = [
        sum(weight * corpus[problem.ids.index(d)] for d, weight in labels.items()) / sum(labels.values())
        for _, labels in merged.values()
    ]
    placed = (np.stack(targets) - values.mean) @ values.projection * values.scale
    attention = Attention(keys, placed.astype(np.float32), adapter.attention.temperature, adapter.attention.strength, space)
    return QueryAdapter(adapter.dimension, linear=adapter.linear, attention=attention)


def quoted(text):
    """As a file writes a string: its JSON stands in a string of JSON."""
    return f'\\"{text}\\"'.encode()


def vectors_of(problem):
    return dict(zip(problem.ids, problem.corpus, strict=True))


def test_what_was_added_is_as_if_it_had_always_been_there(grown_from, problem):
    more = problem.train.take(range(60, 130))
    adapter = grown_from.remember(problem.train_queries[60:130], more, vectors_of(problem), query_texts=more.queries)
    expected = rebuilt(grown_from, problem, range(130))
    np.testing.assert_allclose(adapter.transform(problem.test_queries), expected.transform(problem.test_queries), atol=2e-5)
    assert adapter.growth.added == 70
    assert adapter.growth.retraining_due
    assert len(grown_from.remembered_queries.query_ids) == 60, "the old adapter is as it was"
    assert set(adapter.remembered_queries.texts) == set(problem.train.queries[:130])
    again = QueryAdapter.from_bytes(adapter.to_bytes())
    np.testing.assert_allclose(again.transform(problem.test_queries), adapter.transform(problem.test_queries), atol=1e-6)
    assert again.growth == adapter.growth


def test_what_was_forgotten_is_as_if_it_had_never_been_there(grown_from, problem):
    gone = problem.train.query_ids[3:9]
    adapter = grown_from.forget(query_ids=gone)
    expected = rebuilt(grown_from, problem, [row for row in range(60) if not 3 <= row < 9])
    np.testing.assert_allclose(adapter.transform(problem.test_queries), expected.transform(problem.test_queries), atol=2e-5)
    assert adapter.growth.forgotten == 6
    assert adapter.growth.retraining_due == (grown_from.linear is not None)
    if grown_from.linear is not None:
        assert "still carries what it learned from the 6 forgotten" in str(adapter.growth)
    data = adapter.to_bytes()
    for text in problem.train.queries[3:9]:
        assert quoted(text) not in data
        assert quoted(text) in grown_from.to_bytes()


def test_a_forgotten_document_is_in_no_label_any_more(grown_from, problem):
    document = problem.train.labels[0][0][0]
    adapter = grown_from.forget(document_ids=[document])
    expected = rebuilt(grown_from, problem, range(60), without={document})
    np.testing.assert_allclose(adapter.transform(problem.test_queries), expected.transform(problem.test_queries), atol=2e-5)
    assert document not in adapter.remembered_queries.document_ids
    assert len(adapter.remembered_queries.documents) == len(grown_from.remembered_queries.documents) - 1


def test_remember_and_forget_undo_each_other(grown_from, problem):
    more = problem.train.take(range(60, 70))
    there = grown_from.remember(problem.train_queries[60:70], more, vectors_of(problem))
    back = there.forget(query_ids=more.query_ids)
    np.testing.assert_array_equal(back.transform(problem.test_queries), grown_from.transform(problem.test_queries))
    assert (back.growth.added, back.growth.forgotten) == (0, 0)


def test_several_answers_and_twins_survive_growth(grown_from, problem):
    twin = problem.train_queries[:1]
    known, new = (
        grown_from.remembered_queries.document_ids[0],
        next(i for i in problem.ids if i not in grown_from.remembered_queries.document_ids),
    )
    adapter = grown_from.remember(twin, [[(known, 1.0), (new, 0.5)]], vectors_of(problem), query_ids=["twin"])
    assert len(adapter.attention.keys) == len(grown_from.attention.keys), "the same vector, the same key"
    first = adapter.explain(problem.train_queries[0]).influences[0]
    assert {problem.train.query_ids[0], "twin"} <= set(first.query_ids)
    assert new in first.documents
    undone = adapter.forget(query_ids=["twin"])
    np.testing.assert_array_equal(undone.transform(problem.test_queries), grown_from.transform(problem.test_queries))


def test_texts_are_kept_only_if_asked(problem):
    result = train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids)
    assert result.adapter.remembered_queries.texts is None
    data = result.adapter.to_bytes()
    assert not any(text.encode() in data for text in problem.train.queries)


def test_a_linear_only_file_holds_nothing_of_the_queries(grown_from, problem):
    data = grown_from.linear_only().to_bytes()
    assert len(data) < 100_000
    assert grown_from.attention.keys[0].tobytes() not in data
    assert b"memory.keys" not in data


def with_parts(adapter, **parts):
    return QueryAdapter(**(adapter._parts()._asdict() | parts))


ALL = Ranking(words=0.5, answers=0.4, linear=np.eye(32, dtype=np.float32), attention_strength=2.0)
"""A ranking that uses everything."""


def test_a_linear_only_adapter_with_a_ranking_holds_nothing_of_the_queries_and_ranks_by_words(grown_from, problem):
    adapter = with_parts(grown_from, ranking=ALL)
    left = adapter.linear_only()
    data = left.to_bytes()
    remembered = adapter.remembered_queries
    for text in (*remembered.query_ids, *remembered.texts, *remembered.document_ids):
        assert quoted(text) not in data
        assert quoted(text) in adapter.to_bytes()
    for row in (0, 30):
        for vector in (adapter.attention.keys[row], remembered.documents[row], problem.train_queries[row]):
            assert vector.tobytes() not in data
    again = QueryAdapter.from_bytes(data)
    assert again.remembered_queries is again.attention is None
    assert (again.ranking.words, again.ranking.answers, again.ranking.attention_strength) == (0.5, 0.0, 0.0)
    np.testing.assert_array_equal(again.ranking.linear, ALL.linear)
    assert again.answers(problem.train_queries[0]) == {}
    found = Found(["b"], np.ones(1, dtype=np.float32))

    class Words:
        name = "WordIndex"

        def search(self, text, k, filter=None):
            return found

    query = Ranker(again, words=Words()).query("b", problem.train_queries[0])
    assert query.rank(["a", "b"], [0.3, 0.1], query.words(10)).ids == ["b", "a"]


def test_without_answers_keeps_what_a_transform_needs(grown_from, problem):
    left = with_parts(grown_from, ranking=ALL).without_answers()
    assert (left.ranking.words, left.ranking.answers, left.ranking.attention_strength) == (0.5, 0.0, 2.0)
    assert left.remembered_queries is not None
    np.testing.assert_array_equal(left.transform(problem.test_queries), grown_from.transform(problem.test_queries))
    asleep = with_parts(grown_from, attention=replace(grown_from.attention, strength=0.0), ranking=Ranking(answers=1.0))
    gone = asleep.without_answers()
    assert gone.attention is gone.remembered_queries is None
    assert gone.ranking.vectors_alone
    alone = with_parts(asleep, ranking=Ranking(vector=0.0, answers=1.0)).without_answers()
    assert alone.ranking is None, "nothing is left to rank by but the transform"
    assert with_parts(grown_from, ranking=None).without_answers().ranking is None


def test_growth_says_whether_the_remembered_queries_are_used(grown_from, problem):
    asleep = with_parts(grown_from, attention=replace(grown_from.attention, strength=0.0), linear=None)
    assert not asleep.growth.used
    assert not asleep.growth.retraining_due
    grown = asleep.remember(problem.train_queries[60:61], problem.train.take([60]), vectors_of(problem))
    assert grown.growth.retraining_due
    assert "The 1 added queries change no result yet" in str(grown.growth)
    assert grown.growth.to_json()["used"] is False
    for ranking in (Ranking(answers=0.1), Ranking(attention_strength=1.0)):
        used = with_parts(grown, ranking=ranking)
        assert used.growth.used
        assert not used.growth.retraining_due
        assert "change no result" not in str(used.growth)
    assert not with_parts(grown, ranking=Ranking(words=1.0)).growth.used


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, p: a.remember(p.train_queries[:1], p.train.take([0]), query_ids=["x"]), "its own"),
        (
            lambda a, p: a.remember(p.train_queries[:1], [[(p.ids[0], 1.0)]], query_ids=[str(p.train.query_ids[0])]),
            "has a query '.*' already",
        ),
        (lambda a, p: a.remember(p.train_queries[60:61], [[("nowhere", 1.0)]]), "'nowhere' .*pass their vectors"),
        (lambda a, p: a.remember(p.train_queries[60:62], p.train.take([60])), "2 query vectors for 1"),
        (
            lambda a, p: a.forget(query_ids=["nobody"]),
            "none of the ids to forget: query_ids 'nobody'\\. The ids that it knows are in remembered_queries",
        ),
        (lambda a, p: a.forget(document_ids=["nothing"]), "document_ids 'nothing'"),
        (lambda a, p: a.forget(query_ids=(n for n in "ab"), document_ids=["c"]), "query_ids 'a', 'b'; document_ids 'c'"),
        (lambda a, p: a.forget(query_ids="abc"), "list of ids"),
        (lambda a, p: a.forget(query_ids=3), "query_ids is a list of ids; got 3"),
        (lambda a, p: a.linear_only().forget(query_ids=["q"]), "no attention part"),
        (lambda a, p: a.linear_only().remember(p.train_queries[:1], p.train.take([0])), "no attention part"),
    ],
)
def test_bad_growth_is_named(grown_from, problem, change, message):
    with pytest.raises(InvalidRelevanceError, match=message):
        change(grown_from, problem)


def test_a_bad_vector_is_named(grown_from, problem):
    new = next(name for name in problem.ids if name not in grown_from.remembered_queries.document_ids)
    for vector, error in ((np.full(problem.corpus.shape[1], np.nan), InvalidVectorsError), (np.ones(2), EmbeddingMismatchError)):
        with pytest.raises(error, match="[Dd]ocument vector"):
            grown_from.remember(problem.train_queries[60:61], [[(new, 1.0)]], {new: vector})


def test_forgetting_everything_leaves_the_linear_part(grown_from, problem, caplog):
    empty = grown_from.forget(query_ids=grown_from.remembered_queries.query_ids)
    assert empty.attention is None
    assert ("still carries what it learned from the" in caplog.text) == (grown_from.linear is not None)
    assert empty.ranking is None or not empty.ranking.answers
    with pytest.raises(InvalidRelevanceError, match="or all queries were forgotten"):
        empty.forget(query_ids=["q0"])
    assert empty.is_identity == (grown_from.linear is None)


def test_half_of_a_file_is_refused_even_with_a_right_checksum(grown_from):
    broken = replace(grown_from.remembered_queries, owners=grown_from.remembered_queries.owners[:-1])
    data = QueryAdapter(
        grown_from.dimension, linear=grown_from.linear, attention=grown_from.attention, remembered_queries=broken
    ).to_bytes()
    with pytest.raises(ValueError, match="do not fit together"):
        QueryAdapter.from_bytes(data)


# ---- queries that share a key ----------------------------------------------------------------------------------------


@pytest.fixture
def remembered():
    """Three queries, the first two of which share a key and a document."""
    rng = np.random.default_rng(0)
    space = ValueSpace(rng.normal(size=4).astype(np.float32), rng.normal(size=(4, 4)).astype(np.float32), 2.0)
    return RememberedQueries(
        query_ids=("a", "b", "c"),
        texts=("A", "B", "C"),
        owners=np.array([0, 0, 1]),
        labels=LabelRows.of_rows([{0: 1.0, 1: 0.5}, {1: 1.0, 2: 0.25}, {2: 1.0}]),
        document_ids=("x", "y", "z"),
        documents=rng.normal(size=(3, 4)).astype(np.float32),
        space=space,
        trained=3,
        trained_in_all=3,
    )


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2]])
def test_the_larger_weight_counts_where_two_queries_of_a_key_name_a_document(remembered, order):
    given = replace(remembered, labels=remembered.labels.take(np.array(order)))
    x, y, z = given.documents
    np.testing.assert_allclose(given.values, [(x + y + 0.25 * z) / 2.25, z], atol=1e-6)


def test_what_is_left_keeps_its_keys_documents_and_texts(remembered):
    left, keys = remembered.without(["a"], ())
    assert left.query_ids == ("b", "c")
    assert left.texts == ("B", "C")
    assert left.owners.tolist() == keys.tolist() == [0, 1]
    assert left.document_ids == ("y", "z")
    assert [left.documents_of(row) for row in range(2)] == [{"y": 1.0, "z": 0.25}, {"z": 1.0}]
    assert (left.trained, left.trained_in_all) == (2, 3)
    _, y, z = remembered.documents
    np.testing.assert_allclose(left.values, [(y + 0.25 * z) / 1.25, z], atol=1e-6)
    left, keys = remembered.without((), ["x", "y"])
    assert left.query_ids == ("b", "c"), "a asked for nothing else"
    left, keys = remembered.without(["a", "b"], ())
    assert keys.tolist() == [1]
    assert left.owners.tolist() == [0]


def test_what_is_added_comes_last_and_new_documents_are_placed(remembered):
    new = np.ones(4, dtype=np.float32) / 2
    more = remembered.added(["d"], None, np.array([1]), [{"z": 1.0, "w": 0.5}], {"w": new})
    assert more.query_ids == ("a", "b", "c", "d")
    assert more.texts == ("A", "B", "C", "")
    assert more.document_ids == ("x", "y", "z", "w")
    placed = (new - remembered.space.mean) @ remembered.space.projection * 2
    np.testing.assert_allclose(more.documents[3], placed, atol=1e-6)
    np.testing.assert_allclose(more.values[1], (remembered.documents[2] + 0.5 * placed) / 1.5, atol=1e-6)
    assert more.of_key(1).tolist() == [2, 3]
    assert (more.trained, more.trained_in_all) == (3, 3)
    assert len(remembered.query_ids) == 3, "the old ones are as they were"


# ---- judged irrelevant -----------------------------------------------------------------------------------------------


@pytest.fixture
def judged(remembered):
    """The first two queries share a key: one judged irrelevant what the other asked for. The third asked for nothing."""
    labels = LabelRows.of_rows([{0: 1.0}, {1: 1.0}, {}])
    return replace(remembered, labels=labels, irrelevant=LabelRows.of_strengths([{1: -1.0, 2: -0.5}, {}, {2: 0.0}]))


def test_a_key_votes_against_what_was_judged_irrelevant_and_its_value_points_away(judged):
    assert [judged.answers.weight_of(key) for key in range(2)] == [{0: 1.0, 1: 1.0, 2: -0.5 * AGAINST}, {2: -AGAINST}]
    x, y, z = judged.documents
    nowhere = np.zeros(4)  # the second key knows no answer
    np.testing.assert_allclose(judged.values, [(x + y) / 2 - AWAY * z, nowhere], atol=1e-6)


def test_judgements_grow_and_are_forgotten(judged):
    new = np.ones(4, dtype=np.float32) / 2
    more = judged.added(["d"], ["D"], np.array([1]), [{"x": 1.0}], {"w": new}, [{"w": -1.0}])
    assert more.document_ids == ("x", "y", "z", "w")
    assert more.answers.weight_of(1) == {0: 1.0, 2: -AGAINST, 3: -AGAINST}
    left, keys = more.without(["d"], [])
    assert keys.tolist() == [0, 1]
    np.testing.assert_allclose(left.values, judged.values, atol=1e-6)
    left, keys = more.without([], ["z"])
    assert left.query_ids == ("a", "b", "d"), "the query that judged no other document is forgotten"
    assert left.document_ids == ("x", "y", "w")
    assert [left.irrelevant.weight_of(row) for row in range(3)] == [{1: 1.0}, {}, {2: 1.0}]
    plain = replace(judged, irrelevant=None, labels=LabelRows.of_rows([{0: 1.0}, {1: 1.0}, {2: 1.0}]))
    assert plain.added(["d"], ["D"], np.array([1]), [{"x": 1.0}], {}).irrelevant is None


def test_an_adapter_remembers_thumbs_down(grown_from, problem):
    """A thumb down pushes the document down for queries like the one that gave it, and for no others."""
    vector, name = problem.test_queries[0], problem.ids[7]
    before = grown_from.answers(vector)
    down = Relevance(["no good"], [[(name, -1.0)]], ["thumb"])
    adapter = grown_from.remember(vector[None], down, vectors_of(problem))
    after = adapter.answers(vector)
    assert after[name] < -0.5
    assert adapter.answers(-vector).get(name, 0.0) > -0.05
    assert list(after)[-1] == name, "the worst comes last"
    np.testing.assert_allclose(adapter.transform(vector), grown_from.transform(vector), atol=1e-3)
    again = QueryAdapter.from_bytes(adapter.to_bytes())
    assert again.answers(vector) == after
    assert again.to_bytes() == adapter.to_bytes()
    assert again.forget(query_ids=["thumb"]).answers(vector) == pytest.approx(before)
    assert name not in [document.id for document in adapter.explain(vector).documents]


def test_the_attention_part_moves_from_what_was_wrong_to_what_was_right(grown_from, problem):
    vector, right, wrong = problem.test_queries[0], problem.ids[5], problem.ids[7]
    both, one = (
        grown_from.remember(vector[None], Relevance(["a question"], [labels], ["new"]), vectors_of(problem))
        for labels in ([(right, 1.0), (wrong, -1.0)], [(right, 1.0)])
    )
    corpus = unit_rows(problem.corpus, "row")
    assert corpus[5] @ both.transform(vector) > corpus[5] @ grown_from.transform(vector) + 0.05
    assert corpus[7] @ both.transform(vector) < corpus[7] @ one.transform(vector) - 0.05


def test_an_explanation_names_what_was_judged_irrelevant(grown_from, problem):
    vector, name = problem.test_queries[0], problem.ids[7]
    down = Relevance(["no good"], [[(name, -1.0)]], ["thumb"])
    adapter = grown_from.remember(vector[None], down, vectors_of(problem))
    ranked = QueryAdapter(**(adapter._parts()._asdict() | {"ranking": Ranking(answers=0.4)}))
    explanation = ranked.explain(vector)
    assert explanation.votes[0].documents == {name: -1.0}
    assert f"→ not {name}" in str(explanation)
    assert name not in [document.id for document in explanation.documents]


@pytest.mark.parametrize("kind", [list, set, tuple, dict.fromkeys, iter, np.array, lambda ids: (name for name in ids)])
def test_ids_to_forget_come_in_any_iterable(grown_from, problem, kind):
    gone, document = problem.train.query_ids[3:9], problem.train.labels[0][0][0]
    adapter = grown_from.forget(query_ids=kind(gone), document_ids=kind([document]))
    assert not {*gone} & {*adapter.remembered_queries.query_ids}
    assert document not in adapter.remembered_queries.document_ids


def test_ids_that_are_not_known_are_named_and_the_others_forgotten(grown_from, problem, caplog):
    gone = problem.train.query_ids[3]
    adapter = grown_from.forget(query_ids=[gone, "nobody", *map(str, range(1000, 1020))], document_ids=["nothing"])
    assert gone not in adapter.remembered_queries.query_ids
    assert "query_ids '1000', '1001'" in caplog.text
    assert "and 11 more; document_ids 'nothing'" in caplog.text
    assert grown_from.forget() is grown_from.forget(query_ids=[], document_ids=iter(())) is grown_from


def test_ids_that_nobody_gave_are_always_new(grown_from, problem):
    """Both the training and what is remembered later may have row numbers in place of ids."""
    labels, vector = [[(problem.train.labels[0][0][0], 1.0)]], problem.train_queries[60:61]
    adapter, size = grown_from, len(grown_from.remembered_queries.query_ids)
    for step in range(3):
        taken = adapter.remembered_queries.query_ids[0]
        unnamed = Relevance(["x"] * 60, labels * 60).take([int(taken)] if taken.isdigit() else [0])
        adapter = adapter.remember(vector, unnamed)
        adapter = adapter.remember(vector, labels)
        adapter = adapter.forget(query_ids=[taken])
        ids = adapter.remembered_queries.query_ids
        assert len(set(ids)) == len(ids) == size + step + 1
    assert adapter.remember(vector, Relevance(["x"], labels, ["mine"])).remembered_queries.query_ids[-1] == "mine"
