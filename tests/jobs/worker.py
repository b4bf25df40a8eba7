"""Trains, reads, chooses and deletes models of one folder at random for a while.

``python -m tests.jobs.worker FOLDER SECONDS LABELS SEED`` prints how often it did what. Errors that another worker's doings
explain are part of the game; any other ends it.
"""

import contextlib
import sys
import time
from collections import Counter

import numpy as np

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.errors import JobCancelledError, JobNotFoundError, JobRunningError, ModelInUseError, ModelNotFoundError
from deepmem_integrations.jobs.trainer import publish
from tests.embeddings import LookupEmbeddings
from tests.problems import make_problem


def work(folder: str, seconds: float, labels: int, seed: int) -> Counter[str]:
    problem = make_problem(documents=60, train=labels, test=5, dimension=16)
    embeddings = LookupEmbeddings(problem)
    memory = DeepMemory(GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings), embeddings, folder)
    rng = np.random.default_rng(seed)
    done: Counter[str] = Counter()

    def some(names: list[str]) -> str:
        return names[rng.integers(len(names))] if names else "none"

    def add() -> None:
        linear = np.eye(16, dtype=np.float32) + 0.1 * rng.normal(size=(16, 16)).astype(np.float32)
        with memory.jobs.new() as job:
            publish(job, QueryAdapter(16, linear=linear, fingerprint=memory.embedder.fingerprint()), made_by="remember")

    def read() -> None:
        # Whole or not at all: loading checks the checksum.
        for _ in range(20):  # there is always one in use, whatever the others do
            assert np.isfinite(memory.transform(problem.test_queries)).all()

    def look() -> None:
        assert all(info.error is None for info in memory.list_models())
        assert all(job.state in ("pending", "training", "completed", "failed", "cancelled") for job in memory.jobs.all())

    def names() -> list[str]:
        return memory.folder.models()

    def jobs() -> list[str]:
        return [job.id for job in memory.jobs.all()]

    actions = {
        "train": (1, lambda: memory.train(problem.train, seed=int(rng.integers(100)))),
        "train in the background": (0.2, lambda: memory.train(problem.train, wait=False)),
        "add": (10, add),
        "read": (30, read),
        "look": (5, look),
        "set": (20, lambda: memory.set_model(some(names()))),
        "delete model": (12, lambda: memory.delete_model(some(names()))),
        "cancel": (1, lambda: memory.cancel(some(jobs()))),
        "delete job": (12, lambda: memory.delete(some(jobs()))),
    }
    weights = np.array([weight for weight, _ in actions.values()])
    while memory.folder.in_use_name() is None:
        with contextlib.suppress(JobCancelledError):
            add()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name = str(rng.choice(list(actions), p=weights / weights.sum()))
        try:
            actions[name][1]()
            done[name] += 1
        except (ModelNotFoundError, ModelInUseError, JobNotFoundError, JobRunningError, JobCancelledError) as error:
            if name in ("read", "look") or (name == "add" and not isinstance(error, JobCancelledError)):
                raise
            done[f"{name}: in vain"] += 1
    return done


if __name__ == "__main__":
    print(work(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))  # noqa: T201 - to its caller
