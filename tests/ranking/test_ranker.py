import copy
import logging
import pickle

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter, Relevance
from deepmem_integrations.adapter import Attention, Ranking, RememberedQueries, ValueSpace
from deepmem_integrations.errors import InvalidVectorsError, NotTrainedError, StoreError
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.ranking import NAMELESS, Ranker
from deepmem_integrations.serving import TransformedVector
from deepmem_integrations.words import Found, RetrieverWords, WordIndex
from tests.adapter.helpers import make_adapter

TEXTS = {
    "reset": "Reset the router with a pin.",
    "invoice": "Your invoice lists every charge.",
    "error": "The error E-1234 means that the fuse is blown.",
    "manual": "This manual is for the router.",
}
IDS = list(TEXTS)
COSINES = [0.9, 0.5, 0.4, 0.3]


def remembering(**ranking):
    """An adapter that remembers one query, (1, 0), which asked for the manual, and moves nothing."""
    space = ValueSpace(np.zeros(2, dtype=np.float32), np.eye(2, dtype=np.float32), 1.0)
    remembered = RememberedQueries(
        query_ids=("q1",),
        texts=None,
        owners=np.array([0]),
        labels=LabelRows.of_rows([{0: 1.0}]),
        document_ids=("manual",),
        documents=np.array([[0.0, 1.0]], dtype=np.float32),
        space=space,
        trained=1,
        trained_in_all=1,
    )
    attention = Attention(np.array([[1.0, 0.0]], dtype=np.float32), remembered.values, 0.1, 0.0)
    return QueryAdapter(2, attention=attention, remembered_queries=remembered, ranking=Ranking(**ranking))


@pytest.fixture
def index(tmp_path):
    return WordIndex.build(tmp_path / "words", [(IDS, list(TEXTS.values()))], language="en")


def ids_of(ranker, text="fuse E-1234", vector=(0.0, 1.0), found=IDS, cosines=COSINES, **options):
    query = ranker.query(text, list(vector))
    return query.rank(found, cosines[: len(found)], query.words(100), **options).ids


def test_without_a_ranking_the_order_of_the_store_stands():
    query = Ranker(QueryAdapter(2)).query("fuse", [3.0, 4.0])
    assert query.vectors_alone
    assert isinstance(query.vector, TransformedVector)
    assert query.words(10) is None
    assert query.rank(IDS, COSINES).ids == IDS


def test_words_count_with_their_weight(index):
    assert ids_of(Ranker(remembering(words=0.01), words=index))[0] == "reset"
    assert ids_of(Ranker(remembering(words=1.0), words=index))[0] == "error"
    assert ids_of(Ranker(remembering(words=1.0), words=False)) == IDS


def test_remembered_answers_count_where_the_query_is_alike():
    ranker = Ranker(remembering(answers=2.0), words=False)
    assert ids_of(ranker, vector=(1.0, 0.0))[0] == "manual"
    assert ids_of(ranker, vector=(0.0, 1.0)) == IDS, "nothing alike was asked"
    assert ids_of(Ranker(remembering(answers=2.0), words=False, answers=False), vector=(1.0, 0.0)) == IDS


def test_words_and_answers_bring_documents_that_the_store_did_not_find(index):
    ranker = Ranker(remembering(words=2.0, answers=2.0), words=index)
    query = ranker.query("fuse E-1234", [1.0, 0.0])
    shortlist = query.rank(["reset", "invoice"], [0.9, 0.5], query.words(100), {"reset": 1, "invoice": 2})
    assert shortlist.ids[:2] == ["error", "manual"]
    assert shortlist.missing(3) == ["error", "manual"]
    shortlist.add(["error", "manual"], {"error": 3})  # the other one is gone, or a filter forbids it
    assert "manual" not in shortlist.ids
    assert not shortlist.missing(3)
    ((document, choice), *others) = shortlist.best(3)
    assert (document, choice.id, choice.found) == (3, "error", False)
    assert choice.evidence["vector"].score == pytest.approx(0.5), "the lowest that the store found"
    assert choice.evidence["vector"].rank is None
    assert choice.evidence["words"].rank == 1
    assert choice.to_json()["words"] == {"score": choice.evidence["words"].score, "rank": 1}
    assert [choice.found for _, choice in others] == [True, True]
    assert ids_of(ranker, vector=(1.0, 0.0), found=["reset", "invoice"], others=False) == ["reset", "invoice"]


