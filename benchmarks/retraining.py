"""Measures when a new model replaces the one in use, and labels that go along with documents: ``bash benchmarks/run retraining``.

- *rule* draws paired differences between two models on 20 to 400 held-out questions, and counts how often each of three rules
  puts the new model in use, by how much better or worse it truly is.
- *chunks* cuts the documents of a collection into chunks of 300, 600 and 1,200 characters. The label of a query is the chunk of
  its document that is nearest to it. Labels of each size are carried over to each other size, and models trained on them are
  measured on test queries by the documents that the found chunks come from.
- *level* cuts documents in the same way, and labels the documents (``Relevance(…, level=…)``), which hand-made labels of chunks
  are compared with.
"""

import argparse
import itertools
import tempfile
from typing import NamedTuple

import numpy as np

from benchmarks.data import Collection, _embed, load
from deepmem_integrations import QueryAdapter, Relevance, train_adapter
from deepmem_integrations._vectors import Vectors, nearest, unit_rows
from deepmem_integrations.evaluation import WITH, WITHOUT, bootstrap_mean, evaluate, score_rankings
from deepmem_integrations.retraining.contest import MARGIN, MEAN, METRICS, _verdict
from deepmem_integrations.words import WordIndex

DRAWS = 200
CHANGED, SIZE = 0.3, 0.25
"""The share of the questions whose score differs between two models, and the standard deviation of such a difference."""


