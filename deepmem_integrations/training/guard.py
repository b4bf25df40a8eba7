"""The guard: it chooses a candidate on queries that took no part in its training, or the identity, so that nobody is worse off.

Each candidate is scored in two views. In the *seen* view, queries are held out at random, and most of them ask for documents that
training queries asked for, too; the user's own validation queries may take their place. In the *unseen* view, documents are held
out together with the queries that ask for them, so that no training label names them. The choice is the best candidate of the
seen view among those that hold up in the unseen view.

The choice is the identity unless there is reason to believe the gain. Either the labels agree with the vectors, so that queries
lie nearer to their own documents than to the documents of other queries; or the candidate beats the identity by more than chance.
With few queries, a gain of a point or two cannot be distinguished from chance, while meaningful labels can. Labels that the
vectors do not agree with, such as shuffled ones, must prove themselves. Where labels name only what was shown, as clicks do,
agreement tells nothing, and one usual candidate is tried before all others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.evaluation import Interval
from deepmem_integrations.training.candidates import Candidate
from deepmem_integrations.training.cross_validation import HeldOut, Values
from deepmem_integrations.training.folds import FOLDS, VIEWS, View

SIGNIFICANCE = 0.05
"""How often chance may pass for a gain."""
RESAMPLES = 1_000
"""How many resamples the bootstrap draws."""
AGREEMENT = 3.0
"""How many standard errors queries must lie nearer to their own documents; chance reaches 3 once in 700 sets of labels."""
SURELY = 2.0
"""How many standard errors the best candidate must be better than the usual one."""
TOLERATED_HARM = 0.005
"""How much worse than the identity a candidate may be: it is out where the whole 95% interval lies below that."""
ROUNDING = 1e-6
"""What float32 scores may be off by, so that a candidate exactly at a limit keeps it."""
MAX_UNSEEN_LOSS = 1.0
"""The default of ``max_unseen_loss``, in points."""
METRICS = ("ndcg", "recall")
"""The metrics that everything is chosen by, as `HeldOut` names them."""
TIE_BREAK = 0.01
"""The weight of nDCG@10 beside recall@10 where all labels are generated. Of few queries, many candidates have the same recall."""
RECHOICES = 200
"""In how many resamples of the queries the choice is made again, to know how much of its gain is luck."""

Shares = NDArray[np.float64]
"""(b, n) the share that each of n queries has in the means of each of b samples."""
Optimism = dict[tuple[View, str], float]
"""The view and the name of a metric → how much better a choice looks there than it is, because the best of many was taken."""


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, the reason, and how much of its gain in each view and metric is the luck of being chosen.

    The runner-up is the candidate that would have been chosen in place of this one, if any.
    """

    candidate: Candidate
    reason: str
    optimism: Optimism = field(default_factory=dict)
    runner_up: Candidate | None = None


def promised(gains: Values, optimism: float, learned: float = 0.0) -> Interval:
    """Bound the mean gain of a choice on queries to come.

    The interval is wider than that of a mean that nobody chose. It reaches further down by the luck of the choice, and further up
    because the held-out queries had two thirds of all queries to learn from: what is learned grows with the number of queries,
    and hardly ever faster than in proportion. Two half queries, one won and one lost, are added to the variance, because a sample
    of few queries in which nearly nothing changes has none (after Agresti and Min 2005). ``benchmarks/run promises`` compares the
    interval with test queries.

    Args:
        gains: (n,) the differences of the choice to the identity on held-out queries.
        optimism: The luck of the choice.
        learned: The part of the gain that grows with the number of training queries.

    Returns:
        The mean with its 95% interval.
    """
    n, mean = len(gains), float(gains.mean())
    reach = 1.96 * float(np.sqrt((((gains - mean) ** 2).sum() + 0.5) / (n * (n + 1))))
    return Interval(mean, max(-1.0, mean - optimism - reach), min(1.0, mean + max(0.0, learned) / (FOLDS - 1) + reach))


