import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations import Relevance
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels import InvalidLabelsWarning

GOOD = [("a", 1.0)]


def test_keeps_queries_ids_and_labels_in_order():
    relevance = Relevance(["one", "two"], [[("a", 1), ("b", 0.5)], GOOD], ["q1", "q2"])
    assert list(relevance) == [("q1", "one", (("a", 1.0), ("b", 0.5))), ("q2", "two", (("a", 1.0),))]
    assert relevance.relevance == [[("a", 1.0), ("b", 0.5)], [("a", 1.0)]]


@pytest.mark.parametrize(
    ("query", "labels", "message"),
    [
        ("", GOOD, "query is empty"),
        ("  \n", GOOD, "query is empty"),
        (None, GOOD, "not a string: got NoneType"),
        (7, GOOD, "not a string: got int"),
        ("q", [], "no relevant document"),
        ("q", "ab", "not a list"),
        ("q", ["ab"], "not a .*got ab, write"),
        ("q", [("a",)], "a label is not a .document id, weight."),
        ("q", [("", 1)], "a document has no id"),
        ("q", [(None, 1)], "a document has no id"),
        ("q", [(3, 1)], "a document id is not a string: got 3"),
        ("q", [("a", float("nan"))], "NaN or infinite"),
        ("q", [("a", float("inf"))], "NaN or infinite"),
        ("q", [("a", "1")], "a weight is not a number"),
        ("q", [("a", 10**400)], "NaN or infinite"),
        ("q", {("a", 1.0)}, r"not a list of .*write \[\(\"an id\", 1.0\)\]"),
        ("q", [("a", True)], "a weight is not a number"),
    ],
)
def test_an_invalid_row_is_named_or_dropped_with_a_count(query, labels, message):
    queries, relevance = ["fine", query, "fine too"], [GOOD, labels, GOOD]
    with pytest.raises(InvalidRelevanceError, match=rf"Row 1 .*{message}"):
        Relevance(queries, relevance)
    kind = message.split(": got")[0].split(".*")[0]
    with pytest.warns(InvalidLabelsWarning, match=rf"Left out 1 of 3 labelled queries: 1 × .*{kind}"):
        kept = Relevance(queries, relevance, on_invalid="drop")
    assert kept.queries == ("fine", "fine too")
    assert kept.query_ids == ("0", "2"), "ids still say which rows of the input these were"
    assert sum(kept.left_out.values()) == 1


def test_lengths_must_agree():
    with pytest.raises(InvalidRelevanceError, match="1 queries and 2 lists"):
        Relevance(["q"], [GOOD, GOOD])
    with pytest.raises(InvalidRelevanceError, match="2 query_ids for 1"):
        Relevance(["q"], [GOOD], ["x", "y"])
    with pytest.raises(InvalidRelevanceError, match="'x' appears twice"):
        Relevance(["q", "r"], [GOOD, GOOD], ["x", "x"])
    with pytest.raises(InvalidRelevanceError, match="queries is a list: .*, not 'a query'"):
        Relevance("a query", [GOOD])


def test_the_same_document_twice_is_merged_and_counted():
    relevance = Relevance(["q"], [[("a", 1.0), ("b", 1.0), ("a", 2.0)]])
    assert relevance.labels == ((("a", 2.0), ("b", 1.0)),)
    assert relevance.left_out == {"repeated documents merged": 1}


def test_many_invalid_rows_give_one_short_warning():
    with pytest.warns(InvalidLabelsWarning) as caught:
        Relevance(["q"] * 1000, [[(f"d{row}", "0")] for row in range(1000)], on_invalid="drop")
    assert [str(warning.message) for warning in caught] == [
        "Left out 1000 of 1000 labelled queries: 1000 × a weight is not a number."
    ]


def test_options_are_checked():
    with pytest.raises(InvalidRelevanceError, match="on_invalid is 'raise' or 'drop'; got 'ignore'"):
        Relevance(["q"], [GOOD], on_invalid="ignore")
    with pytest.raises(InvalidRelevanceError, match="by is 'query', 'document' or 'time'; got 'documents'"):
        Relevance(["q"] * 5, [GOOD] * 5).split(0.2, by="documents")
    with pytest.raises(InvalidRelevanceError, match="query_ids are strings; row 0 has 7"):
        Relevance(["q"], [GOOD], [7])


