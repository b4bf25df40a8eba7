"""Which searches a judgement is about, what its value weighs, and what is left out and counted."""

import contextlib
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmem_integrations import Relevance
from deepmem_integrations.errors import FeedbackError, InvalidRelevanceError, StoreError
from deepmem_integrations.labels.traces import READERS
from deepmem_integrations.labels.traces.entries import Found, documents_of, query_of
from deepmem_integrations.labels.traces.resolving import Resolver
from tests.labels.traces.samples import QUERY, STORE

TEXTS = {f"doc-{number}": f"Text number {number}." for number in range(6)}


def run(name, documents=None, *, parent=None, query=QUERY, trace="t", second=0, **more):
    """A run of LangSmith; of a retriever where it has documents."""
    found = [{"page_content": TEXTS[one], "metadata": {}, "id": one} for one in documents or ()]
    return {
        "id": name,
        "trace_id": trace,
        "parent_run_id": parent,
        "run_type": "chain" if documents is None else "retriever",
        "start_time": f"2026-11-28T09:30:{second:02}",
        "inputs": {"query": query},
        "outputs": {"documents": found},
        **more,
    }


def thumb(run_id, score=1, **more):
    return {"run_id": run_id, "key": "thumb", "score": score, **more}


def read(rows, policy="first", documents=TEXTS, **options):
    return Relevance.from_traces(rows, "langsmith", policy=policy, documents=documents, **options)


def test_of_retrievers_in_one_another_the_outer_one_counts():
    rows = [
        run("t"),
        run("outer", ["doc-2", "doc-1"], parent="t"),
        run("inner", ["doc-1", "doc-2", "doc-3"], parent="outer", query="undo commit git"),
    ]
    labels = read([*rows, thumb("t")])
    assert labels.query_ids == ("outer",)
    assert labels.labels == ((("doc-2", 1.0),),)
    own = read([*rows, thumb("inner", trace_id="t")])
    assert own.queries == ("undo commit git",)
    assert own.labels == ((("doc-1", 1.0),),)


def test_servers_may_list_the_newest_run_first():
    rows = [
        run("reranked", ["doc-2", "doc-1"], parent="t", second=2),
        run("found", ["doc-1", "doc-2"], parent="t", second=1),
        run("t"),
        thumb("t"),
    ]
    assert read(rows).labels == read(rows[::-1]).labels == ((("doc-2", 1.0),),)


def test_a_click_counts_at_the_rank_of_the_page():
    rows = [
        {"query_id": "q", "user_query": QUERY, "query_response_hit_ids": [*TEXTS]},
        {
            "action_name": "click",
            "query_id": "q",
            "event_attributes": {"object": {"object_id": "doc-5"}, "position": {"ordinal": 2}},
        },
    ]
    labels = Relevance.from_traces(rows, "ubi", policy="clicks", documents=TEXTS)
    assert labels.shown == (("doc-0", "doc-5", "doc-1", "doc-2", "doc-3", "doc-4"),)


def test_of_a_query_that_is_tried_again_the_last_search_counts():
    rows = [
        run("t"),
        run("failed", [], parent="t", error="timeout"),
        run("first", ["doc-3"], parent="t", second=1),
        run("again", ["doc-1"], parent="t", second=2),
        thumb("t"),
    ]
    assert read(rows).query_ids == ("again",)


def test_several_searches_of_an_agent():
    rows = [
        run("t"),
        run("one", ["doc-1", "doc-2"], parent="t", query="what is a merge?"),
        run("two", ["doc-3"], parent="t", query="how do I undo it?"),
    ]
    first = read([*rows, thumb("t", -1)])
    assert first.left_out == {"a thumb on an answer that is made of several searches": 1}
    shared = read([*rows, thumb("t", -1)], "shared")
    assert shared.irrelevant == ((("doc-1", -0.25), ("doc-2", -0.25)), (("doc-3", -0.5),))
    cite = {"run_id": "t", "key": "source", "value": "x", "extra": {"document_id": "doc-3"}}
    cited = read([*rows, thumb("t", -1), cite], "cited", feedback={"thumb": "thumb", "source": "cite"})
    assert cited.queries == ("how do I undo it?",)
    assert cited.irrelevant == ((("doc-3", -1.0),),)
    judged = read([*rows, thumb("t", 1, extra={"document_id": "doc-5"})])
    assert judged.left_out == {"a judgement of a document that none of several searches found": 1}


