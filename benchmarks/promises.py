"""Compares what trainings promise with what test queries show: ``bash benchmarks/run promises``.

For 15 to 400 labels drawn at random, and for all of them, it trains on every collection, with MiniLM's and WordLlama's vectors.
For the transform alone and for a retriever it writes down the gain in nDCG@10 and recall@10 on the test queries, and the 95%
interval of the report. Two tables follow:

- *safety*: the mean gain of each collection and number of labels, the worst draw, and how many draws lose more than a point;
- *coverage*: how often the gain on the test queries lies in the interval, and how often it does if the interval of the test's own
  gain is allowed for. Where no test query asks for a document with a label, the report's unseen view is the one that promises.

Draws of few labels are many, draws of many labels are few. At most 300 test queries are ranked for a draw.
"""

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Collection as Names
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from math import hypot

import numpy as np
from tqdm import tqdm

from benchmarks import results
from benchmarks.data import COLLECTIONS, GENERATED, Collection, Queries, load
from benchmarks.peers import rank_as_retrievers
from benchmarks.results import DEPTH
from deepmem_integrations import train_adapter
from deepmem_integrations._vectors import nearest
from deepmem_integrations.evaluation import Interval, Scores, bootstrap_mean, score_rankings
from deepmem_integrations.training import TrainingReport
from deepmem_integrations.words import WordIndex

DRAWS = {15: 20, 25: 20, 50: 20, 100: 10, 200: 5, 400: 5}
"""The number of labelled queries → how often so many are drawn."""
MODELS = ("minilm", "wordllama")
COUNTS = (*map(str, DRAWS), "all")
TESTED = 300
SIDES = ("transform", "retriever")
METRICS = ("ndcg@10", "recall@10")
PATH = results.FOLDER / "promises.json"


def draws(collection: Collection, counts: Names[str]) -> Iterator[tuple[int, int]]:
    """Yield (number of labels, number of the draw)."""
    for count, times in DRAWS.items():
        if count < len(collection.train) and str(count) in counts:
            yield from ((count, number) for number in range(times))
    if "all" in counts:
        yield len(collection.train), 0


def measure(name: str, model: str, counts: Names[str]) -> list[results.Row]:
    """Train on all draws of a collection with the vectors of a model, and return a row for each."""
    collection = load(name, model)
    corpus, test = collection.corpus, collection.test
    if len(test) > TESTED:
        test = test.take(sorted(np.random.default_rng(0).permutation(len(test))[:TESTED].tolist()))
    labels = corpus.rows(test.relevance)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        words = WordIndex.build(folder, [(corpus.ids, corpus.texts)])
        for count, number in draws(collection, counts):
            drawn = np.random.default_rng(number).permutation(len(collection.train))[:count]
            train = collection.train.take(sorted(drawn.tolist()))
            result = train_adapter(train.vectors, train.relevance, corpus.vectors, corpus.ids, words=words)
            rankings = {
                "none": nearest(test.vectors, corpus.vectors, DEPTH),
                "transform": nearest(result.adapter.transform(test.vectors), corpus.vectors, DEPTH),
                "retriever": rank_as_retrievers(result.adapter, words, corpus, test),
            }
            scores = {side: score_rankings(ranking, labels, top_k=(10,)) for side, ranking in rankings.items()}
            row: results.Row = {"collection": name, "model": model, "labels": count, "draw": number}
            row["none"] = float(scores["none"]["ndcg@10"].mean())
            for side in SIDES:
                row[side] = _side(result.report, side, collection, train, scores[side], scores["none"])
            rows.append(row)
    return rows


