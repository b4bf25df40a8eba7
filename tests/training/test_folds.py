import numpy as np
import pytest

from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.folds import folds


@pytest.mark.parametrize("view", ["seen", "unseen"])
def test_folds_hold_every_query_out_once_and_unseen_ones_share_no_document(view):
    rng = np.random.default_rng(0)
    labels = LabelRows.of_rows([dict.fromkeys(rng.choice(40, size=2, replace=False).tolist(), 1.0) for _ in range(60)])
    held_out = []
    for fold in folds(labels, view, seed=0):
        held_out += fold.held.tolist()
        assert not set(fold.train) & set(fold.held)
        assert len(fold.train) + len(fold.held) == 60, "no query is left out, however labels connect them"
        for position, query in enumerate(fold.held):
            scored = fold.held_labels.weight_of(position).keys()
            assert scored
            assert scored | set(fold.answered[position]) == labels.weight_of(query).keys()
            if view == "unseen":
                assert not scored & set(fold.train_labels.documents.tolist())
    assert sorted(held_out) == list(range(60))


@pytest.mark.parametrize("view", ["seen", "unseen"])
def test_no_spelling_of_a_held_out_question_trains(view):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 25, size=60)
    labels = LabelRows.of_rows([{int(row): 1.0} for row in rng.integers(0, 40, size=60)])
    held_out = []
    for fold in folds(labels, view, seed=0, groups=groups):
        held_out += fold.held.tolist()
        assert not set(groups[fold.train]) & set(groups[fold.held])
        assert len(fold.train) > 10
        assert len(fold.train) == len(fold.train_labels)
    assert sorted(held_out) == list(range(60))


def test_without_spellings_the_folds_are_those_of_queries():
    labels = LabelRows.of_rows([{row: 1.0} for row in range(20)])
    order = np.random.default_rng(3).permutation(20)
    expected = [np.sort(part).tolist() for part in np.array_split(order, 3)]
    assert [fold.held.tolist() for fold in folds(labels, "seen", seed=3)] == expected


@pytest.mark.parametrize("view", ["seen", "unseen"])
def test_a_query_without_an_answer_trains_and_is_not_held_out(view):
    labels = LabelRows.of_rows([{row % 9: 1.0} if row % 4 else {} for row in range(40)])
    held_out = []
    for fold in folds(labels, view, seed=0):
        held_out += fold.held.tolist()
        assert fold.held_labels.labelled.all()
    assert sorted(held_out) == [row for row in range(40) if row % 4]
