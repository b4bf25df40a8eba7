"""`WeakCache`: what was worked out for an object, kept for as long as the object lives."""

import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from deepmem_integrations._forks import fork_safe

_V = TypeVar("_V")


class WeakCache(Generic[_V]):
    """A value for each of some objects, which are told apart by identity, since embedding models mostly have no hash.

    A value is dropped with its object. A value must not refer to its object, which would live forever otherwise.
    """

    def __init__(self) -> None:
        self._lock = fork_safe(threading.RLock())  # an object may be collected while the lock is held
        self._found: dict[int, tuple[weakref.ref[Any], _V]] = {}

    def get(self, of: Any, make: Callable[[], _V]) -> _V:
        """Return the value of an object.

        It is made when it is first asked for, and each time if the object takes no weak reference. Threads that ask at the same
        time each make it.
        """
        key = id(of)
        found = self._found.get(key)
        if found is not None and found[0]() is of:
            return found[1]
        value = make()
        try:
            reference = weakref.ref(of, lambda gone: self._drop(key, gone))
        except TypeError:
            return value
        with self._lock:
            self._found[key] = (reference, value)
        return value

    def _drop(self, key: int, gone: weakref.ref[Any]) -> None:
        with self._lock:
            found = self._found.get(key)
            if found is not None and found[0] is gone:  # another object may have taken the place in memory
                del self._found[key]
