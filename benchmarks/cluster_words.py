"""Measures how a word index is built by shards on a Ray cluster on this machine: ``python -m benchmarks.cluster_words``.

The corpus lies in Parquet files on an S3 endpoint (moto's server, on this machine): texts of 60 words whose frequencies fall as
in prose. One machine builds the index, then a cluster of two workers, and one with a worker that is killed in the middle. Each
runs in a process of its own, and the checksums of the indexes are compared.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.cluster import BUCKET, FILE_ROWS, GROUP_ROWS, anonymous_bytes, s3, workers_at
from deepmem_integrations.cluster import workers_on
from deepmem_integrations.corpora import ParquetCorpus
from deepmem_integrations.words import TextShards, WordIndex

WORDS, VOCABULARY = 60, 200_000
MODES = ("one machine", "two workers", "two workers, one killed")
FILE = results.FOLDER / "cluster_words.json"


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
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = np.array(["".join(rng.choice(letters, size=rng.integers(3, 10))) for _ in range(VOCABULARY)])
    for number, start in enumerate(range(0, size, FILE_ROWS)):
        rows = min(FILE_ROWS, size - start)
        texts = [" ".join(row) for row in vocabulary[np.minimum(rng.zipf(1.2, size=(rows, WORDS)), VOCABULARY) - 1]]
        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.ones(2 * rows, np.float32)), 2)
        table = pyarrow.table({"id": [f"doc-{row}" for row in range(start, start + rows)], "vector": lists, "text": texts})
        with files.open(f"{BUCKET}/pages/{number:05}.parquet", "wb") as file:
            parquet.write_table(table, file, row_group_size=GROUP_ROWS)


def measure(mode: str, options: dict[str, Any]) -> results.Row:
    """Build the index once, and return seconds, memory, and the checksum of what was built."""
    corpus = ParquetCorpus(f"s3://{BUCKET}/pages", storage_options=options)
    row: results.Row = {"mode": mode, "documents": len(corpus)}
    cluster, done, ended = None, [0], threading.Event()
    most = {"driver_gb": 0.0, "worker_gb": 0.0}
    if mode != "one machine":
        from ray.cluster_utils import Cluster

        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        node = {"num_cpus": 1, "object_store_memory": 300_000_000}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.add_node(**node)

    def watch() -> None:
        to_kill = mode == "two workers, one killed"
        while not ended.wait(0.1):
            most["driver_gb"] = max(most["driver_gb"], anonymous_bytes(os.getpid()) / 1e9)
            pids = workers_at("_analysed") if cluster is not None else []
            most["worker_gb"] = max([most["worker_gb"], *(anonymous_bytes(pid) / 1e9 for pid in pids)])
            if to_kill and pids and done[0] > 0.4 * row["documents"]:
                os.kill(pids[0], signal.SIGKILL)
                to_kill, row["killed"] = False, True

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder, workers_on(cluster and cluster.address) as workers:
        started = time.monotonic()
        if workers is None:
            index = WordIndex.build(folder, corpus.texts(), "en")
        else:
            index = WordIndex.build(folder, TextShards(corpus.shards(), workers, lambda n: done.append(done.pop() + n)), "en")
            from ray._private.internal_api import memory_summary

            row["spilled"] = any("pilled" in line for line in memory_summary(stats_only=True).splitlines())
        row["seconds"] = time.monotonic() - started
        entries = json.loads((Path(folder) / "index.json").read_text())["segments"]
        row |= {"bytes": index.statistics.bytes, "checksums": [entry["sha256"][:16] for entry in entries]}
    ended.set()
    watcher.join()
    if cluster is not None:
        cluster.shutdown()
    return {**row, **most}


def main() -> None:
    """Measure each way in a process of its own, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], json.loads(arguments.measure[1]))))
        return
    rows = []
    with s3() as options:
        write_corpus(options, arguments.documents)
        for mode in MODES:
            command = [sys.executable, "-m", "benchmarks.cluster_words", "--measure", mode, json.dumps(options)]
            rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]))
            print({name: round(value, 2) if isinstance(value, float) else value for name, value in rows[-1].items()}, flush=True)
    assert len({tuple(row["checksums"]) for row in rows}) == 1, "the indexes differ"
    FILE.write_text(json.dumps({"words": WORDS, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
