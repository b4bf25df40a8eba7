"""Measures trainings on few labels and on shuffled labels: ``bash benchmarks/run labels``.

- *curve* trains on 50 to 400 queries of scifact, drawn ten times, and compares with NUDGE-N and with no adaptation.
- *tiny* trains on 1, 5 and 20 queries of every collection, drawn ten times.
- *clicks* trains on simulated clicks among ten documents that were shown, and on as many unbiased labels. The users are perfect,
  noisy, biased by position, or perfect with results of words and vectors in turn; or they click at random.
- *shuffled* trains on all queries with shuffled labels, and counts how often the vectors, and the ranking, are left as they are.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks import results
from benchmarks.data import COLLECTIONS, GENERATED, Collection, Queries, load
from benchmarks.peers import no_adaptation, nudge, ours, ours_retriever
from deepmem_integrations import Relevance
from deepmem_integrations._vectors import nearest
from deepmem_integrations.words import WordIndex

DRAWS = 10


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


def clicks() -> results.Row:
    """Train on what users click among ten documents that they are shown, and on as many unbiased labels."""
    rows = []
    for name in CLICKED:
        collection = load(name, "minilm")
        show_words = WordIndex.build(tempfile.mkdtemp(), [(collection.corpus.ids, collection.corpus.texts)])
        for kind, user in USERS.items():
            train = clicked(collection, user, show_words if kind == "pooled" else None)
            unbiased = draw(collection, len(train), 0)
            row = {"collection": name, "clicks": kind, "queries": len(train)}
            fits = {"none": no_adaptation, "transform": ours, "retriever": ours_retriever}
            for side, fit in fits.items():
                row[side] = ndcg(collection, train, fit)[0]
                row[f"{side}, unbiased"] = ndcg(collection, unbiased, fit)[0]
            rows.append(row)
            print(
                f"{name}, {kind}, {len(train)} queries: none {row['none']:.1f}; "
                + "; ".join(f"{side} {row[side]:.1f}, unbiased {row[f'{side}, unbiased']:.1f}" for side in list(fits)[1:])
            )
    return {"model": "minilm", "rows": rows}


class User(NamedTuple):
    """How likely a user clicks a document that is shown.

    Attributes:
        right: The probability for a relevant document that the user looks at.
        wrong: The same for any other document.
        looks: Rank → the probability that the user looks at all.
    """

    right: float = 1.0
    wrong: float = 0.0
    looks: Callable[[int], float] = lambda rank: 1.0


USERS = {
    "perfect": User(),
    "noisy": User(0.7, 0.05),
    "position-biased": User(0.9, 0.05, lambda rank: 1 / rank),
    "pooled": User(),
    "at random": User(0.15, 0.15),
}
SHOWN = 10
CLICKED = ("scifact", "cranfield", "tatqa")


def clicked(collection: Collection, user: User, words: WordIndex | None) -> Queries:
    """Return the training queries with the documents that a user clicks among the first results.

    The results are those of the untransformed vectors or, with a word index, those of both in turn.
    """
    rng = np.random.default_rng(0)
    train, ids = collection.train, collection.corpus.ids
    rows, labels = [], []
    for query, near in enumerate(nearest(train.vectors, collection.corpus.vectors, SHOWN).tolist()):
        shown = [ids[row] for row in near]
        if words:
            found = words.search(train.relevance.queries[query], SHOWN).ids
            shown = list(dict.fromkeys(name for pair in zip_longest(shown, found) for name in pair if name))[:SHOWN]
        good = dict(train.relevance.labels[query])
        chances = [user.looks(rank) * (user.right if name in good else user.wrong) for rank, name in enumerate(shown, start=1)]
        if chosen := [(name, 1.0) for name, chance in zip(shown, chances, strict=True) if rng.random() < chance]:
            rows.append(query)
            labels.append(chosen)
    return Queries(Relevance([train.relevance.queries[row] for row in rows], labels), train.vectors[rows])


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


PARTS = {"curve": curve, "tiny": tiny, "clicks": clicks, "shuffled": shuffled}


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
