"""A service from before its first training to the next embedding model, in real processes, without a failed request."""

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

from deepmem_integrations import DeepMemory
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.errors import EmbeddingMismatchError
from tests.embeddings import LookupEmbeddings
from tests.langchain.helpers import expected
from tests.service import problem_of

pytestmark = pytest.mark.slow


class Worker:
    """One process of the service."""

    def __init__(self, framework, colour, folder, log):
        self.log = open(log, "ab")
        command = [sys.executable, "-m", "tests.service", framework, colour, str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.port = 0

    def ready(self):
        self.port = int(self.process.stdout.readline())
        return self

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Traffic:
    """Users who ask all the time, through a balancer that turns to another worker where one has gone."""

    def __init__(self, queries):
        self.workers = []
        self.answered, self.failed = [], []
        self._queries, self._stop = queries, threading.Event()
        self._threads = [threading.Thread(target=self._ask_all_the_time, args=(seed,)) for seed in range(3)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.stop()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask_all_the_time(self, seed):
        rng = np.random.default_rng(seed)
        while not self._stop.is_set():
            row = int(rng.integers(len(self._queries)))
            workers = list(self.workers)
            rng.shuffle(workers)
            for worker in workers:
                try:
                    self.answered.append((row, ask(worker, self._queries[row])))
                    break
                except urllib.error.HTTPError as error:
                    self.failed.append(error.read().decode())
                    break
                except OSError:  # the worker has gone
                    continue
            else:
                self.failed.append("no worker answers")
            time.sleep(0.01)


def ask(worker, query):
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/?{urllib.parse.quote(query)}", timeout=30) as answer:
        return json.loads(answer.read())


@contextlib.contextmanager
def workers(colour, folder, log) -> Iterator[list[Worker]]:
    started = [Worker(framework, colour, folder, log) for framework in ("langchain", "llama_index")]
    try:
        yield [worker.ready() for worker in started]
    finally:
        for worker in started:
            worker.stop()


def deep_memory(problem, folder):
    embeddings = LookupEmbeddings(problem)
    return DeepMemory(GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings), embeddings, folder)


def best(problem, memory, row, transform=True):
    vector = problem.test_queries[row]
    return expected(problem, memory.adapter.for_ranking().transform(vector) if transform else vector, 5)


def test_no_request_fails_from_before_the_first_training_to_the_next_embedding_model(tmp_path):
    blue, green = problem_of("blue"), problem_of("green")
    folder, new_folder, log = tmp_path / "blue.deepmemory", tmp_path / "green.deepmemory", tmp_path / "log"
    queries = blue.test.queries
    with contextlib.ExitStack() as running:
        first = running.enter_context(workers("blue", folder, log))
        traffic = Traffic(queries)
        traffic.workers = list(first)
        running.enter_context(traffic)

        def serves(those, problem, memory, transform=True):
            for worker in those:
                for row in range(5):
                    assert ask(worker, queries[row]) == best(problem, memory, row, transform), row

        # Started before any training: plain results, and one line in the log of each worker.
        memory = deep_memory(blue, folder)
        serves(first, blue, memory, transform=False)
        assert log.read_text().count("There is no trained model yet") == 2

        # A training that is killed changes nothing; the next one is served at once.
        killed = memory.train(blue.train, wait=False, words=False)
        memory.cancel(killed)
        serves(first, blue, memory, transform=False)
        memory.train(blue.train, words=False)
        serves(first, blue, memory)
        assert best(blue, memory, 0) != best(blue, memory, 0, transform=False)

        # A worker is killed under load, and another one takes its place.
        first[0].process.kill()
        time.sleep(0.3)
        again = running.enter_context(workers("blue", folder, log))
        traffic.workers = [first[1], *again]
        serves(traffic.workers, blue, memory)

        # The next embedding model is refused in the folder that serves, and served from a folder of its own.
        with pytest.raises(EmbeddingMismatchError, match="in a folder of its own"):
            deep_memory(green, folder).train(green.train, words=False)
        serves(traffic.workers, blue, memory)
        second = running.enter_context(workers("green", new_folder, log))
        new_memory = deep_memory(green, new_folder)
        serves(second, green, new_memory, transform=False)
        traffic.workers = [*traffic.workers, *second]
        new_memory.train(green.train, words=False)
        serves(second, green, new_memory)
        traffic.workers = list(second)
        time.sleep(0.3)
        for worker in (first[1], *again):
            worker.process.kill()
        serves(second, green, new_memory)
        time.sleep(0.3)
        traffic.stop()
    assert traffic.failed == []
    assert len(traffic.answered) > 100
    assert all(len(found) == 5 for _, found in traffic.answered)
    assert log.read_text().count("There is no trained model yet") == 4, "once for each process that was started without one"
