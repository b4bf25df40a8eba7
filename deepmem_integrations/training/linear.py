"""The linear part, which learns *how users ask* and carries over to documents that nobody has asked about yet."""

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.hardware import device

if TYPE_CHECKING:
    import torch

Negatives = Literal["labelled", "corpus"]
"""The documents that the softmax may push away.

``"labelled"`` takes only documents that have a label. Documents that nobody has asked for yet are then not treated as wrong, and
not pushed away. ``"corpus"`` takes every document, which separates a query's documents from all others.
"""

LEARNING_RATE = 3e-4
"""The learning rate of AdamW."""
WEIGHT_DECAY = 0.5
"""The decay of W towards 0, which draws the transform towards the identity."""
MOMENTS = (0.9, 0.999)
"""How slowly AdamW forgets the first and the second moment of the gradient."""
EPSILON = 1e-8
"""The least deviation by which AdamW divides."""
SCALE = 20.0
"""The inverse temperature of the softmax over cosines, as in sentence-transformers' MultipleNegativesRankingLoss."""
EPOCHS, MANY = 10, 2_000
"""How often each query takes part in a step, up to so many queries.

With more queries the number grows with their cube root, since they determine W better: on 8,000 made-up queries 16 epochs are
better than 10 by 1.6 points of nDCG@10, where more than 10 cost unseen answers of TAT-QA, which has 1,668 queries, 2 points.
"""
BATCH = 64
"""How many queries a batch has."""
WHOLE = 900
"""Up to so many documents, every batch's softmax runs over all of them."""
DRAWN = 500
"""How many other documents are drawn for a batch where there are more."""
_LEFT_OUT = np.float32(-1e4)
"""The logarithm of how many documents a document stands for that is left out."""
HARD = 2
"""How many of the nearest documents without its label each query of a batch adds to the softmax."""


def train_linear(
    queries: Vectors,
    targets: Vectors,
    labels: LabelRows,
    corpus: Vectors,
    pool: NDArray[np.int64],
    near: NDArray[np.int64],
    *,
    seed: int,
    epochs: int | None = None,
    parents: NDArray[np.int64] | None = None,
) -> Vectors:
    """Fit W in ``q ← unit(q + q W)`` by softmax cross-entropy over the documents of a pool, starting from W = 0.

    The target distribution of a query is its documents by weight. Let t be the weighted mean of their vectors, and s the
    scaled transformed query. The loss is then ``logsumexp(s · documents) − s · t``, so that no (n, N) matrix of targets is
    needed. Its gradient is two matrix products. AdamW (Loshchilov and Hutter 2019) takes the steps.

    A large pool is sampled for each batch: a labelled document and the nearest others of each query count as they are, and
    documents drawn at random stand for all the rest, with the logarithm of how many each of them stands for added to its score
    (sampled softmax, Bengio and Senécal 2008).

    Args:
        queries: (n, d) float32 unit rows, n ≥ 1.
        targets: (n, d) float32, the weighted mean document vector of each query.
        labels: The labels of the queries.
        corpus: (N, d) float32 unit rows.
        pool: (M,) int64, rows of the corpus, ascending. Every labelled document is among them.
        near: (n, m) int64, for each query the nearest rows of the corpus, best first.
        seed: Fixes the batches.
        epochs: How often each query takes part in a step: see `EPOCHS`.
        parents: (N,) int64, the parent of each document, where labels name parents. The other documents of a query's parents are
            left out of its softmax: they may answer the query, too.

    Returns:
        W, (d, d) float32.
    """
    import torch

    where = device()
    query, target = (torch.from_numpy(array).to(where) for array in (queries, targets))
    softmax = _Softmax(labels, corpus, pool, near, np.random.default_rng(seed), parents)
    # The large arrays of a step are written in place: to allocate them anew at each step would take longer than to compute them.
    weight, first, second, gradient, deviation = (torch.zeros(queries.shape[1], queries.shape[1], device=where) for _ in range(5))
    step = 0
    for _ in range(epochs or round(EPOCHS * max(1, len(queries) / MANY) ** (1 / 3))):
        order = softmax.rng.permutation(len(queries))
        for batch in np.split(order, range(BATCH, len(order), BATCH)):
            step += 1
            rows = torch.from_numpy(batch).to(where)
            loss_gradient(query[rows], target[rows], *softmax.documents(batch), weight, out=gradient)
            first.lerp_(gradient, 1 - MOMENTS[0])
            second.mul_(MOMENTS[1]).addcmul_(gradient, gradient, value=1 - MOMENTS[1])
            torch.sqrt(second, out=deviation).add_(EPSILON)
            rate = LEARNING_RATE * (1 - MOMENTS[1] ** step) ** 0.5 / (1 - MOMENTS[0] ** step)  # both moments started at 0
            weight.mul_(1 - LEARNING_RATE * WEIGHT_DECAY).addcdiv_(first, deviation, value=-rate)
    return np.asarray(weight.cpu().numpy())


