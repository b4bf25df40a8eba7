"""Measures how training grows with the documents and with the labelled queries: ``bash benchmarks/run scale``.

The vectors are synthetic: documents lie around 500 topics, and queries around their answers, all shifted the same way. The corpus
lies on disk and is memory-mapped. Each training runs in a separate process, whose largest anonymous memory is read from the
kernel. The memory of the mapped file does not count, because the kernel can take it back at any time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from deepmem_integrations import evaluate, train_adapter

DOCUMENTS = (10_000, 100_000, 1_000_000)
"""The sizes of the corpus, each with `FIXED_QUERIES` labelled queries."""
QUERIES = (450, 900, 1_800, 3_600)
"""The numbers of labelled queries, each over `FIXED_DOCUMENTS` documents."""
FIXED_QUERIES, FIXED_DOCUMENTS = 1_800, 10_000
TEST_QUERIES = 200
DIMENSION = 768
SECONDS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Where the drawing has lines."""
FILE = results.FOLDER / "scale.json"


def write_corpus(path: Path, size: int) -> None:
    """Write a .npy file of document vectors around topics, block by block."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(500, DIMENSION)).astype(np.float32)
    corpus = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(size, DIMENSION))
    for start in range(0, size, 10_000):
        stop = min(start + 10_000, size)
        noise = rng.normal(size=(stop - start, DIMENSION)).astype(np.float32)
        corpus[start:stop] = topics[rng.integers(500, size=stop - start)] + noise
    corpus.flush()


def anonymous_bytes() -> int:
    """Return the anonymous memory that this process uses now."""
    line = next(line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Anonymous:"))
    return 1024 * int(line.split()[1])


def train(path: Path, count: int) -> results.Row:
    """Train on the file with ``count`` labelled queries, and watch the memory."""
    corpus = np.load(path, mmap_mode="r")
    rng = np.random.default_rng(1)
    asked = rng.integers(len(corpus), size=count + TEST_QUERIES)
    drift = rng.normal(size=DIMENSION)
    queries = corpus[asked] + 1.5 * drift + 9.0 * rng.normal(size=(len(asked), DIMENSION))
    ids = [str(row) for row in range(len(corpus))]
    labels = [[(ids[row], 1.0)] for row in asked]
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.2):
            most = max(most, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    result, taken = results.timed(lambda: train_adapter(queries[:count], labels[:count], corpus, ids))
    done.set()
    watcher.join()
    sample = np.unique(np.concatenate([asked[count:], rng.integers(len(corpus), size=20_000)]))
    judged = evaluate(
        queries[count:], labels[count:], corpus[sample], [ids[row] for row in sample], adapter=result.adapter, top_k=(10,)
    )
    return {
        "documents": len(corpus),
        "queries": count,
        **taken,
        "anonymous_gb": most / 1e9,
        "ranked_documents": result.report.ranked_documents,
        "chosen": result.report.chosen,
        "recall@10 without": judged["without model"]["recall@10"],
        "recall@10 with": judged["with model"]["recall@10"],
    }


def plot(rows: list[results.Row], path: Path) -> None:
    """Draw the CPU seconds over the number of documents, and over the number of labelled queries."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same rows give the same file
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    panels: list[tuple[Any, str, str, int]] = [
        (axes[0], "documents", "queries", FIXED_QUERIES),
        (axes[1], "queries", "documents", FIXED_DOCUMENTS),
    ]
    for axis, along, other, fixed in panels:
        line = [row for row in rows if row[other] == fixed]
        axis.loglog([row[along] for row in line], [row["cpu_seconds"] for row in line], "o-", color="#1f5fa8")
        for row in line:
            axis.annotate(
                f"{row['cpu_seconds']:.0f} s",
                (row[along], row["cpu_seconds"]),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
            )
        axis.set_xlabel(f"{along}, with {fixed:,} {other}")
        axis.set_xticks([row[along] for row in line], [f"{row[along]:,}" for row in line])
        axis.set_yticks(SECONDS, [str(seconds) for seconds in SECONDS])
        axis.minorticks_off()
        axis.grid(True, which="major", alpha=0.3)
        axis.margins(x=0.12)
    seconds = [row["cpu_seconds"] for row in rows]
    axes[0].set_ylim(min(seconds) / 1.5, max(seconds) * 1.5)  # of both panels
    axes[0].set_ylabel("CPU seconds of a training")
    figure.suptitle(f"Training on synthetic vectors of {DIMENSION} dimensions")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure each size in a separate process, print, save and draw. Rows in the file stay unless they are measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", nargs="*", type=int, default=list(DOCUMENTS))
    parser.add_argument("--queries", nargs="*", type=int, default=list(QUERIES))
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(json.dumps(train(Path(arguments.train[0]), int(arguments.train[1]))))
        return
    wanted = {(size, FIXED_QUERIES) for size in arguments.documents} | {(FIXED_DOCUMENTS, count) for count in arguments.queries}
    known = json.loads(FILE.read_text())["rows"] if FILE.exists() else []
    rows = {(row["documents"], row["queries"]): row for row in known}
    for size in sorted({size for size, _ in wanted}):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "corpus.npy")
            write_corpus(path, size)
            for count in sorted(count for known_size, count in wanted if known_size == size):
                command = [sys.executable, "-m", "benchmarks.scale", "--train", str(path), str(count)]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                row = rows[size, count] = json.loads(output.splitlines()[-1])
                print(
                    f"{size:>9,} × {DIMENSION}, {count:>5,} queries: {row['seconds']:5.0f} s, {row['cpu_seconds']:5.0f} CPU s, "
                    f"{row['anonymous_gb']:.2f} GB, {row['ranked_documents']:,} documents ranked; recall@10 over a sample "
                    f"{100 * row['recall@10 without']:.1f} → {100 * row['recall@10 with']:.1f} ({row['chosen']})",
                    flush=True,
                )
    ordered = [rows[key] for key in sorted(rows)]
    FILE.write_text(json.dumps({"dimension": DIMENSION, "rows": ordered, **results.machine([])}, indent=1) + "\n")
    plot(ordered, FILE.with_suffix(".svg"))


if __name__ == "__main__":
    main()
