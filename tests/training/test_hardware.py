import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from deepmem_integrations.training.hardware import single_threaded_operations


def blas():
    """The numbers of threads of the BLAS libraries in this process."""
    np.ones((2, 2)) @ np.ones((2, 2))
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def two_threads():
    """A process that computes with two threads, whatever the machine has and the tests set."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_operations_have_one_thread_until_a_training_ends():
    entered, leave, seen = threading.Event(), threading.Event(), []

    def train():
        with single_threaded_operations() as threads:
            seen.append((threads, torch.get_num_threads()))
            entered.set()
            leave.wait(30)

    other = threading.Thread(target=train, daemon=True)
    with single_threaded_operations() as threads:
        assert (threads, torch.get_num_threads(), blas()) == (2, 1, {1})
        with single_threaded_operations() as threads:
            assert threads == 2
        assert torch.get_num_threads() == 1
        other.start()
        assert entered.wait(30)
    assert torch.get_num_threads() == 2, "while the other training goes on"
    leave.set()
    other.join()
    assert seen == [(2, 1)]
    assert (torch.get_num_threads(), blas()) == (2, {2})


TWO_TRAININGS = """
import threading
from threadpoolctl import threadpool_info
from tests.training.test_hardware import blas
from deepmem_integrations.training.hardware import single_threaded_operations

entered, leave = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]

def train(number):
    with single_threaded_operations():
        entered[number].set()
        leave[number].wait(30)

before = blas()
trainings = [threading.Thread(target=train, args=(number,)) for number in range(2)]
for number in range(2):
    trainings[number].start()
    entered[number].wait(30)
for number in range(2):
    leave[number].set()
    trainings[number].join()
assert before == blas(), (before, blas())
"""


@pytest.mark.slow
def test_the_last_of_two_trainings_leaves_the_blas_as_the_first_found_it():
    """Before, it left a single thread. In a process of its own, since one thread at a time sets the threads of OpenBLAS."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", TWO_TRAININGS], env=environment, check=True)


@pytest.mark.usefixtures("two_threads")
def test_an_error_undoes_the_setting():
    with pytest.raises(ZeroDivisionError), single_threaded_operations():
        raise ZeroDivisionError
    assert (torch.get_num_threads(), blas()) == (2, {2})
