"""Searches whose filter a store checks itself, or that fetch more documents until enough of them pass the filter."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from deepmem_integrations.words.lexical_search import Filter, Found, allows, check_search

Scored = list[tuple[str, float]]
"""Ids with scores, best first."""

MOST_IDS = 10_000
"""A store checks the ids of a filter itself if there are no more than 10,000. Otherwise what it found is checked here."""

_MORE = 4
"""By how much a search fetches more documents where a filter left too few."""


class StoreSearch(ABC):
    """The search by words of one kind of store, which can check ids itself."""

    @abstractmethod
    def fetch(self, text: str, limit: int, ids: list[str] | None) -> Scored:
        """Search in the store.

        Args:
            text: The words to look for, at least one of them. There are no lone surrogates in it.
            limit: How many documents to return at most.
            ids: Which documents may be found, 1 to `MOST_IDS`. None: all of them.
        """

    def is_ready(self) -> bool:
        """Tell whether the store has what a search by words needs."""
        return True

    def search(self, text: str, k: int, filter: Filter | None = None) -> Found:
        """Return the k best documents for a text. A text without words finds nothing.

        Args:
            text: The words to look for.
            k: At least 1.
            filter: Which documents may be found, by id. The store itself checks a set of up to 10,000 ids.

        Raises:
            StoreError: The store cannot search.
        """
        check_search(text, k)
        allows(filter)
        text = text.encode(errors="replace").decode()
        ids = None
        if filter is not None and not callable(filter) and len(filter) <= MOST_IDS:
            ids = [name for name in filter if _is_text(name)]
        if not any(map(str.isalnum, text)) or ids == []:
            return filtered(lambda limit: [], k, None)
        return filtered(lambda limit: self.fetch(text, limit, ids), k, filter)


def filtered(fetch: Callable[[int], Scored], k: int, filter: Filter | None) -> Found:
    """Fetch documents until k of them pass the filter, or no more come.

    Args:
        fetch: A function from a limit to as many of the best documents, or fewer where there are fewer.
        k: How many documents to return.
        filter: Which documents may be found.
    """
    allowed, before, limit = allows(filter), -1, int(k)
    while True:
        fetched = fetch(limit)
        passing = list(_distinct((name, score) for name, score in fetched if allowed(name)))
        if len(passing) >= k or len(fetched) < limit or len(fetched) == before:
            break
        before, limit = len(fetched), limit * _MORE
    # Documents without any word of the query have a score of 0.
    best = [(name, score) for name, score in passing if score != 0][:k]
    return Found([name for name, _ in best], np.array([score for _, score in best], dtype=np.float32))


def _is_text(name: str) -> bool:
    """Tell whether a string can be sent to a store: lone surrogates cannot."""
    return name.isascii() or name.encode(errors="replace").decode() == name


def _distinct(found: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """Yield the first of each id."""
    seen = set()
    for name, score in found:
        if name not in seen:
            seen.add(name)
            yield name, score
