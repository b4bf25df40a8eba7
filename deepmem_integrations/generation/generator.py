"""`QueryGenerator`: documents in, labelled queries out, over any language model."""

import asyncio
import contextlib
import logging
import math
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.budget import Budget, Estimate, Usage
from deepmem_integrations.generation.checkpoint import Checkpoint
from deepmem_integrations.generation.document_vectors import DocumentVectors
from deepmem_integrations.generation.drive import adrive, drive
from deepmem_integrations.generation.extractive import Extractive
from deepmem_integrations.generation.filters import Filters
from deepmem_integrations.generation.model import as_model
from deepmem_integrations.generation.prompt import Prompt, Task, key_of
from deepmem_integrations.generation.result import Generation, labels
from deepmem_integrations.generation.run import Run
from deepmem_integrations.generation.sampling import coverage_order
from deepmem_integrations.generation.sources import HasDocuments, Source, corpus_fingerprint, junk, sources_of
from deepmem_integrations.labels import Labels, Relevance

_logger = logging.getLogger(__name__)


class Options(TypedDict, total=False):
    """What every door passes on to `QueryGenerator`, which documents it."""

    kinds: Sequence[str] | Mapping[str, str]
    personas: Sequence[str]
    examples: Sequence[str]
    filters: Filters
    embedding: Any
    memory: HasDocuments | None
    max_documents: int | None
    skip_junk: bool
    pair_share: float
    judged_documents: int
    budget: Budget
    concurrency: int
    checkpoint: str | os.PathLike[str] | None
    seed: int
    progress: bool


