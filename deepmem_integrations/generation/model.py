"""What is asked of a language model and what it answers, whatever package it comes from."""

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from deepmem_integrations._extras import require
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.sources import Source

if TYPE_CHECKING:
    from pydantic import BaseModel

Message = dict[str, str]
"""``{"role": "system" | "user", "content": …}``."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        key: Names it in the checkpoint.
        task: ``write`` queries for one document (or two at once), or ``judge`` which documents answer a query.
        sources: The documents it is about.
        kinds: The kind of each query that is asked for.
        messages: The messages for the language model.
        query: The query that is judged; empty where queries are written.
    """

    key: str
    task: Literal["write", "judge"]
    sources: tuple[Source, ...]
    kinds: tuple[str, ...]
    messages: tuple[Message, ...] = field(repr=False)
    query: str = ""

    @property
    def schema(self) -> "type[BaseModel]":
        """The pydantic model that the answer must have."""
        require("pydantic", extra="openai")
        from deepmem_integrations.generation import schema

        return schema.Judgement if self.task == "judge" else schema.Queries


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        value: The fields of the schema; empty where there is a fault.
        fault: ``malformed`` or ``refusal`` where the model answered, but not what was asked.
        detail: Particulars of the fault.
        input_tokens: As the model counts them; 0 where it does not tell.
        output_tokens: Likewise.
    """

    value: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    detail: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """Only what is not empty."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def of(cls, request: Request, value: Any, *, input_tokens: int = 0, output_tokens: int = 0) -> "Answer":
        """Check an answer: JSON text, JSON values, an instance of the schema, or a bare list of queries."""
        try:
            if isinstance(value, str):
                value = json.loads(value)
            if isinstance(value, list) and all(isinstance(text, str) for text in value):
                value = {"queries": [{"kind": "", "text": text} for text in value]}
            fields = request.schema.model_validate(value).model_dump()
        except ValueError as error:
            return replace(cls.of_error(error), input_tokens=input_tokens, output_tokens=output_tokens)
        return cls(fields, input_tokens=input_tokens, output_tokens=output_tokens)

    @classmethod
    def of_error(cls, error: Exception) -> "Answer":
        """What an error says of an answer that came, but not in the form that was asked for.

        Raises:
            Exception: The very error, where it does not tell of an answer.
        """
        kind, usage = type(error).__name__, getattr(getattr(error, "completion", None), "usage", None)
        tokens = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens} if usage else {}
        detail = f"{kind}: {error}"[:300]
        # The openai package's own errors, by name: it need not be installed. pydantic's ValidationError is a ValueError.
        if kind == "ContentFilterFinishReasonError":
            return cls(fault="refusal", detail=detail, **tokens)
        if kind == "LengthFinishReasonError" or isinstance(error, ValueError):
            return cls(fault="malformed", detail=detail, **tokens)
        raise error


@runtime_checkable
class Model(Protocol):
    """A language model: both methods are called from several threads or tasks at once.

    They raise what they like where there is no answer, after retries of their own.
    """

    @property
    def name(self) -> str:
        """Tells it from other models; a checkpoint belongs to one."""
        ...

    def ask(self, request: Request) -> Answer:
        """Answer."""
        ...

    async def aask(self, request: Request) -> Answer:
        """Answer without blocking the event loop."""
        ...


class FunctionModel:
    """A language model that is a function: (messages, schema) → an answer as `Answer.of` takes it.

    Args:
        function: Called in threads; or an async function, awaited on the caller's loop.
        name: Tells it from others.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is async
        )
        self._name = name or str(getattr(function, "__qualname__", type(function).__name__))

    @property
    def name(self) -> str:
        """The function's name."""
        return self._name

    def ask(self, request: Request) -> Answer:
        """Call the function."""
        if self._is_async:
            return asyncio.run(self.aask(request))
        return Answer.of(request, self._function(list(request.messages), request.schema))

    async def aask(self, request: Request) -> Answer:
        """Await the function, or call it in a thread."""
        if self._is_async:
            return Answer.of(request, await self._function(list(request.messages), request.schema))
        return await asyncio.to_thread(self.ask, request)


def as_model(llm: Any) -> Model:
    """The model itself, or a function as one.

    Raises:
        GenerationError: Neither.
    """
    if isinstance(llm, Model):
        return llm
    if callable(llm):
        return FunctionModel(llm)
    raise GenerationError(
        f"llm is a {type(llm).__name__}, which is no language model: pass an OpenAIModel, an Extractive, a function from "
        "(messages, schema) to the answer, or use the SyntheticQueryGenerator of the langchain or llama_index package."
    )
