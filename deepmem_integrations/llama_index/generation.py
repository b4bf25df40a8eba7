"""Synthetic queries for LlamaIndex: nodes in, labels out, as a callable and as a step of a workflow."""

from typing import Any, Unpack

from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.workflow import Context, StartEvent, StopEvent, Workflow, step
from llama_index.core.workflow import Event as WorkflowEvent

from deepmem_integrations.generation import Answer, QueryGenerator, Request
from deepmem_integrations.generation.generator import Options
from deepmem_integrations.labels import Relevance

# The texts are put in as values: braces in a document are never taken for a template's. Each call gets a copy, since LlamaIndex
# hangs its output parser on the template.
_TEMPLATE = ChatPromptTemplate(
    [ChatMessage("{system}", role=MessageRole.SYSTEM), ChatMessage("{user}", role=MessageRole.USER)],
)


class LlamaIndexModel:
    """A LlamaIndex LLM, asked for structured output. Retries are its own (``max_retries``). It tells no token counts.

    Args:
        llm: Any LLM that has ``structured_predict`` and ``astructured_predict``.
    """

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    @property
    def name(self) -> str:
        """The model's own name, and its class."""
        return f"{type(self._llm).__name__}:{self._llm.metadata.model_name}"

    def ask(self, request: Request) -> Answer:
        """One call."""
        try:
            return Answer.of(request, self._llm.structured_predict(request.schema, _TEMPLATE.model_copy(), **_texts(request)))
        except Exception as error:
            return _of_error(error)

    async def aask(self, request: Request) -> Answer:
        """`ask` with the model's own async."""
        try:
            output = await self._llm.astructured_predict(request.schema, _TEMPLATE.model_copy(), **_texts(request))
            return Answer.of(request, output)
        except Exception as error:
            return _of_error(error)


class SyntheticQueryGenerator(QueryGenerator):
    """Write search queries for nodes: ``generator(nodes)`` gives a `Relevance`, ``await generator.acall(nodes)`` likewise.

    The node ids are those that the index has; labels name them. ``generator.workflow()`` is the same as a workflow of one step.

    Args:
        llm: Any LlamaIndex LLM, or whatever `QueryGenerator` takes.
        queries_per_document: How many to ask for.
        options: Passed to `QueryGenerator`: ``kinds``, ``personas``, ``examples``, ``filters``, ``embedding``, ``memory``,
            ``max_documents``, ``skip_junk``, ``pair_share``, ``judged_documents``, ``budget``, ``concurrency``,
            ``checkpoint``, ``seed``, ``progress``.

    Raises:
        GenerationError: Options that cannot be honoured.
    """

    def __init__(self, llm: Any, queries_per_document: int = 4, **options: Unpack[Options]) -> None:
        model = LlamaIndexModel(llm) if hasattr(llm, "astructured_predict") else llm
        super().__init__(model, queries_per_document, **options)

    def workflow(self, **options: Any) -> "GenerationWorkflow":
        """The generator as a workflow of one step, to run by itself or inside another workflow's step.

        Args:
            options: For ``Workflow``; there is no time limit unless ``timeout`` sets one.
        """
        return GenerationWorkflow(self, **options)


class LabelsEvent(WorkflowEvent):
    """A piece of labels, written to the workflow's stream as it comes.

    Attributes:
        relevance: The labels of one document; the pieces add up.
    """

    relevance: Any


class GenerationWorkflow(Workflow):
    """``await workflow.run(nodes=nodes)`` gives the `Relevance`; ``stream_events`` of the handler gives `LabelsEvent` pieces.

    Args:
        generator: What writes the queries.
        options: For ``Workflow``.
    """

    def __init__(self, generator: QueryGenerator, **options: Any) -> None:
        super().__init__(**{"timeout": None, **options})
        self._generator = generator

    @step
    async def write_queries(self, ctx: Context, ev: StartEvent) -> StopEvent:
        """Write queries for the event's nodes."""

        def tell(piece: Relevance) -> None:
            ctx.write_event_to_stream(LabelsEvent(relevance=piece))

        return StopEvent(result=(await self._generator.agenerate(ev.nodes, tell)).relevance)


def _of_error(error: Exception) -> Answer:
    if isinstance(error, TypeError) and "structured_predict expected" in str(error):  # LlamaIndex's word for a missing answer
        error = ValueError(str(error))
    return Answer.of_error(error)


def _texts(request: Request) -> dict[str, str]:
    return {message["role"]: message["content"] for message in request.messages}
