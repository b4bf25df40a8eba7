"""Measures what a ranking by vectors, words and answers costs a query: ``python -m benchmarks.ranking [--documents N]``.

The documents are the texts of the collections, repeated with changes: a tenth of the words is left out, a twentieth is replaced
by words of other documents, and the vectors move along at random. They lie in a FAISS index of LangChain. The model is trained on
SciFact's training queries, and the queries are SciFact's test queries. Everything runs on one core.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a server runs one query a thread

import faiss
import numpy as np
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from benchmarks.data import COLLECTIONS, GENERATED, load
from benchmarks.results import FOLDER, machine
from deepmem_integrations import QueryAdapter, train_adapter
from deepmem_integrations.langchain import DeepMemoryRetriever
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.words import WordIndex

K, FETCHED = 10, 100


class Lookup(Embeddings):
    """An embedding model that looks up the vectors of queries embedded before, so that embedding costs nothing."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors

    def embed_query(self, text: str) -> list[float]:
        """Look up one vector."""
        return self.vectors[text]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Look up vectors."""
        return [self.vectors[text] for text in texts]


def documents(count: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield ids, texts and (384,) unit vectors: the documents of all collections, and then changed copies of them."""
    rng = np.random.default_rng(0)
    corpora = [load(name, "minilm").corpus for name in COLLECTIONS if name != GENERATED]
    texts = [text for corpus in corpora for text in corpus.texts]
    vectors = np.concatenate([corpus.vectors for corpus in corpora])
    ids = [name for corpus in corpora[:1] for name in corpus.ids]  # SciFact comes first: the model names its documents
    words = [text.split() for text in texts]
    for row in range(count):
        source = row % len(texts)
        if row < len(texts):
            yield (ids[row] if row < len(ids) else f"doc-{row}"), texts[row], vectors[row]
            continue
        other = words[int(rng.integers(len(words)))] or ["word"]
        kept = [word for word, lot in zip(words[source], rng.random(len(words[source])), strict=True) if lot > 0.1]
        for place in np.flatnonzero(rng.random(len(kept)) < 0.05).tolist():
            kept[place] = other[int(rng.integers(len(other)))]
        moved = vectors[source] + 0.5 * rng.normal(size=384) / np.sqrt(384)
        yield f"doc-{row}", " ".join(kept), (moved / np.linalg.norm(moved)).astype(np.float32)


def milliseconds(works: dict[str, Callable[[int], object]], queries: int) -> dict[str, dict[str, float]]:
    """Return the median and the 95% quantile of each work over the queries. The works take turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for query in range(queries):
        for name, work in works.items():
            started = time.perf_counter()
            work(query)
            taken[name].append(1e3 * (time.perf_counter() - started))
    return {name: {"median": float(np.median(times)), "95%": float(np.quantile(times, 0.95))} for name, times in taken.items()}


def resident_mb() -> float:
    """Return the anonymous memory of this process: files that are mapped are shared, and do not count."""
    line = next(line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Anonymous:"))
    return int(line.split()[1]) / 1024


def trained() -> QueryAdapter:
    """Train on SciFact, and see to it that words and answers both count, whatever the training chose."""
    collection = load("scifact", "minilm")
    train, corpus = collection.train, collection.corpus
    result = train_adapter(train.vectors, train.relevance, corpus.vectors, corpus.ids, corpus_texts=corpus.texts)
    ranking = result.adapter.ranking
    assert ranking is not None
    ranking = replace(ranking, words=ranking.words or 0.02, answers=ranking.answers or 0.4)
    adapter = result.adapter
    return QueryAdapter(
        adapter.dimension,
        linear=adapter.linear,
        attention=adapter.attention,
        remembered_queries=adapter.remembered_queries,
        ranking=ranking,
    )


def main() -> None:
    """Measure, print and write ``results/ranking.json``. Sizes in the file stay unless they are measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    count = parser.parse_args().documents
    adapter, test = trained(), load("scifact", "minilm").test
    texts = list(test.relevance.queries)
    vectors = dict(zip(texts, test.vectors.tolist(), strict=True))
    flat, docstore, names = faiss.IndexFlatIP(384), {}, []
    with tempfile.TemporaryDirectory() as folder:

        def batches() -> Iterator[tuple[list[str], list[str]]]:
            batch: list[tuple[str, str, np.ndarray]] = []
            for one in documents(count):
                batch.append(one)
                if len(batch) == 5_000:
                    yield from indexed(batch)
                    batch = []
            yield from indexed(batch)

        def indexed(batch: list[tuple[str, str, np.ndarray]]) -> Iterator[tuple[list[str], list[str]]]:
            if batch:
                flat.add(np.stack([vector for _, _, vector in batch]))
                docstore.update({name: Document(id=name, page_content=text) for name, text, _ in batch})
                names.extend(name for name, _, _ in batch)
                yield [name for name, _, _ in batch], [text for _, text, _ in batch]

        started = time.perf_counter()
        everything = list(batches())
        made = time.perf_counter() - started
        started = time.perf_counter()
        index = WordIndex.build(folder, everything)
        built = time.perf_counter() - started
        del everything
        before = resident_mb()
        started = time.perf_counter()
        index = WordIndex.open(folder)
        opened = 1e3 * (time.perf_counter() - started)

        store = FAISS(
            Lookup(vectors),
            flat,
            InMemoryDocstore(docstore),
            dict(enumerate(names)),
            distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT,
        )
        ranker = Ranker(adapter, words=index)
        ours = DeepMemoryRetriever(vectorstore=store, memory=adapter, words=index, k=K)
        plain = store.as_retriever(search_kwargs={"k": K})
        searches = [ranker.query(text, vectors[text]) for text in texts]
        found = []
        for query in searches:
            hits = store.similarity_search_with_score_by_vector(list(query.vector), k=FETCHED)
            found.append(([hit.id for hit, _ in hits], [score for _, score in hits]))

        def own_part(number: int) -> object:
            query = ranker.query(texts[number], vectors[texts[number]])
            return query.rank(*found[number], query.words(FETCHED)).best(0)

        times = milliseconds(
            {
                "ranking": own_part,
                "of which words": lambda number: searches[number].words(FETCHED),
                "store, 10 nearest": lambda number: store.similarity_search_by_vector(vectors[texts[number]], k=K),
                "store, 100 nearest": lambda number: store.similarity_search_by_vector(vectors[texts[number]], k=FETCHED),
                "retriever of the store": lambda number: plain.invoke(texts[number]),
                "our retriever": lambda number: ours.invoke(texts[number]),
            },
            len(texts),
        )
        size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    row = {
        "documents": count,
        **machine(["faiss-cpu", "langchain-core"]),
        "milliseconds": times,
        "index_mb": size,
        "index_seconds": built,
        "making_documents_seconds": made,
        "open_ms": opened,
        "ranking_memory_mb": resident_mb() - before,
    }
    path = FOLDER / "ranking.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [other for other in rows if other["documents"] != count] + [row]
    path.write_text(json.dumps(sorted(rows, key=lambda other: other["documents"]), indent=1) + "\n")
    for name, value in times.items():
        print(f"{name:<26} {value['median']:7.2f} ms   95%: {value['95%']:7.2f} ms")
    print(f"word index: {size:.0f} MB, built in {built:.0f} s, opened in {opened:.1f} ms")
    print(f"memory of the ranking: {row['ranking_memory_mb']:.0f} MB")


if __name__ == "__main__":
    main()
