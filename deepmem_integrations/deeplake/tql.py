"""Parts of queries in TQL, Deep Lake's query language. Every text that reaches a query is escaped here."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepmem_integrations._unicode import well_formed
from deepmem_integrations.errors import StoreError


class Condition(str):
    """A condition written in TQL, whose values are escaped already."""


Filter = Mapping[str, Any] | Condition
"""Metadata that a document must have: key → value, key → a list of allowed values, or key → None (the key is absent)."""


def literal(value: str | bool | float) -> str:
    """Write a value as a TQL literal. Quotes are doubled, so that no text can end the literal.

    Raises:
        StoreError: The value is neither a string nor a finite number.

    Example:
        >>> literal("it's")
        "'it''s'"
    """
    if isinstance(value, str):
        if "\0" in value:
            raise StoreError(f"{value!r} holds a NUL character, which no query can contain.")
        if well_formed(value) != value:
            raise StoreError(f"{value!r} holds half of a surrogate pair, which no data set and no query can contain.")
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | float | np.integer | np.floating) and math.isfinite(value):
        number = value.item() if isinstance(value, np.generic) else value
        if isinstance(number, int) and not -(2**63) <= number < 2**63:
            raise StoreError(f"A filter compares with integers of 64 bits, not with {number}.")
        return repr(number)
    raise StoreError(f"A filter compares with strings and finite numbers, not with {value!r}.")


def is_in(column: str, values: Sequence[Any]) -> str:
    """Write the condition that a column holds one of the values."""
    written = [literal(value) for value in values]
    # Deep Lake has no IN for truth values and negative numbers.
    if any(isinstance(value, bool | np.bool_) or text.startswith("-") for value, text in zip(values, written, strict=True)):
        return "(" + " OR ".join(f"{column} = {text}" for text in written) + ")"
    return f"{column} IN ({', '.join(written)})"


def keys_of(filter: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the keys and values of a filter, which Deep Lake v3 wrote in a further mapping."""
    if filter.keys() == {"metadata"} and isinstance(filter["metadata"], Mapping):
        return filter["metadata"]
    return filter


def where(filter: Filter | None, metadata_column: str, also: str = "") -> str:
    """Write the WHERE clause of a filter; without a filter the clause is empty.

    Args:
        filter: The filter.
        metadata_column: The column of the metadata.
        also: A further condition in TQL, which must hold as well.

    Raises:
        StoreError: The argument is no filter, or holds a value that no query can compare with.
    """
    if also:
        clause = where(filter, metadata_column).removeprefix("WHERE ")
        return f"WHERE ({clause}) AND {also}" if clause else f"WHERE {also}"
    if filter is None:
        return ""
    if isinstance(filter, Condition):
        return f"WHERE {filter}"
    if not isinstance(filter, Mapping):
        raise StoreError(f'A filter is a dict such as {{"year": 2024, "lang": ["en", "de"]}}; got {type(filter).__name__}.')
    conditions = []
    filter = keys_of(filter)
    for key, value in filter.items():
        if not isinstance(key, str):
            raise StoreError(f"The keys of a filter are strings; got {key!r}.")
        column = f"{metadata_column}[{literal(key)}]"
        if value is None:
            conditions.append(f"{column} IS NULL")
        elif isinstance(value, list | tuple | set | frozenset):
            if not value:
                raise StoreError(f"The filter on {key!r} lists no allowed value, so no document can pass it.")
            conditions.append(is_in(column, list(value)))
        else:
            conditions.append(f"{column} = {literal(value)}")
    return "WHERE " + " AND ".join(conditions) if conditions else ""
