"""Measures models with very many remembered queries: ``python -m benchmarks.remembered [--keys 10000 100000 1000000] [--peers]``.

A model of each size is made, saved, loaded in a process of its own, asked, and grown, with one thread. What it finds is compared
with a search of all keys. ``--peers`` also measures indexes of FAISS and USearch over the same keys.

There is no public collection of a million questions with answers, so questions are drawn: 20 keys a topic, where a topic lies
between two near vectors of the test collections (MiniLM, 384 dimensions) and a question is a topic and noise with the covariance
of those vectors. Some topics are asked more often than others. *Known* questions are further ones of the same topics, and *new*
questions are ones of other topics.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a server runs one query a thread

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import FOLDER, Row, machine, timed
from deepmem_integrations import QueryAdapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.adapter import Attention, RememberedQueries, ValueSpace, sorted_into_lists
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training.attention import CorpusStatistics
from deepmem_integrations.training.candidates import TEMPERATURE

KEYS = (10_000, 100_000, 1_000_000)
DIMENSION = 384
QUERIES = 300
"""How many questions of each kind are asked."""
A_TOPIC = 20
"""How many remembered queries a topic has on average."""
NEIGHBOURS = 64

Vectors = NDArray[np.float32]


class Questions:
    """Questions of topics, as the module says."""

    def __init__(self, topics: int) -> None:
        files = sorted(Path(os.environ["DEEPMEM_DATA"], "embeddings/minilm").glob("*.npz"))
        parts = [np.load(file)[name].astype(np.float32) for file in files for name in ("corpus", "queries")]
        self.real = unit_rows(np.concatenate(parts), "vector")
        self.rng = np.random.default_rng(0)
        spread = np.cov((self.real - self.real.mean(axis=0)).T) + 1e-6 * np.eye(DIMENSION)
        self.factor = np.linalg.cholesky(spread).T.astype(np.float32)
        self.topics = self.new_topics(topics)
        asked = np.arange(1, topics + 1) ** -0.5
        self.asked = asked / asked.sum()

    def new_topics(self, count: int) -> Vectors:
        """Draw topics, (count, d) unit rows, each between a vector and one of its 20 nearest."""
        ones = self.rng.integers(len(self.real), size=count)
        made = np.empty((count, DIMENSION), dtype=np.float32)
        for start in range(0, count, 1_000):
            one = self.real[ones[start : start + 1_000]]
            near = np.argpartition(one @ self.real.T, -20, axis=1)[:, -20:]
            other = self.real[near[np.arange(len(one)), self.rng.integers(20, size=len(one))]]
            share = self.rng.random((len(one), 1), dtype=np.float32)
            made[start : start + 1_000] = share * one + (1 - share) * other
        return unit_rows(made, "topic")

    def of(self, topics: Vectors) -> Vectors:
        """Ask one question of each topic, (n, d) unit rows."""
        noise = unit_rows(self.rng.normal(size=topics.shape).astype(np.float32) @ self.factor, "noise")
        return unit_rows(topics + self.rng.uniform(0.3, 0.9, size=(len(topics), 1)).astype(np.float32) * noise, "question")

    def draw(self, count: int) -> NDArray[np.int64]:
        """Draw the topics of questions, some more often than others."""
        return self.rng.choice(len(self.topics), size=count, p=self.asked)


# ---- steps, each in a process of its own ------------------------------------------------------------------------------


def build(keys: int, folder: Path) -> Row:
    """Make a model and its questions, and save both."""
    questions = Questions(keys // A_TOPIC)
    topic_of = questions.draw(keys)
    statistics = CorpusStatistics.empty(DIMENSION).add(questions.real)
    places = np.empty((keys, DIMENSION), dtype=np.float32)
    space = None
    for start in range(0, keys, 10_000):
        asked = questions.of(questions.topics[topic_of[start : start + 10_000]])
        space = space or statistics.kernel_space(asked)
        places[start : start + 10_000] = space.place(asked)
    value_space = ValueSpace(statistics.mean.astype(np.float32), statistics.value_map(), 0.1)
    remembered = RememberedQueries(
        query_ids=tuple(f"query-{row}" for row in range(keys)),
        texts=tuple(f"how do I do the thing number {row} in the settings?" for row in range(keys)),
        owners=np.arange(keys),
        labels=LabelRows(np.arange(keys + 1), topic_of, np.ones(keys, dtype=np.float32)),
        document_ids=tuple(f"document-{row}" for row in range(len(questions.topics))),
        documents=value_space.place(questions.topics),
        space=value_space,
        trained=keys,
        trained_in_all=keys,
    )
    np.savez(
        folder / "questions.npz",
        known=questions.of(questions.topics[questions.draw(QUERIES)]),
        new=questions.of(questions.new_topics(QUERIES)),
    )
    bare = Attention(places[:1], places[:1], TEMPERATURE, 3.0, space, NEIGHBOURS)
    (attention, remembered), lists = timed(lambda: sorted_into_lists(bare, places, remembered))
    adapter = QueryAdapter(DIMENSION, attention=attention, remembered_queries=remembered)
    before = memory()["peak_mb"]
    path, save = timed(lambda: adapter.save(folder / "model.safetensors"))
    return {
        "lists_s": lists["cpu_seconds"],
        "save_s": save["cpu_seconds"],
        "file_mb": path.stat().st_size / 2**20,
        "save_peak_mb": memory()["peak_mb"] - before,
    }


def serve(keys: int, folder: Path) -> Row:
    """Load the model and ask it, one question at a time; then compare what it finds with a search of all keys."""
    before = memory()
    adapter, load = timed(lambda: QueryAdapter.load(folder / "model.safetensors"))
    loaded = memory()
    asked = np.load(folder / "questions.npz")
    attention = adapter.attention
    assert attention is not None and len(attention.keys) == keys
    row: Row = {"load_s": load["cpu_seconds"], "loaded_mb": {name: loaded[name] - before[name] for name in loaded}}
    for kind in ("known", "new"):
        row[kind] = milliseconds(adapter.transform, asked[kind])
    served = memory()
    row["served_mb"] = {name: served[name] - before[name] for name in served}
    row["answers"] = milliseconds(adapter.answers, asked["known"])
    exact = replace(attention, lists=None)
    for kind in ("known", "new"):
        row[kind] |= compare(attention, exact, asked[kind])
    return row


def compare(attention: Attention, exact: Attention, queries: Vectors) -> Row:
    """Compare the keys that move each query, and its movement, with those of a search of all keys."""
    shares, cosines, errors, angles = [], [], [], []
    all_weights, all_moved = exact.attend(queries)[1].sum(axis=1), exact.shift(queries)
    for query, total, wanted in zip(queries, all_weights, all_moved, strict=True):
        weights, moved = attention.attend(query[None])[1], attention.shift(query[None])[0]
        shares.append(float(weights.sum() / total))
        cosines.append(float(moved @ wanted / np.linalg.norm(moved) / np.linalg.norm(wanted)))
        errors.append(float(np.linalg.norm(moved - wanted) / np.linalg.norm(wanted)))
        angles.append(degrees(query + moved, query + wanted))
    return {
        "weight_found": spread(shares),
        "cosine_of_movement": spread(cosines),
        "error_of_movement": float(np.mean(errors)),
        "degrees_of_query": float(np.mean(angles)),
    }


def spread(values: list[float]) -> Row:
    """Return the mean and the lowest hundredth."""
    return {"mean": float(np.mean(values)), "p1": float(np.quantile(values, 0.01))}


def degrees(one: Vectors, other: Vectors) -> float:
    """Measure the angle between two vectors."""
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    return float(np.degrees(2 * np.arcsin(min(1.0, np.linalg.norm(one - other) / 2))))


def milliseconds(work: Callable[[Vectors], object], queries: Vectors) -> Row:
    """Return what some work takes for each query, on the clock and of CPU, which other work on the machine does not lengthen."""
    work(queries[0])
    clock, cpu = [], []
    for query in queries:
        started, worked = time.perf_counter(), time.thread_time()
        work(query)
        clock.append(1e3 * (time.perf_counter() - started))
        cpu.append(1e3 * (time.thread_time() - worked))
    return {
        "median_ms": float(np.median(clock)),
        "p99_ms": float(np.quantile(clock, 0.99)),
        "cpu_median_ms": float(np.median(cpu)),
        "cpu_p99_ms": float(np.quantile(cpu, 0.99)),
    }


def grow(keys: int, folder: Path) -> Row:
    """Remember, forget and relabel, and save the model that comes of it."""
    adapter = QueryAdapter.load(folder / "model.safetensors")
    asked = np.load(folder / "questions.npz")
    targets = {f"document-{row}": {f"part-{row}": 1.0} for row in range(100)}
    parts = {name: asked["new"][row] for row, names in enumerate(targets.values()) for name in names}
    row: Row = {}
    for count in (1, 100):
        more = asked["new"][:count]
        grown, taken = timed(lambda: adapter.remember(more, [[("document-1", 1.0)]] * len(more)))  # noqa: B023
        row[f"remember_{count}_s"] = taken["cpu_seconds"]
        assert grown.remembered(more).all()
    row["save_s"] = timed(lambda grown=grown: grown.save(folder / "grown.safetensors"))[1]["cpu_seconds"]
    del grown
    row["forget_1_s"] = timed(lambda: adapter.forget(query_ids=["query-7"]))[1]["cpu_seconds"]
    row["relabel_100_documents_s"] = timed(lambda: adapter.relabel(targets, parts))[1]["cpu_seconds"]
    return row | {"peak_mb": memory()["peak_mb"]}


def peers(keys: int, folder: Path, which: str = "faiss") -> Row:
    """Search the same keys with FAISS or USearch, and measure the share of the weight that each finds."""
    import faiss
    from usearch.index import Index

    faiss.omp_set_num_threads(1)
    adapter, asked = QueryAdapter.load(folder / "model.safetensors"), np.load(folder / "questions.npz")
    attention = adapter.attention
    assert attention is not None and attention.space is not None
    places = {kind: attention.space.place(asked[kind]) for kind in ("known", "new")}
    exact = replace(attention, lists=None)
    totals = {kind: exact.attend(asked[kind])[1].sum(axis=1) for kind in places}
    vectors = np.ascontiguousarray(attention.keys)

    def row(search: Callable[[Vectors], Any]) -> Row:
        found: Row = {}
        for kind, queries in places.items():
            shares = []
            for query, total in zip(queries, totals[kind], strict=True):
                similarities = vectors[np.asarray(search(query[None]), dtype=np.int64)] @ query
                shares.append(float(3.0 * np.exp((similarities - 1) / TEMPERATURE).sum() / total))
            found[kind] = milliseconds(lambda query: search(query[None]), queries) | {"weight_found": spread(shares)}
        return found

    if which == "usearch":
        index = Index(ndim=DIMENSION, metric="ip", dtype="i8")
        _, taken = timed(lambda: index.add(np.arange(keys), vectors, threads=1))
        built = {"build_s": taken["cpu_seconds"], "mb": index.memory_usage / 2**20}
        rows = {}
        for depth in (64, 256):
            index.expansion_search = depth
            rows[f"HNSW i8, {depth}"] = built | row(lambda query: index.search(query[0], NEIGHBOURS, threads=1).keys)
        return rows
    rows = {"ours": row(lambda query: attention._search(query[0], NEIGHBOURS)[0])}
    for kind in ("Flat", "SQ8"):
        ivf = faiss.index_factory(DIMENSION, f"IVF{int(2 * keys**0.5)},{kind}", faiss.METRIC_INNER_PRODUCT)
        _, taken = timed(lambda: (ivf.train(vectors[:: max(1, keys // 128_000)]), ivf.add(vectors)))  # noqa: B023
        faiss.write_index(ivf, str(folder / "peer"))
        built = {"build_s": taken["cpu_seconds"], "mb": (folder / "peer").stat().st_size / 2**20}
        for depth in (16, 32):
            ivf.nprobe = depth
            rows[f"faiss IVF,{kind}, {depth} lists"] = built | row(lambda query: ivf.search(query, NEIGHBOURS)[1][0])  # noqa: B023
    return rows


def memory() -> dict[str, float]:
    """Return the resident memory of this process in MB: its own, that of mapped files, and the most it had."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    named = {"own_mb": "RssAnon", "mapped_mb": "RssFile", "peak_mb": "VmHWM"}
    return {name: int(lines[key].split()[0]) / 1024 for name, key in named.items()}