def test_a_thumb_on_a_model_is_about_what_was_found_beside_it():
    rows = [
        run("t"),
        run("chain-1", parent="t"),
        run("search-1", ["doc-1"], parent="chain-1"),
        run("model-1", parent="chain-1"),
        run("chain-2", parent="t"),
        run("search-2", ["doc-2"], parent="chain-2", query="another"),
        run("model-2", parent="chain-2"),
    ]
    assert read([*rows, thumb("model-2", trace_id="t")]).queries == ("another",)
    assert read([*rows, thumb("chain-1", trace_id="t")]).queries == (QUERY,)
    inside = run("embedding", parent="search-1")
    assert read([*rows, inside, thumb("embedding", trace_id="t")]).queries == (QUERY,)


def test_rows_in_any_order_repeated_and_without_ids():
    rows = [thumb("t"), run("search", ["doc-1"], parent="t"), run("search", ["doc-1"], parent="t"), run("t")]
    labels = read(rows)
    assert labels.labels == ((("doc-1", 1.0),),)
    assert labels.left_out == {"a span that came before": 1}
    nameless = [run(None, ["doc-1"]), run(None, ["doc-2"], query="another", trace="u"), thumb("t"), thumb("u", trace_id="u")]
    assert read(nameless).queries == (QUERY, "another")
    same = [
        run("1", ["doc-1"]),
        run("1", ["doc-2"], query="another", trace="u"),
        thumb("1", trace_id="t"),
        thumb("1", -1, trace_id="u"),
    ]
    both = read(same)
    assert (both.queries, len(set(both.query_ids))) == ((QUERY, "another"), 2)
    assert both.irrelevant == ((), (("doc-2", -1.0),))
    circle = [run("a", parent="b"), run("b", parent="a"), run("s", ["doc-1"], parent="a"), thumb("b", trace_id="t")]
    assert read(circle).query_ids == ("s",)
    assert read([run("s", ["doc-1"]), thumb("gone")]).left_out == {"feedback on a trace without a search": 1}


def test_the_last_word_counts():
    rows = [
        run("s", ["doc-1"]),
        thumb("s", 1, created_at="2026-11-28T09:32:00Z"),
        thumb("s", -1, created_at="2026-11-28T09:31:00Z"),
        thumb("s", -1, created_at="2026-11-28T09:33:00Z", feedback_source={"type": "model"}),
    ]
    labels = read(rows)
    assert labels.labels == ((("doc-1", 1.0),),)
    assert labels.judges == (None,)


def test_a_document_that_is_not_known_keeps_its_place():
    rows = [run("s", ["doc-1", "doc-2"]), thumb("s")]
    rows[0]["outputs"]["documents"][0] = {"page_content": "Something else.", "metadata": {}}
    labels = read(rows)
    assert len(labels) == 0
    assert labels.left_out["a document that is unmatched"] == 1
    assert read(rows, "shared").labels == ((("doc-2", 0.5),),)


def test_feedback_of_several_names_has_to_be_chosen():
    rows = [run("s", ["doc-1"]), thumb("s"), {**thumb("s", 0), "key": "toxicity"}]
    with pytest.raises(
        InvalidRelevanceError, match=r"several names: 'thumb' \(1\), 'toxicity' \(1\). Say which counts with feedback="
    ):
        read(rows)
    labels = read(rows, feedback="thumb")
    assert labels.labels == ((("doc-1", 1.0),),)
    assert labels.left_out == {"feedback called 'toxicity', which was not chosen": 1}
    assert read(rows, feedback=["thumb", "toxicity"]).irrelevant == ((("doc-1", -1.0),),)


