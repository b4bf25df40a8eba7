"""The guard: it chooses a candidate on queries that took no part in its training, or the identity, so that nobody is worse off.

Each candidate is scored in two views. In the *seen* view, queries are held out at random, and most of them ask for documents that
training queries asked for, too; the user's own validation queries may take their place. In the *unseen* view, documents are held
out together with the queries that ask for them, so that no training label names them. The choice is the best candidate of the
seen view among those that hold up in the unseen view.

The choice is the identity unless there is reason to believe the gain. Either the labels agree with the vectors, so that queries
lie nearer to their own documents than to the documents of other queries; or the candidate beats the identity by more than chance.
With few queries, a gain of a point or two cannot be distinguished from chance, while meaningful labels can. Labels that the
vectors do not agree with, such as shuffled ones, must prove themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.training.candidates import Candidate
from deepmem_integrations.training.cross_validation import HeldOut, Values
from deepmem_integrations.training.folds import View

SIGNIFICANCE = 0.05
"""How often chance may pass for a gain."""
RESAMPLES = 1_000
"""How many resamples the bootstrap draws."""
AGREEMENT = 3.0
"""How many standard errors queries must lie nearer to their own documents; chance reaches 3 once in 700 sets of labels."""
TOLERATED_HARM = 0.005
"""How much worse than the identity a candidate may be: it is out where the whole 95% interval lies below that."""
ROUNDING = 1e-6
"""What float32 scores may be off by, so that a candidate exactly at a limit keeps it."""
MAX_UNSEEN_LOSS = 1.0
"""The default of ``max_unseen_loss``, in points."""


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, and the reason."""

    candidate: Candidate
    reason: str


def choose(
    views: Mapping[View, HeldOut],
    candidates: Sequence[Candidate],
    *,
    agreement: float,
    max_unseen_loss: float | None = MAX_UNSEEN_LOSS,
    generated: bool = False,
    seed: int = 0,
) -> Choice:
    """Choose the candidate that is best in the seen view among those that hold up in the unseen view.

    Args:
        views: The scores of `cross_validate`.
        candidates: The candidates, the identity first.
        agreement: The result of `label_agreement`.
        max_unseen_loss: How many points (of 100) of nDCG@10 and of recall@10, each, the choice may lie below the best candidate
            of the unseen view. None sets no limit, as where every document carries a label and nothing is unseen. A limit above
            the default of 1 is also what a candidate may lose there against the identity.
        generated: Whether a language model wrote the labels. Generated questions are cleaner and cover more than people's, so the
            choice is made by recall@10 alone, and loss on unseen answers is only limited by ``max_unseen_loss``.
        seed: Fixes the bootstrap.

    Returns:
        The chosen candidate, and the reason.
    """
    seen, unseen = views["seen"], views["unseen"]
    objective = seen.recall if generated else seen.objective
    allowed = np.ones(len(candidates), dtype=bool)
    best_unseen = int(unseen.objective.mean(axis=1).argmax())
    if max_unseen_loss is not None:
        for scores in (unseen.ndcg, unseen.recall):
            means = scores.mean(axis=1, dtype=np.float64)
            allowed &= means >= means[best_unseen] - max_unseen_loss / 100 - ROUNDING
    for scores in (seen.ndcg, seen.recall):
        allowed &= ~_surely_harmful(scores, TOLERATED_HARM)
    if not generated:
        # Who allows a larger loss than the default knows that answers repeat.
        asked = max_unseen_loss is not None and max_unseen_loss > MAX_UNSEEN_LOSS
        tolerated = max_unseen_loss / 100 if asked and max_unseen_loss is not None else TOLERATED_HARM
        for scores in (unseen.ndcg, unseen.recall):
            allowed &= ~_surely_harmful(scores, tolerated)
    allowed[0] = True

    best = int(np.where(allowed, objective.mean(axis=1), -np.inf).argmax())
    if best == 0:
        return Choice(candidates[0], f"no candidate did better than the identity on {seen.queries}")
    if agreement > AGREEMENT:
        belief = f"labels agree with the vectors, z = {agreement:.1f}"
    else:
        z, threshold = _max_statistic(seen.earned, best, seed)
        if not z > threshold:
            return Choice(
                candidates[0],
                f"the labels do not agree with the vectors (z = {agreement:.1f}, {AGREEMENT:g} is needed), and though "
                f"{candidates[best]} came out best on {seen.queries}, it did so by no more than chance "
                f"(z = {z:.1f}, where the best of {len(candidates) - 1} candidates needs {threshold:.1f})",
            )
        belief = f"z = {z:.1f}, chance reaches {threshold:.1f}"
    metric = "recall@10 " if generated else ""
    reason = f"best {metric}on {seen.queries} ({belief})"
    if max_unseen_loss is None:
        return Choice(candidates[best], reason)
    place = "best for unseen answers too"
    if best != best_unseen:
        points = "point" if max_unseen_loss == 1 else "points"
        place = f"within {max_unseen_loss:g} {points} of the best for unseen answers, {candidates[best_unseen]}"
    return Choice(candidates[best], f"{reason}, {place}")


def label_agreement(queries: Vectors, targets: Vectors) -> float:
    """Measure by how many standard errors queries lie nearer to their own documents than to the documents of other queries.

    Args:
        queries: (n, d) float32 unit rows.
        targets: (n, d) float32, the mean document of each query.
    """
    n = len(queries)
    if n < 2:
        return 0.0
    own = np.einsum("nd,nd->n", queries, targets, dtype=np.float64)
    others = (queries.astype(np.float64) @ targets.sum(axis=0, dtype=np.float64) - own) / (n - 1)
    return _z(own - others)


def _z(differences: Values) -> float:
    error = differences.std() / np.sqrt(len(differences))
    return float(differences.mean() / max(error, 1e-9))


def _surely_harmful(scores: Values, tolerated: float) -> NDArray[np.bool_]:
    """Tell which candidates are worse than the identity by more than is tolerated, in the whole 95% interval."""
    difference = scores - scores[0]
    error = difference.std(axis=1) / np.sqrt(difference.shape[1])
    return np.asarray(difference.mean(axis=1) + 1.96 * error < -tolerated)


def _max_statistic(scores: Values, best: int, seed: int) -> tuple[float, float]:
    """Compare a candidate's gain over the identity with the gain that the luckiest of all candidates has by chance.

    The largest studentised bootstrap deviation over the candidates gives the threshold (White's reality check, 2000, in Hansen's
    studentised version, 2005), so that picking the winner is paid for. The deviation is estimated anew in each resample, since
    with few queries it is itself a matter of chance (bootstrap-t).

    Returns:
        The z of the candidate, and the z that chance reaches in 5% of the resamples.
    """
    gains = scores[1:] - scores[0]
    n = gains.shape[1]
    mean = gains.mean(axis=1)
    error = np.maximum(gains.std(axis=1) / np.sqrt(n), 1e-9)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    means = drawn @ gains.T
    spread = np.sqrt(np.maximum(drawn @ (gains**2).T - means**2, 0))
    # A candidate that changes few queries may have no deviation at all in a resample, and no chance is that good.
    largest = ((means - mean) / np.maximum(spread / np.sqrt(n), error / 2)).max(axis=1)
    return float(mean[best - 1] / error[best - 1]), float(np.quantile(largest, 1 - SIGNIFICANCE))
