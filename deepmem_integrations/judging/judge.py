"""`RelevanceJudge`: logged queries in, labels out, with any language model or reranker."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from deepmem_integrations._ordered import ordered
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.askers import asker_of, check_asking
from deepmem_integrations.generation.budget import Budget, Estimate, Usage
from deepmem_integrations.generation.checkpoint import Checkpoint
from deepmem_integrations.generation.drive import adrive, drive
from deepmem_integrations.generation.extractive import Extractive
from deepmem_integrations.generation.model import Model, Request, as_model
from deepmem_integrations.generation.rates import RateLimit
from deepmem_integrations.generation.sources import Source, sources_of
from deepmem_integrations.judging import prompt
from deepmem_integrations.judging.agreement import Agreement
from deepmem_integrations.judging.pools import Pool, Rankable, Ranked, pools_of, sample_pools
from deepmem_integrations.judging.result import Judged
from deepmem_integrations.judging.run import JudgingRun
from deepmem_integrations.judging.scoring import Reranker
from deepmem_integrations.labels import Relevance

WEIGHTS = (-1.0, -0.5, 0.5, 1.0)
"""The weights of the grades 0 to 3: from 2 on a document answers the query, as in the evaluations of UMBRELA."""

Queries = Sequence[str] | Mapping[str, str] | Relevance
"""Queries to judge documents for: texts, query id → text, or a `Relevance` whose ids, times and marks are kept."""

_Asking = tuple[Checkpoint, Model, int]
"""An open checkpoint, the model to ask, and how many requests may be in flight."""


class Options(TypedDict, total=False):
    """The options that the judges of both frameworks pass on to `RelevanceJudge`, which documents them."""

    thresholds: Sequence[float]
    memory: Rankable | None
    documents: Iterable[Any] | None
    depth: int
    weights: Sequence[float] | None
    sample: Relevance | None
    instructions: str
    budget: Budget
    limit: RateLimit | None
    concurrency: int
    on: str | None
    checkpoint: str | os.PathLike[str] | None
    progress: bool


class RelevanceJudge:
    """Judge what several rankings find for queries that users asked: labels for queries that nobody judged.

    The documents that any of the rankings finds first are pooled, so that the labels do not confirm the present ranking alone. A
    language model grades each of them from 0 to 3, or a reranker scores them.

    Args:
        llm: An `OpenAIModel`, any `Model`, or a function from (messages, schema) to the grade: see `FunctionModel`.
        reranker: In place of ``llm`` a function from a query and n texts to n scores.
        thresholds: For a reranker, the lowest score of each grade from 1 on, ascending: ``[0.5]`` parts answers from others.
        memory: A `DeepMemory`. Its store is ranked by plain vectors, by words and by the model in use, as far as there are any.
        rankings: Further rankings: functions from a query to documents with ids, best first.
        documents: The documents of ``sample``, where there is no memory.
        depth: How many documents to take from each ranking.
        weights: The weight of each grade in the labels, from grade 0 on. 0 and below say *judged irrelevant*. By default
            `WEIGHTS`; of t thresholds −1, 1/t, 2/t, … 1.
        sample: Labels by people, with irrelevant documents among them. The judge judges their documents as well, and how far it
            agrees is kept with the labels, in ``Relevance.judges``.
        instructions: What the language model should know besides, such as what your users mean by a word.
        budget: A cap on tokens or cost.
        limit: A cap on the requests and tokens a minute, which all runs share that ask the same provider.
        concurrency: How many requests are in flight at a time, on a cluster from each CPU.
        on: The Ray cluster whose workers ask the language model, or run the reranker: see `QueryGenerator`.
        checkpoint: The path of a file that keeps every answer as it arrives, or the URL of a folder in an object store, such as
            ``s3://bucket/grades``. A later run with the same path, of more queries perhaps, does not send the requests that are
            answered there.
        progress: Show a progress bar when the run takes more than a second.

    Raises:
        GenerationError: An option is out of range, or the options do not go together.

    Example:
        >>> def shared_words(query, texts):  # in place of a reranker
        ...     return [len({*query.split()} & {*text.split()}) for text in texts]
        >>> documents = [("revert", "git revert can undo a commit"), ("push", "git push sends it to the server")]
        >>> judge = RelevanceJudge(reranker=shared_words, thresholds=[2], rankings=[lambda query: documents], progress=False)
        >>> labels = judge(["undo a commit"])
        >>> labels.labels, labels.irrelevant, labels.judges
        (((('revert', 1.0),),), ((('push', -1.0),),), ('shared_words',))
    """

    def __init__(
        self,
        llm: Any = None,
        *,
        reranker: Any = None,
        thresholds: Sequence[float] = (),
        memory: Rankable | None = None,
        rankings: Sequence[Ranked] = (),
        documents: Iterable[Any] | None = None,
        depth: int = 10,
        weights: Sequence[float] | None = None,
        sample: Relevance | None = None,
        instructions: str = "",
        budget: Budget = Budget(),  # noqa: B008 - the default is frozen
        limit: RateLimit | None = None,
        concurrency: int = 8,
        on: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> None:
        if (llm is None) == (reranker is None):
            raise GenerationError("Pass llm= or reranker=, one of the two: it is the judge.")
        Budget.check(budget)
        for name, given, example in (("thresholds", thresholds, "[0.5]"), ("rankings", rankings, "[retriever.invoke]")):
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise GenerationError(f"{name} is a list, such as {example}; got {given!r:.60}.")
        if not isinstance(sample, Relevance | None):
            raise GenerationError(f"sample is a Relevance, whose labels are known; got {type(sample).__name__}.")
        self.thresholds = [float(one) for one in thresholds]
        if (reranker is not None) != bool(self.thresholds) or self.thresholds != sorted(set(self.thresholds)):
            raise GenerationError(
                "A reranker needs thresholds=, ascending scores from which on a document has the grades 1, 2, …, such as [0.5]; "
                f"a language model gives grades and needs none. Got {list(thresholds)!r}."
            )
        self.model: Model = as_model(llm) if reranker is None else _as_reranker(reranker)
        if isinstance(self.model, Extractive):
            raise GenerationError("Extractive copies sentences and cannot judge: pass a language model or a reranker.")
        grades = len(self.thresholds) + 1 if self.thresholds else len(WEIGHTS)
        usual = [-1.0, *((grade + 1) / (grades - 1) for grade in range(grades - 1))] if self.thresholds else list(WEIGHTS)
        self.weights = usual if weights is None else [float(weight) for weight in weights]
        if len(self.weights) != grades or self.weights != sorted(self.weights):
            raise GenerationError(f"weights has a weight for each of the {grades} grades, ascending; got {self.weights}.")
        if memory is None and not rankings:
            raise GenerationError("Nothing finds documents to judge: pass a DeepMemory as memory=, or retrievers as rankings=.")
        if odd := [ranking for ranking in rankings if not callable(ranking)]:
            raise GenerationError(
                f"rankings are functions from a query to documents, such as retriever.invoke; got {odd[0]!r:.60}."
            )
        if memory is not None and not memory.corpus.listed:
            raise GenerationError(
                "The documents of this store cannot be listed: pass retrievers over the store as rankings=, and leave memory out."
            )
        if depth < 1 or concurrency < 1:
            raise GenerationError(f"RelevanceJudge needs depth ≥ 1 and concurrency ≥ 1; got {depth} and {concurrency}.")
        self.depth, self.budget, self.concurrency, self.checkpoint = depth, budget, concurrency, checkpoint
        check_asking(limit, on)
        self._limit, self._on = limit, on
        self._memory, self._rankings, self._documents = memory, rankings, documents
        self._sample, self._instructions, self._progress = sample, instructions, progress

    def __call__(self, queries: Queries) -> Relevance:
        """Judge documents for queries.

        Args:
            queries: The queries. A text that comes twice is judged once.

        Returns:
            The labels. ``judges`` says who judged, with the agreement where there is a sample; ``left_out`` counts, for each
            reason, what was left out.

        Raises:
            GenerationError: A document has no id, the checkpoint belongs to another run, or not one request was answered.
        """
        return self.judge(queries).relevance

    async def acall(self, queries: Queries) -> Relevance:
        """Do the same as a call of the judge, with the model's async methods."""
        return (await self.ajudge(queries)).relevance

    def judge(self, queries: Queries, on_piece: Callable[[Relevance], object] = lambda piece: None) -> Judged:
        """Judge documents, and return the labels with their grades, the agreement, and the usage.

        Args:
            queries: The queries, as for a call of the judge.
            on_piece: A function that is called with the labels of each query as they arrive.

        Raises:
            GenerationError: As for a call of the judge.
        """
        with self._run(queries) as (run, first):
            for piece in (first, *drive(run)):
                on_piece(piece)
            return _with(run.result(), first)

    async def ajudge(self, queries: Queries, on_piece: Callable[[Relevance], object] = lambda piece: None) -> Judged:
        """Do the same as `judge` with the model's async methods."""
        async with self._arun(queries) as (run, first):
            on_piece(first)
            async with contextlib.aclosing(adrive(run)) as pieces:
                async for piece in pieces:
                    on_piece(piece)
            return _with(run.result(), first)

    def stream(self, queries: Queries) -> Iterator[Relevance]:
        """Yield labels as they arrive, a `Relevance` for each query, always in the same order. The pieces add up.

        The first piece has no queries. It counts the queries that were asked before.

        Raises:
            GenerationError: As for a call of the judge.
        """
        with self._run(queries) as (run, first):
            yield first
            yield from drive(run)
            run.result()

    async def astream(self, queries: Queries) -> AsyncGenerator[Relevance, None]:
        """Do the same as `stream` with the model's async methods."""
        async with self._arun(queries) as (run, first):
            yield first
            async with contextlib.aclosing(adrive(run)) as pieces:
                async for piece in pieces:
                    yield piece
            run.result()

    def agreement(self, sample: Relevance) -> Agreement:
        """Judge the documents that people judged, and measure the agreement with the people.

        Raises:
            GenerationError: As for a call of the judge; or none of the documents is known.
            InvalidRelevanceError: See `Agreement.of`.
        """
        with self._asking() as asking:
            return self._measured(sample, asking)[0]

    def estimate(self, queries: Queries) -> Estimate:
        """Estimate the requests, the tokens and the cost of a run. Documents are found, and nothing is sent to the model.

        The estimate counts a document once for each query, and leaves out the sample.
        """
        pools, _ = self._pools(queries)
        requests = [request for pool in pools for request in self._requests(pool)]
        with self._checkpoint() as checkpoint:
            due = [request for request in requests if request.key not in checkpoint]
        usage = sum((Usage.expected(request) for request in due), Usage())
        cost = self.budget.cost(usage) if self.budget.input_price or self.budget.output_price else None
        return Estimate(sum(len(pool.sources) for pool in pools), len(requests) - len(due), usage, cost)

    # ---- a run's parts -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _run(self, queries: Queries) -> Iterator[tuple[JudgingRun, Relevance]]:
        """Yield the run, and a first piece that counts what is left out."""
        pools, repeated = self._pools(queries)
        with self._asking() as asking:
            agreement, used = (None, Usage()) if self._sample is None else self._measured(self._sample, asking)
            run = self._judging(pools, asking, used, agreement)
            try:
                yield run, Relevance([], [], left_out={"query: asked before": repeated} if repeated else {})
            finally:
                run.close()

    @contextlib.asynccontextmanager
    async def _arun(self, queries: Queries) -> AsyncIterator[tuple[JudgingRun, Relevance]]:
        with contextlib.ExitStack() as stack:
            yield await asyncio.to_thread(stack.enter_context, self._run(queries))

    @contextlib.contextmanager
    def _asking(self) -> Iterator[_Asking]:
        """Yield an open checkpoint, the model to ask, and how many requests may be in flight."""
        with (
            self._checkpoint() as checkpoint,
            asker_of(self.model, self._on, self._limit, self.concurrency) as (model, concurrency),
        ):
            yield checkpoint, model, concurrency

    def _measured(self, sample: Relevance, asking: _Asking) -> tuple[Agreement, Usage]:
        run = self._judging(sample_pools(sample, self._known()), asking, Usage(), None)
        try:
            judged = sum(drive(run), Relevance([], []))
            run.result()
        finally:
            run.close()
        return Agreement.of(judged, sample), run.used

    def _judging(self, pools: list[Pool], asking: _Asking, used: Usage, agreement: Agreement | None) -> JudgingRun:
        checkpoint, model, concurrency = asking
        run = JudgingRun(
            model,
            pools,
            [self._requests(pool) for pool in pools],
            thresholds=self.thresholds,
            weights=self.weights,
            judge=self.model.name if agreement is None else f"{self.model.name}, {agreement}",
            checkpoint=checkpoint,
            budget=self.budget,
            concurrency=concurrency,
            used=used,
            progress=self._progress,
        )
        run.agreement = agreement
        return run

    def _requests(self, pool: Pool) -> list[Request]:
        if self.thresholds:
            return [prompt.score_request(pool.query, pool.sources)] if pool.sources else []
        return [prompt.grade_request(pool.query, source, self._instructions) for source in pool.sources]

    def _pools(self, queries: Queries) -> tuple[list[Pool], int]:
        """Return the pools of the queries, each text once, and how many queries were asked before."""
        labels = _labels(queries)
        first: dict[str, int] = {}
        for row, query in enumerate(labels.queries):
            first.setdefault(query, row)
        documents = self._known() if self._memory is not None else {}
        kept = labels.take(first.values())
        return pools_of(kept, self._rankings, self._memory, documents, self.depth), len(labels) - len(kept)

    def _known(self) -> dict[str, Source]:
        documents = self._documents if self._memory is None else self._memory.documents()
        return {source.id: source for source in sources_of(documents or ())}

    def _checkpoint(self) -> Checkpoint:
        belongs_to = {"prompt": prompt.fingerprint(self._instructions), "model": self.model.name}
        return Checkpoint(self.checkpoint, belongs_to if self.checkpoint is not None else {})


def _labels(queries: Queries) -> Relevance:
    if isinstance(queries, Relevance):
        return queries
    if isinstance(queries, str) or not isinstance(queries, Iterable):
        raise GenerationError(f"Pass a list of queries; got {type(queries).__name__}.")
    unjudged = [("unjudged", 0.0)]  # a Relevance holds no query without a judgement
    if isinstance(queries, Mapping):
        return Relevance(list(queries.values()), [unjudged] * len(queries), list(queries))
    texts = ordered(queries, "queries", GenerationError)
    return Relevance(texts, [unjudged] * len(texts))


def _as_reranker(reranker: Any) -> Reranker:
    if isinstance(reranker, Reranker):
        return reranker
    if callable(reranker):
        return Reranker.of_function(reranker)
    raise GenerationError(
        f"reranker is a {type(reranker).__name__}: pass a function from a query and texts to scores, or use the RelevanceJudge "
        "of the langchain or llama_index package, which takes the framework's rerankers."
    )


def _with(judged: Judged, first: Relevance) -> Judged:
    return replace(judged, relevance=first + judged.relevance)
