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
