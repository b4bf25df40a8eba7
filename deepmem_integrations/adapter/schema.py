"""The parts of an adapter that a file holds, and what must be true of them, whoever wrote the file.

A checksum shows that a file is as it was written, and not that whoever wrote it meant well, or made no mistake.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._strings import Strings
from deepmem_integrations._vectors import Vectors, blocks
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.adapter.fingerprint import Fingerprint
from deepmem_integrations.adapter.ranking import Ranking
from deepmem_integrations.adapter.remembered import RememberedQueries
from deepmem_integrations.labels import LabelRows

LARGEST = 1e9
"""The largest number in an array. Products with settings, and squares of sums of these, still fit into float32."""
LARGEST_SETTING = 1e6
"""The largest setting, such as the strength of the attention part."""
NARROWEST = 1e-6
"""The least width of a kernel. Cosines above 1 by rounding would overflow with a smaller one."""


class Parts(NamedTuple):
    """What a file holds, as the constructor of `QueryAdapter` takes it."""

    dimension: int
    linear: Vectors | None
    attention: Attention | None
    remembered_queries: RememberedQueries | None
    ranking: Ranking | None
    fingerprint: Fingerprint
    metadata: Mapping[str, Any]


def check_parts(parts: Parts) -> Parts:
    """Return the parts, if an adapter can be made of them.

    Raises:
        ValueError, TypeError: A part has another type, shape or length than the others, or holds a number that is not finite or
            so large that vectors would overflow.
    """
    d = _whole(parts.dimension, "dimension", 1)
    if not isinstance(parts.metadata, dict):
        raise TypeError("metadata is a JSON object")
    _text(parts.fingerprint.model, "model")
    if parts.fingerprint.probes is not None:
        _numbers(parts.fingerprint.probes, "fingerprint.probes", (None, d))
    if parts.linear is not None:
        _numbers(parts.linear, "linear", (d, d))
    if (attention := parts.attention) is not None:
        keys = len(attention.keys)
        _numbers(attention.keys, "memory.keys", (None, d))
        for block in blocks(keys, d):
            if float(np.linalg.norm(attention.keys[block], axis=1).max()) > 1.01:
                raise ValueError("memory.keys are longer than 1")
        if isinstance(attention.values, np.ndarray):  # or they are means of documents, which are checked
            _numbers(attention.values, "memory.values", (keys, d))
        _number(attention.temperature, "temperature", above=NARROWEST)
        _number(attention.strength, "strength")
        if attention.neighbours is not None:
            _whole(attention.neighbours, "neighbours", 1)
        if attention.space is not None:
            _numbers(attention.space.centre, "memory.centre", (d,))
            _numbers(attention.space.projection, "memory.projection", (d, d))
        if attention.lists is not None:
            _numbers(attention.lists.centroids, "memory.centroids", (None, d))
            _starts(attention.lists.starts, "memory.starts", len(attention.lists.centroids), keys)
    if (ranking := parts.ranking) is not None:
        for name in ("vector", "words", "answers", "attention_strength"):
            _number(getattr(ranking, name), name)
        for name in ("answers_temperature", "attention_temperature"):
            _number(getattr(ranking, name), name, above=NARROWEST)
        if not isinstance(ranking.by_rank, bool) or not isinstance(ranking.search, str):
            raise TypeError("by_rank is true or false, and search is a text")
        _numbers(ranking.cosines, "ranking.cosines", (None,))
        if ranking.linear is not None:
            _numbers(ranking.linear, "ranking.linear", (d, d))
    return parts


def check_remembered(remembered: RememberedQueries, d: int, keys: int) -> RememberedQueries:
    """Return remembered queries, if they fit d dimensions and the number of keys. This comes before anything is computed of them.

    Raises:
        ValueError, TypeError: See `check_parts`.
    """
    queries, documents = len(remembered.query_ids), len(remembered.document_ids)
    _texts(remembered.query_ids, "query_ids", queries)
    _texts(remembered.document_ids, "document_ids", documents)
    if remembered.texts is not None:
        _texts(remembered.texts, "texts", queries)
    _rows(remembered.owners, "examples.owners", queries, keys)
    _numbers(remembered.documents, "examples.documents", (documents, d))
    _numbers(remembered.space.mean, "examples.mean", (d,))
    _numbers(remembered.space.projection, "examples.projection", (d, d))
    _number(remembered.space.scale, "scale", most=LARGEST)
    _whole(remembered.trained, "trained", 0)
    _whole(remembered.trained_in_all, "trained_in_all", 0)
    for labels, name in ((remembered.labels, "labels"), (remembered.irrelevant, "irrelevant")):
        if labels is not None:
            _check_labels(labels, f"examples.{name}", queries, documents)
    return remembered


def _check_labels(labels: LabelRows, name: str, queries: int, documents: int) -> None:
    count = len(labels.documents)
    _starts(labels.starts, name, queries, count)
    _rows(labels.documents, name, count, documents)
    _numbers(labels.weights, name, (count,))
    if count and not float(labels.weights.min()) > 0:
        raise ValueError(f"the weights of {name} are not above 0")


def _numbers(array: NDArray[Any], name: str, shape: tuple[int | None, ...]) -> None:
    if array.dtype.kind != "f":
        raise TypeError(f"{name} holds {array.dtype}, not floats")
    if len(array.shape) != len(shape) or any(
        wanted not in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    ):
        raise ValueError(f"{name} has the shape {array.shape}")
    if array.size and not (-LARGEST <= float(array.min()) and float(array.max()) <= LARGEST):  # false for NaN, too
        raise ValueError(f"{name} holds numbers that are not finite or too large")


def _rows(array: NDArray[Any], name: str, count: int, limit: int) -> None:
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise ValueError(f"{name} is no list of {count} row numbers")
    if count and not (0 <= int(array.min()) and int(array.max()) < limit):
        raise ValueError(f"{name} names a row beyond {limit}")


def _starts(array: NDArray[Any], name: str, groups: int, count: int) -> None:
    if array.dtype.kind not in "iu" or array.shape != (groups + 1,):
        raise ValueError(f"{name} has no start for each of {groups}")
    if array[0] != 0 or array[-1] != count or np.any(np.diff(array.astype(np.int64)) < 0):
        raise ValueError(f"the starts of {name} do not rise from 0 to {count}")


def _number(value: Any, name: str, above: float = -LARGEST_SETTING, most: float = LARGEST_SETTING) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number; got {value!r}")
    if not above < value <= most:
        raise ValueError(f"{name} is {value!r}")


def _whole(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise TypeError(f"{name} is a whole number from {least} on; got {value!r}")
    return value


def _text(value: Any, name: str) -> None:
    if not isinstance(value, str | None):
        raise TypeError(f"{name} is a text; got {value!r}")


def _texts(values: Sequence[Any], name: str, count: int) -> None:
    if isinstance(values, Strings):
        values.check(name)
        if len(values) == count:
            return
    elif len(values) == count and all(isinstance(value, str) for value in values):
        return
    raise TypeError(f"{name} is no list of {count} texts")
