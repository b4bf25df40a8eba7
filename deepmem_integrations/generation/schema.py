"""The schemas of the structured output that a language model is asked for. Their docstrings and descriptions reach the model."""

from pydantic import BaseModel, Field


class Query(BaseModel):
    """One search query."""

    kind: str = Field(description="The kind of query, as named in the task")
    text: str = Field(description="The query itself, and nothing else")


class Queries(BaseModel):
    """Search queries that the document answers."""

    queries: list[Query]


class Judgement(BaseModel):
    """Which documents answer the query."""

    answered_by: list[int] = Field(description="The numbers of the documents that answer the query fully by themselves")