def differences(truth: float, questions: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the differences of both metrics and their mean for each question, (questions, 3), whose true mean is ``truth``."""
    changed = rng.random(questions) < CHANGED
    shared = SIZE * rng.normal(size=(questions, 1))
    own = 0.4 * SIZE * rng.normal(size=(questions, 2))
    both = changed[:, None] * (shared + own + truth / CHANGED)
    return np.column_stack([both, both.mean(axis=1)])


def rule() -> None:
    """Print how often each rule puts a new model in use."""
    print(f"{'questions':>9}{'truly':>8}{'better on average':>20}{'beyond chance':>16}{f'ours ({100 * MARGIN:g} point)':>17}")
    for questions in (20, 50, 100, 200, 400):
        for truth in (-0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05):
            rng = np.random.default_rng(0)
            taken = np.zeros(3)
            for _ in range(DRAWS):
                drawn = bootstrap_mean(differences(truth, questions, rng), resamples=500)
                gains = dict(zip((*METRICS, MEAN), drawn, strict=True))
                taken += (gains[MEAN].mean > 0, gains[MEAN].low > 0, _verdict(gains)[0])
            shares = "".join(f"{100 * share / DRAWS:>{width}.0f}%" for share, width in zip(taken, (19, 15, 16), strict=True))
            print(f"{questions:>9}{100 * truth:>+8.0f}{shares}")


SIZES = (300, 600, 1200)


class Chunks(NamedTuple):
    """The chunks of a collection: id → text, their vectors, and the row of the document that each comes from."""

    texts: dict[str, str]
    vectors: Vectors
    documents: np.ndarray


def cut(collection: Collection, size: int) -> Chunks:
    """Cut the documents into chunks of at most so many characters, between words."""
    texts, documents = {}, []
    for row, (name, text) in enumerate(zip(collection.corpus.ids, collection.corpus.texts, strict=True)):
        words, chunk = text.split(), ""
        for word in [*words, None]:
            if chunk and (word is None or len(chunk) + 1 + len(word) > size):
                texts[f"{name}#{size}#{len(documents)}"] = chunk
                documents.append(row)
                chunk = ""
            chunk = f"{chunk} {word}".strip() if word is not None else chunk
    return Chunks(texts, unit_rows(_embed(list(texts.values()), "wordllama"), "chunk"), np.array(documents))


def labels_of(collection: Collection, chunks: Chunks) -> Relevance:
    """Label each training query with the chunk of each of its documents that is nearest to it."""
    rows_of: dict[int, list[int]] = {}
    for row, document in enumerate(chunks.documents.tolist()):
        rows_of.setdefault(document, []).append(row)
    names, row_of = list(chunks.texts), {name: row for row, name in enumerate(collection.corpus.ids)}
    relevance = collection.train.relevance

    def nearest_of(document: str, vector: Vectors) -> str:
        rows = rows_of[row_of[document]]
        return names[rows[int((chunks.vectors[rows] @ vector).argmax())]]

    labels = [
        [(nearest_of(name, vector), weight) for name, weight in judged]
        for vector, judged in zip(collection.train.vectors, relevance.labels, strict=True)
    ]
    return Relevance(relevance.queries, labels, relevance.query_ids)


def found(collection: Collection, chunks: Chunks, adapter: QueryAdapter | None) -> dict[str, float]:
    """Measure recall@10 and nDCG@10 of the documents whose chunks are found for the test queries, in points."""
    queries = collection.test.vectors if adapter is None else adapter.transform(collection.test.vectors)
    rankings = np.full((len(queries), 10), -1, dtype=np.int64)
    for query, rows in enumerate(nearest(queries, chunks.vectors, 100)):
        documents = list(dict.fromkeys(chunks.documents[rows].tolist()))[:10]
        rankings[query, : len(documents)] = documents
    scores = score_rankings(rankings, collection.corpus.rows(collection.test.relevance), [10])
    return {metric: 100 * float(np.nanmean(values)) for metric, values in scores.items()}


def chunks() -> None:
    """Print what is carried over from each size to each other size, and what a model trained on it gains."""
    for name in ("cranfield",):
        collection = load(name, "wordllama")
        of_size = {size: cut(collection, size) for size in SIZES}
        own = {size: labels_of(collection, part) for size, part in of_size.items()}
        print(f"{name}, WordLlama; {len(collection.train)} training queries, {len(collection.test)} test queries")
        print(f"{'labels':>7}{'index':>7}{'chunks':>8}{'lost':>7}{'a label →':>11}{'recall@10':>18}{'nDCG@10':>18}")
        for before, after in itertools.product(SIZES, SIZES):
            part = of_size[after]
            labels, carried = own[before].carry_over(of_size[before].texts, part.texts)
            if before == after:
                labels = own[after]
            base = found(collection, part, None)
            vectors = collection.train.vectors[np.isin(own[before].query_ids, labels.query_ids)]
            result = train_adapter(vectors, labels, part.vectors, list(part.texts))
            score = found(collection, part, result.adapter)
            targets = np.mean([len(new) for new in carried.documents.values() if new])
            columns = "".join(f"{base[m]:>10.1f} → {score[m]:.1f}" for m in ("recall@10", "ndcg@10"))
            lost = 100 * carried.lost / carried.judgements
            print(f"{before:>7}{after:>7}{len(part.texts):>8}{lost:>6.1f}%{targets:>11.2f}{columns}", flush=True)


def level() -> None:
    """Print what labels of documents teach where the index holds chunks, beside labels that a person would map to chunks."""
    print(f"{'collection':<12}{'index':>7}{'chunks':>8}{'labels':>18}{'recall@10':>18}{'nDCG@10':>18}  chosen for retrievers")
    for name, size in itertools.product(("cranfield", "scifact"), SIZES):
        collection = load(name, "wordllama")
        part = cut(collection, size)
        ids = list(part.texts)
        parent_of = {chunk: collection.corpus.ids[row] for chunk, row in zip(ids, part.documents.tolist(), strict=True)}

        def of_documents(relevance: Relevance) -> Relevance:
            return Relevance(relevance.queries, relevance.relevance, relevance.query_ids, level="document")

        test = (collection.test.vectors, of_documents(collection.test.relevance), part.vectors, ids)
        train, told = of_documents(collection.train.relevance), {"corpus_parents": parent_of}
        texts = list(part.texts.values())
        with tempfile.TemporaryDirectory() as folder:
            words = WordIndex.build(folder, [(ids, texts)])
            results = {
                "of chunks": train_adapter(collection.train.vectors, labels_of(collection, part), part.vectors, ids, words=words),
                "of documents": train_adapter(collection.train.vectors, train, part.vectors, ids, words=words, **told),
            }
            for labels, result in results.items():
                scores = evaluate(*test, adapter=result.adapter, words=words, top_k=[10], **told)
                columns = "".join(
                    f"{100 * scores[WITHOUT][m]:>10.1f} → {100 * scores[WITH][m]:.1f}" for m in ("recall@10", "ndcg@10")
                )
                chosen = result.report.ranking.chosen if result.report.ranking else ""
                print(f"{name:<12}{size:>7}{len(ids):>8}{labels:>18}{columns}  {chosen}", flush=True)


PARTS = {"rule": rule, "chunks": chunks, "level": level}


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for part in parser.parse_args().parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