class QueryGenerator:
    """Write search queries for documents with a language model: labels without users.

    Args:
        llm: An `OpenAIModel`, an `Extractive`, any `Model`, or a function from (messages, schema) to JSON text, JSON values or
            an instance of the schema; it may be async.
        queries_per_document: How many to ask for.
        kinds: Kinds of queries, by name (`prompt.KINDS`, or ``language:de`` and the like), or your own as name → what the model
            is told of it. They take turns.
        personas: Who asks: for each document one of them.
        examples: A handful of your users' real queries: they steer tone and length.
        filters: Which of the answers to leave out.
        embedding: An embedding model, as `Embedder` takes it, for what compares vectors: coverage, pairs, near-duplicates, the
            round trip, judgements.
        memory: In place of ``embedding``: its embedding model, its store's vectors, and the ids of documents that have none.
        max_documents: Ask about so many: of every cluster of the vectors some, or drawn at random where there are no vectors.
        skip_junk: Skip documents that nobody asks for: too short, boilerplate, navigation, repetitions.
        pair_share: For this share of the documents also ask for a query that needs a second one, near to it.
        judged_documents: For each query, how many documents that rank above its own the model judges at most. Those that
            answer the query as well become positives, too.
        budget: A cap on tokens or cost. Under a cap, the order of the documents is that of ``max_documents``.
        concurrency: Requests at a time.
        checkpoint: A file that keeps every answer as it comes. A run that finds it does not ask again for what it has.
        seed: Fixes which documents, kinds, personas and examples.
        progress: Show a bar when it takes more than a second.

    Raises:
        GenerationError: Options that cannot be honoured.
    """

    def __init__(
        self,
        llm: Any,
        queries_per_document: int = 4,
        *,
        kinds: Sequence[str] | Mapping[str, str] = ("question", "keywords"),
        personas: Sequence[str] = (),
        examples: Sequence[str] = (),
        filters: Filters = Filters(),  # noqa: B008 - frozen
        embedding: Any = None,
        memory: HasDocuments | None = None,
        max_documents: int | None = None,
        skip_junk: bool = True,
        pair_share: float = 0.0,
        judged_documents: int = 0,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        concurrency: int = 8,
        checkpoint: str | os.PathLike[str] | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.model = as_model(llm)
        self.prompt = Prompt(queries_per_document, kinds, personas, examples, seed)
        self.budget, self.concurrency, self.checkpoint = budget, concurrency, checkpoint
        self._memory, self._embedding = memory, memory if memory is not None else embedding
        self._max_documents, self._skip_junk, self._pair_share, self._judged_documents = (
            max_documents,
            skip_junk,
            pair_share,
            judged_documents,
        )
        self._seed, self._progress = seed, progress
        extractive = isinstance(self.model, Extractive)
        has_vectors = self._embedding is not None
        self.filters = replace(
            filters,
            copy=not extractive if filters.copy is None else filters.copy,
            near_duplicate=has_vectors if filters.near_duplicate is None else filters.near_duplicate,
            round_trip=has_vectors if filters.round_trip is None else filters.round_trip,
        )
        self._near: tuple[str, DocumentVectors] | None = None
        if embedding is not None and memory is not None:
            raise GenerationError("Pass embedding= or memory=, which brings its own embedding model, not both.")
        if (
            concurrency < 1
            or judged_documents < 0
            or not 0 <= pair_share <= 1
            or (max_documents is not None and max_documents < 1)
        ):
            raise GenerationError(
                "Needed: concurrency ≥ 1, judged_documents ≥ 0, pair_share between 0 and 1, max_documents ≥ 1; "
                f"got {concurrency}, {judged_documents}, {pair_share} and {max_documents}."
            )
        wants_vectors = {
            "filters.near_duplicate": self.filters.near_duplicate,
            "filters.round_trip": self.filters.round_trip,
            "pair_share": pair_share,
            "judged_documents": judged_documents,
        }
        if not has_vectors and (wanting := [name for name, value in wants_vectors.items() if value]):
            raise GenerationError(f"{', '.join(wanting)} compares vectors: pass embedding= an embedding model, or memory=.")
        if extractive and (unfit := [name for name in ("personas", "examples") if getattr(self.prompt, name)]):
            raise GenerationError(f"Extractive takes queries out of the documents as they are: leave out {' and '.join(unfit)}.")
        if extractive and (judged_documents or pair_share):
            raise GenerationError("Extractive can neither judge nor join documents: leave out judged_documents and pair_share.")

    def __call__(self, documents: Iterable[Any]) -> Relevance:
        """Write queries for documents.

        Args:
            documents: LangChain documents, LlamaIndex nodes, `deeplake.StoredDocument`, or (id, text) pairs.

        Returns:
            The labels: ``generated`` is true of each, ``left_out`` counts what was left out and why.

        Raises:
            GenerationError: A document without an id, a checkpoint of another run, or not one request was answered.
        """
        return self.generate(documents).relevance

    async def acall(self, documents: Iterable[Any]) -> Relevance:
        """The same with the model's async."""
        return (await self.agenerate(documents)).relevance

    def generate(self, documents: Iterable[Any], on_piece: Callable[[Relevance], object] = lambda piece: None) -> Generation:
        """The same, with each query's provenance, what was left out and why, and what was used.

        Args:
            documents: As for a call.
            on_piece: Called with the labels of each document as they come.
        """
        with self._run(documents) as run:
            for piece in drive(run, self.concurrency):
                on_piece(piece)
            return run.result()

    async def agenerate(
        self, documents: Iterable[Any], on_piece: Callable[[Relevance], object] = lambda piece: None
    ) -> Generation:
        """`generate` with the model's async."""
        async with self._arun(documents) as run:
            async with contextlib.aclosing(adrive(run, self.concurrency)) as pieces:
                async for piece in pieces:
                    on_piece(piece)
            return run.result()

    def stream(self, documents: Iterable[Any]) -> Iterator[Relevance]:
        """Yield labels as they come, a piece for each document, in an order that does not change. The pieces add up."""
        with self._run(documents) as run:
            yield labels([], [], run.skipped, {})
            yield from drive(run, self.concurrency)
            run.result()

    async def astream(self, documents: Iterable[Any]) -> AsyncGenerator[Relevance, None]:
        """`stream` with the model's async."""
        async with self._arun(documents) as run:
            yield labels([], [], run.skipped, {})
            async with contextlib.aclosing(adrive(run, self.concurrency)) as pieces:
                async for piece in pieces:
                    yield piece
            run.result()

    def estimate(self, documents: Iterable[Any]) -> Estimate:
        """What a run would send. Nothing is sent to the language model; documents are embedded where the run would do so."""
        sources = self._sources(documents)
        tasks, _ = self._tasks(sources, self._document_vectors(sources), self._max_documents)
        with self._checkpoint(sources, self.prompt) as checkpoint:
            due = [task for task in tasks if key_of(task) not in checkpoint]
        usage = sum((Usage.expected(self.prompt.request(task)) for task in due), Usage())
        cost = self.budget.cost(usage) if self.budget.input_price or self.budget.output_price else None
        return Estimate(sum(len(task) == 1 for task in tasks), len(tasks) - len(due), usage, cost)

    def generate_queries(self, docs: Sequence[str], ids: Sequence[str], n: int = 100) -> tuple[list[str], Labels]:
        """As in the Deep Memory tutorials of Deep Lake v3: n questions for texts drawn out of ``docs``.

        Args:
            docs: The texts.
            ids: Their ids in the store.
            n: How many questions. As many a text as that takes are asked for; filters may leave fewer.

        Returns:
            The questions, and for each its relevance: ``deep_memory.train(questions, relevances)``.

        Raises:
            GenerationError: As for a call; or n is below 1, or docs and ids differ in length.
        """
        if n < 1 or len(docs) != len(ids) or not docs:
            raise GenerationError(f"Needed: n ≥ 1 and an id for each text; got n={n}, {len(docs)} docs and {len(ids)} ids.")
        prompt = replace(self.prompt, count=max(self.prompt.count, math.ceil(n / len(docs))))
        questions: list[str] = []
        relevances: list[list[tuple[str, float]]] = []
        with self._run(zip(ids, docs, strict=True), prompt, wanted=n) as run:
            for piece in drive(run, self.concurrency):
                questions += piece.queries
                relevances += piece.relevance
                if len(questions) >= n:
                    return questions[:n], relevances[:n]
            run.result()
        _logger.warning("All %d texts gave %d questions where %d were asked for.", len(docs), len(questions), n)
        return questions, relevances

    # ---- a run's parts -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _run(self, documents: Iterable[Any], prompt: Prompt | None = None, wanted: int | None = None) -> Iterator[Run]:
        prompt = prompt or self.prompt
        sources = self._sources(documents)
        near = self._document_vectors(sources)
        limit = self._max_documents if wanted is None else len(sources)  # all, in the order of a sample
        tasks, skipped = self._tasks(sources, near, limit)
        with self._checkpoint(sources, prompt) as checkpoint:
            run = Run(
                self.model,
                tasks,
                prompt,
                self.filters,
                near,
                checkpoint,
                self.budget,
                judged_documents=self._judged_documents,
                judgeable={source.id: source for source in sources} if self._judged_documents else {},
                patience=max(20, 2 * self.concurrency),
                wanted=wanted,
                skipped=skipped,
                progress=self._progress,
            )
            try:
                yield run
            finally:
                run.close()
                if run.stopped:
                    _logger.warning("The run ended early: %s.", run.stopped)

    @contextlib.asynccontextmanager
    async def _arun(self, documents: Iterable[Any]) -> AsyncIterator[Run]:
        with contextlib.ExitStack() as stack:
            yield await asyncio.to_thread(stack.enter_context, self._run(documents))

    def _sources(self, documents: Iterable[Any]) -> list[Source]:
        if isinstance(documents, str) or not isinstance(documents, Iterable):
            raise GenerationError(f"Pass a list of documents; got {type(documents).__name__}.")
        known: dict[str, str] = {}

        def id_of_text(text: str) -> str | None:
            if not known and self._memory is not None and self._memory.corpus.listed:
                known.update({source.text: source.id for source in sources_of(self._memory.documents())})
            return known.get(text)

        return sources_of(documents, id_of_text)

    def _document_vectors(self, sources: list[Source]) -> DocumentVectors | None:
        if self._embedding is None or not sources:
            return None
        fingerprint = corpus_fingerprint(sources)
        if self._near is None or self._near[0] != fingerprint:
            self._near = fingerprint, DocumentVectors.of(sources, self._embedding, progress=self._progress)
        return self._near[1]

    def _tasks(self, sources: list[Source], near: DocumentVectors | None, limit: int | None) -> tuple[list[Task], dict[str, str]]:
        """What to ask, in order; and the documents that are left out, id → reason."""
        skipped = junk(sources) if self._skip_junk else {}
        chosen = [source for source in sources if source.id not in skipped]
        if limit is not None or self.budget.max_tokens is not None or self.budget.max_cost is not None:
            count = min(limit or len(chosen), len(chosen))
            if near is not None and chosen:
                order = coverage_order(near.of_sources(chosen), count, seed=self._seed).tolist()
            else:
                order = random.Random(self._seed).sample(range(len(chosen)), len(chosen))
            skipped |= {chosen[row].id: "not in the sample" for row in order[count:]}
            chosen = [chosen[row] for row in order[:count]]
        tasks: list[Task] = []
        among = {source.id: source for source in sources if source.id not in skipped or skipped[source.id] == "not in the sample"}
        paired = set(random.Random(self._seed).sample(range(len(chosen)), round(self._pair_share * len(chosen))))
        for row, source in enumerate(chosen):
            tasks.append((source,))
            if row in paired and near is not None and (other := near.partner(source, among)) is not None:
                tasks.append((source, other))
        return tasks, skipped

    def _checkpoint(self, sources: list[Source], prompt: Prompt) -> Checkpoint:
        if self.checkpoint is None:
            return Checkpoint(None, {})
        belongs_to = {"corpus": corpus_fingerprint(sources), "prompt": prompt.fingerprint, "model": self.model.name}
        return Checkpoint(self.checkpoint, belongs_to)