STEPS: dict[str, Callable[[int, Path], Row]] = {
    "build": build,
    "serve": serve,
    "grow": grow,
    "faiss": peers,
    "usearch": partial(peers, which="usearch"),
}


def steps(keys: int, *, compare_peers: bool) -> Iterator[tuple[str, Row]]:
    """Run the steps for a number of keys."""
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS if compare_peers else ("build", "serve", "grow"):
            command = [sys.executable, "-m", "benchmarks.remembered", "--step", step, "--keys", str(keys), "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True)
            lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [str(done.returncode)]
            yield step, json.loads(lines[-1]) if done.returncode == 0 else {"error": lines[-1]}


def main() -> None:
    """Measure, print and write ``results/remembered.json``, in which a step that is measured again replaces the old one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, nargs="+", default=KEYS)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=FOLDER / "remembered.json")
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(STEPS[asked.step](asked.keys[0], asked.folder)))
        return
    rows = {row["keys"]: row for row in (json.loads(asked.out.read_text())["rows"] if asked.out.exists() else ())}
    for keys in asked.keys:
        row = rows.setdefault(keys, {"keys": keys, "dimension": DIMENSION})
        for step, found in steps(keys, compare_peers=asked.peers):
            row[step] = found
            print(f"{keys:>9,} keys, {step}: {json.dumps(found)}", flush=True)
            measured = {"rows": [rows[keys] for keys in sorted(rows)], **machine(["faiss-cpu", "usearch"])}
            asked.out.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