def choose(
    views: Mapping[View, HeldOut],
    candidates: Sequence[Candidate],
    *,
    agreement: float | None,
    max_unseen_loss: float | None = MAX_UNSEEN_LOSS,
    generated: bool = False,
    usual: Candidate | None = None,
    seed: int = 0,
) -> Choice:
    """Choose the candidate that is best in the seen view among those that hold up in the unseen view.

    Args:
        views: The scores of `cross_validate`.
        candidates: The candidates, the identity first.
        agreement: The result of `label_agreement`; None where users could only label what the vectors had found, so that it tells
            nothing.
        max_unseen_loss: How many points (of 100) of nDCG@10 and of recall@10, each, the choice may lie below the best candidate
            of the unseen view. None sets no limit, as where every document carries a label and nothing is unseen. A limit above
            the default of 1 is also what a candidate may lose there against the identity.
        generated: Whether a language model wrote the labels. Generated questions are cleaner and cover more than people's, so the
            choice is made by recall@10, nDCG@10 only breaks ties, and only ``max_unseen_loss`` limits the loss on unseen answers.
        usual: A candidate that is tried first, where labels tell little: see `_usual`.
        seed: Fixes the bootstrap.

    Returns:
        The chosen candidate, and the reason.
    """
    seen = views["seen"]
    best_of = partial(_best, views, max_unseen_loss=max_unseen_loss, generated=generated)
    even = {view: np.full((1, scores.ndcg.shape[1]), 1 / scores.ndcg.shape[1]) for view, scores in views.items()}
    best, best_unseen = (int(index[0]) for index in best_of(even))
    second = int(best_of(even, besides=best)[0][0])
    runner_up = None if second == best else candidates[second]

    def luck() -> Optimism:
        drawn = {view: _resamples(held_out.ndcg.shape[1], RECHOICES, seed) for view, held_out in views.items()}
        return _optimism(views, drawn, best_of(drawn)[0])

    if usual is not None:
        choice = _usual(views, candidates, candidates.index(usual), best, max_unseen_loss, seed)
        if choice is not None:  # what takes the place of the usual one was picked as the best of all
            return choice if choice.candidate == usual else replace(choice, optimism=luck())
    if best == 0 and (seen.objective[0] > 1 - 1e-6).all():
        nothing_left = f"every answer stands first without a model on {seen.queries}, so these labels leave nothing to gain"
        return Choice(candidates[0], f"{nothing_left}; they may name only what the search had shown first", runner_up=runner_up)
    if best == 0:
        return Choice(candidates[0], f"no candidate did better than the identity on {seen.queries}", runner_up=runner_up)
    if agreement is not None and agreement > AGREEMENT:
        belief = f"labels agree with the vectors, z = {agreement:.1f}"
    else:
        z, threshold = _max_statistic(seen.earned, best, seed)
        if not z > threshold:
            doubt = "the labels name only what the vectors had found"
            if agreement is not None:
                doubt = f"the labels do not agree with the vectors (z = {agreement:.1f}, {AGREEMENT:g} is needed)"
            return Choice(
                candidates[0],
                f"{doubt}, and though {candidates[best]} came out best on {seen.queries}, it did so by no more than chance "
                f"(z = {z:.1f}, where the best of {len(candidates) - 1} candidates needs {threshold:.1f})",
                runner_up=candidates[best],
            )
        belief = f"z = {z:.1f}, chance reaches {threshold:.1f}"
    metric = "recall@10 " if generated else ""
    reason = f"best {metric}on {seen.queries} ({belief})"
    optimism = luck()
    if max_unseen_loss is None:
        return Choice(candidates[best], reason, optimism, runner_up)
    place = "best for unseen answers too"
    if best != best_unseen:
        points = "point" if max_unseen_loss == 1 else "points"
        place = f"within {max_unseen_loss:g} {points} of the best for unseen answers, {candidates[best_unseen]}"
    return Choice(candidates[best], f"{reason}, {place}", optimism, runner_up)


