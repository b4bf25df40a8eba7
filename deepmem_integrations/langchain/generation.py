"""Synthetic queries as a step of a chain: documents in, labels out."""

import contextlib
import copy
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Unpack

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig

from deepmem_integrations.generation import Answer, Estimate, Generation, QueryGenerator, Request
from deepmem_integrations.generation.generator import Options
from deepmem_integrations.labels import Labels, Relevance


class LangChainModel:
    """A LangChain chat model, asked for structured output. Retries are its own (``max_retries``).

    Args:
        llm: Any model that has ``with_structured_output``.
    """

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    @property
    def name(self) -> str:
        """The model's own name where it tells one, and its class."""
        names = (getattr(self._llm, attribute, None) for attribute in ("model_name", "model", "model_id"))
        return ":".join([type(self._llm).__name__, *[name for name in names if isinstance(name, str)][:1]])

    def ask(self, request: Request) -> Answer:
        """One call; callbacks and tracing are those of the chain."""
        try:
            return _answer(request, self._structured(request).invoke(_messages(request)))
        except Exception as error:  # some models raise where others return what could not be parsed
            return Answer.of_error(error)

    async def aask(self, request: Request) -> Answer:
        """`ask` with the model's own async."""
        try:
            return _answer(request, await self._structured(request).ainvoke(_messages(request)))
        except Exception as error:
            return Answer.of_error(error)

    def _structured(self, request: Request) -> Runnable[Any, Any]:
        structured: Runnable[Any, Any] = self._llm.with_structured_output(request.schema, include_raw=True)
        return structured


class SyntheticQueryGenerator(Runnable[Sequence[Document], Relevance]):
    """Write search queries for documents: ``RunnableLambda(splitter.split_documents) | generator | memory.trainer()``.

    Documents need the ids that they have in the store. Those of ``memory.documents()`` have them; for freshly split ones,
    ``memory=`` finds them by their text. A stream yields a `Relevance` for each document; the pieces add up.

    Args:
        llm: Any LangChain chat model with structured output, or whatever `QueryGenerator` takes.
        queries_per_document: How many to ask for.
        options: Passed to `QueryGenerator`: ``kinds``, ``personas``, ``examples``, ``filters``, ``embedding``, ``memory``,
            ``max_documents``, ``skip_junk``, ``pair_share``, ``judged_documents``, ``budget``, ``concurrency``,
            ``checkpoint``, ``seed``, ``progress``. ``config={"max_concurrency": …}`` of a call
            takes the place of ``concurrency``.

    Raises:
        GenerationError: Options that cannot be honoured.
    """

    def __init__(self, llm: Any, queries_per_document: int = 4, **options: Unpack[Options]) -> None:
        model = LangChainModel(llm) if hasattr(llm, "with_structured_output") else llm
        self._generator = QueryGenerator(model, queries_per_document, **options)

    def invoke(self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any) -> Relevance:
        """Write queries for documents.

        Args:
            input: The documents.
            config: As for every Runnable.
            kwargs: None are known.

        Returns:
            The labels: ``generated`` is true of each, ``left_out`` counts what was left out and why.

        Raises:
            GenerationError: A document without an id, a checkpoint of another run, or not one request was answered.
        """
        return self._call_with_config(self._generated, input, config, **kwargs)

    async def ainvoke(self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any) -> Relevance:
        """`invoke` with the model's own async."""
        return await self._acall_with_config(self._agenerated, input, config, **kwargs)

    def stream(self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Relevance]:
        """Yield labels as they come, a piece for each document."""
        return self.transform(iter([input]), config, **kwargs)

    async def astream(
        self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Relevance]:
        """`stream` with the model's own async."""

        async def inputs() -> AsyncIterator[Sequence[Document]]:
            yield input

        async for piece in self.atransform(inputs(), config, **kwargs):
            yield piece

    def transform(
        self, input: Iterator[Sequence[Document]], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Relevance]:
        """`stream` of documents that come in pieces; all of them are waited for, since each is compared with all."""
        yield from self._transform_stream_with_config(input, self._pieces, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[Sequence[Document]], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Relevance]:
        """`transform` with the model's own async."""
        async for piece in self._atransform_stream_with_config(input, self._apieces, config, **kwargs):
            yield piece

    def generate(self, documents: Sequence[Document]) -> Generation:
        """`invoke` with each query's provenance, what was left out and why, and what was used."""
        return self._generator.generate(documents)

    async def agenerate(self, documents: Sequence[Document]) -> Generation:
        """`generate` with the model's own async."""
        return await self._generator.agenerate(documents)

    def estimate(self, documents: Sequence[Document]) -> Estimate:
        """What a run would send; see `QueryGenerator.estimate`."""
        return self._generator.estimate(documents)

    def generate_queries(self, docs: Sequence[str], ids: Sequence[str], n: int = 100) -> tuple[list[str], Labels]:
        """N questions for texts, as in Deep Lake v3's tutorials; see `QueryGenerator.generate_queries`."""
        return self._generator.generate_queries(docs, ids, n)

    # LangChain calls these with its run managers, which are of no use here, and with the call's config.

    def _generated(self, documents: Sequence[Document], run_manager: Any, config: RunnableConfig) -> Relevance:
        return self._configured(config)(documents)

    async def _agenerated(self, documents: Sequence[Document], run_manager: Any, config: RunnableConfig) -> Relevance:
        return await self._configured(config).acall(documents)

    def _pieces(self, inputs: Iterator[Sequence[Document]], run_manager: Any, config: RunnableConfig) -> Iterator[Relevance]:
        yield from self._configured(config).stream([document for documents in inputs for document in documents])

    async def _apieces(
        self, inputs: AsyncIterator[Sequence[Document]], run_manager: Any, config: RunnableConfig
    ) -> AsyncIterator[Relevance]:
        documents = [document async for piece in inputs for document in piece]
        async with contextlib.aclosing(self._configured(config).astream(documents)) as pieces:
            async for relevance in pieces:
                yield relevance

    def _configured(self, config: RunnableConfig) -> QueryGenerator:
        """The generator with the call's own concurrency, if it has one."""
        generator = copy.copy(self._generator)
        generator.concurrency = config.get("max_concurrency") or generator.concurrency
        return generator


def _messages(request: Request) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in request.messages]


def _answer(request: Request, output: Any) -> Answer:
    """What ``with_structured_output(…, include_raw=True)`` gave."""
    raw = output["raw"]
    usage: Mapping[str, Any] = (raw.usage_metadata if isinstance(raw, AIMessage) else None) or {}
    tokens: dict[str, Any] = {name: usage.get(name, 0) for name in ("input_tokens", "output_tokens")}
    if refusal := getattr(raw, "additional_kwargs", {}).get("refusal"):
        return Answer(fault="refusal", detail=str(refusal)[:300], **tokens)
    if output["parsed"] is None:
        return Answer(fault="malformed", detail=f"{output['parsing_error'] or 'an empty answer'}"[:300], **tokens)
    return Answer.of(request, output["parsed"], **tokens)
