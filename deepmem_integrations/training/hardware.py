"""Choose the device and the number of threads that torch computes with."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deepmem_integrations._extras import require

if TYPE_CHECKING:
    import torch


def device() -> "torch.device":
    """Return the CUDA device where there is one, and the CPU elsewhere."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def single_threaded_operations() -> Iterator[int]:
    """Run every operation of torch and of numpy's BLAS in the thread that calls it, and yield how many threads torch would use.

    Threads inside such small operations mostly wait for one another, which costs more than half of the time. The setting applies
    to the whole process, and each training that runs at the same time undoes it at its end.
    """
    import torch

    pools = require("threadpoolctl", extra="train")
    with _lock:
        threads = _running[0][1] if _running else torch.get_num_threads()
        if not _running:
            _blas.update({pool["prefix"]: pool["num_threads"] for pool in pools.threadpool_info() if pool["user_api"] == "blas"})
        _running.append((threading.get_ident(), threads))
        torch.set_num_threads(1)
    try:
        with pools.threadpool_limits(1, user_api="blas"):
            yield threads
    finally:
        with _lock:
            _running.remove((threading.get_ident(), threads))
            if not _running:  # one that began while another ran found a single thread
                pools.threadpool_limits(dict(_blas))
            if (threading.get_ident(), threads) not in _running:
                torch.set_num_threads(threads)  # torch keeps the number for each thread


_lock = threading.Lock()
_running: list[tuple[int, int]] = []
"""For each running training, its thread, and how many threads torch had before the first of them."""
_blas: dict[str, int] = {}
"""How many threads each BLAS had before the first of them."""
