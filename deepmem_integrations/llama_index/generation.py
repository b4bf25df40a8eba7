"""The query generator for LlamaIndex: nodes in, labels out, as a callable and as a step of a workflow."""

from typing import Any, Unpack

from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.workflow import Context, StartEvent, StopEvent, Workflow, step
from llama_index.core.workflow import Event as WorkflowEvent

from deepmem_integrations.generation import Answer, QueryGenerator, Request
from deepmem_integrations.generation.generator import Options
from deepmem_integrations.labels import Relevance

# The texts are the values of the template's variables, so that braces in a document are never read as variables. Each call gets
# a copy of the template, because LlamaIndex attaches its output parser to the template.
_TEMPLATE = ChatPromptTemplate(
    [ChatMessage("{system}", role=MessageRole.SYSTEM), ChatMessage("{user}", role=MessageRole.USER)],
)


class LlamaIndexModel:
    """A LlamaIndex LLM that is asked for structured output. The model makes its own retries (``max_retries``).

    LlamaIndex reports no token counts for structured output, so the usage is estimated.

    Args:
        llm: Any LLM that has ``structured_predict`` and ``astructured_predict``.
    """

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    @property
    def name(self) -> str:
        """The class of the model, and the model's own name."""
        return f"{type(self._llm).__name__}:{self._llm.metadata.model_name}"

    def ask(self, request: Request) -> Answer:
        """Send one request."""
        try:
            return Answer.of(request, self._llm.structured_predict(request.schema, _TEMPLATE.model_copy(), **_texts(request)))
        except Exception as error:
            return _of_error(error, request)

    async def aask(self, request: Request) -> Answer:
        """Do the same as `ask` with the model's async methods."""
        try:
            output = await self._llm.astructured_predict(request.schema, _TEMPLATE.model_copy(), **_texts(request))
            return Answer.of(request, output)
        except Exception as error:
            return _of_error(error, request)


class SyntheticQueryGenerator(QueryGenerator):
    """Write search queries for nodes: ``generator(nodes)`` and ``await generator.acall(nodes)`` return a `Relevance`.

    The nodes need the ids that they have in the index, because the labels name them. The nodes that ``memory.documents()``
    returns have these ids. ``generator.workflow()`` returns the generator as a workflow of one step.

    Args:
        llm: Any LlamaIndex LLM, or a language model that `QueryGenerator` takes.
        queries_per_document: How many queries to ask for per document.
        options: Passed to `QueryGenerator`: ``kinds``, ``personas``, ``examples``, ``filters``, ``embedding``, ``memory``,
            ``max_documents``, ``skip_junk``, ``pair_share``, ``judged_documents``, ``budget``, ``limit``,
            ``concurrency``, ``on``, ``checkpoint``, ``seed``, ``progress``.

    Raises:
        GenerationError: An option is out of range, or the options do not go together.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from deepmem_integrations.generation import Extractive  # in place of a language model
        >>> generator = SyntheticQueryGenerator(llm=Extractive(), queries_per_document=1, progress=False)
        >>> generator([TextNode(id_="doc-1", text="Run git revert to undo a commit. The history stays as it was.")]).queries
        ('Run git revert to undo a commit.',)
    """

    def __init__(self, llm: Any, queries_per_document: int = 4, **options: Unpack[Options]) -> None:
        model = LlamaIndexModel(llm) if hasattr(llm, "astructured_predict") else llm
        super().__init__(model, queries_per_document, **options)

    def workflow(self, **options: Any) -> "GenerationWorkflow":
        """Return the generator as a workflow of one step, to run by itself or inside a step of another workflow.

        Args:
            options: Passed to ``Workflow``. There is no time limit unless ``timeout`` sets one.
        """
        return GenerationWorkflow(self, **options)


class LabelsEvent(WorkflowEvent):
    """The event with which a workflow streams the labels of each document as they arrive.

    Attributes:
        relevance: The labels of one document, a `Relevance`. The pieces add up.
    """

    relevance: Any


class GenerationWorkflow(Workflow):
    """Write search queries for nodes, as a workflow: ``await workflow.run(nodes=nodes)`` returns a `Relevance`.

    ``stream_events`` of the workflow's handler yields a `LabelsEvent` for each document.

    Args:
        generator: The generator that writes the queries.
        options: Passed to ``Workflow``.
    """

    def __init__(self, generator: QueryGenerator, **options: Any) -> None:
        super().__init__(**{"timeout": None, **options})
        self._generator = generator

    @step
    async def write_queries(self, ctx: Context, ev: StartEvent) -> StopEvent:
        """Write queries for the nodes of the event."""

        def stream(piece: Relevance) -> None:
            ctx.write_event_to_stream(LabelsEvent(relevance=piece))

        return StopEvent(result=(await self._generator.agenerate(ev.nodes, stream)).relevance)


def _of_error(error: Exception, request: Request) -> Answer:
    if isinstance(error, TypeError) and "structured_predict expected" in str(error):  # LlamaIndex says so of a missing answer
        error = ValueError(str(error))
    return Answer.of_error(error, request)


def _texts(request: Request) -> dict[str, str]:
    return {message["role"]: message["content"] for message in request.messages}
