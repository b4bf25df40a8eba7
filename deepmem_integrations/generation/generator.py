"""`QueryGenerator`: documents in, labelled queries out, with any language model."""

import asyncio
import contextlib
import logging
import math
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from deepmem_integrations._ordered import ordered
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.askers import asker_of, check_asking
from deepmem_integrations.generation.budget import Budget, Estimate, Usage
from deepmem_integrations.generation.checkpoint import Checkpoint
from deepmem_integrations.generation.document_vectors import DocumentVectors
from deepmem_integrations.generation.drive import adrive, drive
from deepmem_integrations.generation.extractive import Extractive
from deepmem_integrations.generation.filters import Filters
from deepmem_integrations.generation.model import as_model
from deepmem_integrations.generation.prompt import Prompt, Task, key_of
from deepmem_integrations.generation.rates import RateLimit
from deepmem_integrations.generation.result import Generation, labels
from deepmem_integrations.generation.run import Run
from deepmem_integrations.generation.sampling import coverage_order
from deepmem_integrations.generation.sources import HasDocuments, Source, corpus_fingerprint, junk, sources_of
from deepmem_integrations.labels import Labels, Relevance

_logger = logging.getLogger(__name__)


class Options(TypedDict, total=False):
    """The options that the generators of both frameworks pass on to `QueryGenerator`, which documents them."""

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
    limit: RateLimit | None
    concurrency: int
    on: str | None
    checkpoint: str | os.PathLike[str] | None
    seed: int
    progress: bool