@pytest.mark.parametrize(
    ("value", "weight"),
    [
        (True, 1),
        (False, -1),
        (0, -1),
        (0.5, 0.5),
        (-0.3, -0.3),
        ("👎", -1),
        ("thumbs_up", 1),
        ("Not-Relevant", -1),
        ("0.25", 0.25),
    ],
)
def test_what_values_weigh(value, weight):
    labels = read([run("s", ["doc-1"]), thumb("s", value)])
    assert dict((*labels.labels[0], *labels.irrelevant[0])) == {"doc-1": weight}


def test_a_range_of_time():
    rows = [*(run(name, ["doc-1"], trace=name, second=second) for second, name in enumerate("abc")), *map(thumb, "abc")]
    times = read(rows).times
    assert len(times) == 3
    within = read(rows, since=times[1].replace(tzinfo=None), until=times[2])
    assert within.times == times[1:2], "a time without a time zone is in UTC"
    assert within.left_out == {"a query that was asked at another time": 2}
    assert read(rows, since=times[1].isoformat()).times == times[1:]
    with pytest.raises(InvalidRelevanceError, match="A time is a datetime, .* got 'yesterday'"):
        read(rows, since="yesterday")


def test_stars_and_words_of_your_own():
    rows = [run("s", ["doc-1"]), {**thumb("s", 4), "value": "quite"}]
    with pytest.raises(InvalidRelevanceError, match=r"row 1: 'thumb' is 4 for an answer, .* weights="):
        read(rows)
    assert read(rows, weights={4: 1.0}).labels == ((("doc-1", 1.0),),)
    assert read(rows, weights={"quite": 0.5}).labels == ((("doc-1", 0.5),),)
    assert read(rows, weights=lambda stars: (stars - 3) / 2).labels == ((("doc-1", 0.5),),)
    assert read(rows, weights={4: None}).left_out == {"feedback whose value says nothing": 1}
    with pytest.raises(InvalidRelevanceError, match="row 1: weights names no value of 'thumb', 4 or 'quite'"):
        read(rows, weights={5: 1.0})
    with pytest.raises(InvalidRelevanceError, match="weights gives 'good'"):
        read(rows, weights={4: "good"})
    rows[1] = thumb("s", None, value="meh")
    with pytest.raises(InvalidRelevanceError, match=r"row 1: what 'meh' of 'thumb' weighs is not known: .*weights="):
        read(rows)
    assert read(rows, on_invalid="drop").left_out == {"a row that cannot be read": 1}
    graded = [run("s", ["doc-1"]), thumb("s", 3, extra={"document_id": "doc-1"})]
    assert read(graded).labels == ((("doc-1", 3.0),),)  # a grade of a document, as in TREC


def test_prompts_in_place_of_queries():
    prompt = "Answer the question with these rules. " * 100
    rows = [
        run("s", ["doc-1"], query=prompt),
        run("u", ["doc-2"], query={"what": None, "why": 1}, trace="u"),
        thumb("s"),
        thumb("u"),
    ]
    labels = read(rows)
    assert len(labels) == 0
    assert labels.left_out == {"a query of more than 2,000 characters, such as a prompt": 1, "a query that cannot be read": 1}
    assert read(rows, longest_query=10_000).queries == (prompt.strip(),)


@pytest.mark.parametrize(
    ("value", "query"),
    [
        ("undo", "undo"),
        ('"undo"', "undo"),
        ({"question": "undo", "k": 3}, "undo"),
        ({"term": "undo"}, "undo"),
        (
            {
                "messages": [
                    {"role": "system", "content": "Be kind."},
                    {"role": "user", "content": "undo"},
                    {"role": "assistant", "content": "?"},
                ]
            },
            "undo",
        ),
        ([{"type": "human", "content": [{"type": "text", "text": "undo"}]}], "undo"),
        ("{not json", "{not json"),
        ({"a": 1, "b": 2}, None),
        (7, None),
        ("  ", None),
    ],
)
def test_the_query_in_what_a_retriever_was_given(value, query):
    assert query_of(value) == query


