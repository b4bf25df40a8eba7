"""The query generator for LangChain: documents in, labels out, as a step of a chain."""

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
    """A LangChain chat model that is asked for structured output. The model makes its own retries (``max_retries``).

    Args:
        llm: Any model that has ``with_structured_output``.
    """

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    @property
    def name(self) -> str:
        """The class of the model, and the model's own name where it has one."""
        names = (getattr(self._llm, attribute, None) for attribute in ("model_name", "model", "model_id"))
        return ":".join([type(self._llm).__name__, *[name for name in names if isinstance(name, str)][:1]])

    def ask(self, request: Request) -> Answer:
        """Send one request. Callbacks and tracing are those of the chain."""
        try:
            return _answer(request, self._structured(request).invoke(_messages(request)))
        except Exception as error:  # some models raise an error where others return an answer that cannot be parsed
            return Answer.of_error(error, request)

    async def aask(self, request: Request) -> Answer:
        """Do the same as `ask` with the model's async methods."""
        try:
            return _answer(request, await self._structured(request).ainvoke(_messages(request)))
        except Exception as error:
            return Answer.of_error(error, request)

    def _structured(self, request: Request) -> Runnable[Any, Any]:
        structured: Runnable[Any, Any] = self._llm.with_structured_output(request.schema, include_raw=True)
        return structured


class SyntheticQueryGenerator(Runnable[Sequence[Document], Relevance]):
    """Write search queries for documents: ``RunnableLambda(splitter.split_documents) | generator | memory.trainer()``.

    The documents need the ids that they have in the store, because the labels name them. The documents that
    ``memory.documents()`` returns have these ids; for freshly split documents, ``memory=`` finds the ids by the texts. A stream
    yields a `Relevance` for each document, and the pieces add up.

    Args:
        llm: Any LangChain chat model with structured output, or a language model that `QueryGenerator` takes.
        queries_per_document: How many queries to ask for per document.
        options: Passed to `QueryGenerator`: ``kinds``, ``personas``, ``examples``, ``filters``, ``embedding``, ``memory``,
            ``max_documents``, ``skip_junk``, ``pair_share``, ``judged_documents``, ``budget``, ``concurrency``,
            ``checkpoint``, ``seed``, ``progress``. In a call, ``config={"max_concurrency": …}`` replaces ``concurrency``.

    Raises:
        GenerationError: An option is out of range, or the options do not go together.

    Example:
        >>> from langchain_core.documents import Document
        >>> from deepmem_integrations.generation import Extractive  # in place of a language model
        >>> generator = SyntheticQueryGenerator(llm=Extractive(), queries_per_document=1, progress=False)
        >>> generator.invoke([Document("Run git revert to undo a commit. The history stays as it was.", id="doc-1")]).queries
        ('Run git revert to undo a commit.',)
    """

    def __init__(self, llm: Any, queries_per_document: int = 4, **options: Unpack[Options]) -> None:
        model = LangChainModel(llm) if hasattr(llm, "with_structured_output") else llm
        self._generator = QueryGenerator(model, queries_per_document, **options)

    def invoke(self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any) -> Relevance:
        """Write queries for documents.

        Args:
            input: The documents.
            config: The config of the call, as for every Runnable.
            kwargs: No further arguments are known.

        Returns:
            The labels. ``generated`` is True for every query; ``left_out`` counts, for each reason, the queries and documents
            that were left out.

        Raises:
            GenerationError: A document has no id, the checkpoint belongs to another run, or not one request was answered.
        """
        return self._call_with_config(self._generated, input, config, **kwargs)

    async def ainvoke(self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any) -> Relevance:
        """Do the same as `invoke` with the model's async methods."""
        return await self._acall_with_config(self._agenerated, input, config, **kwargs)

    def stream(self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Relevance]:
        """Yield labels as they arrive, a `Relevance` for each document, always in the same order. The pieces add up."""
        return self.transform(iter([input]), config, **kwargs)

    async def astream(
        self, input: Sequence[Document], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Relevance]:
        """Do the same as `stream` with the model's async methods."""

        async def inputs() -> AsyncIterator[Sequence[Document]]:
            yield input

        async for piece in self.atransform(inputs(), config, **kwargs):
            yield piece

    def transform(
        self, input: Iterator[Sequence[Document]], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Relevance]:
        """Yield labels as `stream` does, for documents that arrive in pieces.

        The generator waits for all documents first, because it compares each document with all of them.
        """
        yield from self._transform_stream_with_config(input, self._pieces, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[Sequence[Document]], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Relevance]:
        """Do the same as `transform` with the model's async methods."""
        async for piece in self._atransform_stream_with_config(input, self._apieces, config, **kwargs):
            yield piece

    def generate(self, documents: Sequence[Document]) -> Generation:
        """Write queries, and return them with their provenance, everything that was left out with its reason, and the usage."""
        return self._generator.generate(documents)

    async def agenerate(self, documents: Sequence[Document]) -> Generation:
        """Do the same as `generate` with the model's async methods."""
        return await self._generator.agenerate(documents)

    def estimate(self, documents: Sequence[Document]) -> Estimate:
        """Estimate the requests, the tokens and the cost of a run: see `QueryGenerator.estimate`."""
        return self._generator.estimate(documents)

    def generate_queries(self, docs: Sequence[str], ids: Sequence[str], n: int = 100) -> tuple[list[str], Labels]:
        """Write n questions for texts, as in the tutorials of Deep Lake v3: see `QueryGenerator.generate_queries`."""
        return self._generator.generate_queries(docs, ids, n)

    # LangChain calls these methods with a run manager, which they do not need, and with the config of the call.

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
        """Return a copy of the generator with the concurrency of this call, if the config sets one."""
        generator = copy.copy(self._generator)
        generator.concurrency = config.get("max_concurrency") or generator.concurrency
        return generator


def _messages(request: Request) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in request.messages]


def _answer(request: Request, output: Any) -> Answer:
    """Read the output of ``with_structured_output(…, include_raw=True)``."""
    raw = output["raw"]
    usage: Mapping[str, Any] = (raw.usage_metadata if isinstance(raw, AIMessage) else None) or {}
    tokens: dict[str, Any] = {name: usage.get(name, 0) for name in ("input_tokens", "output_tokens")}
    if refusal := getattr(raw, "additional_kwargs", {}).get("refusal"):
        return Answer(fault="refusal", detail=str(refusal)[:300], **tokens)
    if output["parsed"] is None:
        for said in _said(raw):
            answer = Answer.of(request, said, **tokens)
            if not answer.fault:
                return answer
        return Answer(fault="malformed", detail=f"{output['parsing_error'] or 'an empty answer'}"[:300], **tokens)
    return Answer.of(request, output["parsed"], **tokens)


def _said(raw: Any) -> Iterator[Any]:
    """Yield what a message may hold the answer in: its text, and the arguments of its tool calls, those that are no JSON too."""
    content = getattr(raw, "content", None)
    blocks = content if isinstance(content, list) else [content]
    yield "\n".join(block["text"] if isinstance(block, dict) and "text" in block else str(block or "") for block in blocks)
    for call in (*getattr(raw, "tool_calls", ()), *getattr(raw, "invalid_tool_calls", ())):
        yield call["args"]
