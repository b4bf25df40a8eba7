"""One pass over pools: `JudgingRun` makes the next request and turns grades into labels."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

import numpy as np
from tqdm.auto import tqdm

from deepmem_integrations.generation.asking import NOT_ASKED, Asking, Failure, Outcome
from deepmem_integrations.generation.budget import Budget, Usage
from deepmem_integrations.generation.checkpoint import Checkpoint
from deepmem_integrations.generation.model import Model, Request
from deepmem_integrations.judging.agreement import Agreement
from deepmem_integrations.judging.pools import Pool
from deepmem_integrations.judging.result import Judged
from deepmem_integrations.labels import Relevance


class JudgingRun(Asking[Relevance]):
    """The state of a run that judges. A piece of its result is the labels of one query.

    Args:
        model: The language model, or the reranker.
        pools: The queries with the documents to judge.
        requests: For each pool its requests.
        thresholds: The lowest scores of the grades from 1 on; empty where the model gives grades.
        weights: Grade → weight of the label.
        judge: The name of the judge, as the labels say it.
        checkpoint: An open checkpoint.
        budget: The cap on tokens or cost.
        concurrency: See `Asking`.
        used: See `Asking`.
        progress: Whether to show a progress bar.

    Attributes:
        judge: The name of the judge, as the labels say it.
        agreement: The agreement with people, for `result`.
    """

    def __init__(
        self,
        model: Model,
        pools: Sequence[Pool],
        requests: Sequence[Sequence[Request]],
        *,
        thresholds: Sequence[float],
        weights: Sequence[float],
        judge: str,
        checkpoint: Checkpoint,
        budget: Budget,
        concurrency: int,
        used: Usage = Usage(),  # noqa: B008 - the default is frozen
        progress: bool = False,
    ) -> None:
        total = sum(map(len, requests))
        bar = tqdm(total=total, desc="Judging documents", unit="request", delay=1, disable=not progress)
        super().__init__(model, checkpoint, budget, concurrency=concurrency, bar=bar, used=used)
        self._pools, self._thresholds, self._weights, self.judge = pools, list(thresholds), list(weights), judge
        self.agreement: Agreement | None = None
        self._to_ask = deque((row, request) for row, of_pool in enumerate(requests) for request in of_pool)
        self._due = [len(of_pool) for of_pool in requests]
        self._place: dict[str, int] = {}  # key of a request under way → its pool
        self._grades: list[dict[str, int]] = [{} for _ in pools]
        self._left_out: list[Counter[str]] = [Counter() for _ in pools]
        self._failed: dict[str, str] = {}
        self._to_give = 0

    def next(self) -> Request | None:
        """Return the next request to send, or None where all have been sent."""
        while self._to_ask:
            row, request = self._to_ask.popleft()
            if self._may_ask(request):
                self._place[request.key] = row
                return request
            self._take(row, request, NOT_ASKED)
        return None

    @property
    def done(self) -> bool:
        """Whether the labels of all queries have been given out."""
        return self._to_give == len(self._pools)

    def settle(self, outcomes: Iterable[tuple[Request, Outcome]]) -> list[Relevance]:
        """Take in answers, in any order, and return the labels of each query that is finished, in the order of the queries."""
        for request, outcome in outcomes:
            self._account(request, outcome)
            self._bar.update()
            self._take(self._place.pop(request.key), request, outcome)
        pieces = []
        while not self.done and not self._due[self._to_give]:
            pieces.append(self._labels([self._to_give]))
            self._to_give += 1
        return pieces

    def result(self) -> Judged:
        """Return the result of the run.

        Raises:
            GenerationError: Not one request was answered.
        """
        self._check_answered("query", self._failed)
        grades = {pool.query_id: given for pool, given in zip(self._pools, self._grades, strict=True) if given}
        labels = self._labels(range(len(self._pools)))
        return Judged(labels, grades, self.agreement, dict(self._failed), self.used, self.cost, self.recorded, self.stopped)

    def _take(self, row: int, request: Request, outcome: Outcome) -> None:
        self._due[row] -= 1
        if isinstance(outcome, Failure):
            if outcome is NOT_ASKED:
                self._left_out[row]["document: not asked"] += len(request.sources)
            else:
                self._left_out[row]["document: request failed"] += len(request.sources)
                self._failed[self._pools[row].query_id] = outcome.reason
            return
        if outcome.fault:
            self._left_out[row][f"document: {outcome.fault}"] += len(request.sources)
            return
        if request.task == "grade":
            self._grades[row][request.sources[0].id] = outcome.value["grade"]
            return
        for source, score in zip(request.sources, outcome.value["scores"], strict=True):
            if score is None:
                self._left_out[row]["document: left out by the reranker"] += 1
            else:
                self._grades[row][source.id] = int(np.searchsorted(self._thresholds, score, side="right"))

    def _labels(self, rows: Sequence[int]) -> Relevance:
        left_out = sum((self._left_out[row] for row in rows), Counter())
        left_out["query: nothing judged"] += sum(not self._grades[row] for row in rows)
        rows = [row for row in rows if self._grades[row]]
        pools = [self._pools[row] for row in rows]
        return Relevance(
            [pool.query for pool in pools],
            [
                [(source.id, self._weights[grades[source.id]]) for source in pool.sources if source.id in grades]
                for pool, grades in zip(pools, (self._grades[row] for row in rows), strict=True)
            ],
            [pool.query_id for pool in pools],
            generated=[pool.generated for pool in pools],
            times=[pool.time for pool in pools],
            judges=self.judge,
            left_out=+left_out,
        )
