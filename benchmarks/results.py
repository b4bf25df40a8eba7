"""Keeps measurements as rows of plain JSON values, merged into a file so that single rows can be measured again."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Collection
from deepmem_integrations.evaluation import Scores, bootstrap_mean, score_rankings

FOLDER = Path(__file__).parent / "results"
METRICS = ("ndcg@10", "recall@1", "recall@10", "recall@100", "mrr@10")
DEPTH = 100
"""The number of documents that a ranking needs for `METRICS`."""

FEWEST = 100
"""Seen or unseen queries are reported apart if there are at least this many. With fewer, the interval is too wide."""

Row = dict[str, Any]
T = TypeVar("T")


def score(rankings: NDArray[np.int64], collection: Collection) -> Scores:
    """Score rankings of the test queries, (n, DEPTH) corpus rows, best first. Returns metric → (n,)."""
    scores = score_rankings(rankings, collection.corpus.rows(collection.test.relevance), top_k=(1, 10, DEPTH))
    return {name: scores[name] for name in METRICS}


def summarise(scores: Scores, base: Scores, collection: Collection) -> Row:
    """Return the means and the paired differences to ``base`` with their 95% intervals.

    They are given for all test queries, for those with seen answers and for those with unseen answers.
    """
    asked = {document for labels in collection.train.relevance.labels for document, _ in labels}
    known = np.array([np.mean([name in asked for name, _ in labels]) for labels in collection.test.relevance.labels])
    return {
        "all": _means(scores, base, np.ones(len(known), dtype=bool)),
        "seen": _means(scores, base, known == 1),  # every relevant document carries a training label
        "unseen": _means(scores, base, known == 0),  # no relevant document carries one
    }


def _means(scores: Scores, base: Scores, which: NDArray[np.bool_]) -> Row:
    count = int(which.sum())
    if count < FEWEST and not which.all():
        return {"queries": count}
    values = np.stack([scores[name][which] for name in METRICS], axis=1)
    before = np.stack([base[name][which] for name in METRICS], axis=1)
    gains = bootstrap_mean(values - before)
    return {
        "queries": count,
        "mean": dict(zip(METRICS, values.mean(axis=0).tolist(), strict=True)),
        "gain": {name: {"mean": g.mean, "low": g.low, "high": g.high} for name, g in zip(METRICS, gains, strict=True)},
    }


def timed(work: Callable[[], T]) -> tuple[T, Row]:
    """Call ``work``, and return its result and the seconds that it took, on the clock and of CPU.

    Other work on the machine does not lengthen the CPU seconds.
    """
    clock, cpu = time.perf_counter(), time.process_time()
    done = work()
    return done, {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}


def machine(packages: Iterable[str]) -> Row:
    """Return the versions of the packages that matter to a row, the version of Python and the number of threads."""
    named = sorted({"deepmem-integrations", "numpy", "torch", *packages})
    return {
        "versions": {name: version(name) for name in named} | {"python": platform.python_version()},
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
    }


def merge(path: Path, rows: Iterable[Row]) -> None:
    """Write rows into a file. They replace the rows of the same collection, model and name."""
    merged = {_key(row): row for row in (*read(path), *rows)}
    path.parent.mkdir(exist_ok=True)
    write(path, [merged[key] for key in sorted(merged)])


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows into a file, one on each line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def read(path: Path) -> list[Row]:
    """Return the rows of a file, or no rows if there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["model"], row["collection"], row["row"]
