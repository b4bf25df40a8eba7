"""Who asks a model: this process, or the workers of a Ray cluster, with a rate limit that all of them share.

Whoever asks, the run stays in the process of the caller: what to ask next, the budget, the checkpoint and the filters. A worker
gets one request after another and returns its answer, so a result does not depend on how many workers there are.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from deepmem_integrations._extras import require
from deepmem_integrations.cluster import RETRIES, RayWorkers, check_address, client_errors
from deepmem_integrations.errors import GenerationError, JobFailedError, StorageError
from deepmem_integrations.generation.asking import Failure, Outcome, Unanswered
from deepmem_integrations.generation.model import Answer, Model, Request
from deepmem_integrations.generation.rates import Limited, RateLimit, TurnsInFile, Window

_NAMESPACE = "deepmem"
_IDLE = 600.0
"""After how many seconds without a request nobody gives the turns of a provider any more."""
_PATIENCE = 30.0
"""After how many seconds without a worker a warning says so."""
_OUT_OF_REACH = "The Ray cluster that asks the model is out of reach."

_logger = logging.getLogger(__name__)


def check_asking(limit: RateLimit | None, on: str | None) -> None:
    """Refuse what is no rate limit, and what is no address of a cluster.

    Raises:
        GenerationError: ``limit`` is no `RateLimit`.
        ValueError: See `check_address`.
    """
    if limit is not None and not isinstance(limit, RateLimit):
        raise GenerationError(
            f"limit is a RateLimit, such as RateLimit(requests=500); got {limit!r:.60} ({type(limit).__name__})."
        )
    if on is not None:
        check_address(on)


@contextlib.contextmanager
def asker_of(model: Model, on: str | None, limit: RateLimit | None, concurrency: int) -> Iterator[tuple[Model, int]]:
    """Yield a model of the same name that asks where and as fast as it may, and how many requests may be in flight.

    Args:
        model: The model to ask.
        on: The Ray cluster whose workers ask: see `RayWorkers`. None asks from this process.
        limit: The rate limit, or None.
        concurrency: How many requests are in flight at a time, in this process or from each worker.

    Raises:
        GenerationError: The model cannot travel to the workers, or cannot be used there.
        JobFailedError, MissingExtraError: See `RayWorkers`.
        StorageError: The file of the limit cannot be used.
    """
    if on is None:
        if limit is None:
            yield model, concurrency
            return
        limited = Limited(model, limit)
        try:
            yield limited, concurrency
        finally:
            limited.close()
        return
    with RayWorkers(on) as workers:
        asked = model
        if limit is not None:
            asked = Limited(model, limit, RayTurns(limit.name or model.name) if limit.file is None else TurnsInFile(limit.file))
        there = RayModel(asked, workers.count, concurrency)
        try:
            yield there, workers.count * concurrency
        finally:
            there.close()


class RayModel:
    """A model that workers of a Ray cluster ask, one for each CPU.

    A request whose worker is lost is asked again by another, up to `RETRIES` times. A worker that is lost is replaced.

    Args:
        model: The model, which travels to the workers.
        count: How many workers there are.
        concurrency: How many requests each of them has in flight.

    Raises:
        GenerationError: The model cannot travel.
    """

    def __init__(self, model: Model, count: int, concurrency: int) -> None:
        self._ray = require("ray", extra="ray")
        self._name = model.name
        try:
            self._data = self._ray.cloudpickle.dumps(model)
        except Exception as error:  # of any class: what cannot be pickled says so in many ways
            raise GenerationError(
                f"The model {model.name} cannot travel to the workers of the cluster ({type(error).__name__}: {error}). Pass an "
                "OpenAIModel, or a function that opens the model when it is first called."
            ) from error
        self._asker = self._ray.remote(num_cpus=1, max_restarts=0, max_concurrency=concurrency)(_Asker)
        self._pool = ThreadPoolExecutor(count * concurrency, thread_name_prefix="deepmem asker")
        self._changed = threading.Condition()
        self._under_way: dict[Any, int] = {}  # worker that is ready → the number of its requests
        self._hired: set[Any] = set()  # workers that are not ready yet
        self._lost = 0  # how many workers were lost one after another before they were ready
        self._failure: Exception | None = None
        self._closed = self._warned = False
        for _ in range(count):
            self._hire()

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._name

    def ask(self, request: Request) -> Answer:
        """Let a worker ask.

        Raises:
            Unanswered: There is no answer, or every worker that asked was lost.
            GenerationError: The workers cannot open the model.
            JobFailedError: The cluster is out of reach.
        """
        for _ in range(RETRIES + 1):
            worker = self._least_busy()
            try:
                outcome: Outcome = worker.ask.remote(request).future().result()
            except self._ray.exceptions.RayTaskError as error:
                cause = getattr(error, "cause", None)
                raise (cause if isinstance(cause, StorageError | JobFailedError) else JobFailedError(str(error))) from None
            except self._ray.exceptions.RayError:
                self._lose(worker)
                continue
            except client_errors() as error:
                raise JobFailedError(_OUT_OF_REACH) from error
            finally:
                self._done(worker)
            if isinstance(outcome, Failure):
                raise Unanswered(outcome.reason)
            return outcome
        raise Unanswered(f"the worker that asked was lost, {RETRIES + 1} times")

    async def aask(self, request: Request) -> Answer:
        """Do the same as `ask`, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.ask, request)

    def close(self) -> None:
        """End the workers, and with them the requests that are under way."""
        with self._changed:
            self._closed = True
            workers = [*self._under_way, *self._hired]
            self._under_way, self._hired = {}, set()
            self._changed.notify_all()
        for worker in workers:
            with contextlib.suppress(Exception):  # the worker or the cluster is gone
                self._ray.kill(worker)
        self._pool.shutdown(wait=False, cancel_futures=True)

    # ---- workers -----------------------------------------------------------------------------------------------

    def _hire(self) -> None:
        """Start a worker.

        Ray is called without the lock: its client waits for a thread that takes the lock itself, in `_arrived`.
        """
        if self._closed:
            return
        try:
            worker = self._asker.remote(self._data)
            arrival = worker.ready.remote().future()
            hash(worker)  # a client waits for its id
        except Exception as error:  # of any class: Ray says in many ways that there is no cluster
            self._fail(JobFailedError(f"{_OUT_OF_REACH} ({type(error).__name__})"))
            return
        with self._changed:
            closed = self._closed
            if not closed:
                self._hired.add(worker)
        if closed:
            with contextlib.suppress(Exception):
                self._ray.kill(worker)
            return
        arrival.add_done_callback(lambda ready: self._arrived(worker, ready))

    def _arrived(self, worker: Any, ready: "Future[str]") -> None:
        lost = ready.exception()
        with self._changed:
            self._hired.discard(worker)
            if self._closed:
                return
            if lost is not None:
                self._lost += 1
            elif not ready.result():
                self._under_way[worker], self._lost = 0, 0
                self._changed.notify_all()
        if lost is None:
            if ready.result():
                self._fail(GenerationError(f"A worker of the Ray cluster cannot open the model {self.name}: {ready.result()}"))
        elif self._lost > RETRIES:
            self._fail(
                JobFailedError(
                    f"The Ray cluster lost {self._lost} workers one after another while they opened the model {self.name} "
                    f"({type(lost).__name__}). Give the machines more memory, or take a smaller model."
                )
            )
        else:
            timer = threading.Timer(1.0, self._hire)
            timer.daemon = True
            timer.start()

    def _fail(self, failure: Exception) -> None:
        """End the requests that wait for a worker, once there is none."""
        with self._changed:
            self._failure = failure
            self._changed.notify_all()

    def _least_busy(self) -> Any:
        """Return a worker that is ready, and count a request for it."""
        begun = time.monotonic()
        with self._changed:
            while not self._under_way:
                if self._failure is not None:
                    raise self._failure
                if self._closed:
                    raise Unanswered("the run has ended")
                self._changed.wait(_PATIENCE)
                if not self._under_way and time.monotonic() - begun >= _PATIENCE and not self._warned:
                    self._warned = True
                    _logger.warning("No CPU of the Ray cluster is free to ask %s: its requests wait for one.", self.name)
            worker = min(self._under_way, key=lambda one: self._under_way[one])
            self._under_way[worker] += 1
            return worker

    def _done(self, worker: Any) -> None:
        with self._changed:
            if worker in self._under_way:
                self._under_way[worker] -= 1

    def _lose(self, worker: Any) -> None:
        with self._changed:
            known = self._under_way.pop(worker, None) is not None and not self._closed
        if known:
            with contextlib.suppress(Exception):
                self._ray.kill(worker)
            self._hire()


