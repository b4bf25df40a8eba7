"""The linear part, which learns *how users ask* and carries over to documents that nobody has asked about yet."""

from collections.abc import Collection
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
SCALE = 20.0
"""The inverse temperature of the softmax over cosines, as in sentence-transformers' MultipleNegativesRankingLoss."""
BATCH = 64
"""How many queries a batch has."""
MAX_NEGATIVES = 10_000
"""How many documents the softmax runs over, besides the labelled ones, where the corpus is larger than this."""


def negative_rows(negatives: Negatives, labels: LabelRows, corpus_size: int, seed: int) -> NDArray[np.int64]:
    """Return the corpus rows that the softmax runs over, in ascending order. Labelled documents are always among them."""
    labelled = np.unique(labels.documents)
    if negatives == "labelled":
        return labelled
    if corpus_size <= MAX_NEGATIVES:
        return np.arange(corpus_size)
    drawn = np.random.default_rng(seed).choice(corpus_size, MAX_NEGATIVES, replace=False)
    return np.union1d(labelled, drawn)


def train_linear(
    queries: Vectors, targets: Vectors, documents: Vectors, *, epochs: Collection[int], seed: int
) -> dict[int, Vectors]:
    """Fit W in ``q ← unit(q + q W)`` by softmax cross-entropy over the documents, starting from W = 0.

    The target distribution of a query is its documents by weight. Let t be the weighted mean of their vectors, and s the
    scaled transformed query. The loss is then ``logsumexp(s · documents) − s · t``, so that no (n, N) matrix of targets is
    needed.

    Args:
        queries: (n, d) float32 unit rows, n ≥ 1.
        targets: (n, d) float32, the weighted mean document vector of each query.
        documents: (M, d) float32 unit rows. Every labelled document is among them.
        epochs: The epochs after which to keep W.
        seed: Fixes the batches.

    Returns:
        Epoch → W, (d, d) float32.
    """
    import torch

    where = device()
    query, target, document = (torch.from_numpy(array).to(where) for array in (queries, targets, documents))
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device gets the same batches
    weight = torch.zeros(queries.shape[1], queries.shape[1], device=where, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    kept: dict[int, Vectors] = {}
    for epoch in range(1, max(epochs) + 1):
        for batch in torch.randperm(len(query), generator=generator).split(BATCH):  # type: ignore[no-untyped-call]
            loss = _loss(query[batch], target[batch], document, weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if epoch in epochs:
            kept[epoch] = weight.detach().cpu().numpy().copy()
    return kept


def _loss(queries: "torch.Tensor", targets: "torch.Tensor", documents: "torch.Tensor", weight: "torch.Tensor") -> "torch.Tensor":
    import torch

    scaled = SCALE * torch.nn.functional.normalize(queries + queries @ weight, dim=1)
    return (torch.logsumexp(scaled @ documents.T, dim=1) - (scaled * targets).sum(dim=1)).mean()
