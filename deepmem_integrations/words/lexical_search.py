"""The one interface to searches by words: the word index, and the lexical searches that stores bring."""

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations.errors import StoreError

Filter = Callable[[str], bool] | Collection[str]
"""A function that tells whether a document may be found, by its id; or the ids of all documents that may be found."""


class Found(NamedTuple):
    """Documents that a search found, best first.

    Attributes:
        ids: n document ids.
        scores: (n,) float32, descending. Scores of different searches have no common scale. `search_words` raises negative ones.
    """

    ids: list[str]
    scores: NDArray[np.float32]


@runtime_checkable
class LexicalSearch(Protocol):
    """A search by words: `WordIndex`, the search of a store such as `PostgresWords`, or any class with this method."""

    def search(self, text: str, k: int, filter: Filter | None = None) -> Found:
        """Return the k best documents for a text, or fewer.

        Args:
            text: The words to look for.
            k: At least 1.
            filter: Which documents may be found. None: all of them.
        """
        ...


def search_name(search: LexicalSearch) -> str:
    """Return the name by which a model remembers whose scores it weighs: the search's ``name``, or else the name of its class."""
    return str(getattr(search, "name", type(search).__name__))


def search_words(search: LexicalSearch, text: str, k: int) -> Found:
    """Search by words, and put in order what a search of the user's own returns.

    Scores become float32, best first. Of an id that comes twice the best score counts, and a document whose score is NaN or
    infinite is left out. A ranking gives documents that the search does not find the score 0: where a search gives scores below
    0, all of its scores are raised by the same amount, so that the lowest is above 0 by the mean distance between neighbours.

    Args:
        search: Any search by words.
        text: The words to look for.
        k: At least 1.

    Raises:
        StoreError: The search returned anything but n ids and n scores.

    Example:
        >>> class Mine:
        ...     def search(self, text, k, filter=None):
        ...         return ["a", "b", "a"], [1.0, 2.0, 3.0]
        >>> search_words(Mine(), "words", 10)
        Found(ids=['a', 'b'], scores=array([3., 2.], dtype=float32))
        >>> Mine.search = lambda self, text, k: (["a", "b", "c"], [-3.0, -4.0, -9.0])
        >>> search_words(Mine(), "words", 10).scores
        array([9., 8., 3.], dtype=float32)
    """
    found = search.search(text, k)
    try:
        ids, given = found
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
            scores = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise _not_found(search, f"{type(found).__name__} ({error})") from error
    if scores.shape != (len(ids),):
        raise _not_found(search, f"{len(ids)} ids and scores of the shape {scores.shape}")
    if not all(isinstance(name, str) for name in ids):
        raise _not_found(search, f"the id {next(name for name in ids if not isinstance(name, str))!r}, which is no string")
    best: dict[str, float] = {}
    for row in np.argsort(-scores, kind="stable").tolist():
        if np.isfinite(scores[row]):
            best.setdefault(ids[row], scores[row])
    return Found(list(best), _above_zero(np.array(list(best.values()), dtype=np.float32)))


def _above_zero(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Raise (n,) scores, best first, of which any is below 0."""
    if not len(scores) or scores[-1] >= 0:
        return scores
    above = scores.astype(np.float64) - scores[-1]
    return np.asarray(above + (above[0] / (len(scores) - 1) if above[0] else 1.0), dtype=np.float32)


def _not_found(search: LexicalSearch, returned: str) -> StoreError:
    return StoreError(
        f"The search by words {search_name(search)} returned {returned}. It has to return Found(ids, scores): n ids of documents "
        "and n scores, best first."
    )


def allows(filter: Filter | None) -> Callable[[str], bool]:
    """Return a filter as a function.

    Raises:
        StoreError: The filter is a single string, or neither a function nor a collection of ids.
    """
    if filter is None:
        return lambda _: True
    if callable(filter):
        return filter
    if isinstance(filter, str | bytes) or not isinstance(filter, Collection):
        raise StoreError(f"A filter is a function from an id to True or False, or a set of ids; got {filter!r}.")
    return (filter if isinstance(filter, set | frozenset | dict) else frozenset(filter)).__contains__


def check_search(text: str, k: int) -> None:
    """Check the arguments of a search.

    Raises:
        StoreError: ``text`` is no string, or ``k`` is less than 1.
    """
    if not isinstance(text, str):
        raise StoreError(f"A search by words needs a text; got {type(text).__name__}.")
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise StoreError(f"k is the number of documents to return, 1 or more; got {k!r}.")