def _best(
    views: Mapping[View, HeldOut],
    shares: Mapping[View, Shares],
    *,
    max_unseen_loss: float | None,
    generated: bool,
    besides: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the best candidate of the seen view among those that hold up, and the best candidate of the unseen view.

    Args:
        views: The scores of n queries in each view.
        shares: (b, n) for each view, the share that each query has in the means of each of b samples.
        max_unseen_loss: See `choose`.
        generated: See `choose`.
        besides: The row of a candidate that may not be chosen.

    Returns:
        (b,) and (b,) rows of the candidates. The first is 0, the identity, where no candidate holds up.
    """
    scores = {(view, metric): getattr(held, metric).astype(np.float64) for view, held in views.items() for metric in METRICS}
    means = {key: shares[key[0]] @ values.T for key, values in scores.items()}
    seen = means["seen", "recall"] + (TIE_BREAK if generated else 1.0) * means["seen", "ndcg"]
    seen[:, 0] += ROUNDING  # a sum that is rounded otherwise is no reason to move a query
    best_unseen = (means["unseen", "ndcg"] + means["unseen", "recall"]).argmax(axis=1)
    allowed = np.ones(seen.shape, dtype=bool)
    if max_unseen_loss is not None:
        for metric in METRICS:
            unseen = means["unseen", metric]
            least = np.take_along_axis(unseen, best_unseen[:, None], axis=1) - max_unseen_loss / 100 - ROUNDING
            allowed &= unseen >= least
    tolerated = TOLERATED_HARM
    for view in VIEWS[:1] if generated else VIEWS:
        if view == "unseen" and max_unseen_loss is not None and max_unseen_loss > MAX_UNSEEN_LOSS:
            tolerated = max_unseen_loss / 100  # who allows a larger loss than the default knows that answers repeat
        for metric in METRICS:
            allowed &= ~_surely_harmful(scores[view, metric], means[view, metric], shares[view], tolerated)
    allowed[:, 0] = True
    if besides is not None:
        allowed[:, besides] = False
    return np.where(allowed, seen, -np.inf).argmax(axis=1), best_unseen


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


def _surely_harmful(scores: Values, means: Values, shares: Shares, tolerated: float) -> NDArray[np.bool_]:
    """Tell which candidates are worse than the identity by more than is tolerated, in the whole 95% interval: (b, candidates)."""
    mean = means - means[:, :1]
    variance = np.maximum(shares @ ((scores - scores[0]) ** 2).T - mean**2, 0)
    return np.asarray(mean + 1.96 * np.sqrt(variance / scores.shape[1]) < -tolerated)


def _resamples(n: int, count: int, seed: int) -> Shares:
    """Draw bootstrap samples of n queries; both views, which have the same queries, get the same samples."""
    return np.asarray(np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=count) / n)


def _optimism(views: Mapping[View, HeldOut], shares: Mapping[View, Shares], chosen: NDArray[np.int64]) -> Optimism:
    """Measure how much better the choice looks on the queries that it is made on than on queries at large.

    In each resample a candidate is chosen. Its gain there is compared with its gain on all queries (Efron and Gong 1983).
    """
    optimism: Optimism = {}
    for view, held_out in views.items():
        for metric in METRICS:
            scores = getattr(held_out, metric).astype(np.float64)
            gains = (scores - scores[0])[chosen]
            optimism[view, f"{metric}@10"] = max(0.0, float(((gains * shares[view]).sum(axis=1) - gains.mean(axis=1)).mean()))
    return optimism


def _usual(
    views: Mapping[View, HeldOut],
    candidates: Sequence[Candidate],
    usual: int,
    best: int,
    max_unseen_loss: float | None,
    seed: int,
) -> Choice | None:
    """Try the usual candidate before all others, and choose it if it gains more than chance gives.

    Clicks tell little about each query, and the best of hundreds of candidates must be far better than the identity to be
    believed. A candidate that was named before anybody looked need only be better by more than chance gives *it*. The best one
    takes its place if it is better by `SURELY` standard errors: to take one of two good candidates for the other costs little.

    Returns:
        The choice; None where the usual candidate proves nothing, does harm in a view, or loses more than ``max_unseen_loss``
        points against the identity on unseen answers.
    """
    seen = views["seen"]
    z, threshold = _max_statistic(seen.earned[[0, usual]], 1, seed)
    harmful = False
    for view, held_out in views.items():
        for metric in METRICS:
            scores = getattr(held_out, metric)[[0, usual]].astype(np.float64)
            even = np.full((1, scores.shape[1]), 1 / scores.shape[1])
            means = even @ scores.T
            harmful |= bool(_surely_harmful(scores, means, even, TOLERATED_HARM)[0, 1])
            if view == "unseen" and max_unseen_loss is not None:
                harmful |= bool(means[0, 0] - means[0, 1] > max_unseen_loss / 100 + ROUNDING)
    if harmful or not z > threshold:
        return None
    reason = f"the usual choice, which holds on {seen.queries} (z = {z:.1f}, chance reaches {threshold:.1f})"
    if best not in (0, usual) and (better := _z(seen.earned[best] - seen.earned[usual])) > SURELY:
        reason = f"best on {seen.queries}, and better than the usual choice, {candidates[usual]}, by {better:.1f} standard errors"
        return Choice(candidates[best], reason, runner_up=candidates[usual])
    return Choice(candidates[usual], reason, runner_up=candidates[best] if best not in (0, usual) else None)


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
    drawn = _resamples(n, RESAMPLES, seed)
    means = drawn @ gains.T
    spread = np.sqrt(np.maximum(drawn @ (gains**2).T - means**2, 0))
    # A candidate that changes few queries may have no deviation at all in a resample, and no chance is that good.
    largest = ((means - mean) / np.maximum(spread / np.sqrt(n), error / 2)).max(axis=1)
    return float(mean[best - 1] / error[best - 1]), float(np.quantile(largest, 1 - SIGNIFICANCE))