def test_the_documents_in_what_a_retriever_returned():
    texts = ["a", "b"]
    node = {"id_": "n", "text": "a", "metadata": {}}
    shapes = [
        [{"lc": 1, "type": "constructor", "id": ["langchain", "schema", "Document"], "kwargs": {"page_content": "a", "id": "n"}}],
        {"output": {"documents": [[{"page_content": "a", "id": "n"}, 0.5]]}},
        [{"node": node, "score": 0.5}],
        "[{'id_': 'n', 'text_resource': {'text': 'a'}}]",
    ]
    assert [[(one.id, one.text) for one in documents_of(shape)] for shape in shapes] == [[("n", "a")]] * 4
    assert documents_of(shapes[1])[0].score == documents_of(shapes[2])[0].score == 0.5
    assert [one.text for one in documents_of(texts)] == texts
    assert documents_of("git") is documents_of({"a": 1}) is documents_of([1]) is documents_of(None) is None


def test_the_wrong_format_is_an_error():
    with pytest.raises(InvalidRelevanceError, match="The traces hold no search: none of 1 spans is a retriever's"):
        read([run("t")])
    with pytest.raises(InvalidRelevanceError, match="row 0: a row of Langfuse is"):
        Relevance.from_traces([run("t"), thumb("t")][1:], "langfuse")
    with pytest.raises(InvalidRelevanceError, match="format is one of 'langsmith', "):
        Relevance.from_traces([], "langsmyth")
    with pytest.raises(FeedbackError, match="policy is one of"):
        read([], "best")
    with pytest.raises(InvalidRelevanceError, match="on_invalid is 'raise' or 'drop'"):
        read([], on_invalid="skip")
    with pytest.raises(InvalidRelevanceError, match="project is for the clients"):
        read([], project="p")
    with pytest.raises(InvalidRelevanceError, match="Traces are a file, rows, or the client"):
        read(7)


# ---- documents of the store ----------------------------------------------------------------------------------------


class Stored:
    def __init__(self, id, page_content, **metadata):
        self.id, self.page_content, self.metadata = id, page_content, metadata


def test_documents_are_found_by_id_then_by_metadata_then_by_text():
    store = [
        Stored("a", "Run git revert.", source="one.md"),
        Stored("b", "Run git reset.", source="two.md"),
        Stored("c", "Run git stash.", source="two.md"),
        Stored("d", "Run git stash.", source="three.md"),
        Stored("four.md", "Run git merge.", source=None),
    ]
    resolver = Resolver(store, "source")
    cases = {
        ("a", "id"): Found("a", "Run git merge.", {"source": "four.md"}),
        ("four.md", "key"): Found("z", None, {"source": "four.md"}),
        ("a", "key"): Found(None, None, {"source": "one.md"}),
        ("c", "text"): Found(None, "run git STASH", {"source": "two.md"}),
        ("b", "text"): Found(None, "Run `git`\nreset"),
        (None, "ambiguous"): Found(None, "Run git stash."),
        (None, "unmatched"): Found("z", "Run git", {"source": "zero.md"}),
    }
    for expected, found in cases.items():
        assert resolver.resolve(found) == expected
    assert resolver.resolve(Found(None, "other", {"source": "two.md"})) == (None, "ambiguous")
    assert resolver.resolve(Found(None, "!?")) == (None, "unmatched")
    believing = Resolver(None, "source")
    assert believing.resolve(Found("a", "x", {"source": 7})) == ("7", "key")
    assert believing.resolve(Found("a", "x")) == Resolver(None, None).resolve(Found(None, "x")) == (None, "unmatched")
    for wrong, message in (([7], "a int is no document"), ([Stored(None, "x")], "a document has no id")):
        with pytest.raises(InvalidRelevanceError, match=message):
            Resolver(wrong, None)


