"""The schemas of the structured output that a language model is asked for. Their docstrings and descriptions reach the model.

Language models forget a field, or leave out what stands around a list. The validators read such answers, and change no schema.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, model_validator

_NAMED_GRADE = re.compile(r"(?i)\b(?:grade|score|relevance|rating)\b[\W_]*(?:is|of)?[\W_]*(\d+(?:\.0+)?)(?![\d.]*\d)")
_NUMBER = re.compile(r"(?<![\d.-])\d+(?:\.\d+)?")


class Query(BaseModel):
    """One search query."""

    kind: str = Field(description="The kind of query, as named in the task")
    text: str = Field(description="The query itself, and nothing else")


class Queries(BaseModel):
    """Search queries that the document answers."""

    queries: list[Query]

    @model_validator(mode="before")
    @classmethod
    def _as_asked_for(cls, value: Any) -> Any:
        given = value.get("queries", value) if isinstance(value, Mapping) else value
        if isinstance(given, str | Mapping):
            given = [given]
        if not isinstance(given, list | tuple):
            return value
        read = [_query(one) for one in given]
        return {"queries": [one or {"kind": "", "text": ""} for one in read]} if any(read) or not given else value


class Judgement(BaseModel):
    """Which documents answer the query."""

    answered_by: list[int] = Field(description="The numbers of the documents that answer the query fully by themselves")

    @model_validator(mode="before")
    @classmethod
    def _as_asked_for(cls, value: Any) -> Any:
        return {"answered_by": value} if isinstance(value, list | tuple) else value


class Grade(BaseModel):
    """How well the document answers the query."""

    grade: int = Field(description="The grade of the document: 0, 1, 2 or 3", ge=0, le=3)

    @model_validator(mode="before")
    @classmethod
    def _as_asked_for(cls, value: Any) -> Any:
        given = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
        if isinstance(given, Mapping):
            names = {str(name).lower(): one for name, one in given.items()}
            given = next((names[name] for name in ("grade", "score", "relevance", "rating") if name in names), None)
        if isinstance(given, str):
            named = _NAMED_GRADE.findall(given)
            alone = _NUMBER.findall(given)
            given = named[-1] if named else alone[0] if len(alone) == 1 else None
        if isinstance(given, cls) or given is None or isinstance(given, bool):
            return value
        return {"grade": given}


class Scores(BaseModel):
    """The scores of a reranker for the documents of a request, in their order; None where it left a document out."""

    scores: list[float | None]


def _query(value: Any) -> Any:
    """Return the fields of a query, or None. A query that cannot be read costs the others nothing."""
    if isinstance(value, str):
        return {"kind": "", "text": value}
    if not isinstance(value, Mapping):
        return value if isinstance(value, Query) else None
    kind, texts = value.get("kind"), [value.get(name) for name in ("text", "query", "question")]
    text = next((one for one in texts if isinstance(one, str)), None)
    return None if text is None else {"kind": kind if isinstance(kind, str) else "", "text": text}
