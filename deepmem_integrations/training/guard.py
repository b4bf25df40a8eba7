"""Choose the parts and their strength on queries that took no part in training, so that nobody is worse off.

Each candidate is scored in two views. *Seen*: queries held out at random, most of which ask for documents that training
queries asked for too; or the user's own validation queries. *Unseen*: documents are held out together with the queries that
ask for them, so that no training label names them. The choice is the best candidate in the seen view among those that hold
up in the unseen view.

It is the identity unless there is reason to believe the gain: either the labels agree with the vectors (queries lie nearer to
their own documents than to other queries' documents), or the choice beats the identity by more than chance. With few queries
a gain of a point or two cannot be told from chance, while labels that mean something can; labels that mean nothing to the
vectors, shuffled ones say, must prove themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.training.candidates import CANDIDATES, Candidate
from deepmem_integrations.training.cross_validation import HeldOut
from deepmem_integrations.training.folds import View

SIGNIFICANCE = 0.05
RESAMPLES = 1_000
AGREEMENT = 3.0
"""Standard errors by which queries must lie nearer to their own documents: chance reaches that once in 700 label sets."""
TOLERATED_HARM = 0.005
"""A candidate is out where the 95% interval of its difference to the identity lies below this, in nDCG@10 or recall@10."""
MAX_UNSEEN_LOSS = 1.0
"""Points; the default of ``max_unseen_loss``."""


@dataclass(frozen=True)
class Choice:
    """The chosen candidate and why."""

    candidate: Candidate
    reason: str


def choose(
    views: Mapping[View, HeldOut],
    *,
    agreement: float,
    max_unseen_loss: float | None = MAX_UNSEEN_LOSS,
    generated: bool = False,
    seed: int = 0,
) -> Choice:
    """Pick the best candidate in the seen view that holds up in the unseen view.

    Args:
        views: Of `cross_validate`.
        agreement: Of `label_agreement`.
        max_unseen_loss: Points (of 100) of nDCG@10 and of recall@10, each, that the choice may lie below the best candidate
            of the unseen view. None where nothing is unseen, since every document carries a label.
        generated: Whether a language model wrote the labels. Its questions are cleaner and cover more than people's: what
            counts is that their documents are found at all (recall@10), and loss on unseen answers is shown, not limited,
            unless ``max_unseen_loss`` says otherwise.
        seed: Fixes the bootstrap.
    """
    seen, unseen = views["seen"], views["unseen"]
    objective = seen.recall if generated else seen.objective
    allowed = np.ones(len(CANDIDATES), dtype=bool)
    best_unseen = int(unseen.objective.mean(axis=1).argmax())
    if max_unseen_loss is not None:
        for scores in (unseen.ndcg, unseen.recall):
            means = scores.mean(axis=1)
            allowed &= means >= means[best_unseen] - max_unseen_loss / 100
    for scores in (seen.ndcg, seen.recall, *(() if generated else (unseen.ndcg, unseen.recall))):
        allowed &= ~_surely_harmful(scores)
    allowed[0] = True

    best = int(np.where(allowed, objective.mean(axis=1), -np.inf).argmax())
    if best == 0:
        return Choice(CANDIDATES[0], f"no candidate did better than the identity on {seen.queries}")
    if agreement > AGREEMENT:
        belief = f"labels agree with the vectors, z = {agreement:.1f}"
    else:
        z, threshold = _max_statistic(seen.earned, best, seed)
        if not z > threshold:
            return Choice(
                CANDIDATES[0],
                f"the labels do not agree with the vectors (z = {agreement:.1f}, {AGREEMENT:g} is needed), and though "
                f"{CANDIDATES[best]} came out best on {seen.queries}, it did so by no more than chance "
                f"(z = {z:.1f}, where the best of {len(CANDIDATES) - 1} candidates needs {threshold:.1f})",
            )
        belief = f"z = {z:.1f}, chance reaches {threshold:.1f}"
    metric = "recall@10 " if generated else ""
    reason = f"best {metric}on {seen.queries} ({belief})"
    if max_unseen_loss is None:
        return Choice(CANDIDATES[best], reason)
    place = "best for unseen answers too"
    if best != best_unseen:
        place = f"within {max_unseen_loss:g} points of the best for unseen answers, {CANDIDATES[best_unseen]}"
    return Choice(CANDIDATES[best], f"{reason}, {place}")


def label_agreement(queries: Vectors, targets: Vectors) -> float:
    """By how many standard errors queries lie nearer to their own documents than to those of other queries.

    Args:
        queries: (n, d) float32 unit rows.
        targets: (n, d) float32, each query's mean document.
    """
    n = len(queries)
    if n < 2:
        return 0.0
    own = np.einsum("nd,nd->n", queries, targets, dtype=np.float64)
    others = (queries.astype(np.float64) @ targets.sum(axis=0, dtype=np.float64) - own) / (n - 1)
    return _z(own - others)


def _z(differences: NDArray[np.float64]) -> float:
    error = differences.std() / np.sqrt(len(differences))
    return float(differences.mean() / max(error, 1e-9))


def _surely_harmful(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(candidates,) whether the 95% interval of the paired difference to the identity lies wholly below what is tolerated."""
    difference = scores - scores[0]
    error = difference.std(axis=1) / np.sqrt(difference.shape[1])
    return np.asarray(difference.mean(axis=1) + 1.96 * error < -TOLERATED_HARM)


def _max_statistic(scores: NDArray[np.float64], best: int, seed: int) -> tuple[float, float]:
    """Compare one candidate's gain over the identity with what the luckiest of all candidates gains by chance.

    The largest studentised bootstrap deviation over the candidates gives the threshold (White's reality check, 2000;
    Hansen's studentised version, 2005), so that picking the winner is paid for. Each resample has a deviation of its own, for
    with few queries that is itself a matter of chance (bootstrap-t).

    Returns:
        The candidate's z, and the z that chance reaches in 5% of the resamples.
    """
    gains = scores[1:] - scores[0]
    n = gains.shape[1]
    mean = gains.mean(axis=1)
    error = np.maximum(gains.std(axis=1) / np.sqrt(n), 1e-9)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    means = drawn @ gains.T
    spread = np.sqrt(np.maximum(drawn @ (gains**2).T - means**2, 0))
    largest = ((means - mean) / np.maximum(spread / np.sqrt(n), 1e-9)).max(axis=1)
    return float(mean[best - 1] / error[best - 1]), float(np.quantile(largest, 1 - SIGNIFICANCE))
