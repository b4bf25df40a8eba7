"""The requests to a language model and its answers, whatever package the model comes from."""

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from deepmem_integrations._extras import require
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.sources import Source

if TYPE_CHECKING:
    from pydantic import BaseModel

_JSON_START = re.compile(r"[{\[]")
_WHOLE = {"queries", "answered_by", "grade"}  # a field that only a whole answer has

Message = dict[str, str]
"""A chat message: ``{"role": "system" | "user", "content": …}``."""


@dataclass(frozen=True)
class Request:
    """One request to a language model.

    Attributes:
        key: The key of the answer in the checkpoint.
        task: ``"write"`` asks for queries for one document, or for two documents at once. ``"judge"`` asks which documents
            answer a query, and ``"grade"`` how well one document answers a query. ``"score"`` asks a reranker for the scores of
            all documents.
        sources: The documents that the request is about.
        kinds: The kind of each query that is asked for.
        messages: The messages for the language model; a reranker gets none.
        query: The query to judge; empty where the task is ``"write"``.
    """

    key: str
    task: Literal["write", "judge", "grade", "score"]
    sources: tuple[Source, ...]
    kinds: tuple[str, ...]
    messages: tuple[Message, ...] = field(repr=False)
    query: str = ""

    @property
    def schema(self) -> "type[BaseModel]":
        """The pydantic model that the answer must fit."""
        require("pydantic", extra="openai")
        from deepmem_integrations.generation import schema

        schemas: dict[str, type[BaseModel]] = {"judge": schema.Judgement, "grade": schema.Grade, "score": schema.Scores}
        return schemas.get(self.task, schema.Queries)


@dataclass(frozen=True)
class Answer:
    """The answer to one request.

    Attributes:
        value: The fields of the schema; empty where there is a fault.
        fault: ``"malformed"`` or ``"refusal"`` where the model answered something else than the request asked for; otherwise
            empty.
        detail: The particulars of the fault.
        input_tokens: The number of input tokens that the model counted; 0 where it reports no count.
        output_tokens: The number of output tokens that the model counted; 0 where it reports no count.

    Example:
        >>> request = Request(key="doc-1", task="write", sources=(), kinds=("question",), messages=())
        >>> Answer.of(request, ["How do I undo a commit?"]).value
        {'queries': [{'kind': '', 'text': 'How do I undo a commit?'}]}
    """

    value: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    detail: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not empty, as JSON values."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def of(cls, request: Request, value: Any, *, input_tokens: int = 0, output_tokens: int = 0) -> "Answer":
        """Check the value that a model returned: JSON text, JSON values, an instance of the schema, or a bare list of queries.

        The JSON may stand in a code fence or between words, and fields that models forget may be missing.

        Args:
            request: The request that is answered.
            value: The value that the model returned.
            input_tokens: The number of input tokens that the model counted; 0 where it reports no count.
            output_tokens: The number of output tokens that the model counted; 0 where it reports no count.

        Returns:
            The answer. Its ``fault`` is ``"malformed"`` where the value does not fit the schema.
        """
        try:
            fields = request.schema.model_validate(_read(value, request) if isinstance(value, str) else value).model_dump()
        except ValueError as error:
            return replace(cls.of_error(error), input_tokens=input_tokens, output_tokens=output_tokens)
        return cls(fields, input_tokens=input_tokens, output_tokens=output_tokens)

    @classmethod
    def of_error(cls, error: Exception, request: Request | None = None) -> "Answer":
        """Return an answer for an error that says that the model answered in another form than it should.

        Args:
            error: The error.
            request: The request that is answered; None where the text that the error may hold is not to be read.

        Returns:
            The answer that stands in the text, where the error holds a text that can be read; else an answer with a fault.

        Raises:
            Exception: The error means that there is no answer. It is raised again as it is.
        """
        kind, usage = type(error).__name__, getattr(getattr(error, "completion", None), "usage", None)
        tokens = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens} if usage else {}
        detail = f"{kind}: {error}"[:300]
        # The errors of the openai package are known by their names, because the package need not be installed. The
        # ValidationError of pydantic is a ValueError.
        if kind == "ContentFilterFinishReasonError":
            return cls(fault="refusal", detail=detail, **tokens)
        if kind == "LengthFinishReasonError" or isinstance(error, ValueError):
            if request is not None and (text := _text_of(error)):
                answer = cls.of(request, text, **tokens)
                if not answer.fault:
                    return answer
            return cls(fault="malformed", detail=detail, **tokens)
        raise error


