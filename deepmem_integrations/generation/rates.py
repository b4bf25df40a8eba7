"""Rate limits of a provider, which hold for all who ask it: `RateLimit`.

A request takes its turn before it is sent: a time at which it and all before it, within any window of a minute, stay below the
limit. Turns are given in order. A turn costs the tokens that the request is expected to use, and what the model counted once it
has answered. No library was found to fit: a leaky bucket, as aiolimiter's, lets twice the limit pass in the first minute, and
those that keep a window, limits and pyrate-limiter, keep an entry for each token and cannot take back what was not used.
"""

import asyncio
import contextlib
import logging
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Protocol

from deepmem_integrations._files import lasting_path, make_private_folder, open_regular
from deepmem_integrations._store import is_url
from deepmem_integrations.errors import DeepMemoryError, GenerationError, StorageError
from deepmem_integrations.generation.budget import Usage
from deepmem_integrations.generation.model import Answer, Model, Request

_logger = logging.getLogger(__name__)

LONGEST = 31 * 86_400
"""The most seconds of a window."""
LONG = 600.0
"""From how many seconds on a wait is told, once."""
PATIENCE = 60.0
"""For how many seconds another process may hold the file of a limit."""
SLACK = 1.0
"""How many seconds after its turn a request may reach the provider, and the limit still holds."""


@dataclass(frozen=True)
class RateLimit:
    """A cap on the requests, and on the tokens, that a provider gets in any minute.

    All runs of a process whose limits have the same name count together, each under its own cap. On a Ray cluster, all runs of
    the cluster do. With ``file``, processes that share the file do so as well. A request that the `OpenAIModel` sends again,
    after an error, counts again; the clients of other models send again unseen.

    A request counts with its expected tokens while it is under way, and then with the tokens that the model counted. A request
    that is expected to use more than the cap waits until it is alone.

    Args:
        requests: The most requests in a window; None sets no limit.
        tokens: The most input and output tokens in a window; None sets no limit.
        seconds: The length of the window, at most a month.
        name: Whose limit it is, such as ``"openai"``; by default the name of the model.
        file: A file by which processes share the limit, on a disk that all of them see and that has locks. It holds times and
            numbers of tokens. The clocks of their machines have to agree.

    Raises:
        GenerationError: There is no limit, or one is out of range.

    Example:
        >>> RateLimit(requests=500, tokens=200_000)
        RateLimit(requests=500, tokens=200000, seconds=60.0, name='', file=None)
    """

    requests: int | None = None
    tokens: int | None = None
    seconds: float = 60.0
    name: str = ""
    file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        given = [one for one in (self.requests, self.tokens) if one is not None]
        whole = all(isinstance(one, Integral) and one >= 1 for one in given)
        if not given or not whole or not isinstance(self.seconds, Real) or not 0 < self.seconds <= LONGEST:
            raise GenerationError(
                "RateLimit needs requests=, tokens=, or both, each a whole number of 1 or more, and seconds above 0, at most "
                f"{LONGEST:,}; got requests={self.requests!r}, tokens={self.tokens!r} and seconds={self.seconds!r}."
            )
        if self.file is not None and (not isinstance(self.file, str | os.PathLike) or is_url(self.file)):
            raise GenerationError(
                f"The file of a RateLimit lies on a disk, since it needs locks; got {self.file!r}. Machines without a common "
                "disk share a limit on a Ray cluster: see on=."
            )


class Turns(Protocol):
    """Who gives the turns of a provider, in this process or elsewhere."""

    def take(self, limit: RateLimit, tokens: int) -> tuple[float, int]:
        """Give a turn to a request with its expected tokens: return in how many seconds it comes, and its number."""
        ...

    def settle(self, number: int, tokens: int | None) -> None:
        """Correct the tokens of a turn; None gives it back, since the request was not sent."""
        ...


@dataclass
class _Turn:
    """A time, the tokens that count at that time, and the number of the turn."""

    at: float
    tokens: int
    number: int


