"""The answer of a report in one sentence, and where the model does not help."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepmem_integrations.evaluation import FEW, HYBRID, TRANSFORM, WITH, WITHOUT
from deepmem_integrations.report.material import CUTOFFS
from deepmem_integrations.report.measures import outcome

HEADLINES = ("recall@1", "recall@10", "ndcg@10")
"""The metrics of the figures beneath the sentence."""

LOST = {WITHOUT: "plain vectors", HYBRID: "the common hybrid"}

Gain = Mapping[str, float]


def points(value: float) -> str:
    """Write a share in points of 100."""
    return f"{100 * value:.1f}"


def signed(value: float) -> str:
    """Write a difference in points of 100, with its sign.

    Example:
        >>> signed(-0.0123)
        '−1.2'
    """
    text = f"{100 * value:+.1f}"
    return "0.0" if text[1:] == "0.0" else text.replace("-", "−")


def with_interval(gain: Gain) -> str:
    """Write a difference with its 95% interval, in points of 100."""
    return f"{signed(gain['mean'])} [{signed(gain['low'])}, {signed(gain['high'])}]"


def summarise(
    curves: Mapping[str, Any],
    queries: Sequence[Mapping[str, Any]],
    health: Mapping[str, Any],
    *,
    unchanged: bool,
    reason: str | None,
) -> dict[str, Any]:
    """Sum up what a model is worth.

    Args:
        curves: What `measures.curves` returned.
        queries: What `wins_and_losses` returned.
        health: What `labels_health` returned.
        unchanged: Whether the training chose to leave the results as they are.
        reason: Why the training chose what it chose, as far as it is known.

    Returns:
        ``verdict`` (``gain``, ``loss``, ``open``, or ``unchanged``), the ``sentence``, the ``figures``, and ``limits``: a list
        of sentences that say where the model does not help.
    """
    overall = curves["all"]
    gains, scores = overall["gains"], overall["scores"]
    recall, ndcg = gains[WITHOUT]["recall@10"], gains[WITHOUT]["ndcg@10"]
    verdicts = (outcome(recall), outcome(ndcg))
    figures = [
        {
            "metric": metric,
            "without": scores[WITHOUT][metric]["mean"],
            "with": scores[WITH][metric]["mean"],
            "gain": gains[WITHOUT][metric],
            "gain over hybrid": gains[HYBRID][metric] if HYBRID in gains else None,
        }
        for metric in HEADLINES
    ]
    if unchanged:
        verdict, sentence = "unchanged", "Training found nothing that helps, so results stay as they were."
    elif "loss" in verdicts and "gain" not in verdicts:
        metric = "recall@10" if verdicts[0] == "loss" else "ndcg@10"
        verdict = "loss"
        sentence = (
            f"The model makes these queries worse: {_name(metric)} falls from {points(scores[WITHOUT][metric]['mean'])} to "
            f"{points(scores[WITH][metric]['mean'])}, {with_interval(gains[WITHOUT][metric])} points."
        )
    elif "gain" in verdicts:
        metric = "recall@10" if verdicts[0] == "gain" else "ndcg@10"
        before, after = points(scores[WITHOUT][metric]["mean"]), points(scores[WITH][metric]["mean"])
        verdict, gain = "gain", with_interval(gains[WITHOUT][metric])
        if metric == "recall@10":
            sentence = f"Ten results now hold {after}% of the right documents where they held {before}%: {gain} points"
        else:
            sentence = f"Right documents rank higher: nDCG@10 rises from {before} to {after}, {gain} points"
        sentence += _beside_hybrid(gains, scores, metric)
    else:
        verdict = "open"
        sentence = (
            f"No gain can be shown: recall@10 is {points(scores[WITH]['recall@10']['mean'])} where plain vectors have "
            f"{points(scores[WITHOUT]['recall@10']['mean'])}, {with_interval(recall)} points"
        )
        sentence += _beside_hybrid(gains, scores, "recall@10")
    limits = _limits(curves, queries, health, unchanged=unchanged)
    if unchanged and reason:
        limits.insert(0, f"The reason: {reason}.")
    return {"verdict": verdict, "sentence": sentence, "figures": figures, "limits": limits}


def _name(metric: str) -> str:
    return metric.replace("ndcg", "nDCG")


def _beside_hybrid(gains: Mapping[str, Any], scores: Mapping[str, Any], metric: str) -> str:
    """End the sentence with the comparison to the common hybrid, which needs no labels."""
    if HYBRID not in gains:
        return "."
    gain, value = gains[HYBRID][metric], points(scores[HYBRID][metric]["mean"])
    kind = outcome(gain)
    if kind == "gain":
        return f", and {with_interval(gain)} over the common hybrid of vectors and words."
    if kind == "loss":
        return f", but the common hybrid of vectors and words does better, with {value}: {with_interval(gain)} against it."
    return f"; the common hybrid has {value}, a difference of {with_interval(gain)} that chance explains."


def _limits(
    curves: Mapping[str, Any], queries: Sequence[Mapping[str, Any]], health: Mapping[str, Any], *, unchanged: bool
) -> list[str]:
    gains, scores, limits = curves["all"]["gains"], curves["all"]["scores"], []
    if not unchanged:
        titles = {
            "seen": "whose answers training queries had asked for",
            "unseen": "whose answers no training query had asked for",
        }
        for view, title in titles.items():
            measured = curves.get(view)
            if not measured:
                continue
            count = f"{measured['queries']:,} {'query' if measured['queries'] == 1 else 'queries'}"
            for side, over in ((WITHOUT, ""), (HYBRID, " over the common hybrid")):
                gain = measured["gains"].get(side, {}).get("ndcg@10")
                if gain and outcome(gain) != "gain":
                    verb = (
                        f"No gain{over} is shown"
                        if outcome(gain) == "open"
                        else f"There is a loss{over or ' over plain vectors'}"
                    )
                    limits.append(f"{verb} on the {count} {title}: nDCG@10 {with_interval(gain)}.")
        for kind, words in (("loss", "It does worse in"), ("open", "Chance explains the difference in")):
            cutoffs = [k for k in CUTOFFS if outcome(gains[WITHOUT][f"recall@{k}"]) == kind]
            if cutoffs:
                limits.append(f"{words} recall at k = {_listed(cutoffs)}.")
        for side, title in ((HYBRID, "The common hybrid"), (TRANSFORM, "The transform alone")):
            worse = [m for m in HEADLINES if side in gains and outcome(gains[side][m]) == "loss"]
            if worse:
                pairs = (f"{_name(m)} ({points(scores[side][m]['mean'])} to {points(scores[WITH][m]['mean'])})" for m in worse)
                limits.append(f"{title} does better than the retriever in {', '.join(pairs)}.")
    lost = sum(query["outcome"] == "loss" for query in queries)
    won = sum(query["outcome"] == "win" for query in queries)
    if lost:
        limits.append(
            f"{lost:,} of {len(queries):,} queries rank their right documents lower than before; {won:,} rank them higher."
        )
    questions = curves["all"]["questions"]
    if questions < FEW:
        limits.append(f"The test has only {questions} different questions, so all intervals are wide and uncertain.")
    known = health["test"]["in the training too"]
    if known and not unchanged:
        limits.append(
            f"{known:,} of the {len(queries):,} test queries took part in the training, so the figures flatter the model: test "
            "on others."
        )
    return limits


def _listed(cutoffs: Sequence[int]) -> str:
    return ", ".join(map(str, cutoffs[:-1])) + (" and " if len(cutoffs) > 1 else "") + str(cutoffs[-1])
