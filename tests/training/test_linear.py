import numpy as np
import pytest
import torch

from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training import linear
from deepmem_integrations.training.attention import target_means
from deepmem_integrations.training.linear import DRAWN, HARD, SCALE, WHOLE, loss_gradient, train_linear
from tests.training.helpers import as_problem


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    queries, corpus = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    labels = LabelRows.of_rows([{0: 1.0, 3: 3.0}, {1: 1.0}, {2: 1.0}, {4: 2.0, 5: 2.0}, {6: 1.0}, {7: 1.0}])
    weight = torch.from_numpy(0.1 * rng.normal(size=(5, 5)).astype(np.float32)).requires_grad_()
    return torch.from_numpy(queries), torch.from_numpy(corpus), labels, weight


def moved(queries, weight):
    return torch.nn.functional.normalize(queries @ (torch.eye(5) + weight), dim=1)


def test_the_gradient_is_that_of_the_cross_entropy(batch):
    queries, corpus, labels, weight = batch
    target = torch.zeros(6, 9)
    for query in range(6):
        for row, gain in labels.weight_of(query).items():
            target[query, row] = gain
    loss = torch.nn.functional.cross_entropy(SCALE * moved(queries, weight) @ corpus.T, target / target.sum(1, keepdim=True))
    loss.backward()
    means = torch.from_numpy(target_means(labels, corpus.numpy()))
    torch.testing.assert_close(loss_gradient(queries, means, corpus, 0.0, weight.detach()), weight.grad)


def test_a_document_may_stand_for_several(batch):
    queries, corpus, labels, weight = batch
    means = torch.from_numpy(target_means(labels, corpus.numpy()))
    repeated = loss_gradient(queries, means, torch.cat([corpus, corpus[-1:], corpus[-1:]]), 0.0, weight.detach())
    counts = torch.tensor([0.0] * 8 + [np.log(3)], dtype=torch.float32)
    torch.testing.assert_close(loss_gradient(queries, means, corpus, counts, weight.detach()), repeated)


def test_the_steps_are_those_of_adamw(problem):
    given = as_problem(problem)
    targets = target_means(given.labels, given.corpus)
    pool = np.unique(given.labels.documents)
    assert len(pool) <= WHOLE
    ours = train_linear(given.queries, targets, given.labels, given.corpus, pool, given.near, epochs=2, seed=3)
    weight = torch.zeros(*2 * (given.queries.shape[1],), requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=linear.LEARNING_RATE, weight_decay=linear.WEIGHT_DECAY)
    rng = np.random.default_rng(3)
    for _ in range(2):
        order = rng.permutation(len(given.queries))
        for rows in np.split(order, range(linear.BATCH, len(order), linear.BATCH)):
            query = torch.from_numpy(given.queries[rows])
            scaled = SCALE * torch.nn.functional.normalize(query + query @ weight, dim=1)
            loss = torch.logsumexp(scaled @ torch.from_numpy(given.corpus[pool]).T, 1) - (
                scaled * torch.from_numpy(targets[rows])
            ).sum(1)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
    torch.testing.assert_close(torch.from_numpy(ours), weight.detach(), atol=2e-6, rtol=1e-3)


def test_training_starts_at_the_identity_and_depends_on_the_negatives(problem):
    given = as_problem(problem)
    pool = np.unique(given.labels.documents)
    once = train_linear(given.queries, given.targets, given.labels, given.corpus, pool, given.near, seed=0, epochs=1)
    often = given.linear("labelled")
    assert 0 < np.abs(once).max() < np.abs(often).max() < 1
    assert not np.array_equal(given.linear("corpus"), often), "other negatives, other gradient"


def test_hard_negatives_are_near_in_the_pool_and_not_labelled():
    labels = LabelRows.of_rows([{4: 1.0}, {2: 1.0, 5: 1.0}, {5: 1.0}])
    near = np.array([[4, 3, 2, 5], [2, 5, 4, 3], [3, 0, 1, 5]])
    assert linear._hard_negatives(labels, 6, np.array([2, 4, 5]), near).tolist() == [[2, 5], [4, -1], [-1, -1]]
    assert linear._hard_negatives(labels, 6, np.arange(6), near).tolist() == [[3, 2], [4, 3], [3, 0]]


def test_the_softmax_of_a_batch_stands_for_the_whole_pool():
    rng = np.random.default_rng(0)
    n = 4 * WHOLE
    corpus = rng.normal(size=(n, 8)).astype(np.float32)
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    queries = corpus[:50]
    labels = LabelRows.of_rows([{row: 1.0, row + 100: 1.0} for row in range(50)])
    near = np.argsort(-queries @ corpus.T, axis=1)[:, :10]
    softmax = linear._Softmax(labels, corpus, np.arange(n), near, np.random.default_rng(1))
    totals = []
    for _ in range(50):
        documents, counts = softmax.documents(np.arange(50))
        assert len(documents) <= 50 * (1 + HARD) + DRAWN
        assert float(counts.exp().sum()) == pytest.approx(n, rel=0.01), "every document is stood for"
        totals.append((torch.from_numpy(queries) @ documents.T * 5 + counts).exp().sum(dim=1).numpy())
    ratios = np.mean(totals, axis=0) / np.exp(queries @ corpus.T * 5).sum(axis=1)
    np.testing.assert_allclose(ratios, 1, atol=0.05)
    assert ratios.mean() == pytest.approx(1, abs=0.01)
