"""The judge for LlamaIndex: logged queries in, labels out, as a callable and as a step of a workflow."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.workflow import Context, StartEvent, StopEvent, Workflow, step

from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.sources import Source
from deepmem_integrations.judging import RelevanceJudge as Judge
from deepmem_integrations.judging.judge import Options
from deepmem_integrations.judging.scoring import Reranker
from deepmem_integrations.labels import Relevance
from deepmem_integrations.llama_index.generation import LabelsEvent, LlamaIndexModel


class RelevanceJudge(Judge):
    """Judge what several rankings find for queries: ``judge(queries)`` and ``await judge.acall(queries)`` return a `Relevance`.

    ``judge.workflow()`` returns the judge as a workflow of one step.

    Args:
        llm: Any LlamaIndex LLM, or a language model that `deepmem_integrations.judging.RelevanceJudge` takes.
        reranker: In place of ``llm`` a node postprocessor that scores nodes, or a function from a query and texts to scores.
        rankings: Retrievers, or functions from a query to nodes.
        options: Passed to `deepmem_integrations.judging.RelevanceJudge`: ``thresholds``, ``memory``, ``documents``, ``depth``,
            ``weights``, ``sample``, ``instructions``, ``budget``, ``limit``, ``concurrency``, ``on``,
            ``checkpoint``, ``progress``.

    Raises:
        GenerationError: An option is out of range, or the options do not go together.

    Example:
        >>> def shared_words(query, texts):  # in place of a reranker
        ...     return [len({*query.split()} & {*text.split()}) for text in texts]
        >>> nodes = [TextNode(id_="revert", text="git revert can undo a commit"), TextNode(id_="push", text="git push sends it")]
        >>> judge = RelevanceJudge(reranker=shared_words, thresholds=[2], rankings=[lambda query: nodes], progress=False)
        >>> judge(["undo a commit"]).labels
        ((('revert', 1.0),),)
    """

    def __init__(
        self, llm: Any = None, *, reranker: Any = None, rankings: Sequence[Any] = (), **options: Unpack[Options]
    ) -> None:
        model = LlamaIndexModel(llm) if hasattr(llm, "astructured_predict") else llm
        if isinstance(reranker, BaseNodePostprocessor):
            reranker = Reranker(partial(_postprocessed, reranker), type(reranker).__name__)
        found_by = [getattr(ranking, "retrieve", ranking) for ranking in rankings]
        super().__init__(model, reranker=reranker, rankings=found_by, **options)

    def workflow(self, **options: Any) -> "JudgingWorkflow":
        """Return the judge as a workflow of one step, to run by itself or inside a step of another workflow.

        Args:
            options: Passed to ``Workflow``. There is no time limit unless ``timeout`` sets one.
        """
        return JudgingWorkflow(self, **options)


class JudgingWorkflow(Workflow):
    """Judge documents, as a workflow: ``await workflow.run(queries=queries)`` returns a `Relevance`.

    ``stream_events`` of the workflow's handler yields a `LabelsEvent` for each query.

    Args:
        judge: The judge.
        options: Passed to ``Workflow``.
    """

    def __init__(self, judge: Judge, **options: Any) -> None:
        super().__init__(**{"timeout": None, **options})
        self._judge = judge

    @step
    async def judge_documents(self, ctx: Context, ev: StartEvent) -> StopEvent:
        """Judge documents for the queries of the event."""

        def stream(piece: Relevance) -> None:
            ctx.write_event_to_stream(LabelsEvent(relevance=piece))

        return StopEvent(result=(await self._judge.ajudge(ev.queries, stream)).relevance)


def _postprocessed(postprocessor: BaseNodePostprocessor, query: str, sources: Sequence[Source]) -> list[float | None]:
    """Return the scores that a postprocessor gives; None for nodes that it leaves out, as many keep the best few alone."""
    nodes = [NodeWithScore(node=TextNode(id_=source.id, text=source.text)) for source in sources]
    scores = {}
    for node in postprocessor.postprocess_nodes(nodes, query_str=query):
        if node.score is None:
            raise GenerationError(
                f"{type(postprocessor).__name__} gives nodes no scores. Pass a reranker that does, or a function from a query "
                "and texts to scores."
            )
        scores[node.node_id] = float(node.score)
    return [scores.get(source.id) for source in sources]
