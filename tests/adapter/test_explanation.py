import json

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.adapter import Explanation, RankedDocument, Ranking
from deepmem_integrations.errors import EmbeddingMismatchError


def test_explain_names_who_moved_a_query(grown_from, problem):
    explanation = grown_from.explain(problem.train_queries[5] * 7, top=3)
    first = explanation.influences[0]
    assert first.query_ids == (problem.train.query_ids[5],)
    assert first.texts == (problem.train.queries[5],)
    assert dict(first.documents) == dict(problem.train.labels[5])
    assert first.similarity == pytest.approx(1, abs=1e-3)
    assert len(explanation.influences) == 3
    shares = [influence.share for influence in grown_from.explain(problem.train_queries[5], top=100).influences]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    query = unit_rows(problem.train_queries[5:6], "query vector")[0]
    angle = np.degrees(np.arccos(grown_from.transform(query) @ query))
    assert explanation.degrees == pytest.approx(angle, abs=0.1)
    assert (explanation.linear_degrees > 0) == (grown_from.linear is not None)
    assert json.loads(json.dumps(explanation.to_json()))["influences"][0]["texts"] == [problem.train.queries[5]]
    assert repr(problem.train.queries[5]) in str(explanation)


def test_explain_without_attention_says_how_far_it_turned(grown_from, problem):
    explanation = grown_from.linear_only().explain(problem.test_queries[0])
    assert explanation.influences == ()
    assert explanation.attention_degrees == pytest.approx(0, abs=0.05)
    with pytest.raises(EmbeddingMismatchError):
        grown_from.explain(np.ones(3))


def ranking_by(adapter, ranking):
    return QueryAdapter(**(adapter._parts()._asdict() | {"ranking": ranking}))


def test_explain_names_the_remembered_queries_behind_the_answers(grown_from, problem):
    adapter = ranking_by(grown_from, Ranking(answers=0.5, answers_temperature=0.16))
    query = problem.train_queries[5]
    explanation = adapter.explain(query, top=3)
    assert explanation.influences == grown_from.explain(query, top=3).influences, "the transform's account stays"
    assert explanation.ranking == "vector + 0.5 answers(τ=0.16)"
    assert explanation.ranking_degrees == pytest.approx(0, abs=0.01), "this ranking searches with the query as it is"
    first = explanation.votes[0]
    assert (first.query_ids, first.texts) == ((problem.train.query_ids[5],), (problem.train.queries[5],))
    assert dict(first.documents) == dict(problem.train.labels[5])
    assert first.similarity == pytest.approx(1, abs=1e-3)
    assert 0.5 < first.share < 1
    answers = adapter.answers(query)
    assert [document.id for document in explanation.documents] == list(answers)[:3]
    best = explanation.documents[0]
    assert best.channels == {"answers": (answers[best.id], 1)}
    assert best.score == pytest.approx(0.5 * answers[best.id])
    told = json.loads(json.dumps(explanation.to_json()))
    assert told["documents"][0]["answers"] == {"score": pytest.approx(answers[best.id]), "rank": 1}
    assert told["votes"][0]["texts"] == [problem.train.queries[5]]
    assert told["ranking"] == explanation.ranking
    lines = str(explanation).splitlines()
    assert "a retriever ranks by vector + 0.5 answers(τ=0.16), with the query moved by 0.0°" in lines
    assert "remembered queries behind the answers:" in lines
    assert repr(problem.train.queries[5]) in lines[-len(explanation.votes)]


def test_far_from_all_that_was_asked_no_vote_is_named(grown_from, problem):
    adapter = ranking_by(grown_from, Ranking(answers=0.5, answers_temperature=0.01))
    explanation = adapter.explain(-problem.train_queries[5])
    assert explanation.votes == ()
    assert "remembered queries" not in str(explanation)


@pytest.mark.parametrize("ranking", [None, Ranking(words=1.0)], ids=["no ranking", "words"])
def test_answers_that_do_not_count_are_not_explained(grown_from, problem, ranking):
    explanation = ranking_by(grown_from, ranking).explain(problem.train_queries[5])
    assert (explanation.documents, explanation.votes) == ((), ())
    assert explanation.ranking == (None if ranking is None else "vector + words")


def test_the_table_has_a_row_for_each_document_and_a_column_for_each_channel():
    documents = (
        RankedDocument("git-revert", 1.5, {"vector": (0.61, 2), "words": (5.25, 1), "answers": (0.8, 1)}),
        RankedDocument("git-stash", 0.5, {"vector": (0.5, None), "words": (0.0, None), "answers": (0.1, 12)}),
    )
    explanation = Explanation(0, 0, 0, (), "vector + 0.05 words + 0.4 answers(τ=0.1)", 3.0, documents)
    assert str(explanation).splitlines()[1:] == [
        "a retriever ranks by vector + 0.05 words + 0.4 answers(τ=0.1), with the query moved by 3.0°",
        "     document      score           vector            words          answers",
        "  1  git-revert    1.500     0.610     #2     5.250     #1     0.800     #1",
        "  2  git-stash     0.500     0.500      –     0.000      –     0.100    #12",
    ]
