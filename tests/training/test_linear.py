import numpy as np
import torch

from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.attention import target_means
from deepmem_integrations.training.linear import MAX_NEGATIVES, negative_rows, train_linear
from tests.training.helpers import as_problem


def test_the_linear_loss_is_the_cross_entropy_it_claims_to_be():
    rng = np.random.default_rng(0)
    queries, corpus = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    labels = LabelRows.of_rows([{0: 1.0, 3: 3.0}, {1: 1.0}, {2: 1.0}, {4: 2.0, 5: 2.0}, {6: 1.0}, {7: 1.0}])
    weight = torch.from_numpy(0.1 * rng.normal(size=(5, 5)).astype(np.float32))
    from deepmem_integrations.training.linear import SCALE, _loss

    ours = _loss(torch.from_numpy(queries), torch.from_numpy(target_means(labels, corpus)), torch.from_numpy(corpus), weight)
    target = torch.zeros(6, 9)
    for query in range(6):
        for row, gain in labels.weight_of(query).items():
            target[query, row] = gain
    moved = torch.nn.functional.normalize(torch.from_numpy(queries) @ (torch.eye(5) + weight), dim=1)
    theirs = torch.nn.functional.cross_entropy(SCALE * moved @ torch.from_numpy(corpus).T, target / target.sum(1, keepdim=True))
    torch.testing.assert_close(ours, theirs)


def test_linear_training_starts_at_the_identity_and_keeps_the_asked_epochs(problem):
    given = as_problem(problem)
    kept = given.linear("labelled", (1, 3))
    assert set(kept) == {1, 3}
    assert 0 < np.abs(kept[1]).max() < np.abs(kept[3]).max() < 1
    alone = train_linear(given.queries, target_means(given.labels, given.corpus), given.corpus, epochs=(1,), seed=0)
    assert not np.array_equal(alone[1], kept[1]), "other negatives, other gradient"


def test_negatives_are_labelled_documents_or_the_corpus_or_a_sample_of_it():
    labels = LabelRows.of_rows([{5: 1.0}, {2: 1.0, 5: 1.0}])
    assert negative_rows("labelled", labels, 10, 0).tolist() == [2, 5]
    assert negative_rows("corpus", labels, 10, 0).tolist() == list(range(10))
    sampled = negative_rows("corpus", labels, 10 * MAX_NEGATIVES, 0)
    assert {2, 5} <= set(sampled.tolist())
    assert MAX_NEGATIVES <= len(sampled) <= MAX_NEGATIVES + 2
