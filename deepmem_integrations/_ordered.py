"""Lists of users, whose items belong together row by row."""

from collections.abc import ItemsView, Iterable, KeysView, Mapping, Set
from typing import Any

from deepmem_integrations.errors import DeepMemoryError


def ordered(items: Iterable[Any], name: str, error: type[DeepMemoryError]) -> list[Any]:
    """Return items as a list, from anything that has an order; an iterator is read once.

    Args:
        items: A list, an array, a column of a data frame, a generator, …
        name: The name of the argument, for the error message.
        error: The class of the error.

    Raises:
        DeepMemoryError: A mapping or one text stands in place of a list, or a set, whose order is random.

    Example:
        >>> from deepmem_integrations.errors import StoreError
        >>> ordered((name for name in "ab"), "ids", StoreError)
        ['a', 'b']
    """
    if isinstance(items, str | bytes):
        raise error(f"{name} is a list: [{items!r:.60}], not {items!r:.60}.")
    if isinstance(items, Mapping):
        raise error(f"{name} is a list, in the order of what stands beside it; got a {type(items).__name__}.")
    if isinstance(items, Set) and not isinstance(items, KeysView | ItemsView):  # of a dict, which has an order
        raise error(f"{name} is a list; got a {type(items).__name__}, whose items would be paired at random.")
    if not isinstance(items, Iterable):
        raise error(f"{name} is a list; got a {type(items).__name__}.")
    return list(items)