def test_without_scores_the_usual_cosines_stand_in(index):
    usual = np.array([0.8, 0.6, 0.1], dtype=np.float32)
    query = Ranker(remembering(words=0.1, cosines=usual), words=index).query("router", [0.0, 1.0])
    choices = {choice.id: choice for choice in query.rank(IDS, None, query.words(100)).choices()}
    assert [choices[name].evidence["vector"].score for name in IDS] == pytest.approx([0.8, 0.6, 0.1, 0.1])
    bare = Ranker(remembering(words=0.001), words=index).query("nothing", [0.0, 1.0])
    assert bare.rank(IDS).ids == IDS


def test_where_vectors_count_alone_the_transform_alone_serves(index):
    turn = np.array([[0, 1], [0, 0]], dtype=np.float32)
    adapter = QueryAdapter(2, linear=-turn, ranking=Ranking(words=1.0, linear=turn))
    ranked, alone = adapter.for_ranking().transform([1.0, 0.0]), adapter.transform([1.0, 0.0])
    assert not np.allclose(ranked, alone)
    np.testing.assert_allclose(Ranker(adapter, words=index).query("router", [1.0, 0.0]).vector, ranked)
    for query in (
        Ranker(adapter, words=False).query("router", [1.0, 0.0]),
        Ranker(adapter).query("router", [1.0, 0.0]),  # there is no index
        Ranker(adapter, words=index).query("router", [1.0, 0.0], vectors_alone=True),
    ):
        assert query.vectors_alone
        np.testing.assert_allclose(query.vector, alone)
    # A ranking that leaves words and answers out was chosen so.
    chosen = QueryAdapter(2, linear=-turn, ranking=Ranking(linear=turn))
    np.testing.assert_allclose(Ranker(chosen, words=index).query("router", [1.0, 0.0]).vector, ranked)


def test_nothing_found_is_nothing_ranked(index):
    query = Ranker(remembering(words=1.0), words=index).query("xylophone", [0.0, 1.0])
    assert query.rank([], [], query.words(100)).ids == []


def test_a_model_without_its_word_index_serves_without_words_and_says_so_once(tmp_path, caplog):
    folder = ModelFolder(tmp_path / "models")
    folder.save_model("m", remembering(words=1.0))
    folder.use("m")
    ranker = Ranker(folder)
    with caplog.at_level(logging.WARNING):
        assert [ids_of(ranker) for _ in range(3)] == [IDS] * 3
    assert [record.message for record in caplog.records if "there is no word index" in record.message] == [
        caplog.records[0].message
    ]
    WordIndex.build(folder.words_path, [(IDS, list(TEXTS.values()))], language="en")
    assert ids_of(ranker)[0] == "error", "an index that is built later serves the next query"


def test_a_search_by_words_other_than_the_trained_one_is_not_weighed(caplog):
    class Mine:
        def search(self, text, k, filter=None):
            return Found(["error"], np.array([1e9], dtype=np.float32))

    with caplog.at_level(logging.WARNING):
        assert ids_of(Ranker(remembering(words=1.0), words=Mine())) == IDS
    assert "was trained with the words of a WordIndex, and a Mine gives other scores" in caplog.text
    assert ids_of(Ranker(remembering(words=1.0, search="Mine"), words=Mine()))[0] == "error"


