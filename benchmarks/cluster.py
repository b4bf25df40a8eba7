"""Measures how a Ray cluster of two nodes on this machine reads a corpus for a training: ``python -m benchmarks.cluster``.

The corpus lies in Parquet files on an S3 endpoint (moto's server, on this machine): documents around 500 topics, and queries
around their answers, all shifted the same way. One machine reads the corpus, then a cluster of one worker and of two, with a
worker that is killed in the middle, and with a node that is taken away. Each runs in a process of its own, and what they give to
the training, statistics and sample, is compared to the last bit.

``--simulate`` prints what a pass over a corpus of any size takes, from the assumptions that it prints beside.
"""

import argparse
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.cluster import workers_on
from deepmem_integrations.corpora import ParquetCorpus
from deepmem_integrations.training.corpus_sample import MAX_DOCUMENTS, MINED_QUERIES, NEAR, read_corpus_sample
from deepmem_integrations.training.hardware import single_threaded_operations

DIMENSION, FILE_ROWS, GROUP_ROWS = 384, 100_000, 25_000
QUERIES = 1_800
MODES = ("one machine", "one worker", "two workers", "two workers, one killed", "two nodes, one taken away")
BUCKET = "bucket"
FILE = results.FOLDER / "cluster.json"


@contextlib.contextmanager
def s3() -> Iterator[dict[str, Any]]:
    """Run an S3 endpoint with an empty bucket, and yield the options of fsspec's file system."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api/").close()
                break
            except OSError:
                time.sleep(0.2)
        client = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        yield {"key": "x", "secret": "y", "client_kwargs": client}
    finally:
        process.terminate()
        process.wait()


def write_corpus(options: dict[str, Any], size: int) -> None:
    """Write the documents, file by file."""
    import boto3
    import pyarrow
    import s3fs
    from pyarrow import parquet

    files = s3fs.S3FileSystem(**options)
    client = {"aws_access_key_id": options["key"], "aws_secret_access_key": options["secret"], **options["client_kwargs"]}
    boto3.client("s3", **client).create_bucket(Bucket=BUCKET)
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(500, DIMENSION)).astype(np.float32)
    for number, start in enumerate(range(0, size, FILE_ROWS)):
        rows = min(FILE_ROWS, size - start)
        vectors = topics[rng.integers(500, size=rows)] + rng.normal(size=(rows, DIMENSION)).astype(np.float32)
        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), DIMENSION)
        table = pyarrow.table({"id": [f"doc-{row}" for row in range(start, start + rows)], "vector": lists})
        with files.open(f"{BUCKET}/pages/{number:05}.parquet", "wb") as file:
            parquet.write_table(table, file, row_group_size=GROUP_ROWS, compression="none", use_dictionary=["id"])


def questions(corpus: ParquetCorpus) -> tuple[Vectors, set[str]]:
    """Ask for documents of the first file, near their vectors and shifted. Returns the queries and the labelled documents."""
    ids, vectors = next(iter(corpus.vectors()))
    vectors = np.asarray(vectors)
    rng = np.random.default_rng(1)
    asked = rng.integers(len(ids), size=QUERIES)
    drift = rng.normal(size=DIMENSION)
    queries = vectors[asked] + 1.5 * drift + 9.0 * rng.normal(size=(len(asked), DIMENSION))
    return unit_rows(queries, "query vector"), {ids[row] for row in asked}


def anonymous_bytes(pid: int) -> int:
    """Return the anonymous memory of a process; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    except (OSError, StopIteration):
        return 0


