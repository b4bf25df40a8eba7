"""`click_probabilities`: how likely an opened document is right. Users look at some ranks only, and open wrong ones, too."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DEEPEST = 50
"""The last rank that counts by itself. Lower ones are looked at as much as this one."""
NOISE, CERTAINTY = 0.1, 20.0
"""How readily a wrong document is opened beside a right one, before anything is known, and how many looks that is worth."""
REPEATED = 50
"""How many documents that were opened must have been shown again to know how readily wrong ones are opened at each rank."""
_ROUNDS = 200
_CONVERGED = 1e-4

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


class Looks(NamedTuple):
    """A list of documents that was shown once, and what was opened.

    Attributes:
        question: What was asked; the same for all who ask the same.
        shown: The ids of the documents by rank; None for a document without an id.
        opened: The ids of those that were opened.
    """

    question: Hashable
    shown: Sequence[str | None]
    opened: Collection[str]


def question_of(text: str | None, tenant: str | None = None) -> Hashable:
    """Return what two queries have in common that ask the same, but for case and spaces, of one tenant's documents."""
    return " ".join((text or "").casefold().split()), tenant


def as_on_page(shown: Sequence[str | None], places: Mapping[str, int | None]) -> list[str | None]:
    """Return what was shown by rank, where a page showed what was opened at other ranks than the search, as a reranker may do.

    Args:
        shown: The ids of the documents by rank, as the search found them; None for a document without an id.
        places: Document that was opened → its rank on the page, from 1; None where nobody told, which is the rank of the search.
            Ranks below `DEEPEST` count as one below it.

    Returns:
        The documents by rank: those that were opened where they were, and the others around them in their order.

    Example:
        >>> as_on_page(["a", "b", "c", "d"], {"c": 1, "x": 3}), as_on_page(["a"], {"b": 3})
        (['c', 'a', 'x', 'b', 'd'], ['a', None, 'b'])
    """
    told = {name: place for name, place in places.items() if place is not None}
    rest, page = [name for name in shown if name not in told], list[str | None]()
    for name in sorted(told, key=lambda one: told[one]):
        while len(page) + 1 < min(told[name], DEEPEST + 1):
            page.append(rest.pop(0) if rest else None)
        page.append(name)
    return page + rest


def click_probabilities(looks: Iterable[Looks]) -> dict[Hashable, dict[str, float]]:
    """Estimate how likely each document that was opened answers its question.

    The model is position-based (Craswell, Zoeter, Taylor and Ramsey 2008): a user looks at a rank with some probability, whatever
    stands there, and opens what is right, and, more rarely, what is wrong. How much users look at each rank, how often they open
    wrong documents, and how often documents at each rank are right follow from the data by expectation maximisation. Where a
    question is asked again and again, a document that one user opened and many passed over is told from one that all open.

    Args:
        looks: What was shown and opened; of questions of which nothing was opened, nothing is needed.

    Returns:
        Question → document → probability, up to 1, of the documents that were opened. It is 0 where it would be below a half.
        Of a document that nobody passed over this is believed once `REPEATED` others were shown again.

    Example:
        >>> shown = ["a", "b", "c"]
        >>> asked = [Looks("how?", shown, ["b"])] * 9 + [Looks("how?", shown, ["a"])]
        >>> asked += [Looks(f"question {n}", shown, ["a"]) for n in range(30)]
        >>> found = click_probabilities(asked)["how?"]
        >>> found["a"], round(found["b"], 1)
        (0.0, 1.0)
    """
    pairs: dict[tuple[Hashable, str], int] = {}
    cells: dict[tuple[int, int], list[int]] = {}
    for question, shown, opened in looks:
        places: dict[str, int] = {}
        for rank, name in enumerate(shown):
            if name is not None:
                places.setdefault(name, min(rank, DEEPEST - 1))
        for name, rank in places.items():
            cell = cells.setdefault((pairs.setdefault((question, name), len(pairs)), rank), [0, 0])
            cell[0] += 1
            cell[1] += name in opened
    if not cells:
        return {}
    pair, rank = np.array(list(cells), dtype=np.int64).T
    seen, clicked = np.array(list(cells.values()), dtype=np.float64).T
    probability = _fitted(pair, rank, seen, clicked)
    clicks, passed = (np.bincount(pair, values, minlength=len(pairs)) for values in (clicked, seen - clicked))
    if ((clicks > 0) & (clicks + passed > 1)).sum() < REPEATED:
        unlikely = (probability < 0.5) & (passed > 0)
    else:
        unlikely = probability < 0.5
    probability[unlikely] = 0.0
    found: dict[Hashable, dict[str, float]] = {}
    for (question, name), row in pairs.items():
        if clicks[row]:
            found.setdefault(question, {})[name] = float(probability[row])
    return found


def _fitted(pair: _Ints, rank: _Ints, seen: _Floats, clicked: _Floats) -> _Floats:
    """Fit the model, and return how likely each pair of a question and a document is right, (pairs,) float64.

    Args:
        pair: (c,) the pair of each cell.
        rank: (c,) the rank of each cell, from 0.
        seen: (c,) how often the pair was shown at the rank.
        clicked: (c,) how often it was opened there.
    """
    ranks, pairs = int(rank.max()) + 1, int(pair.max()) + 1
    best = np.full(pairs, ranks - 1)
    np.minimum.at(best, pair, rank)
    at_best = np.bincount(best, minlength=ranks)
    clicks_at = np.bincount(rank, clicked, minlength=ranks)
    looked = 0.9 / np.sqrt(np.arange(1, ranks + 1))
    right, noise = 0.5 / np.arange(1, ranks + 1), NOISE
    probability = np.zeros(pairs)
    for _ in range(_ROUNDS):
        odds = np.log(right / (1 - right))[best]
        for hit, sign in ((looked, 1.0), (looked * noise, -1.0)):
            likelihood = clicked * np.log(hit)[rank] + (seen - clicked) * np.log1p(-hit)[rank]
            odds = odds + sign * np.bincount(pair, likelihood, minlength=pairs)
        before, probability = probability, 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
        if np.abs(probability - before).max() < _CONVERGED:
            break
        of_cell = probability[pair]
        readiness = np.bincount(rank, seen * (of_cell + (1 - of_cell) * noise), minlength=ranks)
        looked = np.clip(clicks_at / np.maximum(readiness, 1e-9), 1e-3, 0.99)
        wrong = seen * (1 - of_cell)
        clicks, looked_at = (clicked * (1 - of_cell)).sum(), (wrong * looked[rank]).sum()
        noise = float(min((clicks + NOISE * CERTAINTY) / (looked_at + CERTAINTY), 0.8))
        right = (np.bincount(best, probability, minlength=ranks) + 0.5) / (at_best + 1)
    return probability
