"""The query generator for LangChain: documents in, labels out, as a step of a chain."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from deepmem_integrations.generation import Answer, Estimate, Generation, QueryGenerator, Request
from deepmem_integrations.generation.generator import Options
from deepmem_integrations.labels import Labels
from deepmem_integrations.langchain.steps import LabelStep


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the model, as on its way to the workers of a cluster, or else the fields that make it, keys among them."""
        llm = self._llm
        try:
            pickle.dumps(llm)
        except (
            Exception
        ):  # most chat models hold clients, whose locks cannot be pickled, in fields that are left out elsewhere, too
            fields = getattr(type(llm), "model_fields", {}).items()
            kept = {field.alias or name: getattr(llm, name) for name, field in fields if not field.exclude}
            return _made, (type(llm), {name: value for name, value in kept.items() if value is not None})
        return LangChainModel, (llm,)


def _made(kind: type, fields: dict[str, Any]) -> LangChainModel:
    return LangChainModel(kind(**fields))


class SyntheticQueryGenerator(LabelStep[Sequence[Document]]):
    """Write search queries for documents: ``RunnableLambda(splitter.split_documents) | generator | memory.trainer()``.

    The documents need the ids that they have in the store, because the labels name them. The documents that
    ``memory.documents()`` returns have these ids; for freshly split documents, ``memory=`` finds the ids by the texts. A stream
    yields a `Relevance` for each document, and the pieces add up.

    Args:
        llm: Any LangChain chat model with structured output, or a language model that `QueryGenerator` takes.
        queries_per_document: How many queries to ask for per document.
        options: Passed to `QueryGenerator`: ``kinds``, ``personas``, ``examples``, ``filters``, ``embedding``, ``memory``,
            ``max_documents``, ``skip_junk``, ``pair_share``, ``judged_documents``, ``budget``, ``limit``,
            ``concurrency``, ``on``, ``checkpoint``, ``seed``, ``progress``. In a call, ``config={"max_concurrency": …}`` replaces
            ``concurrency``.

    Raises:
        GenerationError: An option is out of range, or the options do not go together.

    Example:
        >>> from langchain_core.documents import Document
        >>> from deepmem_integrations.generation import Extractive  # in place of a language model
        >>> generator = SyntheticQueryGenerator(llm=Extractive(), queries_per_document=1, progress=False)
        >>> generator.invoke([Document("Run git revert to undo a commit. The history stays as it was.", id="doc-1")]).queries
        ('Run git revert to undo a commit.',)
    """

    _worker: QueryGenerator

    def __init__(self, llm: Any, queries_per_document: int = 4, **options: Unpack[Options]) -> None:
        model = LangChainModel(llm) if hasattr(llm, "with_structured_output") else llm
        self._worker = QueryGenerator(model, queries_per_document, **options)

    @staticmethod
    def _joined(inputs: Sequence[Sequence[Document]]) -> Sequence[Document]:
        return [document for documents in inputs for document in documents]

    def generate(self, documents: Sequence[Document]) -> Generation:
        """Write queries, and return them with their provenance, everything that was left out with its reason, and the usage."""
        return self._worker.generate(documents)

    async def agenerate(self, documents: Sequence[Document]) -> Generation:
        """Do the same as `generate` with the model's async methods."""
        return await self._worker.agenerate(documents)

    def estimate(self, documents: Sequence[Document]) -> Estimate:
        """Estimate the requests, the tokens and the cost of a run: see `QueryGenerator.estimate`."""
        return self._worker.estimate(documents)

    def generate_queries(self, docs: Sequence[str], ids: Sequence[str], n: int = 100) -> tuple[list[str], Labels]:
        """Write n questions for texts, as in the tutorials of Deep Lake v3: see `QueryGenerator.generate_queries`."""
        return self._worker.generate_queries(docs, ids, n)


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
