import pytest

from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.labels.policies import UNLIKELY


@pytest.fixture
def log(tmp_path):
    with FeedbackLog(tmp_path / "feedback.db") as log:
        yield log


def judged(log, policy):
    """Query → document → weight."""
    labels = log.labels(policy)
    return {query: dict(both) for query, both in zip(labels.queries, labels.relevance, strict=True)}


@pytest.mark.parametrize(
    ("policy", "up", "down"),
    [
        ("judged", {}, {}),
        ("cited", {"doc-2": 1.0, "doc-3": 1.0}, {"doc-2": -1.0, "doc-3": -1.0}),
        ("first", {"doc-1": 1.0}, {"doc-1": -1.0}),
        (
            "shared",
            dict.fromkeys(["doc-1", "doc-2", "doc-3", "doc-4"], 0.25),
            dict.fromkeys(["doc-1", "doc-2", "doc-3", "doc-4"], -0.25),
        ),
        ("clicks", {}, {}),
    ],
)
def test_a_thumb_on_the_answer_speaks_of_the_documents_that_the_policy_names(log, policy, up, down):
    for name, thumb in (("up", True), ("down", False)):
        query_id = log.record(name, ["doc-1", "doc-2", "doc-3", "doc-4"])
        log.cite(query_id, ["doc-2", "doc-3"])
        log.thumb(query_id, up=thumb)
    assert judged(log, policy) == {name: found for name, found in (("up", up), ("down", down)) if found}


@pytest.mark.parametrize("policy", ["judged", "cited", "first", "shared", "clicks"])
def test_what_is_said_of_a_document_itself_counts_under_every_policy_and_the_latest_word_counts(log, policy):
    query_id = log.record("a question", ["doc-1", "doc-2", "doc-3"])
    log.cite(query_id, ["doc-1"])
    log.thumb(query_id, up=True)
    log.click(query_id, "doc-1")
    log.thumb(query_id, "doc-1", up=True)
    log.thumb(query_id, "doc-1", up=False)
    log.thumb(query_id, "doc-2", up=False)
    log.grade(query_id, {"doc-2": 3})
    log.grade(query_id, {"doc-3": 0})
    assert judged(log, policy) == {"a question": {"doc-1": -1.0, "doc-2": 3.0, "doc-3": 0.0}}


def test_a_thumb_that_is_taken_back_says_nothing(log):
    query_id = log.record("a question", ["doc-1"])
    for document in ((), ("doc-1",)):
        log.thumb(query_id, *document, up=False)
        log.thumb(query_id, *document, up=None)
    log.cite(query_id, ["doc-1"])
    assert judged(log, "judged") == judged(log, "first") == {}
    assert judged(log, "cited") == {"a question": {"doc-1": 1.0}}


def test_a_thumb_that_is_taken_back_takes_no_grade_along(log):
    query_id = log.record("a question", ["doc-1"])
    log.grade(query_id, {"doc-1": 3})
    log.thumb(query_id, "doc-1", up=False)
    log.thumb(query_id, "doc-1", up=None)
    assert judged(log, "judged") == {"a question": {"doc-1": 3.0}}


def test_a_grade_is_taken_back(log):
    query_id = log.record("a question", ["doc-1", "doc-2"])
    log.grade(query_id, {"doc-1": 3, "doc-2": 1})
    log.grade(query_id, {"doc-1": None})
    assert judged(log, "judged") == {"a question": {"doc-2": 1.0}}


def test_what_gives_no_label_is_counted(log):
    nothing = log.record("nothing was found", [])
    log.thumb(nothing, up=False)
    log.thumb(log.record("nothing was cited", ["doc-1"]), up=True)
    log.thumb("unknown", "doc-1", up=True)
    log.thumb(log.record(" ", ["doc-1"]), "doc-1", up=True)
    stray = {"feedback on a query that is not in the log": 1}
    assert log.labels("cited").left_out == {"a thumb on an answer that cites no document": 2, "an empty query": 1, **stray}
    assert log.labels("shared").left_out == {"a thumb on an answer without documents": 1, "an empty query": 1, **stray}
    assert log.labels("cited", tenant="acme").left_out == {}, "nobody knows whose the unknown query was"


