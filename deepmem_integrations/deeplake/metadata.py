"""Metadata of documents, stored so that it is read exactly as it was added.

Deep Lake's dict column turns 1 into ``array(1)``, [1, 2] into floats and None into {}. A second column therefore holds the
metadata as JSON. Data sets that other tools created lack the second column. Metadata that they would change is refused.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepmem_integrations._unicode import well_formed
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
        changed = [key for key, value in metadata.items() if _changes(value)]
        if changed:
            raise StoreError(
                f"The metadata of document {name!r} would not come back as it is: this data set was made by another tool, and "
                f"changes what stands under the key {changed[0]!r}. It changes None, lists of anything but strings, and integers "
                "beyond 64 bits. Leave such values out, or write to a new data set."
            )


def _changes(value: Any) -> bool:
    """Tell whether Deep Lake's dict column returns something else for a JSON value."""
    if isinstance(value, dict):
        return any(map(_changes, value.values()))
    if isinstance(value, list):
        return not all(isinstance(item, str) for item in value)
    return value is None or (isinstance(value, int) and not -(2**63) <= value < 2**63)


def encode(metadata: Mapping[str, Any], name: str) -> str:
    """Return the metadata of a document as JSON text. Numbers of NumPy become plain numbers.

    Args:
        metadata: The metadata.
        name: The id of the document, for the error message.

    Raises:
        StoreError: JSON would change the metadata, or Deep Lake cannot store it; the message names the key.
    """
    try:
        if fault := find_fault(metadata):
            raise StoreError(f"The metadata of document {name!r} cannot be stored: {fault}")
        return json.dumps(metadata, allow_nan=False, ensure_ascii=False, default=np.generic.item)
    except RecursionError as error:
        raise StoreError(f"The metadata of document {name!r} cannot be stored: they are nested too deeply.") from error


def find_fault(value: Any, key: str = "") -> str | None:
    """Find a value that does not come back from JSON or from Deep Lake as it is, and say where it stands and what to do.

    Args:
        value: The metadata of a document, or a value in them.
        key: The key of the value, as in ``author.names[2]``; empty for the metadata themselves.
    """
    where = f"under the key {key!r} " if key else ""
    match value:
        case Mapping():
            for name, item in value.items():
                if not isinstance(name, str):
                    return f"{where}the key {name!r} is no string. Use strings as keys."
                if well_formed(name) != name:
                    return f"{where}the key {name!r} holds half of a surrogate pair. Replace it."
                if fault := find_fault(item, f"{key}.{name}" if key else name):
                    return fault
            return None if isinstance(value, dict) else f"{where}stands a {type(value).__name__}. Use a dict."
        case _ if not key:
            return f"they are a {type(value).__name__}. Use a dict."
        case list():
            return next((fault for row, item in enumerate(value) if (fault := find_fault(item, f"{key}[{row}]"))), None)
        case None | bool() | np.bool_() | int() | np.integer():
            return None
        case float() | np.floating():
            return None if math.isfinite(value) else f"{where}stands {value!r}, which JSON lacks. Leave the key out, or use None."
        case str():
            return None if well_formed(value) == value else f"{where}the text holds half of a surrogate pair. Replace it."
    return (
        f"{where}stands a {type(value).__name__}, which would not come back as it is. Use plain strings, numbers, booleans, "
        "None, lists and dicts."
    )


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
