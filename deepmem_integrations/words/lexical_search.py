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
        scores: (n,) float32, descending. Scores of different searches have no common scale.
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