class _Asker:
    """A worker of a Ray cluster that asks a model."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def ready(self) -> str:
        """Open the model, and return why it cannot be opened."""
        try:
            self._model: Model = require("ray", extra="ray").cloudpickle.loads(self._data)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def ask(self, request: Request) -> Outcome:
        """Ask the model: see `Asking.attempt`."""
        try:
            return self._model.ask(request)
        except (StorageError, JobFailedError):
            raise
        except Exception as error:
            return Failure.of(error)


# ---- rate limits -------------------------------------------------------------------------------------------------


class RayTurns:
    """The turns of one provider on a Ray cluster: an actor gives them to all workers of all runs.

    Args:
        name: The name of the limit.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._keeper: Any = None

    def take(self, limit: RateLimit, tokens: int) -> tuple[float, int]:
        """Give a turn: see `Turns`."""
        seconds, number = self._call("take", limit, tokens)
        return float(seconds), int(number)

    def settle(self, number: int, tokens: int | None) -> None:
        """Correct the tokens of a turn: see `Turns`."""
        self._call("settle", number, tokens)

    def _call(self, method: str, *arguments: Any) -> Any:
        ray = require("ray", extra="ray")
        for attempt in range(RETRIES + 1):
            try:
                if self._keeper is None:
                    keeper = ray.remote(num_cpus=0, max_restarts=-1)(_Keeper)
                    options = {"name": f"deepmem limit {self._name}", "namespace": _NAMESPACE, "lifetime": "detached"}
                    self._keeper = keeper.options(get_if_exists=True, **options).remote()
                return getattr(self._keeper, method).remote(*arguments).future().result()  # see `RayWorkers.map`
            except ray.exceptions.RayTaskError as error:
                raise JobFailedError(f"The rate limit {self._name!r} cannot be kept: {error}") from error
            except ray.exceptions.RayError as error:
                self._keeper = None
                if attempt == RETRIES:
                    raise JobFailedError(
                        f"The Ray cluster lost the process that keeps the rate limit {self._name!r}, {RETRIES + 1} times "
                        f"({type(error).__name__}). Nothing more is sent."
                    ) from error
                time.sleep(1.0)
            except client_errors() as error:
                raise JobFailedError(_OUT_OF_REACH) from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name: each process finds the actor by it."""
        return RayTurns, (self._name,)


class _Keeper:
    """The actor that gives the turns of one provider. It outlives the runs, since a window does, and ends when it is idle."""

    def __init__(self) -> None:
        context = require("ray", extra="ray").get_runtime_context()
        self._window, self._used = Window(), time.monotonic()
        # Whoever was asked before this process was lost is not known: the first window counts as full.
        self._full = bool(context.was_current_actor_reconstructed)
        threading.Thread(target=self._end_when_idle, args=(context.current_actor,), daemon=True).start()

    def take(self, limit: RateLimit, tokens: int) -> tuple[float, int]:
        """Give a turn: see `Turns`."""
        self._used = now = time.monotonic()
        if self._full:
            self._full = False
            self._window.fill(limit, now)
        return self._window.take(limit, tokens, now)

    def settle(self, number: int, tokens: int | None) -> None:
        """Correct the tokens of a turn: see `Turns`."""
        self._window.settle(number, tokens)

    def _end_when_idle(self, me: Any) -> None:
        # A window may be longer than that, as one of a day.
        while (now := time.monotonic()) - self._used < _IDLE or self._window.counts(now):
            time.sleep(_IDLE / 10)
        require("ray", extra="ray").kill(me)
