"""Measure which filters for generated questions help: train on the questions, and evaluate on queries that people wrote.

The questions in tatqa's ``generated.jsonl`` take the place of a language model's answers. Everything after them is the real
pipeline: generate, filter, train, evaluate. The pipeline runs once with the questions as they are, and once with a fifth of the
questions moved to a wrong passage. In the second run, the precision and recall of each filter in finding the moved questions are
measured, too.

    python -m benchmarks.generated

The script writes ``benchmarks/results/generated.json`` and prints the same as a table. It takes a few minutes.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.data import GENERATED, Collection, _embed, load
from benchmarks.results import FOLDER
from deepmem_integrations import Relevance, evaluate, train_adapter
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.generation import Answer, Filters, Generation, QueryGenerator, Request

METRICS = ("ndcg@10", "recall@1", "recall@10")
TEXT_FILTERS = ("malformed", "refusal", "copy", "mention", "language", "duplicate")
OFF: dict[str, Any] = dict.fromkeys((*TEXT_FILTERS, "near_duplicate", "round_trip"), False)
SETTINGS: dict[str, dict[str, Any]] = {
    "no filter": OFF,
    **{f"{name} alone": {**OFF, name: True} for name in TEXT_FILTERS},
    "near-duplicate alone (cosine 0.95)": {**OFF, "near_duplicate": True},
    "near-duplicate alone (cosine 0.9)": {**OFF, "near_duplicate": True, "cosine": 0.9},
    "round trip alone (window 200)": {**OFF, "round_trip": True, "window": 200},
    "round trip alone (window 100)": {**OFF, "round_trip": True, "window": 100},
    "round trip alone (window 50)": {**OFF, "round_trip": True, "window": 50},
    "round trip alone (window 20)": {**OFF, "round_trip": True, "window": 20},
    "round trip alone (window 10)": {**OFF, "round_trip": True, "window": 10},
    "the defaults": {},
}


class Recorded:
    """Answer in place of a language model, from recorded questions. Other passages get no questions.

    Args:
        answers: Passage id → questions.
    """

    name = "recorded"

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self.answers = answers

    def ask(self, request: Request) -> Answer:
        """Return the recorded questions for the passage of the request."""
        return Answer.of(request, self.answers.get(request.sources[0].id, []))

    async def aask(self, request: Request) -> Answer:
        """Return the same as `ask`."""
        return self.ask(request)


class Table:
    """Return the vectors of texts that were embedded before. Other texts, such as the probes of a fingerprint, are embedded.

    Args:
        vectors: Text → vector.
        model: The name of the embedding model.
    """

    def __init__(self, vectors: dict[str, Vectors], model: str) -> None:
        self.vectors, self.model = vectors, model

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of the texts."""
        if unknown := [text for text in texts if text not in self.vectors]:
            self.vectors |= dict(zip(unknown, _embed(unknown, self.model), strict=True))
        return np.stack([self.vectors[text] for text in texts])


def move(labels: Relevance, share: float, seed: int) -> tuple[Relevance, set[str]]:
    """Move a share of the questions to another passage at random, and return the labels and the moved questions."""
    rng = np.random.default_rng(seed)
    passages = sorted({labels.labels[row][0][0] for row in range(len(labels))})
    moved = set(rng.choice(len(labels), size=round(share * len(labels)), replace=False).tolist())
    documents = []
    for row, own in enumerate(labels.labels):
        others = [passage for passage in passages if passage != own[0][0]]
        documents.append([(others[rng.integers(len(others))], 1.0)] if row in moved else own)
    return Relevance(labels.queries, documents, labels.query_ids), {labels.queries[row] for row in moved}


def generate(collection: Collection, labels: Relevance, table: Table, options: dict[str, Any]) -> Generation:
    """Run the generator over the whole corpus with the recorded answers."""
    answers: dict[str, list[str]] = defaultdict(list)
    for query, documents in zip(labels.queries, labels.labels, strict=True):
        answers[documents[0][0]].append(query)
    generator = QueryGenerator(
        Recorded(answers),
        max(map(len, answers.values())),  # so that no question is cut off where a passage has more than four
        filters=Filters(**options),
        embedding=table,
        skip_junk=False,
        progress=False,
    )
    return generator.generate(zip(collection.corpus.ids, collection.corpus.texts, strict=True))


def train(collection: Collection, labels: Relevance, table: Table) -> dict[str, Any]:
    """Train on the labels and evaluate on the human test queries."""
    corpus = collection.corpus
    started = time.perf_counter()
    adapter = train_adapter(table(labels.queries), labels, corpus.vectors, corpus.ids, seed=0).adapter
    seconds = time.perf_counter() - started
    result = evaluate(collection.test.vectors, collection.test.relevance, corpus.vectors, corpus.ids, adapter=adapter)
    return {
        "adapter": repr(adapter),
        "seconds": round(seconds, 1),
        "without": {name: round(100 * result["without model"][name], 1) for name in METRICS},
        "with": {name: round(100 * result["with model"][name], 1) for name in METRICS},
    }


def found(generation: Generation, moved: set[str]) -> dict[str, Any]:
    """Return how well the filters found the moved questions."""
    out = [one.text for one in generation.rejected if one.text]
    hits = sum(text in moved for text in out)
    return {
        "moved": len(moved),
        "left out": len(out),
        "precision": round(hits / len(out), 3) if out else None,
        "recall": round(hits / len(moved), 3),
    }


def main() -> None:
    """Measure every setting, with the questions as they are and with moved questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", choices=["minilm", "wordllama"])
    parser.add_argument("--moved", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    collection = load(GENERATED, options.model)
    clean = collection.train.relevance
    vectors = dict(zip(clean.queries, collection.train.vectors, strict=True))
    vectors |= dict(zip(collection.corpus.texts, collection.corpus.vectors, strict=True))
    table = Table(vectors, options.model)

    rows = []
    trained: dict[Relevance, dict[str, Any]] = {}  # settings with the same labels left are trained once
    for noise, (labels, moved) in {"none": (clean, set()), "moved": move(clean, options.moved, options.seed)}.items():
        for name, filters in SETTINGS.items():
            generation = generate(collection, labels, table, filters)
            kept = generation.relevance
            if kept not in trained:
                trained[kept] = train(collection, kept, table)
            left_out = {
                reason: count for reason, count in kept.left_out.items() if reason != "query: empty"
            }  # passages without recorded questions
            row: dict[str, Any] = {"noise": noise, "filters": name, "kept": len(kept), "left_out": left_out, **trained[kept]}
            if moved:
                row["found"] = found(generation, moved)
            rows.append(row)
            scores = "  ".join(f"{metric} {row['with'][metric]:5.1f}" for metric in METRICS)
            note = f"  precision {row['found']['precision']}, recall {row['found']['recall']}" if moved else ""
            print(f"{noise:6} {name:36} {row['kept']:5} kept  {scores}{note}", flush=True)
    path = FOLDER / "generated.json"
    path.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n", encoding="utf-8")
    print(f"without any model: {rows[0]['without']}; written to {path}")


if __name__ == "__main__":
    main()
