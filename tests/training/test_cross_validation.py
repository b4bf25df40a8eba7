from dataclasses import replace

import numpy as np

from deepmem_integrations import Relevance
from deepmem_integrations.evaluation import score_rankings
from deepmem_integrations.training.candidates import CANDIDATES
from deepmem_integrations.training.cross_validation import cross_validate
from deepmem_integrations.training.folds import folds
from tests.problems import make_problem
from tests.training.helpers import as_problem


def test_cross_validation_scores_are_those_of_the_adapters_it_stands_for():
    made = make_problem(seed=3, documents=60, train=36, dimension=8)
    two_answers = [[*labels, (made.ids[row % 7], 2.0)] for row, labels in enumerate(made.train.relevance)]
    given = as_problem(replace(made, train=Relevance(made.train.queries, two_answers)))
    views = cross_validate(given, tick=lambda: None)
    for view in ("seen", "unseen"):
        for fold in folds(given.labels, view, given.seed):
            for index in range(0, len(CANDIDATES), 13):
                adapter = given.take(fold.train, fold.train_labels).fit(CANDIDATES[index])
                scores = adapter.transform(given.queries[fold.held]) @ given.corpus.T
                for position, documents in enumerate(fold.answered):
                    scores[position, documents] = -np.inf
                rankings = np.argsort(-scores, axis=1, kind="stable")
                expected = score_rankings(rankings, fold.held_labels, (10,))
                np.testing.assert_allclose(views[view].ndcg[index, fold.held], expected["ndcg@10"], atol=1e-5)
                np.testing.assert_allclose(views[view].recall[index, fold.held], expected["recall@10"], atol=1e-5)