def test_numpy_strings_and_weights_become_plain_values():
    relevance = Relevance(np.array(["q"]), [[(np.str_("a"), np.float32(2))]])
    assert json.dumps([relevance.queries, relevance.labels]) == '[["q"], [[["a", 2.0]]]]'


def test_check_names_the_row_or_drops():
    relevance = Relevance(["one", "two"], [[("a", 1), ("x", 1)], [("y", 1)]], ["q1", "q2"])
    assert relevance.check(["a", "x", "y"]) is relevance
    with pytest.raises(InvalidRelevanceError, match=r"Row 0 \(query id 'q1'\): document 'x' is not in the corpus"):
        relevance.check(["a"])
    with pytest.warns(InvalidLabelsWarning, match="Left out 1 of 2 labelled queries: 2 × document not in the corpus"):
        kept = relevance.check(["a"], on_invalid="drop")
    assert list(kept) == [("q1", "one", (("a", 1.0),))]
    assert kept.left_out == {"document not in the corpus": 2, "no document left": 1}


def test_of_takes_a_relevance_in_either_place():
    relevance = Relevance(["q"], [GOOD])
    assert Relevance.of(relevance) is relevance
    assert Relevance.of(None, relevance) is relevance
    with pytest.raises(InvalidRelevanceError, match="nothing beside it"):
        Relevance.of(["x"], relevance)
    assert Relevance.of(["q"], [GOOD]) == relevance
    with pytest.raises(InvalidRelevanceError, match="together with relevance"):
        Relevance.of(["q"])


# ---- splits ----------------------------------------------------------------------------------------------------------


def documents_of(relevance):
    return {document for labels in relevance.labels for document, _ in labels}


@given(st.integers(0, 5), st.floats(0.1, 0.9))
def test_a_split_by_query_loses_and_repeats_nothing(seed, size):
    relevance = Relevance([f"q{i}" for i in range(20)], [[(f"d{i % 7}", 1)] for i in range(20)])
    train, test = relevance.split(size, seed=seed)
    assert len(test) == round(20 * size)
    assert sorted(train.query_ids + test.query_ids) == sorted(relevance.query_ids)
    assert relevance.split(size, seed=seed) == (train, test)


@given(st.integers(0, 20))
def test_a_split_by_document_shares_none(seed):
    rng = np.random.default_rng(seed)
    labels = [[(f"d{d}", 1.0) for d in rng.choice(60, size=rng.integers(1, 4), replace=False)] for _ in range(60)]
    relevance = Relevance([f"q{i}" for i in range(60)], labels)
    train, test = relevance.split(0.25, by="document", seed=seed)
    assert not documents_of(train) & documents_of(test)
    assert len(test) > 0
    assert len(train) + len(test) + sum(train.left_out.values()) == 60


def test_where_labels_connect_everything_training_queries_are_dropped_and_counted():
    # A chain: query i shares a document with query i + 1, so all are one component.
    relevance = Relevance([f"q{i}" for i in range(40)], [[(f"d{i}", 1), (f"d{i + 1}", 1)] for i in range(40)])
    train, test = relevance.split(0.2, by="document", seed=1)
    assert len(test) == 8
    assert not documents_of(train) & documents_of(test)
    assert train.left_out["shares a document with the held-out part"] == 40 - 8 - len(train) > 0


def test_impossible_splits_say_so():
    same = Relevance(["q1", "q2", "q3"], [GOOD] * 3)
    with pytest.raises(InvalidRelevanceError, match="too many queries share"):
        same.split(0.34, by="document")
    with pytest.raises(InvalidRelevanceError, match="leaves one side empty"):
        same.split(0.01)


def test_pieces_add_up():
    a = Relevance(["p", "q"], [[("d1", 1.0)], [("d2", 0.5)]])
    b = Relevance(["r", "s"], [[("d1", 1.0)], [("d3", 1.0)]], ["1", "mine"])
    total = a + b + Relevance(["t"], [[("d4", 1.0)]])
    assert total.queries == ("p", "q", "r", "s", "t")
    assert total.query_ids == ("0", "1", "2", "mine", "4")
    assert total.labels == a.labels + b.labels + ((("d4", 1.0),),)
    assert (a + Relevance([], [])) == a
    assert hash(total) == hash(Relevance(total.queries, total.labels, total.query_ids))
    merged = Relevance(["p"], [[("d1", 1.0), ("d1", 0.5)]])
    assert (merged + merged).left_out == {"repeated documents merged": 2}
    with pytest.raises(TypeError):
        a + 1


