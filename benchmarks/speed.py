"""Times a training beside NUDGE-N in one run: ``bash benchmarks/run speed``.

Both train in processes of one thread, in turn, three times. The medians of their CPU seconds and the ratio are written down. The
row with words includes that the word index is built. The second set has 8,000 queries over 10,000 documents. Its vectors are
made up: documents lie around 200 topics, and queries are turned, noisy documents, of which a few are asked for often.
"""

import json
import os
import statistics
import subprocess
import sys

import numpy as np
from tqdm import tqdm

from benchmarks import results
from benchmarks.data import Corpus, Queries, load
from benchmarks.peers import no_adaptation, nudge, ours, ours_retriever
from deepmem_integrations import Relevance
from deepmem_integrations._vectors import unit_rows

METHODS = {"NUDGE-N": lambda *given: nudge(*given, kind="N"), "ours, the transform": ours, "ours, with words": ours_retriever}
SETS = ("scifact", "made up")
ROUNDS = 3
QUERIES, DOCUMENTS, DIMENSION, TOPICS = 8_000, 10_000, 384, 200


def made_up() -> tuple[Corpus, Queries, Queries]:
    """Return documents around topics, training queries and as many test queries."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(TOPICS, DIMENSION))
    documents = topics[rng.integers(0, TOPICS, DOCUMENTS)] + 1.2 * rng.normal(size=(DOCUMENTS, DIMENSION))
    turn = np.eye(DIMENSION) + 1.5 * rng.normal(size=(DIMENSION, DIMENSION)) / np.sqrt(DIMENSION)
    names = [f"document {row}" for row in range(DOCUMENTS)]
    corpus = Corpus(names, names, unit_rows(documents, "document vector"))
    sides = []
    for _ in range(2):
        often = rng.zipf(1.3, QUERIES) % DOCUMENTS
        asked = np.where(rng.random(QUERIES) < 0.5, often, rng.integers(0, DOCUMENTS, QUERIES))
        vectors = (documents[asked] + 5 * rng.normal(size=(QUERIES, DIMENSION))) @ turn
        labels = Relevance([f"query {row}" for row in range(QUERIES)], [[(names[row], 1.0)] for row in asked])
        sides.append(Queries(labels, unit_rows(vectors, "query vector")))
    return corpus, sides[0], sides[1]


def measure(name: str, method: str) -> results.Row:
    """Train once in this process, and return CPU seconds and nDCG@10 on the test queries in points."""
    if name == "made up":
        corpus, train, test = made_up()
    else:
        collection = load(name, "minilm")
        corpus, train, test = collection.corpus, collection.train, collection.test
    fitted, seconds = results.timed(lambda: METHODS[method](corpus, train))
    test = test.take(range(min(1_000, len(test))))
    scores = results.score_rankings(fitted.rank(test), corpus.rows(test.relevance), top_k=(10,))
    before = results.score_rankings(no_adaptation(corpus, train).rank(test), corpus.rows(test.relevance), top_k=(10,))
    return seconds | {"ndcg@10": 100 * float(scores["ndcg@10"].mean()), "none": 100 * float(before["ndcg@10"].mean())}


def main() -> None:
    """Measure and write ``results/speed.json``; with the names of a set and a method, measure these alone."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(*sys.argv[1:3])))
        return
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    rows = []
    for name in SETS:
        methods = [method for method in METHODS if name != "made up" or method != "ours, with words"]  # it has no texts
        runs: dict[str, list[results.Row]] = {method: [] for method in methods}
        for _ in tqdm(range(ROUNDS), desc=name):
            for method in methods:
                command = [sys.executable, "-m", "benchmarks.speed", name, method]
                done = subprocess.run(command, env=os.environ | one_thread, stdout=subprocess.PIPE, text=True, check=True)
                runs[method].append(json.loads(done.stdout.splitlines()[-1]))
        rival = statistics.median(run["cpu_seconds"] for run in runs["NUDGE-N"])
        for method, times in runs.items():
            seconds = statistics.median(run["cpu_seconds"] for run in times)
            row = {"set": name, "method": method, "cpu_seconds": seconds, "ratio": seconds / rival}
            rows.append(row | {metric: times[0][metric] for metric in ("none", "ndcg@10")} | results.machine(["nudge-ft"]))
            print(
                f"{name:<9}{method:<21}{seconds:>7.1f} CPU s, {seconds / rival:>5.1f} times NUDGE-N; "
                f"nDCG@10 {times[0]['none']:.1f} → {times[0]['ndcg@10']:.1f}"
            )
    results.write(results.FOLDER / "speed.json", rows)


if __name__ == "__main__":
    main()
