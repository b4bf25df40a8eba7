"""Measure trainings with few labels, and with meaningless labels: ``bash benchmarks/run labels``.

There are three parts. *curve* trains on 50 to 400 training queries of scifact, drawn ten times, beside NUDGE-N and no adaptation.
*tiny* trains on 1, 5 and 20 training queries of every collection, drawn ten times. *shuffled* trains on all training queries with
shuffled labels, and counts how often the identity is chosen.
"""

import argparse
import json
import warnings
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from benchmarks import results
from benchmarks.data import COLLECTIONS, GENERATED, Collection, Queries, load
from benchmarks.peers import no_adaptation, nudge, ours
from deepmem_integrations import Relevance

DRAWS = 10


def draw(collection: Collection, count: int, seed: int) -> Queries:
    """Draw this many training queries at random."""
    rows = np.random.default_rng(seed).permutation(len(collection.train))[:count]
    return collection.train.take(sorted(rows.tolist()))


def ndcg(collection: Collection, train: Queries, fit: Callable[..., object]) -> tuple[float, str]:
    """Train, and return the nDCG@10 of the test queries in points, and a note on what was chosen."""
    fitted = fit(collection.corpus, train)
    return 100 * float(results.score(fitted.rank(collection.test), collection)["ndcg@10"].mean()), fitted.note  # type: ignore[attr-defined]


def curve() -> results.Row:
    """Return the mean scores over the draws, by number of queries."""
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
    """Return the mean and the worst difference to no adaptation, by collection and number of queries."""
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


def shuffled() -> results.Row:
    """Count how often shuffled labels give the identity."""
    rows = []
    for name in ("scifact", "tatqa"):
        collection = load(name, "minilm")
        identities = 0
        for seed in tqdm(range(DRAWS), desc=f"{name}, shuffled labels"):
            order = np.random.default_rng(seed).permutation(len(collection.train))
            given = collection.train.relevance
            labels = Relevance(given.queries, [given.labels[row] for row in order], given.query_ids)
            fitted = ours(collection.corpus, Queries(labels, collection.train.vectors))
            identities += fitted.note.startswith("identity")
        rows.append({"collection": name, "identities": identities, "seeds": DRAWS})
        print(f"{name}: the identity {identities} times of {DRAWS}")
    return {"model": "minilm", "rows": rows}


PARTS = {"curve": curve, "tiny": tiny, "shuffled": shuffled}


def main() -> None:
    """Measure, and write ``results/labels.json``. Parts in the file stay unless they are measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of NUDGE's package
    path = results.FOLDER / "labels.json"
    measured = json.loads(path.read_text()) if path.exists() else {}
    for part in arguments.parts:
        measured[part] = PARTS[part]() | results.machine(["nudge-ft"])
        path.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