def test_an_id_that_a_number_took_gives_way_too():
    a = Relevance(["p"], [[("d", 1.0)]], ["1"])
    b = Relevance(["q", "r"], [[("d", 1.0)]] * 2, ["1", "2"])
    assert (a + b).query_ids == ("1", "2", "3")


# ---- written by users, or by a language model ------------------------------------------------------------------------


def test_who_wrote_a_query_is_kept_wherever_rows_go(tmp_path):
    users = Relevance([f"user {i}" for i in range(10)], [[(f"d{i}", 1.0)] for i in range(10)])
    written = Relevance([f"written {i}" for i in range(10)], [[(f"d{i}", 1.0)] for i in range(10)], generated=True)
    assert users.generated == (False,) * 10
    assert written.generated == (True,) * 10
    both = users + written
    assert both.generated == (False,) * 10 + (True,) * 10
    assert both != Relevance(both.queries, both.labels, both.query_ids), "a flag is part of a row"

    def agree(relevance):
        return relevance.generated == tuple(query.startswith("written") for query in relevance.queries)

    assert all(map(agree, [*both.split(0.3), *both.split(0.3, by="document"), both.take([19, 0, 12])]))
    with pytest.warns(InvalidLabelsWarning):
        kept = both.check({"d1", "d9"}, on_invalid="drop")
    assert len(kept) == 4
    assert agree(kept)
    both.to_jsonl(tmp_path / "labels.jsonl")
    assert Relevance.from_jsonl(tmp_path / "labels.jsonl") == both
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert ["generated" in line for line in lines] == [False] * 10 + [True] * 10
    with pytest.warns(InvalidLabelsWarning):
        dropped = Relevance(["a", "", "b"], [GOOD] * 3, generated=[False, False, True], on_invalid="drop")
    assert dropped.generated == (False, True)


@pytest.mark.parametrize("generated", ["yes", [True], [1, 0]])
def test_who_wrote_a_query_is_yes_or_no(generated, tmp_path):
    with pytest.raises(InvalidRelevanceError, match="generated is True or False, for all 2"):
        Relevance(["p", "q"], [GOOD] * 2, generated=generated)
    path = tmp_path / "labels.jsonl"
    path.write_text('{"query": "a", "relevance": ["d1"], "generated": "no"}\n')
    with pytest.raises(InvalidRelevanceError, match="line 1: generated is true or false; got 'no'"):
        Relevance.from_jsonl(path)


# ---- labels never change ---------------------------------------------------------------------------------------------


def dropped():
    with pytest.warns(InvalidLabelsWarning):
        return Relevance(["a", "", "b"], [GOOD, GOOD, [("c", 2.0)]], on_invalid="drop")


@pytest.mark.parametrize("name", ["queries", "query_ids", "labels", "irrelevant", "generated", "times", "left_out", "new"])
@pytest.mark.parametrize("made", [dropped, lambda: dropped() + dropped(), lambda: dropped().take([1, 0])])
def test_attributes_are_neither_set_nor_deleted(made, name):
    relevance = made()
    before = list(relevance)
    with pytest.raises(AttributeError):
        setattr(relevance, name, ())
    with pytest.raises(AttributeError):
        delattr(relevance, name)
    assert list(relevance) == before


def test_what_was_left_out_is_told_in_a_copy():
    relevance = dropped()
    relevance.left_out["the query is empty"] = 100
    relevance.left_out.clear()
    assert relevance.left_out == {"the query is empty": 1}
    assert (relevance + relevance).left_out == {"the query is empty": 2}


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda labels: pickle.loads(pickle.dumps(labels))])
@pytest.mark.parametrize("made", [dropped, lambda: dropped() + dropped()])
def test_a_copy_is_the_same_and_does_not_change_either(made, again):
    relevance = made()
    other = again(relevance)
    assert other == relevance
    assert hash(other) == hash(relevance)
    assert other.left_out == relevance.left_out
    with pytest.raises(AttributeError, match="never changes"):
        other.labels = ()


