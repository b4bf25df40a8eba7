"""What a value of feedback weighs as a label."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.checking import finite

Weights = Mapping[Any, float | None] | Callable[[Any], float | None]
"""Value or label of feedback → weight, or None where the value says nothing; or a function that returns the weight of a value."""

_UP = "up, thumbs up, thumb up, yes, true, good, like, liked, positive, relevant, correct, pass, helpful"
_DOWN = (
    "down, thumbs down, thumb down, no, false, bad, dislike, disliked, negative, irrelevant, not relevant, unrelated, incorrect, "
    "fail, unhelpful, not helpful"
)
WORDS = {**dict.fromkeys(_UP.split(", "), 1.0), **dict.fromkeys(_DOWN.split(", "), -1.0), "👍": 1.0, "👎": -1.0}
"""The labels that need no explanation."""


def weight_of(name: str, values: Sequence[Any], weights: Weights | None, *, answer: bool) -> float | None:
    """Return the weight of feedback, or None where its value says nothing.

    A truth value and a label such as "thumbs-down" weigh 1 or −1. A number is the weight; a thumb's 0 is a thumb down. On an
    answer, where scores of stars are usual, only numbers from −1 to 1 are thumbs.

    Args:
        name: The name of the feedback, for messages.
        values: Its value in each form: a number or truth value, then a label.
        weights: What values weigh, if not this.
        answer: Whether the feedback is about an answer, and not about a document.

    Raises:
        InvalidRelevanceError: The weight of the value is not known.

    Example:
        >>> weight_of("user_score", (0,), None, answer=True), weight_of("stars", (4,), {4: 1.0, 5: 1.0, 3: None}, answer=True)
        (-1.0, 1.0)
    """
    if not values:
        return None
    if isinstance(weights, Mapping):
        known = [value for value in values if _hashable(value) and value in weights]
        if not known:
            raise InvalidRelevanceError(
                f"weights names no value of {name!r}, {' or '.join(map(repr, values))}; None leaves one out"
            )
        return _checked(name, weights[known[0]])
    if weights is not None:
        return _checked(name, weights(values[0]))
    value = next((number for value in values if (number := _number(value)) is not None), None)
    if value is None:
        raise InvalidRelevanceError(
            f"what {values[0]!r:.60} of {name!r} weighs is not known: say so with weights={{{values[0]!r:.60}: 1.0, …}}"
        )
    if answer and not -1 <= value <= 1:
        raise InvalidRelevanceError(
            f"{name!r} is {value:g} for an answer, where a thumb is from -1 to 1: say with weights= which values are good"
        )
    return -1.0 if answer and value == 0 else value


def _hashable(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return 1.0 if value else -1.0
    if isinstance(value, str):
        word = " ".join(value.strip().strip('"').lower().replace("_", " ").replace("-", " ").split())
        if word in WORDS:
            return WORDS[word]
        try:
            value = float(value)
        except ValueError:
            return None
    return finite(value)


def _checked(name: str, weight: Any) -> float | None:
    if weight is None:
        return None
    if (number := finite(weight)) is None:
        raise InvalidRelevanceError(f"weights gives {weight!r:.60} for {name!r}: a weight is a finite number, or None")
    return number
