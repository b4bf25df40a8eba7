"""Show documents of several rankings in one list, so that feedback can tell which of them is right."""

import random
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

Document = TypeVar("Document")


def interleave(
    *rankings: Iterable[Document],
    k: int = 10,
    seed: int | str | None = None,
    key: Callable[[Document], Hashable] | None = None,
) -> list[Document]:
    """Merge rankings by team draft: in each turn each ranking, in random order, adds its best document that is not there yet.

    Users can only judge what they see, and look first at what stands first. A list of one ranking gives labels that confirm this
    ranking for ever. In a list that is drafted at random, each ranking has the same chance of each rank, so that clicks tell
    which of them they prefer (Radlinski, Kurup and Joachims 2008), and what a training corrects for ranks is the users' habit
    and not the quality of the ranking.

    Args:
        rankings: Documents, or their ids, best first: what a `DeepMemoryRetriever` finds, what it finds without the model, what a
            search by words finds.
        k: How many documents to show at most.
        seed: Fixes the draft. The text of the query, say, shows every user who asks the same the same list.
        key: What tells documents apart, such as ``lambda document: document.id``; by default the documents themselves.

    Returns:
        Up to k documents, none twice.

    Raises:
        ValueError: ``k`` is less than 1, or a document has no id: such documents would all be taken for one.
        TypeError: The documents cannot be hashed, as LangChain's and LlamaIndex's cannot: give a ``key``.

    Example:
        >>> interleave(["a", "b", "c"], ["c", "a", "d"], k=3, seed=0)
        ['c', 'a', 'b']
    """
    if k < 1:
        raise ValueError(f"k is a number of documents, 1 or more; got {k}.")
    rng = random.Random(seed)
    waiting = [list(ranking)[::-1] for ranking in rankings]
    drafted: dict[Hashable, Document] = {}
    while any(waiting):
        for left in rng.sample(waiting, len(waiting)):
            while left:
                document = left.pop()
                name = document if key is None else key(document)
                if name is None:
                    raise ValueError("A document has no id (None) to be told apart by: give another key, or documents with ids.")
                if not isinstance(name, Hashable):
                    raise TypeError(
                        f"A {type(name).__name__} cannot be told apart from others: give a key, such as lambda one: one.id."
                    )
                if name not in drafted:
                    drafted[name] = document
                    break
            if len(drafted) == k:
                return list(drafted.values())
    return list(drafted.values())
