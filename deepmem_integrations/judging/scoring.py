"""Rerankers as models that a run asks: `Reranker`."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deepmem_integrations.generation.model import Answer, Request
from deepmem_integrations.generation.sources import Source

Score = Callable[[str, Sequence[Source]], Sequence[float | None]]
"""A function from a query and documents to a score for each document, or None where the reranker leaves a document out."""


class Reranker:
    """A function that scores documents, as a `deepmem_integrations.generation.Model`.

    Args:
        score: The function, which is called in threads.
        name: The name that tells the reranker from others. A checkpoint belongs to one name.
    """

    def __init__(self, score: Score, name: str) -> None:
        self._score = score
        self._name = name

    @classmethod
    def of_function(cls, function: Callable[[str, list[str]], Any]) -> "Reranker":
        """Wrap a function from a query and n texts to n scores."""
        return cls(
            lambda query, sources: list(function(query, [source.text for source in sources])),
            str(getattr(function, "__qualname__", type(function).__name__)),
        )

    @property
    def name(self) -> str:
        """The name of the reranker."""
        return self._name

    def ask(self, request: Request) -> Answer:
        """Score the documents of a request. The answer has a fault unless there is a finite score, or None, for each."""
        given = self._score(request.query, request.sources)
        scores = [None if one is None else float(one) for one in given]
        if len(scores) != len(request.sources):
            return Answer(fault="malformed", detail=f"{len(scores)} scores for {len(request.sources)} documents")
        if not all(one is None or np.isfinite(one) for one in scores):
            return Answer(fault="malformed", detail="a score is NaN or infinite")
        return Answer({"scores": scores})

    async def aask(self, request: Request) -> Answer:
        """Do the same as `ask` in a thread."""
        return await asyncio.to_thread(self.ask, request)
