"""How much memory a computation needs at its peak."""

import tracemalloc
from collections.abc import Callable
from typing import Any


def peak_of(compute: Callable[[], Any]) -> tuple[Any, int]:
    """Return the result, and how many bytes Python and numpy held at once beyond what they held before."""
    tracemalloc.start()
    try:
        result = compute()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