def workers_at(task: str) -> list[int]:
    """Return the processes of Ray that work at a task, such as ``_read_shard``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(f"ray::{task}".encode()):
                found.append(int(path.parent.name))
    return found


class Watch(threading.Thread):
    """Notes the largest memory of this process and of any worker, and does something once in the middle of the corpus."""

    def __init__(self, middle: Any) -> None:
        super().__init__(daemon=True)
        self.own = self.worker = self.done = 0
        self.half, self.ended, self._middle = threading.Event(), threading.Event(), middle

    def run(self) -> None:
        """Look ten times a second."""
        while not self.ended.wait(0.1):
            self.own = max(self.own, anonymous_bytes(os.getpid()))
            pids = workers_at("_read_shard")
            self.worker = max([self.worker, *map(anonymous_bytes, pids)])
            if self.half.is_set() and self._middle is not None and pids:
                self._middle(pids)
                self._middle = None


def measure(mode: str, options: dict[str, Any]) -> results.Row:
    """Read the corpus once, and return seconds, memory, and a digest of what was read."""
    corpus = ParquetCorpus(f"s3://{BUCKET}/pages", storage_options=options)
    queries, labelled = questions(corpus)
    total = len(corpus)
    cluster = node = middle = None
    row: results.Row = {"mode": mode, "documents": total}
    if mode != "one machine":
        from ray.cluster_utils import Cluster

        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        head = {"num_cpus": 1, "object_store_memory": 300_000_000}
        cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
        if mode != "one worker":
            node = cluster.add_node(**head)
        if mode == "two workers, one killed":
            middle = lambda pids: os.kill(pids[0], signal.SIGKILL)  # noqa: E731
        if mode == "two nodes, one taken away":
            middle = lambda pids: cluster.remove_node(node, allow_graceful=False)  # noqa: E731
    watch = Watch(middle)

    def on_read(documents: int) -> None:
        if documents > 0.3 * total:
            watch.half.set()

    watch.start()
    with workers_on(cluster and cluster.address) as workers, single_threaded_operations():
        started = time.monotonic()
        sample = read_corpus_sample(corpus, None, queries, labelled, 0, on_read, workers)
        row["seconds"] = time.monotonic() - started
        if workers is not None:
            from ray._private.internal_api import memory_summary

            row["spilled"] = any("pilled" in line for line in memory_summary(stats_only=True).splitlines())
    watch.ended.set()
    watch.join()
    if cluster is not None:
        cluster.shutdown()
    parts = (
        sample.statistics.mean,
        sample.statistics.covariance,
        sample.vectors,
        json.dumps([sample.ids, sample.digest]).encode(),
    )
    digest = hashlib.sha256(b"".join(bytes(memoryview(part).cast("B")) for part in parts)).hexdigest()[:16]
    return {**row, "driver_gb": watch.own / 1e9, "worker_gb": watch.worker / 1e9, "sample": len(sample.ids), "digest": digest}


def simulate(documents: int, dimension: int, per_second: float, price: float) -> None:
    """Print what a pass takes by the size of the shards and the number of machines.

    A shard returns the documents drawn at random, its statistics, and those that are nearer to a query than what was known when
    it began: of a corpus in no order, the share of the shard in what was known and itself. Up to two shards a CPU are begun
    without knowing of each other.

    Args:
        documents: How many documents there are.
        dimension: The dimension of the vectors.
        per_second: How many documents a CPU reads and compares in a second.
        price: What a machine of 16 CPUs costs an hour, in USD.
    """
    terabytes = documents * (4 * dimension + 24) / 1e12
    print(f"{documents:,} × {dimension}, {terabytes:.1f} TB, {per_second:,.0f} documents a second a CPU")
    for machines in (1, 4, 16, 64):
        for shard in (25_000, 100_000, 400_000):
            cpus, shards = 16 * machines, -(-documents // shard)
            hours = -(-shards // cpus) * shard / per_second / 3600
            begun = np.arange(shards)
            known = np.maximum(0, begun - np.minimum(2 * cpus, 2 + begun // 2)) * shard
            near = float(np.sum(np.minimum(MINED_QUERIES * NEAR * shard / (known + shard), shard)))
            returned = ((near + MAX_DOCUMENTS) * 4 * dimension + shards * 8 * dimension**2) / 1e9
            under_way = min(2 * cpus, shards) * (8 * dimension**2 + MINED_QUERIES * NEAR * 4 * dimension) / 1e9
            print(
                f"{machines:>3} machines, shards of {shard:>7,}: {hours:6.2f} h, {machines * hours * price:4.1f} USD, "
                f"{1000 * terabytes / machines / hours / 3600:.2f} GB/s read by a machine, {returned:5.0f} GB "
                f"returned to the driver, {returned / hours / 3600:.2f} GB/s, at most {under_way:5.1f} GB at a time"
            )


def main() -> None:
    """Measure each way in a process of its own, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--modes", nargs="*", choices=MODES, default=list(MODES))
    parser.add_argument("--simulate", nargs=4, type=float, metavar=("DOCUMENTS", "DIMENSION", "PER_SECOND", "USD_AN_HOUR"))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.simulate:
        documents, dimension, per_second, price = arguments.simulate
        simulate(int(documents), int(dimension), per_second, price)
        return
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], json.loads(arguments.measure[1]))))
        return
    rows = []
    with s3() as options:
        started = time.monotonic()
        write_corpus(options, arguments.documents)
        print(f"{arguments.documents:,} × {DIMENSION} written in {time.monotonic() - started:.0f} s", flush=True)
        for mode in arguments.modes:
            command = [sys.executable, "-m", "benchmarks.cluster", "--measure", mode, json.dumps(options)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row = json.loads(output.splitlines()[-1])
            rows.append(row)
            print(
                f"{mode:<26} {row['seconds']:5.0f} s, driver {row['driver_gb']:.2f} GB, worker {row['worker_gb']:.2f} GB, "
                f"{row['digest']}{', spilled' if row.get('spilled') else ''}",
                flush=True,
            )
            known = json.loads(FILE.read_text())["rows"] if FILE.exists() else []
            kept = [old for old in known if (old["mode"], old["documents"]) != (mode, row["documents"])]
            FILE.write_text(json.dumps({"dimension": DIMENSION, "rows": [*kept, row], **results.machine([])}, indent=1) + "\n")
    print("All read the same." if len({row["digest"] for row in rows}) == 1 else "What they read differs.")


if __name__ == "__main__":
    main()
