"""Metadata of documents, stored so that it is read exactly as it was added.

Deep Lake's dict column turns 1 into ``array(1)``, [1, 2] into floats and None into {}. A second column therefore holds the
metadata as JSON. Data sets that other tools created lack the second column. Metadata that they would change is refused.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepmem_integrations.errors import StoreError

EXACT_METADATA = "metadata_json"
"""The name of the column that holds the metadata as JSON."""


def check_survives(ids: Sequence[str], metadatas: Sequence[Any]) -> None:
    """Refuse metadata that a data set without the JSON column would change.

    Args:
        ids: The n document ids, for the error message.
        metadatas: The metadata of the n documents.

    Raises:
        StoreError: The metadata of a document would change.
    """
    for name, metadata in zip(ids, metadatas, strict=True):
        if _changes(metadata):
            raise StoreError(
                f"The metadata of document {name!r} would not come back as it is: this data set was made by another tool, and "
                "changes None, lists of anything but strings, and integers beyond 64 bits. Leave such values out, or write to a "
                "new data set."
            )


def _changes(value: Any) -> bool:
    """Tell whether Deep Lake's dict column returns something else for a JSON value."""
    if isinstance(value, dict):
        return any(map(_changes, value.values()))
    if isinstance(value, list):
        return not all(isinstance(item, str) for item in value)
    return value is None or (isinstance(value, int) and not -(2**63) <= value < 2**63)


def encode(metadata: Mapping[str, Any], name: str) -> str:
    """Return the metadata of a document as JSON text.

    Args:
        metadata: The metadata.
        name: The id of the document, for the error message.

    Raises:
        StoreError: JSON would change the metadata, or Deep Lake cannot store it.
    """
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False)
        same = json.loads(text) == metadata
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"The metadata of document {name!r} cannot be stored: {error}. Use plain strings, numbers, booleans, lists and dicts."
        ) from error
    if not isinstance(metadata, Mapping) or not same:
        raise StoreError(
            f"The metadata of document {name!r} would not come back as it is: use a dict with string keys, lists instead of "
            "tuples, and plain strings, numbers, booleans and None."
        )
    return text


def decode(metadata: Any) -> dict[str, Any]:
    """Return the metadata that a cell holds: JSON text in the JSON column, or a value of Deep Lake's dict column."""
    return json.loads(metadata) if isinstance(metadata, str) else _plain(metadata.to_dict())  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """Turn the values of Deep Lake and NumPy into plain Python values."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
