"""Which documents of a corpus are meant, said by their metadata or by a function."""

from collections.abc import Callable, Mapping
from typing import Any

from deepmem_integrations.errors import StoreError

Where = Mapping[str, Any] | Callable[[Any], Any]
"""Metadata that a document must have, as for the filters of a Deep Lake store: key → value, key → a list of allowed values, or
key → None (the key is absent). Or a function from a document to a truth value."""


def passes(document: Any, where: Where) -> bool:
    """Tell whether a document, of any framework, passes a filter.

    Raises:
        StoreError: The document has no metadata.
        TypeError: The filter is neither a mapping nor a function.

    Example:
        >>> from langchain_core.documents import Document
        >>> page = Document("How to install", metadata={"tenant": "acme", "year": 2024})
        >>> passes(page, {"tenant": "acme", "year": [2023, 2024]}), passes(page, lambda page: "tenant" not in page.metadata)
        (True, False)
    """
    if callable(where):
        return bool(where(document))
    if not isinstance(where, Mapping):
        raise TypeError(f"filter is a mapping, the metadata that documents must have, or a function; got {type(where).__name__}.")
    metadata = getattr(document, "metadata", None)
    if metadata is None:
        raise StoreError(f"A {type(document).__name__} of the corpus has no metadata to filter by: pass a function as filter.")

    def holds(key: str, wanted: Any) -> bool:
        value = metadata.get(key)
        return value in wanted if isinstance(wanted, list | tuple | set | frozenset) else bool(value == wanted)

    return all(holds(key, wanted) for key, wanted in where.items())