class Scored:
    """A search of the user's own."""

    def __init__(self, ids, scores):
        self.ids, self.scores = ids, scores

    def search(self, text, k, filter=None):
        return Found(self.ids, self.scores)


@pytest.mark.parametrize(
    ("ids", "scores"),
    [
        (["error", "manual"], [2.0, 1.0]),  # a list
        (["manual", "error"], np.array([1.0, 2.0])),  # not in order
        (["error", "manual", "error"], np.array([2.0, 1.0, 0.5])),  # twice
        (["reset", "error", "manual"], np.array([np.nan, 2.0, 1.0])),
        (["reset", "error", "manual"], np.array([1e300, 2.0, 1.0])),
        (["error", "manual"], [-7.0, -8.0]),  # logarithms of probabilities, for one
        (["error", "manual"], [0.5, -0.5]),
    ],
)
def test_a_search_of_the_users_own_is_put_in_order(ids, scores):
    query = Ranker(remembering(words=1.0, search="Scored"), words=Scored(ids, scores)).query("fuse", [0.0, 1.0])
    choices = query.rank(IDS, COSINES, query.words(10)).choices()
    assert [choice.id for choice in choices] == ["error", "manual", "reset", "invoice"]
    assert [choice.evidence["words"].rank for choice in choices] == [1, 2, None, None]


@pytest.mark.parametrize("by_rank", [False, True])
def test_what_a_search_finds_ranks_above_what_it_does_not_find_whatever_the_scores(by_rank):
    model = remembering(words=1.0, search="Scored", by_rank=by_rank)
    for scores in ([-2.0], [-2.0, -2.0], [3.0, -2.0]):
        found = IDS[: len(scores)]
        query = Ranker(model, words=Scored(found, scores)).query("fuse", [0.0, 1.0])
        choices = {choice.id: choice for choice in query.rank(IDS, [0.5] * 4, query.words(10)).choices()}
        assert list(choices) == IDS
        lowest = min(choices[name].evidence["words"].score for name in found)
        assert lowest > choices[IDS[-1]].evidence["words"].score == 0
        assert choices[found[-1]].score > choices[IDS[-1]].score


@pytest.mark.parametrize(
    ("ids", "scores", "message"),
    [
        (["a", "b"], [1.0], r"Scored returned 2 ids and scores of the shape \(1,\)"),
        ([1, 2], [2.0, 1.0], "Scored returned the id 1, which is no string"),
        (["a"], ["high"], "Scored returned Found"),
    ],
)
def test_a_search_of_the_users_own_that_returns_something_else_is_told_so(ids, scores, message):
    query = Ranker(remembering(words=1.0, search="Scored"), words=Scored(ids, scores)).query("fuse", [0.0, 1.0])
    with pytest.raises(StoreError, match=message):
        query.words(10)


def test_an_index_older_than_the_store_is_told_once(index, caplog):
    ranker = Ranker(remembering(words=1.0), words=index)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            ids_of(ranker, found=["new page", *IDS], cosines=[0.95, *COSINES])
    assert caplog.text.count("is older than the store: it lacks the document 'new page'") == 1


def test_a_ranker_follows_the_model_in_use(tmp_path, index):
    folder = ModelFolder(tmp_path / "models")
    for name, adapter in (("plain", QueryAdapter(2)), ("words", remembering(words=1.0))):
        folder.save_model(name, adapter)
    folder.use("plain")
    ranker = Ranker(folder, words=index)
    assert ids_of(ranker) == IDS
    folder.use("words")
    assert ids_of(ranker)[0] == "error"


def test_a_query_names_the_model_that_ranked_it(tmp_path):
    folder = ModelFolder(tmp_path)
    for name in ("a", "b"):
        folder.save_model(name, QueryAdapter(2))
    folder.use("a")
    ranker = Ranker(tmp_path)
    query = ranker.query("text", [1.0, 0.0])
    folder.use("b")
    assert (query.model, ranker.query("text", [1.0, 0.0]).model) == (f"a in {tmp_path}", f"b in {tmp_path}")
    (tmp_path / "current").unlink()
    assert ranker.query("text", [1.0, 0.0]).model == f"b in {tmp_path}", "which serves on"


