"""LlamaIndex's metadata filters as conditions of TQL, Deep Lake's query language.

The filters have the meaning that ``build_metadata_filter_fn`` of llama-index-core 0.14.25 gives them: where the key is missing,
only ``!=``, ``nin`` and ``is_empty`` hold; the condition ``not`` holds where none of its filters holds. In addition to that
function, filters may be nested.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.deeplake.tql import Condition, is_in, literal
from deepmem_integrations.errors import StoreError

TRUE, FALSE = Condition("true"), Condition("false")

_BELOW_NUMBERS = literal(-1.7976931348623157e308)
"""Deep Lake also orders values of different types: strings and lists come before all numbers (and booleans), or after the least
of them. Each comparison is closed on that side, because Python's comparison would not hold there."""

_ORDER = {FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE}
_LISTS = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}


def condition(filters: MetadataFilters | None, store: DeepLakeStore) -> Condition:
    """Write filters as a condition.

    Args:
        filters: The filters, nested to any depth. None and empty filters hold for all documents.
        store: The data set. TQL cannot express ``is_empty``, ``text_match_insensitive`` and the equality of lists. These filters
            are evaluated at once on the metadata, which reads the metadata column in full, and become a list of ids.

    Raises:
        StoreError: An operator is unknown, or it cannot compare with its value.
    """
    if filters is None or not filters.filters:
        return TRUE
    parts = [condition(part, store) if isinstance(part, MetadataFilters) else _leaf(part, store) for part in filters.filters]
    if filters.condition in (None, FilterCondition.AND):
        return all_of(parts)
    either = Condition(f"({' OR '.join(parts)})")
    return either if filters.condition == FilterCondition.OR else Condition(f"NOT {either}")


def all_of(parts: Sequence[Condition]) -> Condition:
    """Return the condition that all of these conditions hold."""
    parts = [part for part in parts if part != TRUE]
    return Condition(f"({' AND '.join(parts)})") if parts else TRUE


def one_of(column: str, values: Sequence[Any]) -> Condition:
    """Return the condition that a column or a key holds one of the values."""
    return Condition(is_in(column, values)) if len(values) else FALSE


def key(name: str, store: DeepLakeStore) -> str:
    """Return the TQL expression for a key of the metadata."""
    return f"{store.layout.metadata}[{literal(name)}]"


def _leaf(part: MetadataFilter, store: DeepLakeStore) -> Condition:
    """Write one filter as a condition: see `condition`."""
    operator, value = part.operator, cast("Any", part.value)
    if predicate := _predicate(part):
        return one_of(store.layout.id, [name for name, found in _values(store, part.key) if predicate(found)])
    if value is None or (isinstance(value, list) != (operator in _LISTS)):
        wanted = "a list of values" if operator in _LISTS else "one value"
        raise StoreError(
            f"The filter on {part.key!r} with the operator {operator.value!r} compares with {wanted}; got {value!r}. "
            f"To find a key that is missing or empty, use {FilterOperator.IS_EMPTY.value!r}."
        )
    column = key(part.key, store)
    if operator in _ORDER:
        return _order(column, operator.value, value)
    match operator:
        case FilterOperator.EQ:
            text = f"{column} = {literal(value)}"
        case FilterOperator.NE:
            text = f"NOT ({column} = {literal(value)})"
        case FilterOperator.IN:
            text = one_of(column, value)
        case FilterOperator.NIN:
            text = f"NOT ({one_of(column, value)})"
        case FilterOperator.ANY:
            text = " OR ".join(f"CONTAINS({column}, {literal(item)})" for item in value) or FALSE
        case FilterOperator.ALL:
            text = " AND ".join(f"CONTAINS({column}, {literal(item)})" for item in value)
        case FilterOperator.CONTAINS | FilterOperator.TEXT_MATCH:
            text = f"CONTAINS({column}, {literal(value)})"
        case _:
            raise StoreError(
                f"The filter on {part.key!r} has the operator {operator!r}, which a Deep Lake store does not support."
            )
    return Condition(f"({text})")


def _order(column: str, operator: str, value: Any) -> Condition:
    if isinstance(value, str):
        closed = f"{column} < {_BELOW_NUMBERS}" if operator in (">", ">=") else f"({column} > '' OR {column} = '')"
    else:
        closed = f"{column} >= {_BELOW_NUMBERS}"
    return Condition(f"({column} {operator} {literal(value)} AND {closed})")


def _predicate(part: MetadataFilter) -> Callable[[Any], bool] | None:
    """Return the filter as a function of a value where TQL cannot express it; otherwise None."""
    value: Any = part.value
    if part.operator == FilterOperator.IS_EMPTY:
        return lambda found: found is None or found == "" or found == []
    if part.operator == FilterOperator.ALL and value == []:
        return lambda found: found is not None
    if part.operator == FilterOperator.TEXT_MATCH_INSENSITIVE and isinstance(value, str):
        return lambda found: isinstance(found, str) and value.lower() in found.lower()
    if part.operator == FilterOperator.EQ and isinstance(value, list):
        return lambda found: bool(found == value)
    if part.operator == FilterOperator.NE and isinstance(value, list):
        return lambda found: bool(found != value)
    return None


def _values(store: DeepLakeStore, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the id of each document and its value of a key, None where the document has no such key."""
    for ids, metadatas in store.metadata():
        for document, metadata in zip(ids, metadatas, strict=True):
            yield document, metadata.get(name)
