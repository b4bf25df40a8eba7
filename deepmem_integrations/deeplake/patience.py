"""`patient`: how long a data set in an object store may leave a call unanswered.

Deep Lake 4.7 sends a request again every 8 seconds where nothing answers, without an end: for more than ten minutes in a test.
Where a process ends meanwhile, Deep Lake aborts it, after everything of Python's is done.
"""

import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from deepmem_integrations._redaction import redacted
from deepmem_integrations.errors import StoreError

READ, WRITE = 300.0, 3_600.0
"""For how many seconds a call that reads, and one that writes, may go unanswered."""

_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("_inside", default=False)

_P = ParamSpec("_P")
_R = TypeVar("_R")


class HasPath(Protocol):
    """A store with a path."""

    path: str


_S = TypeVar("_S", bound=HasPath)


def patient(*, writes: bool = False) -> Callable[[Callable[Concatenate[_S, _P], _R]], Callable[Concatenate[_S, _P], _R]]:
    """Decorate a method of a store, so that it ends with an error where an object store does not answer.

    The call then runs in a thread of its own, which goes on by itself: nobody can end it. Calls on a store on this machine run as
    they are. A method is entered without the store's lock, which the thread takes.

    Args:
        writes: Whether the method writes, which may take long.
    """

    def decorated(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
        @functools.wraps(method)
        def call(self: _S, /, *arguments: _P.args, **options: _P.kwargs) -> _R:
            if _inside.get() or "://" not in self.path or self.path.startswith(("mem://", "file://")):
                return method(self, *arguments, **options)
            seconds = WRITE if writes else READ
            outcome: Future[_R] = _started(functools.partial(method, self, *arguments, **options))
            try:
                return outcome.result(seconds)
            except TimeoutError:
                if outcome.done():
                    raise
                left = " What was to be written may still be written." if writes else ""
                raise StoreError(f"{redacted(self.path)} has not answered for {seconds:,.0f} seconds.{left}") from None

        return call

    return decorated


def _started(call: Callable[[], Any]) -> Future[Any]:
    """Run a call in a thread that keeps no process from ending."""
    outcome: Future[Any] = Future()

    def run() -> None:
        _inside.set(True)
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="deepmem Deep Lake", daemon=True).start()
    return outcome
