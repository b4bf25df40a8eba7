"""Whether a store applies a filter. Many stores ignore an option, or a kind of filter, that they do not know.

The documents that come back do not show that a filter was ignored, but a filter that no document passes does: a store that
applies the filter finds nothing, or raises an error.
"""

from typing import Any

from deepmem_integrations.errors import StoreError

NOWHERE = "deepmem_no_such_field"
"""A key of metadata that no document has."""
NOTHING = "no such value"
"""A value that no document has there."""
_NAMES = ("filter", "where", "expr", "predicate", "tenant", "namespace")


def forbids(option: str, value: Any) -> bool:
    """Tell whether an option of a search has a name of those that forbid documents, such as ``filter`` or ``tenant``.

    A switch, such as LanceDB's ``prefilter``, only says how to filter.
    """
    return bool(value) and not isinstance(value, bool) and any(name in option for name in _NAMES)


def impossible(filter: Any) -> Any:
    """Return a filter of the same type that no document passes.

    Example:
        >>> impossible({"half": 1})
        {'deepmem_no_such_field': 'no such value'}
    """
    if isinstance(filter, dict):
        return {NOWHERE: NOTHING}
    if isinstance(filter, str):
        return f"{NOWHERE} = '{NOTHING}'"
    if isinstance(filter, list | tuple):
        return [impossible(one) for one in filter]
    if callable(filter):
        return lambda *_: False
    return object()  # no filter of the store's own: a store that knows the option refuses it


def ignored(store: Any, option: str, filter: Any) -> StoreError:
    """Return the error for a store that finds documents with an `impossible` filter."""
    return StoreError(
        f"{type(store).__name__} ignores {option}, or a {option} of the type {type(filter).__name__}: a search with a {option} "
        "that no document passes finds documents all the same, so this search could return documents that it must not return. "
        "Give the option the name and the type that this store documents, or leave it out."
    )
