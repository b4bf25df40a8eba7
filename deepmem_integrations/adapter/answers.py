"""Remembered answers: documents scored by the remembered queries that asked for them, exactly and by id."""

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.labels import LabelRows

PRIOR = 0.05
"""The weight of the prior belief that no document is an answer; a remembered query that equals the query has the weight 1."""


def answer_scores(
    keys: NDArray[np.int64], similarities: NDArray[np.float32], answers: LabelRows, temperature: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Score the documents that the remembered queries nearest to a query asked for, or judged irrelevant.

    A document's score is ``Σ kernel · weight / (Σ kernel + PRIOR)`` over the nearest keys, with the kernel
    ``exp((similarity − 1) / temperature)``: a kernel regression (Nadaraya 1964, Watson 1964) that is shrunk towards 0 where
    nothing alike was asked. So the answers count the less, the farther a query lies from all that was asked before.

    Args:
        keys: (k,) int64, the nearest keys, as `Attention.attend` finds them.
        similarities: (k,) float32, their similarities to the query.
        answers: The votes of all keys: see `RememberedQueries.answers`. A weight below 0 is a vote against a document.
        temperature: τ, above 0.

    Returns:
        (a,) int64, the documents as rows of the labels, in ascending order, and (a,) float32, their scores between −1 and 1.

    Example:
        >>> answers = LabelRows.of_rows([{0: 1.0, 1: 0.5}, {1: 1.0}])
        >>> documents, scores = answer_scores(np.array([0]), np.array([1.0], dtype=np.float32), answers, 0.1)
        >>> documents.tolist(), scores.round(2).tolist()
        ([0, 1], [0.949999988079071, 0.47999998927116394])
    """
    shares = vote_shares(similarities, temperature)
    sizes = answers.starts[keys + 1] - answers.starts[keys]
    ends = np.cumsum(sizes)
    entries = np.arange(ends[-1] if len(ends) else 0) + np.repeat(answers.starts[keys] - (ends - sizes), sizes)
    documents, place = np.unique(answers.documents[entries], return_inverse=True)
    votes = np.bincount(place.reshape(-1), weights=np.repeat(shares, sizes) * answers.weights[entries], minlength=len(documents))
    return documents, np.asarray(votes, dtype=np.float32)


def vote_shares(similarities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the share that each of the nearest remembered queries has in the answers; with the prior's share, they add up to 1.

    Args:
        similarities: (k,) float32, their similarities to the query.
        temperature: τ, above 0.

    Example:
        >>> vote_shares(np.array([1.0, 0.0], dtype=np.float32), 0.1).round(2).tolist()
        [0.949999988079071, 0.0]
    """
    kernel = np.exp((similarities - 1.0) / temperature)
    return np.asarray(kernel / (kernel.sum() + PRIOR), dtype=np.float32)