def test_the_former_name_of_the_labels_warns():
    relevance = Relevance(["q"], [[("a", 1.0)]])
    with pytest.warns(DeprecationWarning, match=r"Relevance\.documents is called Relevance\.labels now") as caught:
        former = relevance.documents
    assert former is relevance.labels
    assert caught[0].filename == __file__


# ---- judged irrelevant -----------------------------------------------------------------------------------------------


def judged():
    """A query with both kinds of judgements, one with answers alone, and one that only thumbs down are known of."""
    relevance = [[("a", 2.0), ("b", 0), ("c", -1.0)], [("a", 1.0)], [("b", -0.5)]]
    return Relevance(["one", "two", "three"], relevance, ["q1", "q2", "q3"])


def test_a_weight_that_is_not_above_0_says_judged_irrelevant():
    relevance = judged()
    assert relevance.labels == ((("a", 2.0),), (("a", 1.0),), ())
    assert relevance.irrelevant == ((("b", 0.0), ("c", -1.0)), (), (("b", -0.5),))
    assert relevance.relevance == [[("a", 2.0), ("b", 0.0), ("c", -1.0)], [("a", 1.0)], [("b", -0.5)]]
    assert relevance.document_ids == {"a", "b", "c"}
    assert [labels for _, _, labels in relevance] == list(relevance.labels)
    assert repr(relevance) == "Relevance(3 queries, 2 labels, 3 judged irrelevant)"
    assert "judged" not in repr(relevance.take([1]))


def test_the_larger_weight_stays_whatever_its_sign():
    relevance = Relevance(["q"], [[("a", -1), ("b", -1), ("a", 1), ("b", -0.5), ("c", -0.0)]])
    assert relevance.labels == ((("a", 1.0),),)
    assert relevance.irrelevant == ((("b", -0.5), ("c", 0.0)),)
    assert str(relevance.irrelevant[0][1][1]) == "0.0"


def test_judgements_go_wherever_rows_go(tmp_path):
    relevance = judged()
    without = Relevance(relevance.queries[:2], relevance.labels[:2], relevance.query_ids[:2])
    assert relevance.take([0, 1]) != without
    assert relevance.take([2, 0]).irrelevant == (relevance.irrelevant[2], relevance.irrelevant[0])
    again = Relevance(["four"], [[("d", -2.0)]], ["q4"])
    assert (relevance + again).irrelevant == relevance.irrelevant + again.irrelevant
    relevance.to_jsonl(tmp_path / "labels.jsonl")
    assert Relevance.from_jsonl(tmp_path / "labels.jsonl") == relevance
    relevance.to_beir(tmp_path / "beir")
    assert Relevance.from_beir(tmp_path / "beir") == relevance
    sides = relevance.split(0.34)
    assert sorted(pair for side in sides for pair in zip(side.query_ids, side.irrelevant, strict=True)) == sorted(
        zip(relevance.query_ids, relevance.irrelevant, strict=True)
    )
    assert hash(Relevance(relevance.queries, relevance.relevance, relevance.query_ids)) == hash(relevance)


def test_check_looks_at_what_was_judged_irrelevant_too():
    relevance = judged()
    assert relevance.check({"a", "b", "c"}) is relevance
    with pytest.raises(InvalidRelevanceError, match=r"Row 0 .*'b' is not in the corpus \(2 such labels"):
        relevance.check({"a", "c"})
    with pytest.warns(InvalidLabelsWarning, match="Left out 1 of 3 .*2 × document not in the corpus; 1 × no document left"):
        kept = relevance.check({"a", "c"}, on_invalid="drop")
    assert kept.irrelevant == ((("c", -1.0),), ())
    assert kept.query_ids == ("q1", "q2")


def test_the_llama_index_format_has_no_place_for_thumbs_down(tmp_path):
    path = tmp_path / "dataset.json"
    judged().to_llama_index(path, {"a": "the only document that answers"})
    assert list(Relevance.from_llama_index(path)) == [("q1", "one", (("a", 1.0),)), ("q2", "two", (("a", 1.0),))]