def _read(text: str, request: Request) -> Any:
    """Read the JSON in the text of an answer, around which models put code fences, words and what they thought.

    Raises:
        ValueError: There is no JSON in the text.
    """
    text = text.rpartition("</think>")[2]
    decoder, values, place = json.JSONDecoder(strict=False), [], 0
    while (start := _JSON_START.search(text, place)) is not None:
        try:
            value, place = decoder.raw_decode(text, start.start())
            values.append(value)
        except ValueError:
            place = start.end()
        except RecursionError:  # Reading on from the next bracket would take the square of their number.
            break
    if not values:
        if request.task == "grade":
            return text  # a model may answer with a number and nothing else
        raise ValueError(f"there is no JSON in the answer {text[:100]!r}")
    whole = [value for value in values if isinstance(value, dict) and not _WHOLE.isdisjoint(value)]
    if whole:
        return whole[-1]
    # The answer is a list, or a few queries without one, or was cut off after a few queries.
    return values[0] if len(values) == 1 else [value for value in values if isinstance(value, dict)]


def _text_of(error: Exception) -> str:
    """Return the text of the answer that an error of pydantic or LangChain holds; empty where it holds none."""
    if isinstance(text := getattr(error, "llm_output", None), str):
        return text
    if callable(errors := getattr(error, "errors", None)):
        return next((str(one["input"]) for one in errors() if one.get("type") == "json_invalid"), "")
    return ""


@runtime_checkable
class Model(Protocol):
    """A language model that answers requests.

    Both methods are called from several threads or tasks at once. Where there is no answer, they may raise any error; the
    model makes its own retries before that.
    """

    @property
    def name(self) -> str:
        """The name that tells the model from other models. A checkpoint belongs to one name."""
        ...

    def ask(self, request: Request) -> Answer:
        """Answer the request."""
        ...

    async def aask(self, request: Request) -> Answer:
        """Answer the request without blocking the event loop."""
        ...


class FunctionModel:
    """A language model that is a function from (messages, schema) to an answer, in any form that `Answer.of` takes.

    Args:
        function: The function, which is called in threads, or an async function, which is awaited on the caller's event loop.
        name: The name that tells the model from other models; by default the name of the function.

    Example:
        >>> model = FunctionModel(lambda messages, schema: ["How do I undo a commit?"], name="my model")
        >>> answer = model.ask(Request(key="doc-1", task="write", sources=(), kinds=("question",), messages=()))
        >>> answer.value["queries"][0]["text"]
        'How do I undo a commit?'
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is async
        )
        self._name = name or str(getattr(function, "__qualname__", type(function).__name__))

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._name

    def ask(self, request: Request) -> Answer:
        """Call the function."""
        if self._is_async:
            return asyncio.run(self.aask(request))
        return Answer.of(request, self._function(list(request.messages), request.schema))

    async def aask(self, request: Request) -> Answer:
        """Await the function if it is async; otherwise call it in a thread."""
        if self._is_async:
            return Answer.of(request, await self._function(list(request.messages), request.schema))
        return await asyncio.to_thread(self.ask, request)


def as_model(llm: Any) -> Model:
    """Return a model as it is, and a function as a `FunctionModel`.

    Raises:
        GenerationError: ``llm`` is neither a model nor a function.
    """
    if isinstance(llm, Model):
        return llm
    if callable(llm):
        return FunctionModel(llm)
    raise GenerationError(
        f"llm is a {type(llm).__name__}, which is no language model: pass an OpenAIModel, an Extractive, a function from "
        "(messages, schema) to the answer, or use the SyntheticQueryGenerator of the langchain or llama_index package."
    )
