import copy
import logging
import pickle

import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.errors import ModelNotFoundError
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.ranking import NAMELESS, Ranker
from deepmem_integrations.words import RetrieverWords, WordIndex
from tests.adapter.helpers import make_adapter


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
    ranker = Ranker(folder)
    for _ in range(3):
        ranker.query("q", [1.0, 0.0])
        ranker.using(words=False).query("q", [1.0, 0.0])
    assert len(made) == 1
    folder.save_model("two", QueryAdapter(2))
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
    with pytest.raises(ModelNotFoundError):
        Ranker(ModelFolder(folder.path / "empty")).describe()


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


def test_a_ranker_can_be_copied_and_pickled():
    ranker = Ranker(make_adapter(ranking=Ranking(answers=1.0)))
    for other in (copy.deepcopy(ranker), pickle.loads(pickle.dumps(ranker))):
        assert other.query("q", [1.0] * 4).vector == pytest.approx(ranker.query("q", [1.0] * 4).vector)