class QueryGenerator:
    """Write search queries for documents with a language model: labels without users.

    Args:
        llm: An `OpenAIModel`, an `Extractive`, any `Model`, or a function from (messages, schema) to JSON text, JSON values or
            an instance of the schema. The function may be async.
        queries_per_document: How many queries to ask for per document.
        kinds: The kinds of queries, which take turns. Either names (those of `prompt.KINDS`, or ``language:de`` with any
            language code), or kinds of your own as a mapping: name → instruction for the language model.
        personas: Descriptions of the people who ask. Each document gets one of the personas.
        examples: A handful of your users' real queries. They show the language model the tone and the length of queries.
        filters: The filters that written queries have to pass.
        embedding: An embedding model, as `Embedder` takes it. Everything that compares vectors needs one: coverage, pairs,
            near-duplicates, the round trip and judgements.
        memory: A `DeepMemory`, in place of ``embedding``. The generator takes its embedding model, reads the vectors of its
            store, and finds the ids of documents that have none.
        max_documents: How many documents to ask about at most. With vectors, the documents are taken from all clusters of the
            corpus in turn; without vectors, they are drawn at random.
        skip_junk: Skip documents that nobody searches for: those that are too short, boilerplate, navigation, or repetitions.
        pair_share: The share of the documents, from 0 to 1, for which the generator also asks for a query that needs a second,
            near document.
        judged_documents: How many documents the language model judges at most for each query, out of those that rank above the
            query's own document. A document that answers the query as well becomes a further positive.
        budget: A cap on tokens or cost. With a cap, the documents are asked about in the order of ``max_documents``.
        limit: A cap on the requests and tokens a minute, which all runs share that ask the same provider.
        concurrency: How many requests are in flight at a time, on a cluster from each CPU.
        on: The Ray cluster whose workers ask the language model, with the same result: ``"ray"``, ``"local"``, ``"host:6379"``
            or ``"ray://host:10001"``; see `RayWorkers`. The model travels there, an `OpenAIModel` with its key. By default this
            process asks.
        checkpoint: The path of a file that keeps every answer as it arrives, or the URL of a folder in an object store, such as
            ``s3://bucket/queries``. A later run with the same path does not send the requests that are answered there: of a
            corpus that grew or changed, it asks about the new and the changed documents alone.
        seed: Fixes the draws of documents, kinds, personas and examples.
        progress: Show a progress bar when the run takes more than a second.

    Raises:
        GenerationError: An option is out of range, or the options do not go together.

    Example:
        >>> from deepmem_integrations.generation import Extractive  # in place of a language model
        >>> generator = QueryGenerator(Extractive(), queries_per_document=1, progress=False)
        >>> labelled = generator([("doc-1", "Run git revert to undo a commit. The history stays as it was.")])
        >>> labelled.queries, labelled.labels
        (('Run git revert to undo a commit.',), ((('doc-1', 1.0),),))
    """

    def __init__(
        self,
        llm: Any,
        queries_per_document: int = 4,
        *,
        kinds: Sequence[str] | Mapping[str, str] = ("question", "keywords"),
        personas: Sequence[str] = (),
        examples: Sequence[str] = (),
        filters: Filters = Filters(),  # noqa: B008 - the default is frozen
        embedding: Any = None,
        memory: HasDocuments | None = None,
        max_documents: int | None = None,
        skip_junk: bool = True,
        pair_share: float = 0.0,
        judged_documents: int = 0,
        budget: Budget = Budget(),  # noqa: B008 - the default is frozen
        limit: RateLimit | None = None,
        concurrency: int = 8,
        on: str | None = None,
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
        self._seed, self._progress = int(seed), progress
        self._limit, self._on = limit, on
        check_asking(limit, on)
        Budget.check(budget)
        extractive = isinstance(self.model, Extractive)
        has_vectors = self._embedding is not None
        self.filters = replace(
            filters,
            copy=not extractive if filters.copy is None else filters.copy,
            near_duplicate=has_vectors if filters.near_duplicate is None else filters.near_duplicate,
            round_trip=has_vectors if filters.round_trip is None else filters.round_trip,
        )
        self._vectors: tuple[str, DocumentVectors] | None = None  # the fingerprint says which documents the vectors belong to
        if embedding is not None and memory is not None:
            raise GenerationError("Pass embedding= or memory=, not both: a DeepMemory brings its own embedding model.")
        if (
            concurrency < 1
            or judged_documents < 0
            or not 0 <= pair_share <= 1
            or (max_documents is not None and max_documents < 1)
        ):
            raise GenerationError(
                "QueryGenerator needs concurrency ≥ 1, judged_documents ≥ 0, pair_share between 0 and 1, and max_documents ≥ 1; "
                f"got {concurrency}, {judged_documents}, {pair_share} and {max_documents}."
            )
        wants_vectors = {
            "filters.near_duplicate": self.filters.near_duplicate,
            "filters.round_trip": self.filters.round_trip,
            "pair_share": pair_share,
            "judged_documents": judged_documents,
        }
        if not has_vectors and (wanting := [name for name, value in wants_vectors.items() if value]):
            raise GenerationError(
                f"Vectors are needed for {', '.join(wanting)}: pass an embedding model as embedding=, or a DeepMemory as memory=."
            )
        if extractive and (unfit := [name for name in ("personas", "examples") if getattr(self.prompt, name)]):
            raise GenerationError(
                f"Extractive copies its queries from the documents and cannot change their tone: leave out {' and '.join(unfit)}."
            )
        if extractive and (judged_documents or pair_share):
            raise GenerationError("Extractive can neither judge nor join documents: leave out judged_documents and pair_share.")

    def __call__(self, documents: Iterable[Any]) -> Relevance:
        """Write queries for documents.

        Args:
            documents: LangChain documents, LlamaIndex nodes, `deeplake.StoredDocument`, or (id, text) pairs.

        Returns:
            The labels. ``generated`` is True for every query; ``left_out`` counts, for each reason, the queries and documents
            that were left out.

        Raises:
            GenerationError: A document has no id, the checkpoint belongs to another run, or not one request was answered.
        """
        return self.generate(documents).relevance

    async def acall(self, documents: Iterable[Any]) -> Relevance:
        """Do the same as a call of the generator, with the model's async methods."""
        return (await self.agenerate(documents)).relevance

    def generate(self, documents: Iterable[Any], on_piece: Callable[[Relevance], object] = lambda piece: None) -> Generation:
        """Write queries, and return them with their provenance, everything that was left out with its reason, and the usage.

        Args:
            documents: The documents, as for a call of the generator.
            on_piece: A function that is called with the labels of each document as they arrive.

        Raises:
            GenerationError: As for a call of the generator.

        Example:
            >>> from deepmem_integrations.generation import Extractive
            >>> generator = QueryGenerator(Extractive(), queries_per_document=1, progress=False)
            >>> generation = generator.generate([("doc-1", "Run git revert to undo a commit. The history stays as it was.")])
            >>> generation.queries[0].id, generation.queries[0].kind
            ('doc-1/0', 'first sentence')
        """
        with self._run(documents) as run:
            for piece in drive(run):
                on_piece(piece)
            return run.result()

    async def agenerate(
        self, documents: Iterable[Any], on_piece: Callable[[Relevance], object] = lambda piece: None
    ) -> Generation:
        """Do the same as `generate` with the model's async methods."""
        async with self._arun(documents) as run:
            async with contextlib.aclosing(adrive(run)) as pieces:
                async for piece in pieces:
                    on_piece(piece)
            return run.result()

    def stream(self, documents: Iterable[Any]) -> Iterator[Relevance]:
        """Yield labels as they arrive, a `Relevance` for each document, always in the same order. The pieces add up.

        The first piece has no queries. It counts the documents that are skipped.

        Raises:
            GenerationError: As for a call of the generator.
        """
        with self._run(documents) as run:
            yield labels([], [], run.skipped, {})
            yield from drive(run)
            run.result()

    async def astream(self, documents: Iterable[Any]) -> AsyncGenerator[Relevance, None]:
        """Do the same as `stream` with the model's async methods."""
        async with self._arun(documents) as run:
            yield labels([], [], run.skipped, {})
            async with contextlib.aclosing(adrive(run)) as pieces:
                async for piece in pieces:
                    yield piece
            run.result()

    def estimate(self, documents: Iterable[Any]) -> Estimate:
        """Estimate the requests, the tokens and the cost of a run.

        Nothing is sent to the language model. The documents are embedded where the run would embed them.
        """
        sources = self._sources(documents)
        tasks, _ = self._tasks(sources, self._document_vectors(sources), self._max_documents)
        with self._checkpoint(self.prompt) as checkpoint:
            due = [task for task in tasks if key_of(task) not in checkpoint]
        usage = sum((Usage.expected(self.prompt.request(task)) for task in due), Usage())
        cost = self.budget.cost(usage) if self.budget.input_price or self.budget.output_price else None
        return Estimate(sum(len(task) == 1 for task in tasks), len(tasks) - len(due), usage, cost)

    def generate_queries(self, docs: Sequence[str], ids: Sequence[str], n: int = 100) -> tuple[list[str], Labels]:
        """Write n questions for texts drawn from ``docs``, as in the Deep Memory tutorials of Deep Lake v3.

        Args:
            docs: The texts.
            ids: The ids of the texts in the store.
            n: How many questions to return. The generator asks for enough questions per text to reach n; the filters may leave
                fewer.

        Returns:
            (questions, relevances), the arguments of ``deep_memory.train(questions, relevances)``.

        Raises:
            GenerationError: n is below 1, ``docs`` is empty, or ``docs`` and ``ids`` differ in length. Further errors are those
                of a call of the generator.
        """
        docs, ids = ordered(docs, "docs", GenerationError), ordered(ids, "ids", GenerationError)
        if n < 1 or len(docs) != len(ids) or not docs:
            raise GenerationError(
                "generate_queries needs n ≥ 1, at least one text, and an id for each text; "
                f"got n={n}, {len(docs)} docs and {len(ids)} ids."
            )
        prompt = replace(self.prompt, count=max(self.prompt.count, math.ceil(n / len(docs))))
        questions: list[str] = []
        relevances: list[list[tuple[str, float]]] = []
        with self._run(zip(ids, docs, strict=True), prompt, wanted=n) as run:
            for piece in drive(run):
                questions += piece.queries
                relevances += piece.relevance
                if len(questions) >= n:
                    return questions[:n], relevances[:n]
            run.result()
        _logger.warning("The %d texts gave %d questions where %d were asked for.", len(docs), len(questions), n)
        return questions, relevances

    # ---- a run's parts -----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _run(self, documents: Iterable[Any], prompt: Prompt | None = None, wanted: int | None = None) -> Iterator[Run]:
        prompt = prompt or self.prompt
        sources = self._sources(documents)
        vectors = self._document_vectors(sources)
        limit = self._max_documents if wanted is None else len(sources)  # a limit puts all documents in the order of a sample
        tasks, skipped = self._tasks(sources, vectors, limit)
        with (
            self._checkpoint(prompt) as checkpoint,
            asker_of(self.model, self._on, self._limit, self.concurrency) as (model, concurrency),
        ):
            run = Run(
                model,
                tasks,
                prompt,
                self.filters,
                vectors,
                checkpoint,
                self.budget,
                judged_documents=self._judged_documents,
                judgeable={source.id: source for source in sources} if self._judged_documents else {},
                concurrency=concurrency,
                wanted=wanted,
                skipped=skipped,
                progress=self._progress,
            )
            try:
                yield run
            finally:
                run.close()

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

        sources = sources_of(documents, id_of_text)
        if not sources:
            _logger.warning("There are no documents to write queries for. A generator of documents can be gone through once.")
        return sources

    def _document_vectors(self, sources: list[Source]) -> DocumentVectors | None:
        if self._embedding is None or not sources:
            return None
        fingerprint = corpus_fingerprint(sources)
        if self._vectors is None or self._vectors[0] != fingerprint:
            self._vectors = fingerprint, DocumentVectors.of(sources, self._embedding, progress=self._progress)
        return self._vectors[1]

    def _tasks(
        self, sources: list[Source], vectors: DocumentVectors | None, limit: int | None
    ) -> tuple[list[Task], dict[str, str]]:
        """Return the tasks in their order, and the documents that are left out: id → reason."""
        skipped = junk(sources) if self._skip_junk else {}
        chosen = [source for source in sources if source.id not in skipped]
        if limit is not None or self.budget.max_tokens is not None or self.budget.max_cost is not None:
            count = min(limit or len(chosen), len(chosen))
            if vectors is not None and chosen:
                order = coverage_order(vectors.of_sources(chosen), count, seed=self._seed).tolist()
            else:
                order = random.Random(self._seed).sample(range(len(chosen)), len(chosen))
            skipped |= {chosen[row].id: "not in the sample" for row in order[count:]}
            chosen = [chosen[row] for row in order[:count]]
        tasks: list[Task] = []
        among = {source.id: source for source in sources if source.id not in skipped or skipped[source.id] == "not in the sample"}
        paired = set(random.Random(self._seed).sample(range(len(chosen)), round(self._pair_share * len(chosen))))
        for row, source in enumerate(chosen):
            tasks.append((source,))
            if row in paired and vectors is not None and (other := vectors.partner(source, among)) is not None:
                tasks.append((source, other))
        return tasks, skipped

    def _checkpoint(self, prompt: Prompt) -> Checkpoint:
        if self.checkpoint is None:
            return Checkpoint(None, {})
        return Checkpoint(self.checkpoint, {"prompt": prompt.fingerprint, "model": self.model.name})
