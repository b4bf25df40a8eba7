"""A process that is forked while another thread reads a model serves all the same."""

import os
import signal
import threading

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations._forks import cached_property
from deepmem_integrations.models import ModelFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system forks no processes")


def status_of(act):
    """Return the exit status of a forked process that acts, for ten seconds at most."""
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        act()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_process_forked_while_a_model_is_read_reads_it(tmp_path, monkeypatch):
    folder = ModelFolder(tmp_path / "m")
    folder.save_model("one", QueryAdapter(4))
    folder.use("one")
    reading, go_on, load = threading.Event(), threading.Event(), QueryAdapter.load

    def slowly(path):
        reading.set()
        go_on.wait(30)
        return load(path)

    monkeypatch.setattr(QueryAdapter, "load", slowly)
    other = threading.Thread(target=folder.in_use)
    other.start()
    assert reading.wait(30)
    monkeypatch.setattr(QueryAdapter, "load", load)
    for again in (folder, ModelFolder(tmp_path / "m")):
        assert status_of(again.in_use) == 0
    go_on.set()
    other.join()


def test_a_process_forked_while_a_property_is_computed_computes_it():
    computing, go_on = threading.Event(), threading.Event()

    class Slow:
        @cached_property
        def rows(self):
            computing.set()
            go_on.wait(30)
            return np.zeros(2)

    other = threading.Thread(target=lambda: Slow().rows)
    other.start()
    assert computing.wait(30)

    def act():
        go_on.set()
        assert len(Slow().rows) == 2

    assert status_of(act) == 0
    go_on.set()
    other.join()
