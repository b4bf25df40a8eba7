"""Choose the device and the number of threads that torch computes with."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device() -> "torch.device":
    """Return the CUDA device where there is one, and the CPU elsewhere."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def single_threaded_operations() -> Iterator[int]:
    """Run every torch operation in the thread that calls it, and yield how many threads torch would use otherwise.

    The setting applies to the whole process. When several trainings run at once, the last one to end restores it.
    """
    import torch

    with _threads_lock:
        _threads_before.append(_threads_before[0] if _threads_before else torch.get_num_threads())
        torch.set_num_threads(1)
        threads = _threads_before[0]
    try:
        yield threads
    finally:
        with _threads_lock:
            _threads_before.pop()
            if not _threads_before:
                torch.set_num_threads(threads)


_threads_lock = threading.Lock()
_threads_before: list[int] = []