class Window:
    """The turns of the last seconds, and those to come.

    Attributes:
        length: After how many seconds a turn counts for nobody any more.
    """

    def __init__(self) -> None:
        self.length = 0.0
        self._turns = deque[_Turn]()
        self._of: dict[int, _Turn] = {}
        self._total = 0
        # A number is never given again, also by a window that is made anew while requests are under way.
        self._last = time.time_ns() // 1_000

    def __contains__(self, number: int) -> bool:
        return number in self._of

    def counts(self, now: float) -> bool:
        """Tell whether a turn still counts for somebody."""
        return bool(self._turns) and self._turns[-1].at + self.length > now

    def take(self, limit: RateLimit, tokens: int, now: float) -> tuple[float, int]:
        """Give a turn: see `Turns`.

        Args:
            limit: The limit of the one who asks.
            tokens: The expected tokens.
            now: The time, of any clock that all callers share.
        """
        length = limit.seconds + SLACK
        self.length = max(self.length, length)
        while self._turns and self._turns[0].at + self.length <= now:
            old = self._turns.popleft()
            self._total -= old.tokens
            self._of.pop(old.number, None)
        at = max(now, self._turns[-1].at) if self._turns else now
        if limit.requests is not None and len(self._turns) >= limit.requests:
            at = max(at, self._turns[-limit.requests].at + length)
        left = math.inf if limit.tokens is None else limit.tokens - min(tokens, limit.tokens)
        if self._total > left:  # not all of them fit
            for turn in reversed(self._turns):
                left -= turn.tokens
                if left < 0:
                    at = max(at, turn.at + length)
                    break
        number = self._last + 1
        self.add(number, at, tokens)
        return at - now, number

    def settle(self, number: int, tokens: int | None) -> None:
        """Correct the tokens of a turn: see `Turns`."""
        turn = self._of.get(number)
        if turn is not None and tokens is None:
            self._turns.remove(turn)
            self._total -= self._of.pop(number).tokens
        elif turn is not None and tokens is not None:
            self._total += tokens - turn.tokens
            turn.tokens = tokens

    def fill(self, limit: RateLimit, now: float) -> None:
        """Count the window as full, where nobody knows what was sent in it."""
        for _ in range(limit.requests or 1):
            self.add(self._last + 1, now, limit.tokens or 0)

    def add(self, number: int, at: float, tokens: int) -> None:
        """Add a turn that was given, which is not before those that were added."""
        self._last = max(self._last, number)
        self._of[number] = turn = _Turn(at, tokens, number)
        self._turns.append(turn)
        self._total += tokens


