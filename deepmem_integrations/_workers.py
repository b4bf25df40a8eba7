"""`Workers`: where the parts of a long computation run, such as the shards of a corpus or the folds of a training."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


class Workers(Protocol):
    """Processes, on this machine or on others, that call a function for one item after another."""

    @property
    def count(self) -> int:
        """How many processes work side by side."""
        ...

    def map(self, function: Callable[..., _T], items: Iterable[Sequence[Any]], shared: Sequence[Any] = ()) -> Iterator[_T]:
        """Call ``function(*shared, *item)`` for each item, and yield the results in the order of the items.

        Few items are under way at a time. An item is taken from the iterable when its call starts, so what the caller learns from
        early results can go into later items.

        Args:
            function: A function at the top of a module. The same arguments give the same result, since a call whose worker is
                lost is made again.
            items: The arguments of each call.
            shared: Large arguments of all calls, which travel once to each machine.
        """
        ...
