"""Compares the methods on the collections: each learns from the training queries and ranks the corpus for the test queries."""

import argparse
import itertools
import warnings
from pathlib import Path

from tqdm import tqdm

from benchmarks import results
from benchmarks.data import COLLECTIONS, EMBEDDED, MODELS, Collection, load
from benchmarks.peers import PEERS, Peer, no_adaptation
from benchmarks.table import details
from deepmem_integrations.evaluation import Scores


def measure(peer: Peer, collection: Collection, base: Scores) -> results.Row:
    """Train and score one method. The error of a package that fails on a collection is kept as its result."""
    row: results.Row = {"rewrites_index": peer.rewrites_index, **results.machine(peer.packages)}
    try:
        fitted, seconds = results.timed(lambda: peer.fit(collection.corpus, collection.train))
        scores = results.score(fitted.rank(collection.test), collection)
    except Exception as error:
        return row | {"error": f"{type(error).__name__}: {error}"}
    return row | {**seconds, "note": fitted.note, **results.summarise(scores, base, collection)}


def main() -> None:
    """Measure and write ``results/compare.json``. Its rows stay unless they are measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", choices=COLLECTIONS, default=COLLECTIONS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rows", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--out", type=Path, default=results.FOLDER / "compare.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the warnings come from the peers' packages

    for model, name in itertools.product(arguments.models, arguments.collections):
        if name not in EMBEDDED.get(model, COLLECTIONS):
            continue
        collection = load(name, model)
        base = results.score(no_adaptation(collection.corpus, collection.train).rank(collection.test), collection)
        keys = [key for key in arguments.rows if name in (PEERS[key].collections or COLLECTIONS)]
        progress = tqdm(keys, desc=f"{name} × {model}")
        for key in progress:
            progress.set_postfix_str(key)
            row = {"collection": name, "model": model, "row": key, **measure(PEERS[key], collection, base)}
            results.merge(arguments.out, [row])
        print(details([row for row in results.read(arguments.out) if (row["collection"], row["model"]) == (name, model)]))


if __name__ == "__main__":
    main()
