"""Which engine for the word index: ``bash benchmarks/run words``.

Four engines count the same terms (the analysis of this package), so only the engines differ: bm25s, tantivy, SQLite's FTS5, and
this package's `WordIndex`. Every step runs in a process of its own. The 100,000 documents are the texts of the collections,
repeated, with a tenth of the terms left out and a twentieth replaced by terms of other documents.
"""

import argparse
import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import _data, _json_lines
from benchmarks.results import FOLDER
from deepmem_integrations import Relevance
from deepmem_integrations.words import Analysis, WordIndex

K1, B = 1.2, 0.75
RANKED = ("scifact", "nfcorpus", "tatqa")
REPEATED = ("scifact", "nfcorpus", "cranfield", "stackfaq", "tatqa")
BEST = 100

Terms = list[str]


class _Bm25s:
    """bm25s: scores are computed when the index is built, so a change means building it again."""

    package = "bm25s"

    def __init__(self, folder: Path) -> None:
        import bm25s

        self.bm25s, self.folder = bm25s, folder

    def build(self, documents: Sequence[Terms]) -> None:
        index = self.bm25s.BM25(method="lucene", k1=K1, b=B)
        index.index([*documents], show_progress=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        index.save(self.folder)

    def open(self) -> None:
        self.index = self.bm25s.BM25.load(self.folder, mmap=True)

    def search(self, query: Terms, k: int) -> list[int]:
        rows, scores = self.index.retrieve([query], k=k, show_progress=False)
        return [int(row) for row, score in zip(rows[0], scores[0], strict=True) if score > 0]

    def scores(self, query: Terms, rows: Sequence[int]) -> Any:
        return self.index.get_scores(query)[list(rows)]

    def change(self, documents: Sequence[Terms], added: dict[int, Terms], deleted: Sequence[int]) -> None:
        gone = set(deleted)
        self.build([terms for row, terms in enumerate(documents) if row not in gone] + list(added.values()))


class _Tantivy:
    """tantivy: segments on disk, additions and deletions by id. It keeps lengths of documents in one byte."""

    package = "tantivy"

    def __init__(self, folder: Path) -> None:
        import tantivy

        self.tantivy, self.folder = tantivy, folder
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
        builder.add_text_field("body", stored=False, tokenizer_name="whitespace", index_option="freq")
        self.schema = builder.build()

    def build(self, documents: Sequence[Terms]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._write(self.tantivy.Index(self.schema, path=str(self.folder)), dict(enumerate(documents)), [])

    def _write(self, index: Any, added: dict[int, Terms], deleted: Sequence[int]) -> None:
        writer = index.writer(heap_size=200_000_000, num_threads=1)
        for row in deleted:
            writer.delete_documents_by_term("id", str(row))
        for row, terms in added.items():
            writer.add_document(self.tantivy.Document(id=str(row), body=" ".join(terms)))
        writer.commit()
        writer.wait_merging_threads()

    def open(self) -> None:
        self.searcher = self.tantivy.Index.open(str(self.folder)).searcher()

    def _any_of(self, query: Terms) -> list[Any]:
        make, occur = self.tantivy.Query, self.tantivy.Occur
        return [(occur.Should, make.term_query(self.schema, "body", term, index_option="freq")) for term in query]

    def _run(self, query: Any, k: int) -> list[tuple[float, int]]:
        hits = self.searcher.search(query, k, count=False).hits
        return [(score, int(self.searcher.doc(address)["id"][0])) for score, address in hits]

    def search(self, query: Terms, k: int) -> list[int]:
        return [row for _, row in self._run(self.tantivy.Query.boolean_query(self._any_of(query)), k)]

    def scores(self, query: Terms, rows: Sequence[int]) -> Any:
        make, occur = self.tantivy.Query, self.tantivy.Occur
        given = make.const_score_query(make.term_set_query(self.schema, "id", [str(row) for row in rows]), 0.0)
        return self._run(make.boolean_query([(occur.Must, given), *self._any_of(query)]), len(rows))

    def change(self, documents: Sequence[Terms], added: dict[int, Terms], deleted: Sequence[int]) -> None:
        self._write(self.tantivy.Index.open(str(self.folder)), added, deleted)


class _Fts5:
    """SQLite's FTS5: one file, transactions. Its k1 and b are fixed at 1.2 and .75, and its idf is cut off at 0."""

    package = "sqlite"

    def __init__(self, folder: Path) -> None:
        self.file = folder / "words.db"
        self.rows = ("INSERT INTO words(rowid, body) VALUES (?, ?)", "DELETE FROM words WHERE rowid = ?")

    @staticmethod
    def _code(terms: Terms) -> list[str]:
        """Terms as its tokenizer leaves them whole."""
        return [term if term.isascii() and term.isalnum() else "zz" + term.encode().hex() for term in terms]

    def build(self, documents: Sequence[Terms]) -> None:
        shutil.rmtree(self.file.parent, ignore_errors=True)
        self.file.parent.mkdir(parents=True)
        with sqlite3.connect(self.file) as base:
            base.execute("CREATE VIRTUAL TABLE words USING fts5(body, detail='column', tokenize='ascii')")
            base.executemany(self.rows[0], ((row, " ".join(self._code(terms))) for row, terms in enumerate(documents)))
            base.execute("INSERT INTO words(words) VALUES ('optimize')")

    def open(self) -> None:
        self.base = sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)
        self.base.execute("PRAGMA mmap_size = 1000000000")

    def _match(self, query: Terms) -> str:
        return " OR ".join(f'"{term}"' for term in self._code(query))

    def search(self, query: Terms, k: int) -> list[int]:
        found = self.base.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?", (self._match(query), k))
        return [row for (row,) in found]

    def scores(self, query: Terms, rows: Sequence[int]) -> Any:
        given = ",".join(map(str, rows))
        asked = f"SELECT rowid, bm25(words) FROM words WHERE words MATCH ? AND rowid IN ({given})"
        return self.base.execute(asked, (self._match(query),)).fetchall()

    def change(self, documents: Sequence[Terms], added: dict[int, Terms], deleted: Sequence[int]) -> None:
        with sqlite3.connect(self.file) as base:
            base.executemany(self.rows[1], ((row,) for row in deleted))
            base.executemany(self.rows[0], ((row, " ".join(self._code(terms))) for row, terms in added.items()))


class _Own:
    """This package's index, given terms in place of texts."""

    package = "deepmem-integrations"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        Analysis.terms = Analysis.query_terms = lambda _, text: text.split()  # type: ignore[method-assign]

    @staticmethod
    def _batches(documents: Iterable[tuple[int, Terms]]) -> Iterable[tuple[list[str], list[str]]]:
        pairs = [(str(row), " ".join(terms)) for row, terms in documents]
        for start in range(0, len(pairs), 1_000):
            ids, texts = zip(*pairs[start : start + 1_000], strict=True)
            yield list(ids), list(texts)

    def build(self, documents: Sequence[Terms]) -> None:
        WordIndex.build(self.folder, self._batches(enumerate(documents)), language="vi")  # a language without a stemmer

    def open(self) -> None:
        self.index = WordIndex.open(self.folder)

    def search(self, query: Terms, k: int) -> list[int]:
        return [int(name) for name in self.index.search(" ".join(query), k).ids]

    def scores(self, query: Terms, rows: Sequence[int]) -> Any:
        return self.index.scores(" ".join(query), [str(row) for row in rows])

    def change(self, documents: Sequence[Terms], added: dict[int, Terms], deleted: Sequence[int]) -> None:
        WordIndex.open(self.folder).update(self._batches(added.items()), [str(row) for row in deleted])


ENGINES: dict[str, Callable[[Path], Any]] = {"bm25s": _Bm25s, "tantivy": _Tantivy, "fts5": _Fts5, "word index": _Own}


def main() -> None:
    """Measure all engines, or, as called by itself, one step of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--step", nargs=3, metavar=("STEP", "ENGINE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, engine, folder = arguments.step
        print(json.dumps(STEPS[step](engine, Path(folder))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), arguments.documents)
        for name in arguments.engines:
            row: dict[str, Any] = {"engine": name, "documents": arguments.documents}
            for step in STEPS:
                command = [sys.executable, "-m", "benchmarks.words", "--step", step, name, folder]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                row |= json.loads(done.stdout.splitlines()[-1])
            print(json.dumps(row))
            rows.append(row)
    path = FOLDER / "words.json"
    kept = json.loads(path.read_text()) if path.exists() else []
    merged = {(row["documents"], row["engine"]): row for row in (*kept, *rows)}
    path.write_text("[\n" + ",\n".join(json.dumps(merged[key]) for key in sorted(merged)) + "\n]\n", encoding="utf-8")


def prepare(folder: Path, size: int) -> None:
    """Write the terms of documents and queries: one text a line, terms between spaces."""
    analysis, rng = Analysis("en"), random.Random(0)
    documents, queries = [], []
    for name in REPEATED:
        source = _data() / "data" / name
        rows = _json_lines(source / "corpus.jsonl")
        terms = [analysis.terms(f"{row['title']} {row['text']}") for row in rows]
        documents += terms
        test = Relevance.from_beir(source, "test")
        asked = [analysis.query_terms(text) for text in test.queries]
        queries += rng.sample(asked, min(len(asked), 60))
        if name in RANKED:
            _write(folder / f"{name}.documents", terms)
            _write(folder / f"{name}.queries", asked)
            places = {row["_id"]: place for place, row in enumerate(rows)}
            labels = [{places[document]: weight for document, weight in answers} for answers in test.labels]
            (folder / f"{name}.labels").write_text(json.dumps(labels))
    words = [term for terms in documents for term in terms]
    repeated = list(documents[:size])
    while len(repeated) < size:
        whole = documents[len(repeated) % len(documents)]
        repeated.append([rng.choice(words) if rng.random() < 0.05 else term for term in whole if rng.random() > 0.1])
    _write(folder / "all.documents", repeated)
    _write(folder / "all.queries", queries)


def build(engine: str, folder: Path) -> dict[str, Any]:
    """Build the index of all documents."""
    documents, index = _read(folder / "all.documents"), ENGINES[engine](folder / engine)
    before = _peak()
    _, seconds = _timed(lambda: index.build(documents))
    size = sum(file.stat().st_size for file in (folder / engine).rglob("*") if file.is_file())
    package = sqlite3.sqlite_version if engine == "fts5" else version(index.package)
    return {"version": package, "build_s": seconds, "build_mb": _peak() - before, "disk_mb": size / 1e6}


def search(engine: str, folder: Path) -> dict[str, Any]:
    """Open the index in a fresh process, and ask all queries."""
    queries, index = _read(folder / "all.queries"), ENGINES[engine](folder / engine)
    before, own = _peak(), _memory("RssAnon")
    _, opened = _timed(index.open)
    _, first = _timed(lambda: index.search(queries[0], BEST))
    searches = [_timed(lambda query=query: index.search(query, BEST))[1] for query in queries]
    memory, private = _peak() - before, _memory("RssAnon") - own
    rows = random.Random(1).sample(range(len(_read(folder / "all.documents"))), BEST)
    scores = [_timed(lambda query=query: index.scores(query, rows))[1] for query in queries]
    return {
        "open_ms": 1e3 * opened,
        "first_ms": 1e3 * first,
        "search_ms": 1e3 * float(np.median(searches)),
        "search_95_ms": 1e3 * float(np.quantile(searches, 0.95)),
        "scores_ms": 1e3 * float(np.median(scores)),
        "serve_mb": memory,
        "private_mb": private,
    }


def change(engine: str, folder: Path) -> dict[str, Any]:
    """Add a hundredth of the documents with other ids, and delete another hundredth."""
    documents, index = _read(folder / "all.documents"), ENGINES[engine](folder / engine)
    rows = random.Random(2).sample(range(len(documents)), len(documents) // 50)
    added = {len(documents) + row: documents[row][::-1] for row in rows[::2]}
    _, seconds = _timed(lambda: index.change(documents, added, rows[1::2]))
    index.open()
    searches = [_timed(lambda query=query: index.search(query, BEST))[1] for query in _read(folder / "all.queries")]
    return {"change_s": seconds, "search_after_ms": 1e3 * float(np.median(searches))}


def rank(engine: str, folder: Path) -> dict[str, Any]:
    """Measure nDCG@10 on the test queries."""
    found = {}
    for name in RANKED:
        index = ENGINES[engine](folder / f"{engine}-{name}")
        index.build(_read(folder / f"{name}.documents"))
        index.open()
        labels = json.loads((folder / f"{name}.labels").read_text())
        gains = [_ndcg(index.search(query, 10), {int(row): weight for row, weight in answers.items()})
                 for query, answers in zip(_read(folder / f"{name}.queries"), labels, strict=True)]  # fmt: skip
        found[name] = 100 * float(np.mean(gains))
    return {"ndcg@10": found}


STEPS = {"build": build, "search": search, "change": change, "rank": rank}


def _ndcg(ranking: Sequence[int], weights: dict[int, float]) -> float:
    def gain(values: Iterable[float]) -> float:
        return sum(value / np.log2(place + 2) for place, value in enumerate(values))

    best = gain(sorted(weights.values(), reverse=True)[:10])
    return gain(weights.get(row, 0.0) for row in ranking[:10]) / best


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    done = work()
    return done, time.perf_counter() - start


def _peak() -> float:
    """The most memory that the process has had, in megabytes. Linux' own count, since getrusage starts with the parent's."""
    return _memory("VmHWM")


def _memory(kind: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{kind}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1e3


def _write(path: Path, texts: Iterable[Terms]) -> None:
    path.write_text("\n".join(re.sub(r"\s+", " ", " ".join(terms)) for terms in texts), encoding="utf-8")


def _read(path: Path) -> list[Terms]:
    return [line.split(" ") for line in path.read_text(encoding="utf-8").split("\n")]


if __name__ == "__main__":
    main()