def test_a_pickle_of_the_first_version_has_neither_thumbs_down_nor_times():
    relevance = Relevance(["one", "two"], [GOOD, GOOD])
    state = {name: value for name, value in vars(relevance).items() if name not in ("irrelevant", "times")}
    old = object.__new__(Relevance)
    old.__setstate__(state)
    assert old == relevance
    assert old.take([0]) == relevance.take([0])


# ---- times -----------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def timed(*times):
    return Relevance(
        [f"query number {row}" for row in range(len(times))], [[(f"d{row}", 1.0)] for row in range(len(times))], times=times
    )


@pytest.mark.parametrize(
    "time",
    [
        NOON,
        datetime(2026, 11, 28, 12),  # without a zone: UTC
        NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
        "2026-11-28T12:00:00Z",
        "2026-11-28 13:00:00+01:00",
        "2026-11-28T12:00",
        NOON.timestamp(),
        np.float64(NOON.timestamp()),
    ],
)
def test_a_time_is_a_datetime_a_text_or_seconds(time):
    assert timed(time).times == (NOON,)
    assert timed(time).times[0].tzinfo is UTC


@pytest.mark.parametrize("time", ["yesterday", float("nan"), 1e300, True, [2026]])
def test_what_is_no_time_is_named(time):
    with pytest.raises(InvalidRelevanceError, match=r"Row 1 \(query id '1'\): the time is no time: got .*write a datetime"):
        timed(NOON, time)
    with pytest.raises(InvalidRelevanceError, match="times has a time, or None, for each of the 1 queries"):
        Relevance(["q"], [GOOD], times=[NOON, NOON])


def test_times_go_wherever_rows_go(tmp_path):
    relevance = timed(NOON, None, "2026-11-27T12:00:00Z")
    assert relevance.take([2, 1]).times == (NOON - timedelta(days=1), None)
    assert (relevance + timed(None)).times == (*relevance.times, None)
    assert relevance != Relevance(relevance.queries, relevance.labels)
    path = tmp_path / "labels.jsonl"
    relevance.to_jsonl(path)
    assert Relevance.from_jsonl(path) == relevance
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("time") for line in lines] == ["2026-11-28T12:00:00+00:00", None, "2026-11-27T12:00:00+00:00"]
    assert ["time" in line for line in lines] == [True, False, True]
    path.write_text('{"query": "q", "relevance": ["d"], "time": "noon"}\n')
    with pytest.raises(InvalidRelevanceError, match="line 1: time is ISO 8601, .*got 'noon'"):
        Relevance.from_jsonl(path)


def test_a_split_by_time_holds_out_the_latest():
    relevance = timed(*(NOON + timedelta(hours=hour) for hour in [3, 1, 4, 0, 5, 2, 2, 2, 9, 6]))
    train, test = relevance.split(0.3, by="time")
    assert test.query_ids == ("4", "8", "9")
    assert max(train.times) <= min(test.times)
    assert len(train) + len(test) == 10
    train, test = timed(NOON, NOON, NOON, NOON).split(0.5, by="time")
    assert test.query_ids == ("2", "3"), "of the same time, the last rows are the latest"
    with pytest.raises(InvalidRelevanceError, match=r"Row 1 \(query id '1'\): the time is not known \(2 of 3 in all\)"):
        timed(NOON, None, None).split(0.34, by="time")


def test_a_split_by_time_keeps_questions_that_were_asked_before():
    texts = ["how do I undo a commit", "what is a branch", "how do I delete a tag", "Undo a commit: how do I?"]
    labels = [[("revert", 1.0)], [("branch", 1.0)], [("tag", 1.0)], [("revert", 1.0)]]
    train, test = Relevance(texts, labels, times=[1, 2, 3, 4]).split(0.25, by="time")
    assert test.queries == ("Undo a commit: how do I?",)
    assert "how do I undo a commit" in train.queries


# ---- spellings of a question -----------------------------------------------------------------------------------------

TEMPLATES = ["{}?", "please tell me {}", "{}, thanks", "{}", "hi, {}?"]


