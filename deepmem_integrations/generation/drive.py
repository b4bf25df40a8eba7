"""The two ways to drive a run: `drive` uses threads, `adrive` uses an event loop."""

import asyncio
import contextvars
import queue
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from typing import TypeVar

from deepmem_integrations.generation.asking import Asking, Outcome
from deepmem_integrations.generation.model import Request

_Piece = TypeVar("_Piece")


def drive(run: Asking[_Piece]) -> Generator[_Piece, None, None]:
    """Send requests from threads, at most ``run.concurrency`` at a time, and yield what is finished.

    The threads are daemon threads, so that the program need not wait for a server that hangs after Ctrl-C, or when the caller
    stops early.
    """
    outcomes: queue.SimpleQueue[tuple[Request, Outcome | BaseException]] = queue.SimpleQueue()
    in_flight = 0

    def attempt(request: Request) -> None:
        try:
            outcomes.put((request, run.attempt(request)))
        except BaseException as error:  # `_raised` raises it in the caller's thread
            outcomes.put((request, error))

    def refill() -> None:
        nonlocal in_flight
        while in_flight < run.concurrency and (request := run.next()) is not None:
            context = contextvars.copy_context()  # a framework finds its callbacks and traces through the context
            threading.Thread(target=context.run, args=(attempt, request), daemon=True).start()
            in_flight += 1

    while True:
        refill()
        if not in_flight and run.done:
            return
        batch = [outcomes.get()] if in_flight else []
        while not outcomes.empty():
            batch.append(outcomes.get())
        in_flight -= len(batch)
        refill()  # the next requests are sent first, because filtering the answers takes time
        yield from run.settle(_raised(batch))


async def adrive(run: Asking[_Piece]) -> AsyncGenerator[_Piece, None]:
    """Do the same as `drive` with the model's async methods.

    Everything that computes, above all the embedding of queries, runs in a thread.
    """
    in_flight: dict[asyncio.Task[Outcome], Request] = {}

    def refill() -> None:
        while len(in_flight) < run.concurrency and (request := run.next()) is not None:
            in_flight[asyncio.create_task(run.aattempt(request))] = request

    try:
        while True:
            refill()
            if not in_flight and run.done:
                return
            done = (await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED))[0] if in_flight else set()
            batch = [(in_flight.pop(task), task.result()) for task in done]
            refill()
            for piece in await asyncio.to_thread(run.settle, batch):
                yield piece
    finally:
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)


def _raised(batch: list[tuple[Request, Outcome | BaseException]]) -> Iterator[tuple[Request, Outcome]]:
    for request, outcome in batch:
        if isinstance(outcome, BaseException):
            raise outcome
        yield request, outcome