def test_the_rank_on_the_page_counts_where_a_click_tells_it(tmp_path):
    """As where a reranker orders what the retriever had recorded: the labels are those of a log of what the page showed."""
    with FeedbackLog(tmp_path / "told.db") as told, FeedbackLog(tmp_path / "page.db") as page:
        for number in range(60):
            asked, opened = f"question {number % 20}", "abcd"[number % 3 + 1]
            others = [name for name in "abcd" if name != opened]
            told.click(told.record(asked, list("abcd"), user=str(number)), opened, position=1)
            page.click(page.record(asked, [opened, *others], user=str(number)), opened)
        found, right = told.labels("clicks"), page.labels("clicks")
        assert (found.queries, found.labels, found.shown) == (right.queries, right.labels, right.shown)
        elsewhere = told.record("another question", ["a", "b"])
        told.click(elsewhere, "x", position=2)
        assert told.labels("clicks").shown[-1] == ("a", "x", "b"), "the page showed what the search had not found"


def test_labels_have_the_ids_and_the_times_of_the_log(log):
    query_id = log.record("a question", ["doc-1"], tenant="acme")
    log.record("never judged", ["doc-1"], tenant="acme")
    log.thumb(query_id, "doc-1", up=True)
    labels = log.labels("judged", tenant="acme")
    assert labels.query_ids == (query_id,)
    assert labels.times[0].timestamp() == pytest.approx(log.get(query_id).time, abs=1e-5)
    assert len(log.labels("judged", tenant="other")) == 0


def test_a_click_that_others_who_ask_the_same_do_not_bear_out_is_left_out(log):
    for row in range(20):
        query_id = log.record("asked often", ["doc-1", "doc-2", "doc-3"], run_id=f"run-{row}")
        log.click(f"run-{row}" if row % 2 else query_id, "doc-2" if row < 19 else "doc-1")
    for row in range(20):
        log.click(log.record(f"question {row}", ["doc-1", "doc-2", "doc-3"]), "doc-1")
    for _ in range(20):
        log.record("nobody clicked", ["doc-1", "doc-2", "doc-3"])
    found = judged(log, "clicks")
    assert found["asked often"] == {"doc-2": pytest.approx(1.0, abs=0.01)}
    assert 0 < found["question 3"]["doc-1"] < 1, "one click alone is no certainty"
    assert log.labels("clicks").left_out == {"a click that is likelier wrong than right": 1}
    assert len(log.labels("clicks")) == 39
    assert set(log.labels("clicks").shown) == {("doc-1", "doc-2", "doc-3")}


@pytest.mark.parametrize("who", [{"user": "ann"}, {"session": "s1"}, {"user": "ann", "session": "s1"}], ids=str)
def test_who_opened_a_document_and_asks_again_does_not_pass_it_over(log, who):
    for row in range(5):
        query_id = log.record("a question", ["doc-1", "doc-2"], **who)
        if row == 2:
            log.click(query_id, "doc-1")
    assert judged(log, "clicks")["a question"]["doc-1"] > 0.9
    for row in range(9):
        log.record("a question", ["doc-1", "doc-2"], user=f"user {row}")
    assert judged(log, "clicks") == {}, "others pass it over"


def test_spellings_of_one_question_are_one_and_tenants_are_apart(log):
    for tenant in ("acme", "other"):
        for row in range(20):
            query_id = log.record("Asked  often" if row % 2 else "asked often", ["doc-1", "doc-2"], tenant=tenant)
            log.click(query_id, "doc-2" if (tenant == "acme") == (row > 0) else "doc-1")
    for tenant, kept in (("acme", "doc-2"), ("other", "doc-1")):
        assert {name for row in log.labels("clicks", tenant=tenant).labels for name, _ in row} == {kept}
    labels = log.labels("clicks")
    assert len(labels) == 38, "what one tenant opens says nothing of another's"
    assert labels.left_out == {UNLIKELY: 2}


def test_clicks_in_a_log_of_hashes_are_told_apart_as_those_of_texts(tmp_path):
    with FeedbackLog(tmp_path / "hashes.db", texts=False) as log:
        for row in range(20):
            log.click(log.record("asked often", ["doc-1", "doc-2"]), "doc-2" if row else "doc-1")
        labels = log.labels("clicks", texts=["asked often"])
    assert {name for row in labels.labels for name, _ in row} == {"doc-2"}


def test_a_click_on_what_was_not_shown_counts_once(log):
    query_id = log.record("a question", ["doc-1"])
    log.click(query_id, "doc-9")
    assert judged(log, "clicks") == {"a question": {"doc-9": 1.0}}


def test_a_document_without_an_id_keeps_its_place(log):
    query = log.record("a question", [None, "doc-1"])
    log.thumb(query, up=True)
    assert judged(log, "first") == {}
    assert log.labels("first").left_out == {"a thumb on an answer without documents": 1}
    assert judged(log, "shared") == {"a question": {"doc-1": 0.5}}
