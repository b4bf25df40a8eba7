"""One pass over the documents: `Run` makes the next request and turns answers into labels."""

import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.generation.asking import NOT_ASKED, Asking, Failure, Outcome
from deepmem_integrations.generation.budget import Budget
from deepmem_integrations.generation.checkpoint import Checkpoint
from deepmem_integrations.generation.document_vectors import DocumentVectors
from deepmem_integrations.generation.extractive import KINDS as EXTRACTED_KINDS
from deepmem_integrations.generation.filters import Filters, bare, numbered, plain, text_fault
from deepmem_integrations.generation.model import Answer, Model, Request
from deepmem_integrations.generation.prompt import Prompt, Task, key_of
from deepmem_integrations.generation.result import GeneratedQuery, Generation, RejectedQuery, labels
from deepmem_integrations.generation.sources import Source
from deepmem_integrations.labels import Relevance

_logger = logging.getLogger(__name__)


@dataclass
class _Draft:
    """The state of one task."""

    task: Task
    kept: list[tuple[str, str]] = field(default_factory=list)  # text, kind
    rejected: list[RejectedQuery] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # as in Generation
    skipped: dict[str, str] = field(default_factory=dict)
    positives: dict[str, list[str]] = field(default_factory=dict)  # text → further documents
    judgements_due: int = 0