def _side(report: TrainingReport, side: str, collection: Collection, train: Queries, scores: Scores, base: Scores) -> results.Row:
    """Return chosen, gains on the test queries, and what the report promises of them, in points."""
    told = report.ranking if side == "retriever" else report
    asked = {document for labels in train.relevance.labels for document, _ in labels}
    tested = {document for labels in collection.test.relevance.labels for document, _ in labels}
    views = None if told is None else told.seen if asked & tested else told.unseen
    gains = bootstrap_mean(np.stack([scores[name] - base[name] for name in METRICS], axis=1))
    row: results.Row = {"chosen": told.chosen if told else "identity"}
    for name, gain in zip(METRICS, gains, strict=True):
        promised = views.gains[name] if views else Interval(0.0, 0.0, 0.0)
        row[name] = {"test": _points(gain), "promise": _points(promised)}
    return row


def _points(interval: Interval) -> list[float]:
    return [round(100 * value, 2) for value in (interval.mean, interval.low, interval.high)]


def show(rows: list[results.Row]) -> None:
    """Print both tables."""
    print(f"{'nDCG@10 on the test queries':<31}{'labels':>7}{'none':>7}{'transform: mean, worst, < -1':>32}{'retriever':>26}")
    for (name, model, count), draws_ in _grouped(rows, "collection", "model", "labels"):
        line = f"{name + ', ' + model:<31}{count:>7}{100 * draws_[0]['none']:>7.1f}"
        for side, width in zip(SIDES, (14, 8), strict=True):
            gains = np.array([row[side]["ndcg@10"]["test"][0] for row in draws_])
            line += f"{gains.mean():>{width}.1f}{gains.min():>9.1f}{f'{(gains < -1).sum()} of {len(gains)}':>9}"
        print(line)
    heading = f"{'test inside':>13}{'with its own interval':>23}{'promise - test':>16}{'width':>7}"
    print(f"\n{'in the interval':<24}{'labels':>10}{heading}")
    for side in SIDES:
        for metric in METRICS:
            for (count,), draws_ in [*_grouped(rows, "bucket"), *_grouped(rows)]:
                pairs = [(row[side][metric]["test"], row[side][metric]["promise"]) for row in draws_]
                inside = [low - 1e-9 <= test[0] <= high + 1e-9 for test, (_, low, high) in pairs]
                allowed = [
                    abs(test[0] - (low + high) / 2) <= hypot((high - low) / 2, (test[2] - test[1]) / 2) + 1e-9
                    for test, (_, low, high) in pairs
                ]
                bias = np.mean([promise[0] - test[0] for test, promise in pairs])
                width = np.mean([promise[2] - promise[1] for _, promise in pairs])
                share = f"{100 * np.mean(inside):.0f}%"
                print(
                    f"{side + ' ' + metric:<24}{count:>10}{share:>13}{100 * np.mean(allowed):>22.0f}%{bias:>16.1f}{width:>7.1f}"
                )


def _grouped(rows: list[results.Row], *keys: str) -> list[tuple[tuple, list[results.Row]]]:
    groups: dict[tuple, list[results.Row]] = defaultdict(list)
    for row in rows:
        bucket = str(row["labels"]) if row["labels"] in DRAWS else "all"
        groups[tuple({**row, "bucket": bucket}[key] for key in keys) or ("any",)].append(row)
    return list(groups.items())


def _key(row: results.Row) -> tuple[str, str, int, int]:
    return row["model"], row["collection"], row["labels"], row["draw"]


def main() -> None:
    """Measure and write ``results/promises.json``, or print what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=[name for name in COLLECTIONS if name != GENERATED])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--labels", nargs="+", choices=COUNTS, default=COUNTS)
    parser.add_argument("--show", action="store_true", help="print the tables without measuring")
    arguments = parser.parse_args()
    rows = results.read(PATH)
    if not arguments.show:
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the processes, one on each core
        tasks = [(name, model) for model in arguments.models for name in arguments.collections]
        with ProcessPoolExecutor() as pool:
            running = [pool.submit(measure, *task, arguments.labels) for task in tasks]
            for future in tqdm(as_completed(running), total=len(tasks), desc="collections and models"):
                merged = {_key(row): row for row in (*rows, *future.result())}
                rows = [merged[key] for key in sorted(merged)]
                results.write(PATH, rows)
    show(rows)


if __name__ == "__main__":
    main()