def test_remembered_answers_grow_and_are_forgotten():
    adapter = remembering(answers=2.0)
    documents = {"invoice": [0.0, 1.0]}
    grown = adapter.remember([[0.0, 1.0]], Relevance(["a bill?"], [[("invoice", 1.0)]], ["q2"]), documents)
    assert ids_of(Ranker(grown, words=False))[0] == "invoice"
    assert ids_of(Ranker(grown.forget(query_ids=["q2"]), words=False)) == IDS
    for less in (adapter.without_answers(), adapter.linear_only()):
        assert ids_of(Ranker(less, words=False), vector=(1.0, 0.0)) == IDS
        assert b"manual" not in less.to_bytes()


def test_a_word_index_goes_through_a_pickle(index):
    again = pickle.loads(pickle.dumps(index))
    assert ids_of(Ranker(remembering(words=1.0), words=again))[0] == "error"


def test_several_vectors_of_one_query_are_transformed_each_and_the_mean_is_taken():
    linear = np.array([[0, 1], [0, 0]], dtype=np.float32)
    ranker = Ranker(QueryAdapter(2, ranking=Ranking(words=1.0, linear=linear)), words=False)
    first, second = (np.array(ranker.query("", vector).vector) for vector in ([5.0, 0.0], [0.0, 2.0]))
    mean = (first + second) / np.linalg.norm(first + second)
    np.testing.assert_allclose(ranker.query("", [[5.0, 0.0], [0.0, 2.0]]).vector, mean, atol=1e-6)
    np.testing.assert_allclose(ranker.query("", [[5.0, 0.0]]).vector, first)
    with pytest.raises(InvalidVectorsError, match="Mean of the query vectors 0 is all zeros"):
        Ranker(QueryAdapter(2)).query("", [[1.0, 0.0], [-1.0, 0.0]])


def test_words_may_be_changed_at_any_time(index):
    ranker = Ranker(QueryAdapter(2, ranking=Ranking(words=1.0)), words=False)
    assert ranker.query("router", [1.0, 0.0]).vectors_alone
    ranker.words = index
    assert not ranker.query("router", [1.0, 0.0]).vectors_alone


class Retriever:
    def invoke(self, text):
        return []


@pytest.fixture
def folder(tmp_path):
    """A folder with a model that ranks by words and answers."""
    folder = ModelFolder(tmp_path)
    folder.save_model("one", QueryAdapter(2, ranking=Ranking(words=0.5, answers=0.25)))
    folder.use("one")
    return folder


def test_a_ranker_of_other_evidence_reads_and_checks_nothing_again(folder):
    ranker = Ranker(folder)
    assert ranker.using() is ranker
    other = ranker.using(words=False, answers=False)
    assert other.served is ranker.served
    assert (other.wants_words, other.answers) == (False, False)
    assert (ranker.wants_words, ranker.answers) == (True, True), "the first is left alone"


def test_the_transform_for_searches_is_made_once_a_model(folder, monkeypatch):
    made = []
    make = QueryAdapter.for_ranking
    monkeypatch.setattr(QueryAdapter, "for_ranking", lambda self: made.append(self) or make(self))
    WordIndex.build(folder.words_path, [(["a"], ["a word"])])
    ranker = Ranker(folder)
    for _ in range(3):
        ranker.query("q", [1.0, 0.0])
        ranker.using(answers=False).query("q", [1.0, 0.0])
    assert len(made) == 1
    folder.save_model("two", QueryAdapter(2, ranking=Ranking(words=0.5)))
    folder.use("two")
    ranker.query("q", [1.0, 0.0])
    assert len(made) == 2


