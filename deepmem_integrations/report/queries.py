"""Wins and losses: each test query with what was found before and after, and why."""

from typing import Any

import numpy as np

from deepmem_integrations.evaluation import TRANSFORM, WITH, WITHOUT, WORDS
from deepmem_integrations.report.material import MAIN, Material, rank_of

SHOWN = 3
"""How many documents are shown before and after."""
RIGHT = 5
"""How many right documents are shown with their ranks."""
SAME = 1e-9
"""From this difference of the scores on, a query is won or lost."""
TOP = 10
"""How many documents of each channel are compared, where channels disagree."""
TO_LABEL = 20
"""How many queries and documents are named to label next."""


def wins_and_losses(material: Material, *, texts: bool) -> list[dict[str, Any]]:
    """Describe every test query, the worst loss first.

    Args:
        material: The material.
        texts: Whether to give the texts of queries and documents.

    Returns:
        For each query its id, outcome, scores, documents and reasons.
    """
    scores = material.evaluation.per_query
    before, after = scores[WITHOUT][MAIN], scores[WITH][MAIN]
    differences = np.nan_to_num(after - before)
    order = np.argsort(differences, kind="stable").tolist()
    return [_describe(material, row, before[row], after[row], texts=texts) for row in order]


def _describe(material: Material, row: int, before: float, after: float, *, texts: bool) -> dict[str, Any]:
    found, right = material.evaluation.found, material.right[row]
    scored = bool(np.isfinite(before))
    difference = float(after - before) if scored else 0.0
    outcome = "unscored" if not scored else "win" if difference > SAME else "loss" if difference < -SAME else "same"
    old, new = found[WITHOUT][row], found[WITH][row]
    ranks = [{"id": name, "without": rank_of(name, old), "with": rank_of(name, new)} for name in right]
    ranks.sort(key=lambda entry: (entry["with"] or np.inf, entry["without"] or np.inf))

    def listed(names: list[str]) -> list[dict[str, Any]]:
        return [
            {"id": name, "right": name in right, "text": material.openings.get(name) if texts else None} for name in names[:SHOWN]
        ]

    return {
        "id": material.labels.query_ids[row],
        "query": material.labels.queries[row] if texts else None,
        "outcome": outcome,
        "seen": None if material.seen is None else bool(material.seen[row]),
        "ndcg@10": {"without": float(before), "with": float(after), "difference": difference} if scored else None,
        "right": ranks[:RIGHT],
        "further right": max(0, len(ranks) - RIGHT),
        "before": listed(list(old)),
        "after": listed(list(new)),
        "evidence": _evidence(material, row, texts=texts),
    }


def _evidence(material: Material, row: int, *, texts: bool) -> dict[str, Any]:
    """Tell at which rank each channel has the best right document and the one that comes first now, and which query is alike."""
    found, right = material.evaluation.found, material.right[row]
    new = list(found[WITH][row])
    channels = {"vectors": found[WITHOUT][row], "transform": found[TRANSFORM if TRANSFORM in found else WITH][row]}
    if WORDS in found:
        channels["words"] = found[WORDS][row]
    ranking = material.adapter.ranking
    if ranking is not None and ranking.answers:
        channels["answers"] = material.answered[row]
    best = min(right, key=lambda name: rank_of(name, new) or len(new) + 1, default=None)
    documents = [name for name in dict.fromkeys([best, *new[:1]]) if name is not None]
    explanation = material.adapter.explain(material.vectors[row], top=1)
    nearest = (*explanation.votes, *explanation.influences)
    alike = None
    if nearest:
        alike = {
            "id": nearest[0].query_ids[0],
            "query": nearest[0].texts[0] if texts and nearest[0].texts else None,
            "similarity": nearest[0].similarity,
            "documents": material.named(name for name, weight in nearest[0].documents.items() if weight > 0)[:RIGHT],
        }
    moved = explanation.degrees if explanation.ranking_degrees is None else explanation.ranking_degrees
    return {
        "degrees": moved,
        "documents": [
            {"id": name, "right": name in right, **{channel: rank_of(name, names) for channel, names in channels.items()}}
            for name in documents
        ],
        "alike": alike,
    }


def disagreements(material: Material, *, texts: bool) -> list[dict[str, Any]]:
    """Return the queries whose channels have the fewest documents in common, for which a label teaches most.

    The channels are the plain vectors, the words and the remembered answers. Their agreement is the mean share of the first 10
    documents that two of them have in common (of fewer, where a channel found fewer).
    """
    found = material.evaluation.found
    channels = [found[side] for side in (WITHOUT, WORDS) if side in found]
    ranking = material.adapter.ranking
    if ranking is not None and ranking.answers:
        channels.append(material.answered)
    if len(channels) < 2:
        return []
    agreement = []
    for row in range(len(material.labels)):
        lists = [set(names[row][:TOP]) for names in channels if len(names[row])]
        pairs = [(one, two) for place, one in enumerate(lists) for two in lists[place + 1 :]]
        shares = [len(one & two) / min(len(one), len(two)) for one, two in pairs]
        agreement.append(float(np.mean(shares)) if shares else 1.0)
    order = np.argsort(agreement, kind="stable")[:TO_LABEL].tolist()
    return [
        {
            "id": material.labels.query_ids[row],
            "query": material.labels.queries[row] if texts else None,
            "agreement": agreement[row],
            "ndcg@10": float(material.evaluation.per_query[WITH][MAIN][row]) if material.right[row] else None,
        }
        for row in order
        if agreement[row] < 1
    ]
