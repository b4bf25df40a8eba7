"""Locks that a forked process finds free, whatever the threads of the other process were doing when it was forked."""

import functools
import os
import weakref
from typing import Any, TypeVar

_L = TypeVar("_L")
_T = TypeVar("_T")
_LOCKS: "weakref.WeakSet[Any]" = weakref.WeakSet()


def fork_safe(lock: _L) -> _L:
    """Let a lock be free in forked processes, where the thread that holds it does not exist.

    Args:
        lock: A `threading.Lock` or `threading.RLock`. What it guards must be whole at every moment: a fork may come at any.

    Returns:
        The lock.
    """
    _LOCKS.add(lock)
    return lock


class cached_property(functools.cached_property[_T]):
    """A `functools.cached_property` that a forked process can compute: up to Python 3.11 a lock guards it."""

    def __init__(self, func: Any) -> None:
        super().__init__(func)
        if hasattr(self, "lock"):
            fork_safe(self.lock)


def _free_all() -> None:
    for lock in list(_LOCKS):
        lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)
