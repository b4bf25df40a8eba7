"""Measures trainings on labels that a judge gave: ``bash benchmarks/run judged``.

Two judges stand in for a language model. One is a rule: the share of a query's words, rare ones counting more, that a document
has. The other is a small model that a package brings along, wordllama, by the cosine. Each judges the first documents by vectors,
which are MiniLM's, and by words for all training queries. How far it agrees with the collection's own judgements is measured on
50 of these queries, where documents without a judgement count as irrelevant. A model trained on the judge's labels is compared
with one trained on as many queries with their true labels.
"""

import json
import math
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence

from benchmarks import results
from benchmarks.data import Collection, Queries, _embed, load
from benchmarks.labels import draw, ndcg
from benchmarks.peers import no_adaptation, ours, ours_retriever
from deepmem_integrations import Relevance
from deepmem_integrations._vectors import nearest, unit_rows
from deepmem_integrations.judging import Agreement, RelevanceJudge
from deepmem_integrations.words import WordIndex

JUDGED = ("scifact", "cranfield")
DEPTH = 10
SAMPLE = 50


class SharedWords:
    """Scores a document by the share of the query's words that it has, each weighted by its rarity."""

    __qualname__ = "shared words"

    def __init__(self, texts: Sequence[str]) -> None:
        self._frequency = Counter(word for text in texts for word in _words(text))
        self._count = len(texts)

    def __call__(self, query: str, texts: list[str]) -> list[float]:
        """Return a score from 0 to 1 for each text."""
        rarity = {word: math.log((1 + self._count) / (1 + self._frequency[word])) for word in _words(query)}
        total = sum(rarity.values()) or 1.0
        return [sum(rarity[word] for word in rarity.keys() & _words(text)) / total for text in texts]


class SmallModel:
    """Scores a document by the cosine of its embedding by wordllama with the query's."""

    __qualname__ = "wordllama"

    def __init__(self, texts: Sequence[str]) -> None:
        self._vectors = dict(zip(texts, unit_rows(_embed(list(texts), "wordllama"), "document"), strict=True))

    def __call__(self, query: str, texts: list[str]) -> list[float]:
        """Return the cosine of each text."""
        vector = unit_rows(_embed([query], "wordllama"), "query")[0]
        return [float(self._vectors[text] @ vector) for text in texts]


JUDGES: tuple[tuple[type[SharedWords] | type[SmallModel], tuple[float, ...]], ...] = (
    (SharedWords, (0.5, 0.65, 0.8)),
    (SmallModel, (0.4, 0.55, 0.7)),
)
"""The judges, each with the scores from which a document has the grades 1, 2 and 3."""


def measure(name: str, kind: type[SharedWords] | type[SmallModel], thresholds: tuple[float, ...]) -> results.Row:
    """Judge the training queries of a collection, and train on what comes out."""
    collection = load(name, "minilm")
    train, corpus = collection.train, collection.corpus
    index = WordIndex.build(tempfile.mkdtemp(), [(corpus.ids, corpus.texts)])
    text_of = dict(zip(corpus.ids, corpus.texts, strict=True))
    near = nearest(train.vectors, corpus.vectors, DEPTH).tolist()
    by_vectors = {text: [corpus.ids[row] for row in near[place]] for place, text in enumerate(train.relevance.queries)}
    judge = RelevanceJudge(
        reranker=kind(corpus.texts),
        thresholds=thresholds,
        rankings=[
            lambda query: [(one, text_of[one]) for one in by_vectors[query]],
            lambda query: [(one, text_of[one]) for one in index.search(query, DEPTH).ids],
        ],
        concurrency=1,
        progress=False,
    )
    judged = judge(train.relevance)
    rows = {query_id: row for row, query_id in enumerate(train.relevance.query_ids)}
    kept = [row for row, labels in enumerate(judged.labels) if labels]
    labels = judged.take(kept)
    queries = Queries(labels, train.vectors[[rows[query_id] for query_id in labels.query_ids]])
    true = draw(collection, len(queries), 0)
    agreement = Agreement.of(judged, _sample(collection, judged))
    row: results.Row = {
        "collection": name,
        "judge": kind.__qualname__,
        "thresholds": list(thresholds),
        "queries": len(train),
        "judged": len(queries),
        "labels": sum(map(len, labels.labels)),
        "kappa": agreement.kappa,
        "interval": [agreement.low, agreement.high],
        "pairs": agreement.pairs,
    }
    for side, fit in (("none", no_adaptation), ("transform", ours), ("retriever", ours_retriever)):
        row[side] = ndcg(collection, queries, fit)[0]
        row[f"{side}, true labels"] = ndcg(collection, true, fit)[0]
    print(
        f"{name}, {kind.__qualname__}: {len(queries)} of {len(train)} queries judged, {agreement}; none {row['none']:.1f}; "
        + "; ".join(
            f"{side} {row[side]:.1f}, true labels {row[f'{side}, true labels']:.1f}" for side in ("transform", "retriever")
        ),
        flush=True,
    )
    return row


def _sample(collection: Collection, judged: Relevance) -> Relevance:
    """Return the collection's judgements of what the judge judged, for the first queries."""
    given = collection.train.relevance
    good = {query_id: dict(labels) for query_id, labels in zip(given.query_ids, given.labels, strict=True)}
    first = judged.take(range(min(SAMPLE, len(judged))))
    pairs = zip(first.query_ids, first.relevance, strict=True)
    return Relevance(first.queries, [[(name, good[query_id].get(name, 0.0)) for name, _ in labels] for query_id, labels in pairs])


def _words(text: str) -> set[str]:
    return {word[:6] for word in re.findall(r"\w+", text.casefold())}


def main() -> None:
    """Measure and write ``results/judged.json``."""
    warnings.simplefilter("ignore")
    rows = [measure(name, kind, thresholds) for kind, thresholds in JUDGES for name in JUDGED]
    measured = {"model": "minilm", "depth": DEPTH, "rows": rows} | results.machine([])
    (results.FOLDER / "judged.json").write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