def loss_gradient(
    queries: "torch.Tensor",
    targets: "torch.Tensor",
    documents: "torch.Tensor",
    counts: "torch.Tensor | float",
    weight: "torch.Tensor",
    *,
    out: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """Compute the gradient of the mean loss of a batch with respect to W, (d, d).

    Args:
        queries: (b, d) unit rows.
        targets: (b, d), the weighted mean document vector of each query.
        documents: (m, d) unit rows.
        counts: (m,) the logarithm of how many documents each document stands for, or 0; or (b, m), for each query.
        weight: (d, d) W.
        out: (d, d) where to write the gradient.
    """
    import torch

    moved = (queries @ weight).add_(queries)
    length = moved.norm(dim=1, keepdim=True).clamp_min(1e-12)
    moved /= length
    shares = (moved @ documents.T).mul_(SCALE).add_(counts).softmax(dim=1)
    pull = (shares @ documents - targets) * (SCALE / len(queries))
    pull = (pull - (pull * moved).sum(dim=1, keepdim=True) * moved) / length  # through the scaling to length 1
    return torch.mm(queries.T, pull, out=out)


class _Softmax:
    """The documents that the softmax of each batch runs over."""

    def __init__(
        self,
        labels: LabelRows,
        corpus: Vectors,
        pool: NDArray[np.int64],
        near: NDArray[np.int64],
        rng: np.random.Generator,
        parents: NDArray[np.int64] | None = None,
    ) -> None:
        import torch

        self.rng = rng
        self.parents = parents
        self.corpus = torch.from_numpy(corpus).to(device())
        self.pool = pool
        self.whole = self.corpus[torch.from_numpy(pool).to(device())] if len(pool) <= WHOLE else None
        self.drawn = torch.empty(BATCH * (1 + HARD) + DRAWN, corpus.shape[1], device=device())
        self.labels = labels
        self.sizes = np.diff(labels.starts)
        self.hard = _hard_negatives(labels, len(corpus), pool, near)

    def documents(self, batch: NDArray[np.int64]) -> "tuple[torch.Tensor, torch.Tensor | float]":
        """Return the vectors of a batch's documents, (m, d), and the logarithm of how many each stands for.

        The latter is (m,), or 0; or (b, m) where labels name parents.
        """
        import torch

        if self.whole is not None:
            return self.whole, 0.0 if self.parents is None else self._siblings(batch, self.pool, np.zeros(1, dtype=np.float32))
        labelled = self.labels.documents[
            self.labels.starts[batch] + (self.rng.random(len(batch)) * self.sizes[batch]).astype(int)
        ]
        hard = self.hard[batch].reshape(-1)
        own = np.unique(np.concatenate([labelled, hard[hard >= 0]]))
        drawn = self.pool[self.rng.integers(0, len(self.pool), DRAWN)]
        drawn = drawn[~np.isin(drawn, own)]
        counts = np.zeros(len(own) + len(drawn), dtype=np.float32)
        counts[len(own) :] = np.log((len(self.pool) - len(own)) / max(1, len(drawn)))
        chosen = np.concatenate([own, drawn])
        rows = torch.from_numpy(chosen).to(self.corpus.device)
        documents = torch.index_select(self.corpus, 0, rows, out=self.drawn[: len(rows)])
        if self.parents is not None:
            return documents, self._siblings(batch, chosen, counts)
        return documents, torch.from_numpy(counts).to(self.corpus.device)

    def _siblings(self, batch: NDArray[np.int64], rows: NDArray[np.int64], counts: NDArray[np.float32]) -> "torch.Tensor":
        """Leave the other documents of each query's parents out of its softmax: (b, m) from (m,) counts."""
        import torch

        assert self.parents is not None
        counts = np.array(np.broadcast_to(counts, (len(batch), len(rows))))
        for row, query in enumerate(batch.tolist()):
            own = self.labels[query][0]
            counts[row, np.isin(self.parents[rows], self.parents[own]) & ~np.isin(rows, own)] = _LEFT_OUT
        return torch.from_numpy(counts).to(self.corpus.device)


def _hard_negatives(labels: LabelRows, corpus_size: int, pool: NDArray[np.int64], near: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find for each query the nearest documents of the pool without its label, (n, HARD) int64; −1 where there are fewer."""
    inside = np.zeros(corpus_size, dtype=bool)
    inside[pool] = True
    own = labels.owners * corpus_size + labels.documents
    wrong = inside[near] & ~np.isin(np.arange(len(labels))[:, None] * corpus_size + near, own)
    best = np.argsort(~wrong, axis=1, kind="stable")[:, :HARD]
    return np.where(np.take_along_axis(wrong, best, axis=1), np.take_along_axis(near, best, axis=1), -1)
