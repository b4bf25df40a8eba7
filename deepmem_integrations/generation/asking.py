"""`Asking`: the part of a run that asks a model, whatever for. It knows no threads or event loops: see `drive`."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from deepmem_integrations.errors import GenerationError, JobFailedError, StorageError
from deepmem_integrations.generation.budget import Budget, Usage
from deepmem_integrations.generation.checkpoint import Checkpoint
from deepmem_integrations.generation.model import Answer, Model, Request

_logger = logging.getLogger(__name__)

_Piece = TypeVar("_Piece")


@dataclass(frozen=True)
class Failure:
    """A request without an answer, after the client's retries."""

    reason: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Return the failure that an error of a model is."""
        return cls(str(error) if isinstance(error, Unanswered) else f"{type(error).__name__}: {error}")


class Unanswered(Exception):
    """A request has no answer. The message is the whole reason."""


NOT_ASKED = Failure("")
"""The outcome of a request that a stopped run did not come to."""

Outcome = Answer | Failure


class Asking(ABC, Generic[_Piece]):
    """The state of a run over requests: what may still be sent, what the checkpoint has, and what has been used.

    A subclass makes the requests (`next`) and turns their outcomes into pieces of the result (`settle`), in an order that does
    not depend on the speed of the answers. Threads may share `attempt` and `aattempt`, and nothing else.

    Args:
        model: The model that is asked.
        checkpoint: An open checkpoint.
        budget: The cap on tokens or cost.
        concurrency: How many requests are in flight at a time. After twice as many failures in a row, and 20 at least, or answers
            in a row that cannot be read, the run stops.
        bar: The progress bar, which `close` closes.
        used: The usage of a run before this one that counts for the same budget.

    Attributes:
        concurrency: How many requests are in flight at a time.
        used: The usage of the requests that were sent.
        recorded: The number of answers that came from the checkpoint.
        stopped: The reason why the run sends no further requests; empty while it sends requests.
    """

    def __init__(
        self,
        model: Model,
        checkpoint: Checkpoint,
        budget: Budget,
        *,
        concurrency: int,
        bar: Any,
        used: Usage = Usage(),  # noqa: B008 - the default is frozen
    ) -> None:
        self._model, self._checkpoint, self._budget = model, checkpoint, budget
        self.concurrency, self._patience, self._bar = concurrency, max(20, 2 * concurrency), bar
        self._recorded_before: set[str] = set()  # keys of the requests under way whose answers the checkpoint has
        self.used = used
        self.recorded = 0
        self.stopped = ""
        self._reserved = Usage()
        self._answered = 0
        self._failures_in_a_row = 0
        self._unread: list[tuple[str, str]] = []  # id of the document, detail
        self._unread_in_a_row = 0

    @abstractmethod
    def next(self) -> Request | None:
        """Return the next request to send, or None where there is none until further answers are settled."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether all pieces of the result have been given out."""

    @abstractmethod
    def settle(self, outcomes: Iterable[tuple[Request, Outcome]]) -> list[_Piece]:
        """Take in answers, in any order, and return the pieces that are finished, in their order."""

    @property
    def cost(self) -> float | None:
        """The cost of ``used`` in the currency of the budget's prices; None where the budget has no prices."""
        return self._budget.cost(self.used) if self._budget.input_price or self._budget.output_price else None

    def attempt(self, request: Request) -> Outcome:
        """Ask the model, unless the checkpoint has the answer, and write the answer to the checkpoint.

        Any thread may call this method. An error of the model is returned as a `Failure`.

        Raises:
            StorageError: The checkpoint, or the file of a rate limit, cannot be written.
            JobFailedError: The Ray cluster is lost.
        """
        if (recorded := self._checkpoint.get(request.key)) is not None:
            return recorded
        try:
            answer = self._model.ask(request)
        except (StorageError, JobFailedError):  # of the rate limit or the cluster
            raise
        except Exception as error:
            return Failure.of(error)
        self._record(request, answer)
        return answer

    async def aattempt(self, request: Request) -> Outcome:
        """Do the same as `attempt` with the model's async methods."""
        if (recorded := self._checkpoint.get(request.key)) is not None:
            return recorded
        try:
            answer = await self._model.aask(request)
        except (StorageError, JobFailedError):
            raise
        except Exception as error:
            return Failure.of(error)
        await asyncio.to_thread(self._record, request, answer)
        return answer

    def close(self) -> None:
        """Close the progress bar. Warn of a run that ended early, and of answers that cannot be read."""
        self._bar.close()
        if self.stopped:
            _logger.warning("The run ended early: %s.", self.stopped)
        if self._unread:
            _logger.warning(
                "%d answers of %s could not be read and were left out. A later run asks again. The first, for document %r: %s",
                len(self._unread),
                self._model.name,
                *self._unread[0],
            )

    # ---- for subclasses ----------------------------------------------------------------------------------------

    def _may_ask(self, request: Request) -> bool:
        """Tell whether a request may be sent, and reserve its expected usage."""
        if request.key in self._checkpoint:
            self._recorded_before.add(request.key)
            return True
        if self.stopped:
            return False
        expected = Usage.expected(request)
        if not self._budget.allows(self.used + self._reserved + expected):
            self.stopped = f"the budget is used up ({self.used.tokens:,} tokens)"
            return False
        self._reserved += expected
        return True

    def _account(self, request: Request, outcome: Outcome) -> bool:
        """Count an outcome, and return whether its request was sent: the checkpoint had the others."""
        if request.key in self._recorded_before:
            self._recorded_before.remove(request.key)
            self.recorded += 1
            self._answered += 1
            return False
        self._reserved -= Usage.expected(request)
        if isinstance(outcome, Failure):
            self.used += Usage(1, 0, 0)
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= self._patience and not self.stopped:
                self.stopped = f"{self._failures_in_a_row} requests in a row failed, the last with {outcome.reason}"
            return True
        self.used += Usage.of(request, outcome)
        self._answered += 1
        self._failures_in_a_row = 0
        if outcome.fault == "malformed":
            self._unread.append((request.sources[0].id, outcome.detail))
        self._unread_in_a_row = self._unread_in_a_row + 1 if outcome.fault == "malformed" else 0
        if self._unread_in_a_row >= self._patience and not self.stopped:
            self.stopped = f"{self._unread_in_a_row} answers in a row could not be read, the last for {outcome.detail}"
        return True

    def _check_answered(self, what: str, failed: Mapping[str, str]) -> None:
        """Check that a request was answered, if any failed.

        Args:
            what: What the failed requests were about, such as ``"document"``.
            failed: Id → error.

        Raises:
            GenerationError: Not one request was answered.
        """
        if failed and not self._answered:
            name, reason = next(iter(failed.items()))
            raise GenerationError(
                f"Not one of {len(failed)} requests was answered by {self._model.name}. "
                f"The first request, for the {what} {name!r}, failed with {reason}"
            )

    def _record(self, request: Request, answer: Answer) -> None:
        """Write an answer to the checkpoint, unless it is malformed: a later run may ask a function that was mended since."""
        if answer.fault != "malformed":
            self._checkpoint.add(request.key, answer)