class TurnsHere:
    """The turns of one provider in this process: all limits of the same name share them.

    Args:
        name: The name.
    """

    _windows: ClassVar[dict[str, Window]] = {}

    def __init__(self, name: str) -> None:
        self._name = name
        with _LOCK:
            self._window = self._windows.setdefault(name, Window())

    def take(self, limit: RateLimit, tokens: int) -> tuple[float, int]:
        """Give a turn: see `Turns`."""
        with _LOCK:
            return self._window.take(limit, tokens, time.monotonic())

    def settle(self, number: int, tokens: int | None) -> None:
        """Correct the tokens of a turn: see `Turns`."""
        with _LOCK:
            self._window.settle(number, tokens)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name: another process has turns of its own."""
        return TurnsHere, (self._name,)


class TurnsInFile:
    """The turns of one provider in a SQLite database that processes share.

    The window stands in each process as well, which reads what the others changed since it asked last. The kernel keeps what a
    process has written that is killed; a machine that loses power may leave a damaged file, which is an error.

    Args:
        path: The file of the database.

    Raises:
        StorageError: The file cannot be read, written or locked, or is another one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(lasting_path(path))
        self._forget()
        try:
            make_private_folder(self._path.parent)
        except OSError as error:
            raise StorageError(f"Cannot make the folder of {self._path}: {error.strerror or error}.") from error
        with self._open():
            pass

    def take(self, limit: RateLimit, tokens: int) -> tuple[float, int]:
        """Give a turn: see `Turns`."""
        with self._open() as database:
            now = time.time()
            wait, number = self._window.take(limit, tokens, now)
            database.execute("DELETE FROM turns WHERE at <= ?", [now - self._window.length])
            database.execute(f"PRAGMA user_version = {math.ceil(self._window.length)}")
            self._write(database, number, now + wait, tokens)
        return wait, number

    def settle(self, number: int, tokens: int | None) -> None:
        """Correct the tokens of a turn: see `Turns`."""
        with self._open() as database:
            self._window.settle(number, tokens)
            if (turn := database.execute("SELECT at FROM turns WHERE number = ?", [number]).fetchone()) is not None:
                self._write(database, number, turn[0], tokens)

    def _write(self, database: sqlite3.Connection, number: int, at: float, tokens: int | None) -> None:
        row = database.execute("INSERT OR REPLACE INTO turns (number, at, tokens) VALUES (?, ?, ?)", [number, at, tokens])
        self._seen = row.lastrowid

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with _LOCK:
            try:
                with open_regular(self._path, os.O_RDWR | os.O_CREAT):  # its owner alone may read it
                    pass
                with contextlib.closing(sqlite3.connect(self._path, timeout=PATIENCE, isolation_level=None)) as database:
                    database.execute("PRAGMA synchronous = OFF")
                    database.execute("BEGIN IMMEDIATE")
                    self._read(database)
                    yield database
                    database.execute("COMMIT")
            except BaseException as error:
                self._forget()  # what was not written does not count
                if isinstance(error, OSError | sqlite3.OperationalError):
                    raise StorageError(f"Cannot read or write {self._path}: {getattr(error, 'strerror', error)}.") from error
                if isinstance(error, sqlite3.Error | TypeError | ValueError | OverflowError):
                    raise StorageError(
                        f"{self._path} holds no turns of a rate limit, or is damaged ({error}). Name another file."
                    ) from error
                raise

    def _read(self, database: sqlite3.Connection) -> None:
        """Read what changed since the last call."""
        tables = [row[0] for row in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")]
        if not tables:
            for statement in _TABLES:
                database.execute(statement)
        elif [*tables] != [_TABLES[0], "CREATE TABLE sqlite_sequence(name,seq)", _TABLES[1]]:
            raise ValueError("it is another database")
        self._window.length = max(self._window.length, float(database.execute("PRAGMA user_version").fetchone()[0]))
        changed = database.execute("SELECT id, number, at, tokens FROM turns WHERE id > ? ORDER BY at, number", [self._seen])
        for row, number, at, tokens in changed:
            if not isinstance(at, float) or not math.isfinite(at) or not isinstance(tokens, int | None):
                raise ValueError(f"{at!r} with {tokens!r} tokens is no turn")
            self._seen = max(self._seen, row)
            if number in self._window:
                self._window.settle(number, tokens)
            elif tokens is not None:
                self._window.add(number, at, tokens)

    def _forget(self) -> None:
        self._window, self._seen = Window(), 0

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the path: another process reads the file."""
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


_TABLES = (
    "CREATE TABLE turns (id INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL UNIQUE, at REAL NOT NULL, tokens INTEGER)",
    "CREATE INDEX turns_at ON turns (at)",
)
"""A turn that changes is written anew, with a higher id; without tokens it was given back."""
_LOCK = threading.Lock()
"""Held by whoever takes or settles a turn in this process."""
if hasattr(os, "register_at_fork"):  # a process that is forked while another thread takes a turn would wait forever
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


class Limited:
    """A model whose requests wait for their turns.

    A model that sends a request by way of `take_turn` or `atake_turn`, each time that it sends it, says so with an attribute
    ``takes_turns``. The requests of other models wait before the model is called.

    Args:
        model: The model.
        limit: The limit.
        turns: Who gives the turns; by default the file of the limit, or this process.
    """

    def __init__(self, model: Model, limit: RateLimit, turns: Turns | None = None) -> None:
        self._model, self._limit = model, limit
        if turns is None:
            turns = TurnsHere(limit.name or model.name) if limit.file is None else TurnsInFile(limit.file)
        self._turns = turns
        self._closed = threading.Event()
        self._told = False

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._model.name

    def take(self, tokens: int) -> tuple[float, int]:
        """Give a turn to a request: see `Turns`."""
        seconds, number = self._turns.take(self._limit, tokens)
        if seconds > LONG and not self._told:
            self._told = True
            shared = self._limit.file
            ahead = "" if shared is None else f", or the clock of a machine that shares {shared} is ahead"
            told = "A request to %s waits %.0f minutes for its turn: others have turns before%s."
            _logger.warning(told, self.name, seconds / 60, ahead)
        return seconds, number

    def settle(self, number: int, tokens: int | None) -> None:
        """Correct the tokens of a turn: see `Turns`."""
        self._turns.settle(number, tokens)

    def close(self) -> None:
        """Send nothing any more: requests that wait for their turn end with an error."""
        self._closed.set()

    def ask(self, request: Request) -> Answer:
        """Answer the request when its turn has come.

        Raises:
            StorageError, JobFailedError: Nobody can give a turn.
        """
        with self._sending(request) as sending:
            if not self._takes_turns:
                sending.wait()
            return sending.answered(self._model.ask(request))

    async def aask(self, request: Request) -> Answer:
        """Answer the request when its turn has come, without blocking the event loop."""
        with self._sending(request) as sending:
            if not self._takes_turns:
                await sending.await_turn()
            return sending.answered(await self._model.aask(request))

    @property
    def _takes_turns(self) -> bool:
        return bool(getattr(self._model, "takes_turns", False))

    @contextlib.contextmanager
    def _sending(self, request: Request) -> Iterator["_Sending"]:
        sending = _Sending(self, self._closed, request)
        before = _SENDING.set(sending)
        try:
            yield sending
        except _NoTurnError as stopped:
            raise stopped.error from None
        finally:
            _SENDING.reset(before)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the parts: turns travel as the place where they are given."""
        return Limited, (self._model, self._limit, self._turns)


class _NoTurnError(BaseException):
    """There is no turn. It passes through clients, which try again after any `Exception`."""

    def __init__(self, error: DeepMemoryError) -> None:
        super().__init__(str(error))
        self.error = error


class _Sending:
    """A request on its way, which may be sent several times."""

    def __init__(self, limited: Limited, closed: threading.Event, request: Request) -> None:
        self._limited, self._closed, self._request = limited, closed, request
        self._tokens = Usage.expected(request).tokens
        self._number = 0

    def wait(self) -> None:
        if self._closed.wait(self._take()):
            self._give_back()
            raise _NoTurnError(GenerationError("The run has ended, so the request is not sent."))

    async def await_turn(self) -> None:
        try:
            await asyncio.sleep(self._take())
        except asyncio.CancelledError:
            self._give_back()
            raise

    def _give_back(self) -> None:
        with contextlib.suppress(DeepMemoryError):  # the next turn tells the error
            self._limited.settle(self._number, None)

    def _take(self) -> float:
        try:
            seconds, self._number = self._limited.take(self._tokens)
        except DeepMemoryError as error:
            raise _NoTurnError(error) from None
        return seconds

    def answered(self, answer: Answer) -> Answer:
        with contextlib.suppress(DeepMemoryError):  # the answer is paid for; the next turn tells the error
            self._limited.settle(self._number, Usage.of(self._request, answer).tokens)
        return answer


_SENDING: ContextVar[_Sending | None] = ContextVar("_SENDING", default=None)


def take_turn() -> None:
    """Wait until the request on its way may be sent; without a rate limit, at once."""
    if (sending := _SENDING.get()) is not None:
        sending.wait()


async def atake_turn() -> None:
    """Do the same as `take_turn`, without blocking the event loop."""
    if (sending := _SENDING.get()) is not None:
        await sending.await_turn()