class Run(Asking[Relevance]):
    """The state of a run that writes queries.

    Answers may arrive in any order. They are filtered and given out in the order of the tasks, so that the result does not
    depend on the speed of the answers. Threads may share `attempt` and `aattempt`, and nothing else.

    Args:
        model: The language model.
        tasks: The tasks to ask about, in this order.
        prompt: The settings of the requests.
        filters: The filters that written queries have to pass, none of them None.
        vectors: The vectors of the corpus; None without an embedding model.
        checkpoint: An open checkpoint.
        budget: The cap on tokens or cost.
        judged_documents: How many documents the language model judges at most for each query, out of those that rank above the
            query's own document.
        judgeable: The documents that may be judged, by id.
        concurrency: See `Asking`.
        wanted: Stop starting tasks once finished and running ones could yield this many queries. None sets no limit.
        skipped: The documents that are left out: id → reason.
        progress: Whether to show a progress bar.

    Attributes:
        skipped: The documents that were left out, and those that a stopped run did not come to: id → reason.
    """

    def __init__(
        self,
        model: Model,
        tasks: Sequence[Task],
        prompt: Prompt,
        filters: Filters,
        vectors: DocumentVectors | None,
        checkpoint: Checkpoint,
        budget: Budget,
        *,
        judged_documents: int,
        judgeable: dict[str, Source],
        concurrency: int,
        wanted: int | None,
        skipped: dict[str, str],
        progress: bool,
    ) -> None:
        known = sum(key_of(task) in checkpoint for task in tasks) if len(checkpoint) else 0
        bar = tqdm(total=len(tasks), initial=known, desc="Writing queries", unit="doc", delay=1, disable=not progress)
        super().__init__(model, checkpoint, budget, concurrency=concurrency, bar=bar)
        self._tasks, self._prompt, self._filters, self._vectors = tasks, prompt, filters, vectors
        self._judged_documents, self._judgeable = judged_documents, judgeable
        self.skipped = skipped

        self._kinds = {*prompt.instructions, *EXTRACTED_KINDS}  # a model may give its queries kinds that do not exist
        self._wanted = wanted
        self._next_task = 0
        self._judgements: deque[Request] = deque()
        self._place: dict[str, int] = {}  # key of a request under way → its task
        self._arrived: dict[int, tuple[tuple[str, ...], Outcome]] = {}  # task → the kinds that were asked for, and the outcome
        self._drafts: dict[int, _Draft] = {}
        self._to_filter = 0
        self._to_give = 0
        self._seen = set(map(plain, prompt.examples))  # a model may repeat an example, which asks for some other document
        self._instructions = list(map(plain, prompt.instructions.values()))
        self._kept_vectors: dict[int, list[Vectors]] = {}  # row of a document → vectors of its kept queries

        self._queries: list[GeneratedQuery] = []
        self._rejected: list[RejectedQuery] = []
        self._failed: dict[str, str] = {}

    # ---- what to ask -------------------------------------------------------------------------------------------

    def next(self) -> Request | None:
        """Return the next request to send, or None where there is none until further answers are settled."""
        while self._judgements:
            request = self._judgements.popleft()
            if self._may_ask(request):
                return request
            self._judged_by(request, NOT_ASKED)
        while self._next_task < len(self._tasks):
            index = self._next_task
            under_way = (index - self._to_give) * self._prompt.count
            if self._wanted is not None and len(self._queries) + under_way >= self._wanted:
                return None
            self._next_task += 1
            request = self._prompt.request(self._tasks[index])
            if self._may_ask(request):
                self._place[request.key] = index
                return request
            self._arrived[index] = (), NOT_ASKED
        return None

    @property
    def done(self) -> bool:
        """Whether the labels of all tasks have been given out."""
        return self._to_give == len(self._tasks)

    # ---- what becomes of the answers ---------------------------------------------------------------------------

    def settle(self, outcomes: Iterable[tuple[Request, Outcome]]) -> list[Relevance]:
        """Take in answers, in any order, and return the labels of each task that is finished, in the order of the tasks."""
        for request, outcome in outcomes:
            if self._account(request, outcome):
                if request.task != "judge":
                    self._bar.update()
                kept, out = len(self._queries), len(self._rejected)
                tokens = self.used.tokens
                self._bar.set_postfix(kept=kept, left_out=out, failed=len(self._failed), tokens=tokens, refresh=False)
            if request.task == "judge":
                self._judged_by(request, outcome)
            else:
                self._arrived[self._place.pop(request.key)] = request.kinds, outcome
        self._filter_arrived()
        return list(self._give())

    def result(self) -> Generation:
        """Return the result of the run.

        Raises:
            GenerationError: Not one request was answered.
        """
        self._check_answered("document", self._failed)
        return Generation(
            tuple(self._queries),
            tuple(self._rejected),
            dict(self.skipped),
            dict(self._failed),
            self.used,
            self.cost,
            self.recorded,
            self.stopped,
        )

    def close(self) -> None:
        """Do what `Asking.close` does, and warn where not one query was kept."""
        super().close()
        if self._rejected and not self._queries:
            counts = Counter(one.filter for one in self._rejected)
            listed = ", ".join(f"{count} × {name}" for name, count in counts.most_common())
            _logger.warning("Not one query was kept. Left out: %s. generate() tells the reason for each.", listed)

    def _filter_arrived(self) -> None:
        """Filter the answers of the tasks whose turn it is. All their queries are embedded together."""
        batch = []
        while self._to_filter in self._arrived:
            batch.append(self._draft(self._tasks[self._to_filter], *self._arrived.pop(self._to_filter)))
            self._drafts[self._to_filter] = batch[-1]
            self._to_filter += 1
        texts = [text for draft in batch for text, _ in draft.kept]
        if (
            self._vectors is None
            or not texts
            or not (self._filters.near_duplicate or self._filters.round_trip or self._judged_documents)
        ):
            for draft in batch:
                self._keep_new(draft)
            return
        queries = self._vectors.queries(texts)
        window = self._filters.window_of(len(self._vectors.ids))
        nearest = self._vectors.nearest(queries, window)
        first = 0
        for index, draft in zip(range(self._to_filter - len(batch), self._to_filter), batch, strict=True):
            rows = slice(first, first + len(draft.kept))
            first += len(draft.kept)
            self._compare(index, draft, queries[rows], nearest[rows])

    def _draft(self, task: Task, kinds: tuple[str, ...], outcome: Outcome) -> _Draft:
        draft = _Draft(task)
        if outcome is NOT_ASKED:
            draft.skipped[task[0].id] = "not asked"
            return draft
        if isinstance(outcome, Failure):
            draft.failed[task[0].id] = outcome.reason
            return draft
        if outcome.fault:
            draft.rejected.append(RejectedQuery("", task[0].id, outcome.fault, outcome.detail))
        written = outcome.value.get("queries", [])
        all_numbered = len(written) > 1 and all(numbered(query["text"]) for query in written)
        for place, query in enumerate(written):
            text = bare(query["text"], None if all_numbered else place + 1)
            kind = query["kind"] if query["kind"] in self._kinds else kinds[min(place, len(kinds) - 1)]
            if place >= len(kinds):
                fault: tuple[str, str] | None = "malformed", f"one of {len(written)} where {len(kinds)} were asked for"
            else:
                fault = text_fault(text, kind, task, self._filters)
                words = plain(text)
                if fault is None and self._filters.malformed and any(instruction in words for instruction in self._instructions):
                    fault = "malformed", "repeats the task"  # small models do so
            if fault is None:
                draft.kept.append((text, kind))
            else:
                draft.rejected.append(RejectedQuery(text[: self._filters.longest], task[0].id, *fault))
        if not written and not outcome.fault:
            draft.rejected.append(RejectedQuery("", task[0].id, "empty", "no query in the answer"))
        return draft

    def _duplicate(self, text: str) -> tuple[str, str] | None:
        """Tell whether a query was kept before. One that its document does not answer takes it from no other document."""
        words = plain(text)
        if self._filters.duplicate and words in self._seen:
            return "duplicate", "written before, or one of the examples"
        self._seen.add(words)
        return None

    def _keep_new(self, draft: _Draft) -> None:
        kept = []
        for text, kind in draft.kept:
            if (fault := self._duplicate(text)) is None:
                kept.append((text, kind))
            else:
                draft.rejected.append(RejectedQuery(text[: self._filters.longest], draft.task[0].id, *fault))
        draft.kept = kept

    def _compare(self, index: int, draft: _Draft, queries: Vectors, nearest: np.ndarray) -> None:
        """Run the filters that need vectors. Near-duplicates are sought only among queries for documents near to the query.

        Args:
            index: The number of the task.
            draft: The task's state, whose ``kept`` holds n queries.
            queries: (n, d), the vectors of these queries.
            nearest: (n, k), the rows of the documents nearest to each query.
        """
        assert self._vectors is not None
        own = [self._vectors.rows[source.id] for source in draft.task]
        kept = []
        for (text, kind), vector, rows in zip(draft.kept, queries, nearest, strict=True):
            fault = None
            if self._filters.round_trip and not set(own) <= set(rows.tolist()):
                fault = "round trip", f"its document is not among the {len(rows)} nearest"
            elif (fault := self._duplicate(text)) is None and self._filters.near_duplicate:
                before = [one for row in {*own, *rows.tolist()} for one in self._kept_vectors.get(row, ())]
                if before and (closest := float((np.stack(before) @ vector).max())) >= self._filters.cosine:
                    fault = "near-duplicate", f"cosine {closest:.3f} to a query written before"
            if fault is not None:
                draft.rejected.append(RejectedQuery(text, draft.task[0].id, *fault))
                continue
            kept.append((text, kind))
            if self._filters.near_duplicate:
                self._kept_vectors.setdefault(own[0], []).append(vector)
            if self._judged_documents and len(draft.task) == 1:
                self._ask_about(index, draft, text, rows.tolist())
        draft.kept = kept

    def _ask_about(self, index: int, draft: _Draft, text: str, rows: list[int]) -> None:
        """Request a judgement of the documents that rank above the query's own document."""
        assert self._vectors is not None
        names = [self._vectors.ids[row] for row in rows]
        source = draft.task[0]
        above = names[: names.index(source.id)] if source.id in names else names
        others = [self._judgeable[name] for name in above if name in self._judgeable][: self._judged_documents]
        for other in others:  # each by itself: what a document tells the model is nothing to another's judgement
            request = self._prompt.judge(text, source, [other])
            if request.key in self._place:  # another query with the same text asks already
                continue
            self._place[request.key] = index
            self._judgements.append(request)
            draft.judgements_due += 1

    def _judged_by(self, request: Request, outcome: Outcome) -> None:
        draft = self._drafts[self._place.pop(request.key)]
        draft.judgements_due -= 1
        if isinstance(outcome, Answer) and 1 in outcome.value.get("answered_by", []):
            draft.positives.setdefault(request.query, []).append(request.sources[1].id)

    def _give(self) -> Iterator[Relevance]:
        while (draft := self._drafts.get(self._to_give)) is not None and not draft.judgements_due:
            del self._drafts[self._to_give]
            self._to_give += 1
            own = [source.id for source in draft.task]
            queries = [
                GeneratedQuery(
                    f"{'+'.join(own)}/{number}",
                    text,
                    tuple((name, 1.0) for name in [*own, *sorted(draft.positives.get(text, []))]),
                    kind,
                    self._model.name,
                )
                for number, (text, kind) in enumerate(draft.kept)
            ]
            self._queries += queries
            self._rejected += draft.rejected
            self.skipped |= draft.skipped
            self._failed |= draft.failed
            yield labels(queries, draft.rejected, draft.skipped, draft.failed)