def test_the_order_of_the_search_stands_where_nothing_else_counts():
    for weight in (0.0, 1.0):
        query = Ranker(QueryAdapter(2, ranking=Ranking(weight, words=1.0)), words=False).query("q", [1.0, 0.0])
        assert query.vectors_alone


def test_a_description_leaves_out_what_does_not_count(folder):
    ranker = Ranker(folder)
    assert ranker.describe() == "vector + 0.25 answers(τ=0.1)", "there is no word index"
    WordIndex.build(folder.words_path, [(["a"], ["a word"])])
    assert ranker.describe() == "vector + 0.5 words + 0.25 answers(τ=0.1)"
    assert ranker.using(words=RetrieverWords(Retriever())).describe() == "vector + 0.25 answers(τ=0.1)", "other scores"
    assert ranker.using(words=False, answers=False).describe() == "vector"
    assert Ranker(QueryAdapter(2)).describe() == "vector"
    assert Ranker(QueryAdapter(2, ranking=Ranking(0.0, words=1.0))).describe() == "vector", "the order of the search"
    empty = ModelFolder(folder.path / "empty")
    assert Ranker(empty).describe() == "vector", "queries are served as they are"
    with pytest.raises(NotTrainedError):
        Ranker(empty, untrained="error").describe()


def test_documents_without_ids_are_ranked_and_not_taken_for_new_ones(folder, caplog):
    WordIndex.build(folder.words_path, [(["a", "b", "c"], ["one word", "another text", "something else"])])
    with caplog.at_level(logging.WARNING):
        query = Ranker(folder).query("word", [1.0, 0.0])
        names = [f"{NAMELESS}{row}" for row in range(2)]
        assert query.rank([names[0], "a", names[1]], [0.9, 0.8, 0.7]).ids == ["a", *names]
    assert caplog.messages == []


def test_words_may_bring_more_documents_than_the_search_found(folder):
    WordIndex.build(folder.words_path, [(["a", "b", "c"], ["one word", "another word", "something else"])])
    query = Ranker(folder).query("word", [1.0, 0.0])
    assert sorted(query.rank(["c"], [0.1], query.words(3)).ids) == ["a", "b", "c"]


def test_a_ranker_of_a_folder_can_be_copied_and_pickled(folder):
    WordIndex.build(folder.words_path, [(["a", "b"], ["one word", "another text"])])
    for memory in (folder, str(folder.path)):
        ranker = Ranker(memory)
        assert ids_of(ranker, "another", (1.0, 0.0), ["a", "b"], [0.41, 0.4])[0] == "b"
        for other in (copy.deepcopy(ranker), pickle.loads(pickle.dumps(ranker))):
            assert ids_of(other, "another", (1.0, 0.0), ["a", "b"], [0.41, 0.4])[0] == "b"


def test_a_ranker_can_be_copied_and_pickled():
    ranker = Ranker(make_adapter(ranking=Ranking(answers=1.0)))
    for other in (copy.deepcopy(ranker), pickle.loads(pickle.dumps(ranker))):
        assert other.query("q", [1.0] * 4).vector == pytest.approx(ranker.query("q", [1.0] * 4).vector)


def test_what_was_judged_irrelevant_is_pushed_down_and_never_brought():
    adapter = remembering(answers=2.0)
    down = Relevance(["no good"], [[("reset", -1.0), ("gone", -1.0)]], ["down"])
    adapter = adapter.remember([[1.0, 0.1]], down, {"reset": [0.0, 1.0], "gone": [1.0, 1.0]})
    shortlist = Ranker(adapter, words=False).query("a question", [1.0, 0.1]).rank(IDS, COSINES)
    assert shortlist.ids[-1] == "reset"
    assert sorted(shortlist.ids) == sorted(IDS), "no search found the other document, and a vote against it does not"
    choice = next(choice for choice in shortlist.choices() if choice.id == "reset")
    assert choice.evidence["answers"].score < 0
    assert choice.evidence["answers"].rank is None
