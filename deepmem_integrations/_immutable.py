"""Objects that never change: safe to share between threads, and to hand out without a copy."""

from collections.abc import Mapping
from typing import Any

import numpy as np


class ReadOnlyArrays:
    """A base for frozen data classes into whose arrays numpy refuses to write, also after a copy or out of a pickle.

    An array is not copied: a view of it takes its place.
    """

    def __post_init__(self) -> None:
        self.__setstate__(vars(self))

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in list(state.items()):
            if isinstance(value, np.ndarray):
                value = value.view()
                value.flags.writeable = False
            vars(self)[name] = value


class Immutable(ReadOnlyArrays):
    """A base for objects whose attributes are set once, in ``__init__``, past ``__setattr__``, and never again."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A {type(self).__name__} never changes, so its {name} cannot be set: make a new one.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"A {type(self).__name__} never changes, so its {name} cannot be deleted: make a new one.")
