"""Measures trainings on few labels and on shuffled labels: ``bash benchmarks/run labels``.

- *curve* trains on 50 to 400 queries of scifact, drawn ten times, and compares with NUDGE-N and with no adaptation.
- *tiny* trains on 1, 5 and 20 queries of every collection, drawn ten times.
- *few* trains on 25 queries of every collection, drawn twenty times, and ranks as a retriever does: by words and answers, too.
- *shuffled* trains on all queries with shuffled labels, and counts how often the vectors, and the ranking, are left as they are.
"""

import argparse
import json
import warnings
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from benchmarks import results
from benchmarks.data import COLLECTIONS, GENERATED, Collection, Queries, load
from benchmarks.peers import no_adaptation, nudge, ours, ours_retriever
from deepmem_integrations import Relevance

DRAWS = 10
FEW, FEW_DRAWS = 25, 20


def draw(collection: Collection, count: int, seed: int) -> Queries:
    """Draw ``count`` training queries at random."""
    rows = np.random.default_rng(seed).permutation(len(collection.train))[:count]
    return collection.train.take(sorted(rows.tolist()))


def ndcg(collection: Collection, train: Queries, fit: Callable[..., object]) -> tuple[float, str]:
    """Train, and return the nDCG@10 of the test queries in points and the note of what was chosen."""
    fitted = fit(collection.corpus, train)
    return 100 * float(results.score(fitted.rank(collection.test), collection)["ndcg@10"].mean()), fitted.note  # type: ignore[attr-defined]


def curve() -> results.Row:
    """Return the means over the draws for each number of queries."""
    collection = load("scifact", "minilm")
    base, _ = ndcg(collection, collection.train, no_adaptation)
    rows = []
    for count in (50, 100, 200, 400):
        scores: dict[str, list[float]] = {"ours": [], "nudge-n": []}
        for seed in tqdm(range(DRAWS), desc=f"curve, {count} queries"):
            train = draw(collection, count, seed)
            scores["ours"].append(ndcg(collection, train, ours)[0])
            scores["nudge-n"].append(ndcg(collection, train, lambda corpus, part: nudge(corpus, part, kind="N"))[0])
        rows.append({"queries": count, "none": base, **{name: float(np.mean(values)) for name, values in scores.items()}})
        print(f"{count:>4} queries: none {base:.1f}, NUDGE-N {rows[-1]['nudge-n']:.1f}, ours {rows[-1]['ours']:.1f}")
    return {"collection": "scifact", "model": "minilm", "draws": DRAWS, "rows": rows}


def tiny() -> results.Row:
    """Return the mean and the worst difference to no adaptation for each collection and number of queries."""
    rows = []
    for name in (name for name in COLLECTIONS if name != GENERATED):
        collection = load(name, "minilm")
        base, _ = ndcg(collection, collection.train, no_adaptation)
        for count in (1, 5, 20):
            progress = tqdm(range(DRAWS), desc=f"{name}, {count} queries")
            gains = [ndcg(collection, draw(collection, count, seed), ours)[0] - base for seed in progress]
            rows.append({"collection": name, "queries": count, "mean": float(np.mean(gains)), "worst": float(min(gains))})
            print(f"{name}, {count} queries: {np.mean(gains):+.2f} on average, {min(gains):+.2f} at worst")
    return {"model": "minilm", "draws": DRAWS, "rows": rows}


def few() -> results.Row:
    """Return the mean and the worst nDCG@10 of a retriever for each collection, and how many draws lose more than a point."""
    rows = []
    for name in (name for name in COLLECTIONS if name != GENERATED):
        collection = load(name, "minilm")
        base, _ = ndcg(collection, collection.train, no_adaptation)
        progress = tqdm(range(FEW_DRAWS), desc=f"{name}, {FEW} queries")
        scores = [ndcg(collection, draw(collection, FEW, seed), ours_retriever)[0] for seed in progress]
        worse = sum(score < base - 1 for score in scores)
        rows.append({"collection": name, "none": base, "mean": float(np.mean(scores)), "worst": min(scores), "worse by 1": worse})
        print(
            f"{name}: none {base:.1f}, a retriever {np.mean(scores):.1f}, at worst {min(scores):.1f}; worse by 1: {worse} times"
        )
    return {"model": "minilm", "queries": FEW, "draws": FEW_DRAWS, "rows": rows}


def shuffled() -> results.Row:
    """Count how often a training on shuffled labels leaves the vectors, and the ranking, as they are."""
    rows = []
    for name in ("scifact", "tatqa"):
        collection = load(name, "minilm")
        identities = rankings = 0
        for seed in tqdm(range(DRAWS), desc=f"{name}, shuffled labels"):
            order = np.random.default_rng(seed).permutation(len(collection.train))
            given = collection.train.relevance
            labels = Relevance(given.queries, [given.labels[row] for row in order], given.query_ids)
            queries = Queries(labels, collection.train.vectors)
            identities += ours(collection.corpus, queries).note.startswith("identity")
            rankings += ours_retriever(collection.corpus, queries).note.startswith("identity")
        rows.append({"collection": name, "identities": identities, "plain rankings": rankings, "seeds": DRAWS})
        print(f"{name}: the identity {identities} times of {DRAWS}, a plain ranking {rankings} times")
    return {"model": "minilm", "rows": rows}


PARTS = {"curve": curve, "tiny": tiny, "few": few, "shuffled": shuffled}


def main() -> None:
    """Measure and write ``results/labels.json``. Its parts stay unless they are measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the warnings come from NUDGE
    path = results.FOLDER / "labels.json"
    measured = json.loads(path.read_text()) if path.exists() else {}
    for part in arguments.parts:
        measured[part] = PARTS[part]() | results.machine(["nudge-ft"])
        path.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
