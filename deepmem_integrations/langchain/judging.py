"""The judge for LangChain: logged queries in, labels out, as a step of a chain."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Unpack

from langchain_core.documents import BaseDocumentCompressor, Document

from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation import Estimate
from deepmem_integrations.generation.sources import Source
from deepmem_integrations.judging import Agreement, Judged
from deepmem_integrations.judging import RelevanceJudge as Judge
from deepmem_integrations.judging.judge import Options, Queries
from deepmem_integrations.judging.scoring import Reranker
from deepmem_integrations.labels import Relevance
from deepmem_integrations.langchain.generation import LangChainModel
from deepmem_integrations.langchain.steps import LabelStep

_ID = "deepmem judged id"  # a compressor may copy documents and lose their ids; metadata stay


class RelevanceJudge(LabelStep[Queries]):
    """Judge what several rankings find for queries that users asked: ``judge | memory.trainer()``.

    Args:
        llm: Any LangChain chat model with structured output, or a language model that
            `deepmem_integrations.judging.RelevanceJudge` takes.
        reranker: In place of ``llm`` a document compressor that writes ``relevance_score`` into the metadata, a cross encoder
            (any object with ``score``, such as ``HuggingFaceCrossEncoder``), or a function from a query and texts to scores.
        rankings: Retrievers, or functions from a query to documents with ids.
        options: Passed to `deepmem_integrations.judging.RelevanceJudge`: ``thresholds``, ``memory``, ``documents``, ``depth``,
            ``weights``, ``sample``, ``instructions``, ``budget``, ``limit``, ``concurrency``, ``on``,
            ``checkpoint``, ``progress``. In a call,
            ``config={"max_concurrency": …}`` replaces ``concurrency``.

    Raises:
        GenerationError: An option is out of range, or the options do not go together.

    Example:
        >>> def shared_words(query, texts):  # in place of a reranker
        ...     return [len({*query.split()} & {*text.split()}) for text in texts]
        >>> def found(query):  # in place of a retriever
        ...     return [Document("git revert can undo a commit", id="revert"), Document("git push sends it", id="push")]
        >>> judge = RelevanceJudge(reranker=shared_words, thresholds=[2], rankings=[found], progress=False)
        >>> judge.invoke(["undo a commit"]).labels
        ((('revert', 1.0),),)
    """

    _worker: Judge

    def __init__(
        self, llm: Any = None, *, reranker: Any = None, rankings: Sequence[Any] = (), **options: Unpack[Options]
    ) -> None:
        model = LangChainModel(llm) if hasattr(llm, "with_structured_output") else llm
        found_by = [getattr(ranking, "invoke", ranking) for ranking in rankings]
        self._worker = Judge(model, reranker=_as_reranker(reranker), rankings=found_by, **options)

    def judge(self, queries: Queries) -> Judged:
        """Judge documents, and return the labels with their grades, the agreement, and the usage."""
        return self._worker.judge(queries)

    async def ajudge(self, queries: Queries) -> Judged:
        """Do the same as `judge` with the model's async methods."""
        return await self._worker.ajudge(queries)

    def agreement(self, sample: Relevance) -> Agreement:
        """Measure the agreement with people: see `deepmem_integrations.judging.RelevanceJudge.agreement`."""
        return self._worker.agreement(sample)

    def estimate(self, queries: Queries) -> Estimate:
        """Estimate the requests, the tokens and the cost of a run: see `deepmem_integrations.judging.RelevanceJudge.estimate`."""
        return self._worker.estimate(queries)

    @staticmethod
    def _joined(inputs: Sequence[Queries]) -> Queries:
        if all(isinstance(piece, Relevance) for piece in inputs):
            return sum((piece for piece in inputs if isinstance(piece, Relevance)), Relevance([], []))
        if all(isinstance(piece, Mapping) for piece in inputs):
            return {name: text for piece in inputs if isinstance(piece, Mapping) for name, text in piece.items()}
        return [text for piece in inputs for text in (piece.queries if isinstance(piece, Relevance) else piece)]


def _as_reranker(reranker: Any) -> Any:
    name = type(reranker).__name__
    if isinstance(reranker, BaseDocumentCompressor):
        return Reranker(partial(_compressed, reranker), name)
    if hasattr(reranker, "score"):
        return Reranker(lambda query, sources: reranker.score([(query, source.text) for source in sources]), name)
    return reranker


def _compressed(compressor: BaseDocumentCompressor, query: str, sources: Sequence[Source]) -> list[float | None]:
    """Return the scores that a compressor gives; None for documents that it leaves out, as many keep the best few alone."""
    documents = [Document(source.text, id=source.id, metadata={_ID: source.id}) for source in sources]
    scores = {}
    for document in compressor.compress_documents(documents, query):
        if (score := document.metadata.get("relevance_score")) is None:
            raise GenerationError(
                f"{type(compressor).__name__} writes no relevance_score into the metadata, so its documents have no scores. Pass "
                "the cross encoder behind it, or a function from a query and texts to scores."
            )
        scores[document.metadata[_ID]] = float(score)
    return [scores.get(source.id) for source in sources]
