"""Test sets of ragas: questions with the contexts that answer them, by id or by text."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.traces.entries import Found, Labelled, list_of, query_of, text_of

_HOP = re.compile(r"\A<\d+-hop>\s*")
"""What ragas writes before the contexts of questions that need several."""


def read(row: Mapping[str, Any]) -> Iterator[Labelled]:
    """Read a sample. Its ``reference_context_ids`` count, or else the texts in its ``reference_contexts``."""
    if "user_input" not in row:
        raise InvalidRelevanceError("a row of ragas is a sample with user_input and reference_context_ids or reference_contexts")
    ids, texts = (list_of(row.get(name)) for name in ("reference_context_ids", "reference_contexts"))
    found = [Found(text_of(one)) for one in ids] or [Found(text=_HOP.sub("", one)) for one in texts if isinstance(one, str)]
    generated = row.get("synthesizer_name") is not None
    yield Labelled(None, query_of(row["user_input"]), tuple((one, 1.0) for one in found), generated)
