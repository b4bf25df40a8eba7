"""A day of a service's life, compressed: ``python -m tests.soak [SHARE]``, where a share of 1 is the whole day.

The day has 100,000 queries with feedback, 20 trainings, each in a process of its own while queries are answered, and 5,000
changes of documents, which the word index follows. After each of twenty parts the memory of the process is measured, and how long
a query takes in multiples of the store's own plain search beside it, so that the load of the machine does not count.
`tests/test_soak.py` lives a small share of it.
"""

import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from deepmem_integrations import DeepMemory
from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.langchain import DeepMemoryRetriever
from tests.embeddings import LookupEmbeddings
from tests.problems import make_problem

QUERIES, TRAININGS, CHANGES = 100_000, 20, 5_000
PARTS = 20
KEPT = 3
"""How many models the keeper keeps."""


class Forgetful(LookupEmbeddings):
    """It keeps no vectors of new texts, so that the embedding model's own growth is not measured."""

    def embed_query(self, text: str) -> list[float]:
        known = text in self.vectors
        vector = super().embed_query(text)
        if not known:
            del self.vectors[text]
        return vector


def resident() -> float:
    """Return the resident memory of this process in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def live(share: float) -> dict[str, Any]:
    """Live a share of the day, and return what each part used: memory, and time beside a plain search."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(FeedbackLog(Path(folder, "feedback.db"))) as log:
        day = Day(Path(folder), log)
        parts = []
        for number in range(PARTS):
            parts.append(day.part(round(share * QUERIES / PARTS), share))
            print(f"part {number + 1} of {PARTS}: {json.dumps(parts[-1])}", file=sys.stderr)  # noqa: T201 - a day is long
        sizes = {path.name: path.stat().st_size for path in Path(folder).glob("feedback*")}
        sizes["models and words"] = sum(path.stat().st_size for path in Path(folder, "m").rglob("*") if path.is_file())
    return {"queries": day.asked, "trainings": day.trained, "changes": day.changed, "parts": parts, "bytes": sizes}


class Day:
    """The service: a store, a memory, a retriever and a feedback log."""

    def __init__(self, folder: Path, log: FeedbackLog) -> None:
        self.rng, self.log = np.random.default_rng(0), log
        self.problem = make_problem(documents=400, train=200, test=400, dimension=32)
        self.embeddings = type("Model", (Forgetful, Embeddings), {})(self.problem)
        texts = [f"{name} speaks of matter {row % 17}" for row, name in enumerate(self.problem.ids)]
        self.embeddings.vectors |= dict(zip(texts, self.problem.corpus, strict=True))
        self.store = InMemoryVectorStore.from_texts(texts, self.embeddings, ids=self.problem.ids)
        self.memory = DeepMemory.from_langchain(self.store, path=folder / "m")
        self.memory.train(self.problem.train)
        self.retriever = DeepMemoryRetriever(vectorstore=self.store, memory=self.memory, k=10, record=log)
        self.asked = self.trained = self.changed = self._parts = 0
        self._names: list[str] = []

    def part(self, queries: int, share: float) -> dict[str, float]:
        """Answer queries, and meanwhile train, change documents and refresh."""
        self.trained += self._train(share)
        changes = round(share * CHANGES / PARTS)
        every = max(1, queries // max(1, changes))
        ratios = []
        for number in range(queries):
            started = time.perf_counter()
            found = self._ask()
            asked = time.perf_counter()
            if number % 5 == 0:
                self.store.similarity_search(self.problem.test.queries[number % 100], k=10)
                ratios.append((asked - started) / (time.perf_counter() - asked))
            assert len(found) == 10
            if number % every == 0 and self.changed < round(share * CHANGES * (self.asked + 1) / (share * QUERIES)):
                self._change()
            if number % max(1, queries // 5) == 0:
                self.memory.refresh()
        self.log.flush(60)
        self._settle()
        return {"MiB": round(resident(), 1), "ratio": round(float(np.median(ratios)), 2)}

    def _ask(self) -> list[Document]:
        self.asked += 1
        row = int(self.rng.integers(len(self.problem.test)))
        # Half of the queries come again and again, and half were never asked before.
        query = self.problem.test.queries[row] if self.rng.random() < 0.5 else f"{self.asked} matter {row % 17}"
        found = self.retriever.invoke(query)
        if self.rng.random() < 0.2:
            self.log.thumb(found[0].metadata["deepmem"]["query_id"], found[0].id, up=bool(self.rng.random() < 0.8))
        return found

    def _change(self) -> None:
        """Add a document, change it, or delete it: the store stays about as large as it was."""
        self.changed += 1
        name = f"new-{self.changed}"
        self.store.add_documents([Document(id=name, page_content=f"{name} tells of matter {self.changed % 17}")])
        self._names.append(name)
        if len(self._names) > 50:
            self.store.delete([self._names.pop(0)])

    def _train(self, share: float) -> int:
        """Train in every part, and more seldom in a small share of the day."""
        self._parts += 1
        if (self._parts - 1) % max(1, round(1 / (TRAININGS * share))):
            return 0
        self.memory.train(self.problem.train, wait=False, seed=self.trained)
        return 1

    def _settle(self) -> None:
        """Wait for the trainings under way, and delete old models, as a keeper does."""
        while any(job.running for job in self.memory.jobs.all()):
            self._ask()
        for name in [name for name in self.memory.folder.models() if name != self.memory.get_model()][:-KEPT]:
            self.memory.delete_model(name)
        for job in self.memory.jobs.all()[:-KEPT]:
            self.memory.delete(job.id)


def flat(parts: list[dict[str, float]]) -> tuple[float, float]:
    """Return by how many MiB the memory grew from the first quarter to the end, and how many times as long a query takes.

    Trainings and neighbours on the machine take turns with queries, so the quickest part of each half is compared.
    """
    grown = max(one["MiB"] for one in parts[-3:]) - max(one["MiB"] for one in parts[4:7])
    early, late = (min(one["ratio"] for one in half) for half in (parts[: PARTS // 2], parts[PARTS // 2 :]))
    return grown, late / early


def lines(found: dict[str, Any]) -> Iterator[str]:
    growth, ratio = flat(found["parts"])
    yield json.dumps(found)
    yield f"memory grew by {growth:.1f} MiB, and a query takes {ratio:.2f} times what it took, beside a plain search"


if __name__ == "__main__":
    for line in lines(live(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)):
        print(line)  # noqa: T201 - to its caller
