from dataclasses import replace

import numpy as np
import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.adapter.answers import answer_scores
from deepmem_integrations.evaluation import score_rankings
from deepmem_integrations.training.candidates import rankings
from deepmem_integrations.training.cross_validation import HeldOut, cross_validate
from deepmem_integrations.training.folds import folds
from deepmem_integrations.training.words import QueryWords
from deepmem_integrations.words import WordIndex
from tests.problems import make_problem
from tests.training.helpers import as_problem


@pytest.fixture
def given(tmp_path):
    """Training data with two answers a query, and texts in which a word that queries share with their documents is rare."""
    made = make_problem(seed=3, documents=60, train=36, dimension=8)
    two_answers = [[*labels, (made.ids[row % 7], 2.0)] for row, labels in enumerate(made.train.relevance)]
    data = as_problem(replace(made, train=Relevance(made.train.queries, two_answers)))
    # No two documents are equally long, so that no two scores are equal.
    texts = [f"page about topic{row % 9} and part{row % 4}" + " filler" * row for row in range(len(made.ids))]
    queries = [f"where is topic{row % 9} part{row % 5}?" for row in range(len(data.queries))]
    index = WordIndex.build(tmp_path / "words", [(made.ids, texts)], language="en")
    words = QueryWords(index, queries, {name: row for row, name in enumerate(made.ids)}, made.ids)
    return replace(data, words=words)


def test_cross_validation_scores_are_those_of_the_adapters_it_stands_for(given):
    candidates = rankings(words=True)
    views = cross_validate(given, candidates, tick=lambda: None)
    # Every 61st candidate, and the last ones, which rank without vectors or by rank.
    some = [*range(0, len(candidates), 61), len(candidates) - 2, len(candidates) - 1, candidates.index(rankings(words=False)[-1])]
    words = np.stack([given.words.scores(row, np.arange(len(given.corpus))) for row in range(len(given.queries))])
    for view in ("seen", "unseen"):
        for fold in folds(given.labels, view, given.seed):
            for index in some:
                candidate = candidates[index]
                train = given.take(fold.train, fold.train_labels)
                adapter = train.fit(candidate)
                ranking = candidate.ranking(given.words.unit)
                queries = given.queries[fold.held]
                keys, _, similarities = adapter.attention.attend(queries)
                answers = np.zeros((len(queries), len(given.corpus)), dtype=np.float32)
                for row in range(len(queries)):
                    documents, scores = answer_scores(keys[row], similarities[row], train.labels, ranking.answers_temperature)
                    answers[row, documents] = scores
                cosines = adapter.transform(queries) @ given.corpus.T
                for position, documents in enumerate(fold.answered):
                    # They are taken out of all rankings, so that no rank counts them.
                    for channel in (cosines, words_of := words[fold.held], answers):
                        channel[position, documents] = -9 if channel is cosines else 0
                scores = ranking.score(cosines, words_of, answers)
                for position, documents in enumerate(fold.answered):
                    scores[position, documents] = -np.inf
                rows = np.argsort(-scores, axis=1, kind="stable")
                expected = score_rankings(rows, fold.held_labels, (10,))
                certain = [_no_tie(row) for row in scores]
                assert candidate.vector is False or candidate.by_rank or all(certain)
                for name, values in (("ndcg@10", views[view].ndcg), ("recall@10", views[view].recall)):
                    np.testing.assert_allclose(
                        values[index, fold.held][certain], expected[name][certain], atol=1e-5, err_msg=str(candidate)
                    )


def _no_tie(scores):
    """Tell whether the order of the best 10 is certain: equal scores come in any order."""
    return bool((np.diff(np.sort(scores)[::-1][:11]) < -1e-6).all())


def test_validation_queries_take_the_place_of_the_seen_view(given):
    validation = (given.queries[:12], given.labels.take(np.arange(12)), [given.words.texts[row] for row in range(12)])
    candidates = rankings(words=True)
    views = cross_validate(given, candidates, lambda: None, validation)
    assert views["seen"].ndcg.shape == (len(candidates), 12)
    assert views["seen"].queries == "validation queries"
    words_alone = next(index for index, candidate in enumerate(candidates) if str(candidate) == "words alone")
    plain = cross_validate(given, candidates, lambda: None)
    np.testing.assert_allclose(views["seen"].ndcg[words_alone], plain["seen"].ndcg[words_alone, :12], atol=1e-6)


def test_scores_of_a_question_are_the_mean_of_its_spellings():
    rng = np.random.default_rng(0)
    scores = HeldOut(*(rng.random(size=(3, 6)).astype(np.float32) for _ in range(4)), "queries")
    means = scores.by_question(np.array([4, 0, -1, 4, 2, 0]))
    for name in ("ndcg", "recall", "ndcg_by_chance", "recall_by_chance"):
        given = getattr(scores, name)
        expected = np.stack([given[:, [1, 5]].mean(axis=1), given[:, 4], given[:, [0, 3]].mean(axis=1)], axis=1)
        np.testing.assert_allclose(getattr(means, name), expected, rtol=1e-6)
    assert means.queries == "queries"