def spelled(count=40):
    subjects = ["lions", "tigers", "whales", "eagles", "rivers", "mountains", "planets", "castles", "ships", "clocks"]
    verbs = ["how old can {} get", "where do people keep {}", "which museum shows {}", "who first described {}"]
    questions = [verb.format(subject) for verb in verbs for subject in subjects][:count]
    texts = [template.format(question) for question in questions for template in TEMPLATES]
    return Relevance(texts, [[(f"doc {row // len(TEMPLATES)}", 1.0)] for row in range(len(texts))])


@pytest.mark.parametrize("by", ["query", "document"])
@pytest.mark.parametrize("seed", range(5))
def test_a_split_draws_questions_and_not_their_spellings(by, seed):
    relevance = spelled()
    train, test = relevance.split(0.2, by=by, seed=seed)
    assert len(train) + len(test) == len(relevance)
    assert len(test) == 40
    question = dict(zip(relevance.query_ids, (row // len(TEMPLATES) for row in range(len(relevance))), strict=True))
    assert not {question[name] for name in train.query_ids} & {question[name] for name in test.query_ids}


def test_a_single_question_cannot_be_split():
    with pytest.raises(InvalidRelevanceError, match="20 queries are spellings of 1 questions, none of which fits"):
        Relevance(["The Same question"] * 10 + ["the same QUESTION!"] * 10, [GOOD] * 20).split(0.2)


def test_mappings_are_read_by_their_keys():
    """BEIR and sentence-transformers have queries as id → text, and qrels as id → documents."""
    expected = Relevance(["one", "two"], [[("a", 1.0), ("b", 0.5)], GOOD], ["q1", "q2"])
    texts, qrels = {"q1": "one", "q2": "two"}, {"q2": {"a": 1.0}, "q1": {"a": 1, "b": 0.5}}
    assert Relevance(texts, expected.relevance) == expected
    assert Relevance(texts, qrels) == expected
    assert Relevance(["one", "two"], qrels, ["q1", "q2"]) == expected
    assert Relevance(texts, {name: list(labels.items()) for name, labels in qrels.items()}) == expected
    with pytest.warns(InvalidLabelsWarning, match="1 × no relevant document"):
        assert Relevance({**texts, "q3": "three"}, qrels, on_invalid="drop") == expected
    for queries, relevance, ids, message in (
        ({**texts, "q3": "three"}, qrels, None, "query id 'q3'.: no relevant document"),
        (texts, {**qrels, "q4": GOOD}, None, "the query id 'q4', which no query has"),
        (["one", "two"], qrels, None, "relevance maps query ids to documents, so the queries need ids"),
        (texts, qrels, ["q1", "q2"], "leave query_ids out"),
    ):
        with pytest.raises(InvalidRelevanceError, match=message):
            Relevance(queries, relevance, ids)


def test_what_has_no_order_is_refused():
    for queries, relevance, ids in (
        ({"one", "two"}, [GOOD, GOOD], None),
        (["one", "two"], frozenset([(("a", 1.0),), (("b", 1.0),)]), None),
        (["one", "two"], [GOOD, GOOD], {"q1", "q2"}),
    ):
        with pytest.raises(InvalidRelevanceError, match="paired at random"):
            Relevance(queries, relevance, ids)
    with pytest.raises(InvalidRelevanceError, match="queries is a list; got a int"):
        Relevance(3, [GOOD])


@pytest.mark.parametrize("kind", [iter, tuple, np.array, lambda items: dict.fromkeys(items).keys()])
def test_lists_come_in_any_form_that_has_an_order(kind):
    expected = Relevance(["one", "two"], [GOOD, GOOD], ["q1", "q2"])
    assert Relevance(kind(list(expected.queries)), iter([GOOD, GOOD]), kind(list(expected.query_ids))) == expected


def test_labels_come_back_from_parquet_as_arrays():
    pd = pytest.importorskip("pandas")
    rows = [np.array([np.array(pair, dtype=object) for pair in row], dtype=object) for row in ([("a", 1.0), ("b", 0.5)], GOOD)]
    frame = pd.DataFrame({"query": ["one", "two"], "relevance": rows})
    expected = Relevance(["one", "two"], [[("a", 1.0), ("b", 0.5)], GOOD])
    assert Relevance(frame["query"], frame["relevance"]) == expected
    assert Relevance(frame["query"], [list(row) for row in rows]) == expected
    for missing, message in ((float("nan"), "not a list"), (None, "not a list"), (np.array([]), "no relevant document")):
        with pytest.raises(InvalidRelevanceError, match=f"Row 1 .*{message}"):
            Relevance(frame["query"], [rows[0], missing])
    with pytest.raises(InvalidRelevanceError, match="Row 1 .*not a string: got float"):
        Relevance(pd.Series(["one", float("nan")]), frame["relevance"])


def test_half_a_surrogate_pair_is_named():
    """No file of labels and no data set could hold it."""
    half = "\ud83d"
    for queries, labels, ids, message in (
        ([f"q{half}"], [GOOD], None, "Row 0 .*the query holds half of a surrogate pair"),
        (["q"], [[(f"a{half}", 1.0)]], None, "Row 0 .*a document id holds half"),
        (["q"], [GOOD], [half], "Row 0: the query id .* holds half"),
    ):
        with pytest.raises(InvalidRelevanceError, match=message):
            Relevance(queries, labels, ids)
    with pytest.warns(InvalidLabelsWarning, match="1 × the query holds half of a surrogate pair"):
        assert len(Relevance([f"q{half}", "r"], [GOOD, GOOD], on_invalid="drop")) == 1


def test_the_two_lists_of_a_relevance_are_that_relevance_until_someone_changes_them():
    labelled = Relevance(["one", "two"], [[("a", 1.0)], [("b", 0.5)]], ["q1", "q2"], generated=[True, False])
    for queries in (labelled.queries, list(labelled.queries)):
        assert Relevance.of(queries, labelled.relevance) is labelled
        assert Relevance.of(queries, pickle.loads(pickle.dumps(labelled.relevance))) == labelled
    changed = labelled.relevance
    changed[0].append(("c", 1.0))
    shuffled = labelled.relevance[::-1]
    for queries, relevance in ((labelled.queries, changed), (labelled.queries, shuffled), (["one", "three"], labelled.relevance)):
        assert Relevance.of(queries, relevance) == Relevance(queries, relevance)


def test_what_was_shown_stays_with_the_labels(tmp_path):
    labels = Relevance(["a", "b"], [[("x", 1.0)], [("y", 1.0)]], shown=[["z", "x"], None])
    labels.to_jsonl(tmp_path / "l.jsonl")
    assert Relevance.from_jsonl(tmp_path / "l.jsonl") == labels
    assert labels.take([1, 0]).shown == (None, ("z", "x"))
    assert (labels + Relevance(["c"], [[("x", 1.0)]])).shown == (("z", "x"), None, None)
    assert labels.relabel({"x": "one two three"}, {"new": "one two three", "y": "four"}).shown == (None, None)
    for wrong in ([None], [["x"], [1]]):
        with pytest.raises(InvalidRelevanceError, match="shown has a list of document ids, or None, for each of the 2 queries"):
            Relevance(["a", "b"], [[("x", 1.0)], [("y", 1.0)]], shown=wrong)
    for wrong in ("ab", [["x"], "yz"], [["x"], {"y", "z"}], [["x"], {"y": 1}], [["x"], 5], 5):
        with pytest.raises(InvalidRelevanceError, match="shown"):
            Relevance(["a", "b"], [[("x", 1.0)], [("y", 1.0)]], shown=wrong)
    told = Relevance(["a", "b"], [[("x", 1.0)], [("y", 1.0)]], shown=[np.array(["x"]), []])
    assert told.shown == (("x",), None), "an empty list says nothing"
    assert type(told.shown[0][0]) is str
    (tmp_path / "l.jsonl").write_text('{"query": "a", "relevance": ["x"], "shown": "x"}')
    with pytest.raises(InvalidRelevanceError, match="line 1: shown is a list of document ids; got 'x'"):
        Relevance.from_jsonl(tmp_path / "l.jsonl")


@pytest.mark.parametrize("ids", ["doc-1", b"doc-1", 3, [3], [{"page_content": "text"}]])
def test_what_is_no_list_of_ids_drops_no_label(ids):
    """Before, prune("doc-1") took the letters for ids, and left nothing."""
    relevance = Relevance(["a"], [[("doc-1", 1.0)]])
    for call in (relevance.prune, relevance.check):
        with pytest.raises(InvalidRelevanceError, match="corpus_ids is a list of ids"):
            call(ids)
