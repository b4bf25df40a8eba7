"""Measure trainings on very large corpora: ``bash benchmarks/run scale``.

The corpus is synthetic, on disk and memory-mapped, with 2,000 labelled queries. Each size is trained in a separate process,
whose largest anonymous memory is read from the kernel. The memory of the mapped file does not count, because the kernel can
take it back at any time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks import results
from deepmem_integrations import evaluate, train_adapter

SIZES = (10_000, 100_000, 300_000, 1_000_000)
DIMENSION = 768
QUERIES = 2_000


def write_corpus(path: Path, size: int) -> None:
    """Write documents around topics to a .npy file, block by block."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(500, DIMENSION)).astype(np.float32)
    corpus = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(size, DIMENSION))
    for start in range(0, size, 10_000):
        stop = min(start + 10_000, size)
        noise = rng.normal(size=(stop - start, DIMENSION)).astype(np.float32)
        corpus[start:stop] = topics[rng.integers(500, size=stop - start)] + noise
    corpus.flush()


def anonymous_bytes() -> int:
    """Return the bytes of anonymous memory that this process uses now."""
    line = next(line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Anonymous:"))
    return 1024 * int(line.split()[1])


def train(path: Path) -> results.Row:
    """Train on the file, and measure time and memory."""
    corpus = np.load(path, mmap_mode="r")
    rng = np.random.default_rng(1)
    asked = rng.integers(len(corpus), size=QUERIES)
    drift = rng.normal(size=DIMENSION)
    queries = corpus[np.sort(asked)] + 1.5 * drift + 9.0 * rng.normal(size=(QUERIES, DIMENSION))
    ids = [str(row) for row in range(len(corpus))]
    labels = [[(ids[row], 1.0)] for row in np.sort(asked)]
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.2):
            most = max(most, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    result = train_adapter(queries[:1_800], labels[:1_800], corpus, ids)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    sample = np.unique(np.concatenate([np.sort(asked)[1_800:], rng.integers(len(corpus), size=20_000)]))
    judged = evaluate(
        queries[1_800:], labels[1_800:], corpus[sample], [ids[row] for row in sample], adapter=result.adapter, top_k=(10,)
    )
    return {
        "documents": len(corpus),
        "seconds": seconds,
        "anonymous_gb": most / 1e9,
        "ranked_documents": result.report.ranked_documents,
        "chosen": result.report.chosen,
        "recall@10 without": judged["without model"]["recall@10"],
        "recall@10 with": judged["with model"]["recall@10"],
    }


def main() -> None:
    """Measure each size in a separate process, print, and save. Sizes in the file stay unless they are measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(json.dumps(train(arguments.train)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            path = Path(folder, "corpus.npy")
            write_corpus(path, size)
            command = [sys.executable, "-m", "benchmarks.scale", "--train", str(path)]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))
            row = rows[-1]
            print(
                f"{size:>9,} × {DIMENSION}: {row['seconds']:6.0f} s, {row['anonymous_gb']:.2f} GB, "
                f"{row['ranked_documents']:,} documents ranked; recall@10 over a sample "
                f"{100 * row['recall@10 without']:.1f} → {100 * row['recall@10 with']:.1f} ({row['chosen']})"
            )
    path = results.FOLDER / "scale.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = sorted({row["documents"]: row for row in (*before, *rows)}.values(), key=lambda row: row["documents"])
    path.write_text(json.dumps({"dimension": DIMENSION, "queries": 1_800, "rows": rows, **results.machine([])}, indent=1) + "\n")


if __name__ == "__main__":
    main()
