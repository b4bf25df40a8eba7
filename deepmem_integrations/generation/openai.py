"""Language models behind the ``openai`` package: those of OpenAI, and those of any compatible server."""

import asyncio
import contextlib
import json
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from deepmem_integrations._extras import require
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.model import Answer, Request
from deepmem_integrations.generation.rates import atake_turn, take_turn

_LIMITS = ("max_completion_tokens", "max_tokens")


def _before(_: Any) -> None:
    """Wait for the turn of a request, each time that the client sends it."""
    take_turn()


async def _abefore(_: Any) -> None:
    await atake_turn()


class OpenAIModel:
    """A chat model that is asked for structured output (``chat.completions.parse``).

    The client of the ``openai`` package sends requests again after an error, waits longer each time, and obeys ``Retry-After``.
    Under a `RateLimit`, each of these tries waits for its turn, unless ``http_client`` is given.

    A model that is pickled, as on its way to the workers of a Ray cluster, takes its API key along.

    Args:
        model: The name of the model, such as ``"gpt-4o-mini"``.
        request_options: Options of every request: ``temperature``, ``seed``, ``reasoning_effort``, … Answers are cut off at
            ``max_completion_tokens=4096`` unless the options set another limit. Servers that do not know this option take
            ``max_tokens``.
        json_object: Send the schema as ``response_format={"type": "json_object", "schema": …}``. Some servers know this form in
            place of OpenAI's ``json_schema``: those of llama-cpp-python, Together and Fireworks.
        max_retries: How often the client sends a failed request again.
        timeout: The time limit of one try, in seconds.
        client_options: Options of ``openai.OpenAI``: ``api_key``, ``base_url``, … By default the client reads
            ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL`` from the environment.

    Raises:
        MissingExtraError: The ``openai`` package is not installed.
        GenerationError: The client cannot be made, for example because there is no API key.

    Example:
        >>> model = OpenAIModel("gpt-4o-mini", api_key="your key", request_options={"temperature": 0.7})
        >>> model.name
        'openai:gpt-4o-mini max_completion_tokens=4096 temperature=0.7'
    """

    def __init__(
        self,
        model: str,
        *,
        request_options: dict[str, Any] | None = None,
        json_object: bool = False,
        max_retries: int = 5,
        timeout: float = 120.0,
        **client_options: Any,
    ) -> None:
        self.model = model
        self._json_object = json_object
        self._openai = require("openai", extra="openai")
        self._client_options = {"max_retries": max_retries, "timeout": timeout, **client_options}
        self.takes_turns = "http_client" not in client_options
        self._options = dict(request_options or {})
        if not any(limit in self._options for limit in _LIMITS):
            self._options["max_completion_tokens"] = 4096
        self._open()

    def _open(self) -> None:
        try:
            self._client = self._opened(self._openai.OpenAI, self._openai.DefaultHttpxClient, _before)
        except self._openai.OpenAIError as error:
            raise GenerationError(f"The language model openai:{self.model} cannot be used: {error}") from error
        weakref.finalize(self, self._client.close)
        self._async: dict[asyncio.AbstractEventLoop, tuple[Any, list[Request]]] = {}

    def _opened(self, kind: Any, http_client: Any, before: Any) -> Any:
        """Open a client that waits for a turn before it sends a request, unless the user has made its ``http_client``."""
        options = dict(self._client_options)
        if self.takes_turns:
            options["http_client"] = http_client(event_hooks={"request": [before]}, timeout=options["timeout"])
        return kind(**options)

    @property
    def name(self) -> str:
        """The name of the model together with its request options."""
        return " ".join([f"openai:{self.model}", *(f"{name}={value}" for name, value in sorted(self._options.items()))])

    def ask(self, request: Request) -> Answer:
        """Send one request.

        Raises:
            openai.OpenAIError: The server refuses the request or does not answer, also after the client's retries.
            GenerationError: The server answers with something else than a chat completion.
        """
        try:
            return self._answer(request, self._method(self._client)(**self._arguments(request)))
        except Exception as error:
            return Answer.of_error(error, request)

    async def aask(self, request: Request) -> Answer:
        """Do the same as `ask` with the client's async methods."""
        try:
            async with self._async_client(request) as client:
                return self._answer(request, await self._method(client)(**self._arguments(request)))
        except Exception as error:
            return Answer.of_error(error, request)

    @contextlib.asynccontextmanager
    async def _async_client(self, request: Request) -> AsyncIterator[Any]:
        """Yield the client of this event loop, to which its connections belong. The last request in flight closes the client."""
        loop = asyncio.get_running_loop()
        if loop not in self._async:
            client = self._opened(self._openai.AsyncOpenAI, self._openai.DefaultAsyncHttpxClient, _abefore)
            self._async[loop] = client, []
        client, in_flight = self._async[loop]
        in_flight.append(request)
        try:
            yield client
        finally:
            in_flight.remove(request)
            if not in_flight:
                del self._async[loop]
                closing = asyncio.ensure_future(client.close())
                try:
                    await asyncio.shield(closing)
                except asyncio.CancelledError:  # a run that is cancelled now still leaves no connection open
                    await closing
                    raise

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what opens the model elsewhere: the options of the client, with the key and the address that it found."""
        found = {name: getattr(self._client, name) for name in ("api_key", "organization", "project")}
        found |= {"base_url": str(self._client.base_url)}
        options = {**{name: value for name, value in found.items() if value}, **self._client_options}
        state = {name: value for name, value in vars(self).items() if name not in ("_openai", "_client", "_async")}
        return {**state, "_client_options": options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the model."""
        vars(self).update(state)
        self._openai = require("openai", extra="openai")
        self._open()

    def _arguments(self, request: Request) -> dict[str, Any]:
        schema: Any = request.schema
        if self._json_object:
            schema = {"type": "json_object", "schema": schema.model_json_schema()}
        return {"model": self.model, "messages": list(request.messages), "response_format": schema, **self._options}

    def _method(self, client: Any) -> Any:
        completions = client.chat.completions.with_raw_response
        return completions.create if self._json_object else completions.parse

    def _answer(self, request: Request, response: Any) -> Answer:
        """Read a response. Where the client cannot parse it, the tokens that the server counted count all the same.

        Raises:
            GenerationError: The response is no chat completion.
        """
        try:
            completion = response.parse()
            choices = list(completion.choices)
        except (AttributeError, TypeError) as error:  # as of a web page, or of an error with the status of success
            raise GenerationError(f"the server answered without choices: {response.http_response.text[:200]!r}") from error
        except Exception as error:
            answer = Answer.of_error(error, request)
            with contextlib.suppress(ValueError, KeyError, TypeError):
                usage = json.loads(response.http_response.text)["usage"]
                sent, received = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
                return replace(answer, input_tokens=sent, output_tokens=received)
            return answer
        usage = completion.usage
        tokens = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens} if usage else {}
        if not choices:
            return Answer(fault="malformed", detail="no choices", **tokens)
        message = choices[0].message
        if message.refusal:
            return Answer(fault="refusal", detail=message.refusal[:300], **tokens)
        return Answer.of(request, (message.content or "") if self._json_object else message.parsed, **tokens)