def test_at_a_level_parents_take_the_place_of_documents():
    store = [
        Stored("a1", "Run git revert.", page="a.md", url="one"),
        Stored("a2", "Run git revert.", page="a.md", url="one"),
        Stored("b1", "Run git reset.", page="b.md", url="two"),
        Stored("c1", "See above.", page="c.md", url="three"),
        Stored("d1", "See above.", page="d.md", url="three"),
        Stored("e", "Run git merge."),
    ]
    resolver = Resolver(store, "url", "page")
    cases = {
        ("b.md", "key"): Found("a1", None, {"page": "b.md"}),
        ("a.md", "id"): Found("a1", None, {"page": "before.md"}),
        ("c.md", "id"): Found("c.md", "All of the page, which a retriever returns in place of its parts."),
        ("e", "id"): Found("e"),
        ("a.md", "text"): Found(None, "run git revert"),
        (None, "ambiguous"): Found(None, "see above", {"url": "three"}),
        (None, "unmatched"): Found(None, "git", {"page": "before.md"}),
    }
    for expected, found in cases.items():
        assert resolver.resolve(found) == expected
    assert resolver.resolve(Found(None, "cut off: run git", {"url": "one"})) == ("a.md", "key"), "two parts, and one page"
    believing = Resolver(None, None, "page")
    assert believing.resolve(Found("a1", "x", {"page": 7})) == ("7", "key")
    assert believing.resolve(Found("a1", "x")) == (None, "unmatched"), "an id names no parent"
    with pytest.raises(StoreError, match="Not one of the 6 documents has 'uri'"):
        Resolver(store, None, "uri")


def test_labels_of_traces_at_a_level():
    def shown(*names):
        return [{"page_content": name, "metadata": {"page": name[0]}} for name in names]

    rows = [run("s", []), thumb("s")]
    rows[0]["outputs"]["documents"] = shown("a1", "b1", "a2", "c1")
    shared = read(rows, "shared", level="page", documents=None)
    assert shared.level == "page"
    assert shared.labels == ((("a", 0.5), ("b", 0.25), ("c", 0.25)),)
    assert read(rows, "first", level="page", documents=None).labels == ((("a", 1.0),),)
    node = {"node": {"id_": "n", "text": "x", "relationships": {"1": {"node_id": "git.md", "node_type": "4"}}}, "score": 0.5}
    rows[0]["outputs"]["documents"] = [node]
    assert read(rows, "first", level="ref_doc_id", documents=None).labels == ((("git.md", 1.0),),)


def test_the_log_and_the_report_tell_counts(caplog):
    rows = [run("s", ["doc-1", "doc-2"]), thumb("s")]
    rows[0]["outputs"]["documents"][1] |= {"page_content": "gone", "id": None}
    with caplog.at_level(logging.INFO):
        report = Relevance.read_traces(rows, "langsmith", policy="shared", documents=TEXTS)[1]
    said = (
        "1 spans, 1 searches, 1 judgements; judged documents: 1 found by id, 0 by metadata, 0 by text, 0 ambiguous, 1 not found"
    )
    assert str(report) == said
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [("WARNING", f"Labels from traces: {said}")]


def test_labels_of_traces_train_like_others():
    labels = read([run("s", ["doc-1"]), thumb("s")])
    assert labels.check(TEXTS) is labels
    assert labels + labels


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(["", "x", "RETRIEVER", "{", "[1]", "2026-11-28", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "name", "score", "node", "metadata"]), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = {
    "langsmith": "id trace_id run_type inputs outputs start_time feedback_stats child_runs run_id key score value",
    "langfuse": "id traceId type input output startTime dataType name value stringValue observations scores metadata",
    "phoenix": "context attributes span_kind start_time events annotator_kind name result document_position",
    "otel": "resourceSpans resourceLogs spanId traceId attributes events startTimeUnixNano",
    "ubi": "query_id user_query query_response_hit_ids action_name event_attributes timestamp _source",
    "mlflow": "info data spans trace trace_id assessments",
    "ragas": "user_input reference_contexts reference_context_ids synthesizer_name",
}


@pytest.mark.parametrize("format", READERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_row_is_read_or_refused(format, data):
    row = data.draw(st.dictionaries(st.sampled_from(NAMES[format].split()), JSON, max_size=6))
    with contextlib.suppress(InvalidRelevanceError):
        Relevance.from_traces([row], format, documents=STORE, policy="shared", feedback=["x"], on_invalid="drop")
