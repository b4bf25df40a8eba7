"""Objects that never change: safe to share between threads, and to hand out without a copy."""


class Immutable:
    """A base for objects whose attributes are set once, by ``vars(self).update(…)`` in ``__init__``, and never again."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"A {type(self).__name__} never changes, so its {name} cannot be set: make a new one.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"A {type(self).__name__} never changes, so its {name} cannot be deleted: make a new one.")
