"""The measures of a report: curves, what a training promised, what each channel brings, and how many documents are enough."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepmem_integrations.evaluation import WITH, WITHOUT, Interval
from deepmem_integrations.report.material import CUTOFFS, Material, as_json

REFERENCE = 10
"""The number of documents that contexts usually have, with which smaller numbers are compared."""
METRICS = ("recall", "ndcg")


def curves(material: Material) -> dict[str, Any]:
    """Measure recall@k and nDCG@k of every side, and the gains of the model, with their 95% intervals.

    Returns:
        View → its counts of queries and questions; ``scores``: side → metric@k → interval; and ``gains``: side → metric@k → the
        interval of the paired difference of the model to that side. A view without a query is None.
    """
    names = [f"{metric}@{k}" for metric in METRICS for k in CUTOFFS]
    scores = material.scores
    columns = {("scores", side, name): scores[side][name] for side in material.sides for name in names}
    columns |= {
        ("gains", side, name): scores[WITH][name] - scores[side][name]
        for side in material.sides
        if side != WITH
        for name in names
    }
    answer: dict[str, Any] = {}
    for view, rows in material.views.items():
        if not len(rows):
            answer[view] = None
            continue
        found: dict[str, Any] = {
            "queries": len(rows),
            "questions": material.questions(rows),
            "scores": {side: {} for side in material.sides},
            "gains": {side: {} for side in material.sides if side != WITH},
        }
        for (kind, side, name), interval in material.intervals(columns, rows).items():
            found[kind][side][name] = as_json(interval)
        answer[view] = found
    return answer


def promise(material: Material, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare the gains that the training measured on held-out queries with those on the test queries.

    Args:
        material: The material.
        measured: What `curves` returned.

    Returns:
        For each view and metric, the ``promised`` and the ``measured`` interval, which is None without such test queries, and
        whether the promise is ``kept``: the measured interval does not lie below the promised one.
    """
    report = material.model.report or {}
    held_out = report.get("ranking") if material.adapter.ranking is not None else report
    answer = []
    for view in ("seen", "unseen"):
        promised = (held_out or {}).get(view)
        if not promised:
            continue
        for metric in ("ndcg@10", "recall@10"):
            test = measured.get(view)
            gain = test["gains"][WITHOUT][metric] if test else None
            answer.append(
                {
                    "view": view,
                    "metric": metric,
                    "held out": promised["queries"],
                    "promised": dict(promised["gains"][metric]),
                    "measured": gain,
                    "kept": None if gain is None else gain["high"] >= promised["gains"][metric]["low"],
                }
            )
    return answer


def choice(material: Material) -> dict[str, Any]:
    """Return what the training chose, why, and what came second, and the held-out scores of each channel alone."""
    report = material.model.report or {}
    ranking = report.get("ranking") if material.adapter.ranking is not None else None
    weights = material.adapter.ranking
    return {
        "ranking": None if weights is None else str(weights),
        "weights": None
        if weights is None
        else {"vectors": float(weights.vector), "words": float(weights.words), "answers": float(weights.answers)},
        "chosen": (ranking or report).get("chosen"),
        "reason": (ranking or report).get("reason"),
        "transform": report.get("chosen"),
        "transform reason": report.get("reason"),
        "runner-up": (ranking or {}).get("runner_up"),
        "held-out channels": (ranking or {}).get("channels") or [],
        "transforms": report.get("candidates") or [],
    }


def advice(material: Material) -> dict[str, Any]:
    """Tell what each number of documents in a context finds and costs, with and without the model.

    Returns:
        ``rows`` with, for each k, the recall without and with the model, the mean length of the context of each, its price for
        1,000 queries, and ``against``: the interval of the recall of k documents with the model less that of 10 without.
        ``enough`` is the smallest k whose mean recall reaches that of 10 documents without the model; None where none does.
    """
    rows = material.views["all"]
    scores = material.evaluation.per_query
    before = scores[WITHOUT][f"recall@{REFERENCE}"]
    against = material.intervals({k: scores[WITH][f"recall@{k}"] - before for k in CUTOFFS}, rows)
    length = {side: _context(material, side) for side in (WITHOUT, WITH)}
    answer = []
    for k in CUTOFFS:
        answer.append(
            {
                "k": k,
                "recall": {side: float(np.nanmean(scores[side][f"recall@{k}"])) for side in (WITHOUT, WITH)},
                "context": {side: length[side].get(k) for side in (WITHOUT, WITH)},
                "price of 1,000 queries": {
                    side: material.length.cost(None if k not in length[side] else 1_000 * length[side][k])
                    for side in (WITHOUT, WITH)
                },
                "against": as_json(against[k]),
            }
        )
    enough = next((k for k in CUTOFFS if against[k].mean >= 0), None)
    return {
        "unit": material.length.unit,
        "price": material.length.price,
        "reference": REFERENCE,
        "enough": enough,
        "rows": answer,
    }


def _context(material: Material, side: str) -> dict[int, float]:
    """Return k → the mean length of the first k documents, as far as the lengths of all of them are known."""
    found = material.evaluation.found[side]
    if any(name not in material.lengths for names in found for name in names):
        return {}
    sums = [np.cumsum([0, *(material.lengths[name] for name in names)]) for names in found]
    return {k: float(np.mean([total[min(k, len(total) - 1)] for total in sums])) for k in CUTOFFS}


def outcome(gain: Mapping[str, float] | Interval) -> str:
    """Tell whether an interval is a ``gain``, a ``loss``, or ``open``, where it does not leave 0 out.

    Example:
        >>> outcome(Interval(0.1, 0.02, 0.2)), outcome(Interval(0.1, -0.02, 0.2))
        ('gain', 'open')
    """
    low, high = (gain.low, gain.high) if isinstance(gain, Interval) else (gain["low"], gain["high"])
    return "gain" if low > 0 else "loss" if high < 0 else "open"
