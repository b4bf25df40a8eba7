"""`RayWorkers`: a Ray cluster, on which trainings and evaluations run where one machine is too small."""

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import numpy as np

from deepmem_integrations import __version__
from deepmem_integrations._extras import require
from deepmem_integrations._workers import Workers
from deepmem_integrations.errors import DeepMemoryError, JobFailedError

RETRIES = 3
"""How often a call is made again whose worker was lost."""
_PER_CPU = 2
"""How many calls are under way at most for each CPU: one runs, and one waits its turn."""
_REACH = 10.0
"""After how many seconds an address counts as out of reach."""
_LOOK = 0.5
"""After how many seconds to look again whether the job was cancelled, and how many CPUs there are."""

_T = TypeVar("_T")
_CONNECTING = threading.RLock()
_CONNECTED: list["RayWorkers"] = []
"""Those that use the cluster which one of them has joined or started: Ray knows one for each process."""


class RayWorkers:
    """The workers of a Ray cluster, used in a ``with`` block.

    The machines of the cluster need the same version of this package, installed with the extras that the work needs. A call whose
    worker is lost, because its process was killed, ran out of memory or its machine is gone, is made again on another; the others
    go on. A call computes in one thread and holds one CPU.

    Calls that wait for the caller are few, so that results fill no object store: see `map`.

    Args:
        address: ``"ray"`` joins the cluster that ``RAY_ADDRESS`` names or that runs on this machine, and starts one where there
            is none; ``"auto"`` only joins; ``"local"`` starts one. Otherwise the address of a cluster: ``"host:6379"`` from one
            of its machines, ``"ray://host:10001"`` from anywhere. A process that is connected already stays so.
        poll: Called every half second while results are waited for. An error that it raises cancels what is under way.

    Raises:
        MissingExtraError: Ray is not installed.
        JobFailedError: There is no such cluster, or its machines have another version of this package.

    Example:
        >>> with RayWorkers("local") as workers:  # doctest: +SKIP
        ...     list(workers.map(posixpath.join, [("a", "b"), ("c", "d")]))
        ['a/b', 'c/d']
    """

    def __init__(self, address: str = "ray", poll: Callable[[], None] = lambda: None) -> None:
        check_address(address)
        self._address, self._poll = address, poll
        self._connected = False

    def __enter__(self) -> "RayWorkers":
        ray = require("ray", extra="ray")
        with _CONNECTING:
            if not ray.is_initialized():
                try:
                    self._connect(ray)
                except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
                    raise JobFailedError(
                        f"There is no Ray cluster at {self._address!r} ({error}). `ray start --head` starts one, and "
                        'on="local" uses the CPUs of this machine. A cluster of Ray 2.59 or later may ask for its token: set '
                        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
                    ) from error
                _CONNECTED.clear()
                self._connected = True
            elif _CONNECTED:  # by another object, which may be done before this one
                self._connected = True
            if self._connected:
                _CONNECTED.append(self)
        try:
            found = next(iter(self.map(_versions, [()])))
        except BaseException as error:
            self.close()
            if isinstance(error, ImportError):
                raise JobFailedError(
                    f"The machines of the Ray cluster lack a package ({error}): install deepmem-integrations {__version__} "
                    "there, with the extra ray."
                ) from error
            raise
        if found[0] != __version__:
            self.close()
            raise JobFailedError(
                f"The machines of the Ray cluster have deepmem-integrations {found[0]}, this one has {__version__}: install the "
                "same version on all of them."
            )
        return self

    def _connect(self, ray: Any) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
        if self._address not in ("ray", "local"):
            if self._address != "auto":
                _reach(self._address)
            ray.init(self._address, **quiet)
            return
        if self._address == "ray":
            with contextlib.suppress(ConnectionError):
                ray.init("auto", **quiet)
                return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray's own telemetry, of a cluster that it starts
        ray.init("local", include_dashboard=False, **quiet)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, if an object of this class joined or started it, and no other one uses it any more."""
        with _CONNECTING:
            if self._connected:
                self._connected = False
                _CONNECTED[:] = [other for other in _CONNECTED if other is not self]
                if not _CONNECTED:
                    require("ray", extra="ray").shutdown()

    @property
    def count(self) -> int:
        """How many CPUs the cluster has, 1 at least."""
        return max(1, int(require("ray", extra="ray").cluster_resources().get("CPU", 1)))

    def map(self, function: Callable[..., _T], items: Iterable[Sequence[Any]], shared: Sequence[Any] = ()) -> Iterator[_T]:
        """Call ``function(*shared, *item)`` on the cluster for each item, and yield the results in the order of the items.

        At most two calls for each CPU are under way, and at first as many as there are results: what the first calls find may
        spare the later ones work and memory. Calls that are under way are cancelled when the iterator is closed.

        Args:
            function: A function at the top of a module, written in Python.
            items: The arguments of each call; an item is taken when its call starts.
            shared: Large arguments of all calls, which travel once to each machine.

        Raises:
            JobFailedError: A worker was lost `RETRIES` times more than once for the same item, an object was lost, or the cluster
                is out of reach.
            DeepMemoryError: What the function raised.
        """
        ray = require("ray", extra="ray")
        waiting, running, done = iter(items), deque[Any](), 0
        more, first = True, None
        self._check_connected(ray)
        try:
            call = ray.remote(num_cpus=1, max_retries=RETRIES)(function).remote
            constant = [ray.put(value) for value in shared]
            most, looked = _PER_CPU * self.count, time.monotonic()
            while more or running:
                while more and len(running) < min(most, 2 + done):
                    item = next(waiting, None)
                    if item is None:
                        more = False
                    else:
                        running.append(call(*constant, *item))
                if not running:
                    return
                # Not ray.wait and ray.get: a client's may ask a cluster that went away forever.
                first = first or running[0].future()
                ready, _ = wait([first], timeout=_LOOK)
                if time.monotonic() - looked > _LOOK:
                    self._check_connected(ray)
                    self._poll()
                    with contextlib.suppress(Exception):  # of many classes, where a client is cut off: `first` tells for how long
                        most = _PER_CPU * self.count
                    looked = time.monotonic()
                if ready:
                    result = self._result(ray, first)
                    running.popleft()
                    first, done = None, done + 1
                    yield result
                    del result
        except client_errors() as error:
            raise JobFailedError(f"The Ray cluster at {self._address!r} is out of reach.") from error
        finally:
            with contextlib.suppress(Exception):  # the cluster is gone
                # A call is interrupted and not killed: Ray aborts this process where a call ends while it is killed.
                for reference in running if ray.is_initialized() else ():
                    ray.cancel(reference)

    def _check_connected(self, ray: Any) -> None:
        """Raise an error where somebody has left the cluster: Ray would join one by itself, and a result never come."""
        if not ray.is_initialized():
            raise JobFailedError(f"The Ray cluster at {self._address!r} is out of reach: this process has left it.")

    def _result(self, ray: Any, ready: "Future[Any]") -> Any:
        try:
            return ready.result()
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, DeepMemoryError | ImportError):
                raise cause from None
            raise JobFailedError(f"A worker of the Ray cluster failed: {type(cause).__name__}: {cause}") from error
        except ray.exceptions.RayError as error:
            raise JobFailedError(
                f"The Ray cluster lost a worker {RETRIES + 1} times at the same part of the work, or what it returned "
                f"({type(error).__name__}: {str(error).strip().splitlines()[0]}). Give the machines more memory, or take more."
            ) from error


def client_errors() -> tuple[type[Exception], ...]:
    """Return what the calls of a client, at ``ray://``, raise without a cluster. Ray itself ends a process of the cluster."""
    grpc = sys.modules.get("grpc")  # which clients alone load
    return (ConnectionError,) if grpc is None else (ConnectionError, grpc.RpcError)


def _versions() -> tuple[str, str]:
    return __version__, np.__version__


def _reach(address: str) -> None:
    """Raise an OSError at once where nothing listens at an address: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH).close()


def check_address(address: str) -> None:
    """Refuse what is no address of a cluster.

    Raises:
        ValueError: It is neither ``ray``, ``auto`` nor ``local``, nor has a colon.
    """
    if not isinstance(address, str) or (address not in ("ray", "auto", "local") and ":" not in address):
        raise ValueError(f"on names a Ray cluster: 'ray', 'auto', 'local', 'host:6379' or 'ray://host:10001'; got {address!r}.")


@contextlib.contextmanager
def workers_on(address: str | None, poll: Callable[[], None] = lambda: None) -> Iterator[Workers | None]:
    """Yield the workers of a Ray cluster, or None for this process.

    Args:
        address: See `RayWorkers`; None for this process.
        poll: See `RayWorkers`.

    Raises:
        MissingExtraError, JobFailedError: See `RayWorkers`.
    """
    if address is None:
        yield None
        return
    with RayWorkers(address, poll) as workers:
        yield workers
