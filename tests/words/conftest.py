"""What the tests of the word index share: small corpora, and BM25 as the papers write it."""

import json
import math
from collections import Counter

import numpy as np
import pytest

from deepmem_integrations.words import Analysis, WordIndex

DOCUMENTS = {
    "router": "Restart the router and wait until all routers answer.",
    "oracle": "The error ORA-00942 means that a table or view does not exist.",
    "parser": "parse_requests() in foo/http-parser.py raises ValueError on v1.2.3 of the format.",
    "money": "Revenue rose to 10,000 dollars in 2021, and to $12,500 in 2022.",
    "mixed": "Die Fehlermeldung erscheint, weil 东京大学的研究 nicht gefunden wurde.",
    "empty": "",
    "spaces": " \n\t ",
    "stop": "to be or not to be",
}


def batches(documents, size=3):
    items = list(documents.items())
    for start in range(0, len(items), size):
        ids, texts = zip(*items[start : start + size], strict=True)
        yield list(ids), list(texts)


def bm25(documents, query, language="en", k1=1.2, b=0.75):
    """Id → score by the formula of Robertson and Zaragoza (2009) with Lucene's idf, in double precision, without an index."""
    analysis = Analysis(language)
    counts = {name: Counter(analysis.terms(text)) for name, text in documents.items()}
    lengths = {name: count.total() for name, count in counts.items()}
    mean = sum(lengths.values()) / len(documents) if documents else 0
    scores = dict.fromkeys(documents, 0.0)
    for term in analysis.query_terms(query):
        frequency = sum(term in count for count in counts.values())
        idf = math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
        for name, count in counts.items():
            if count[term]:
                scores[name] += idf * count[term] / (count[term] + k1 * (1 - b + b * lengths[name] / mean))
    return scores


def ranking(documents, query, k, language="en"):
    scores = bm25(documents, query, language)
    return sorted((name for name in scores if scores[name] > 0), key=lambda name: (-scores[name], name))[:k]


def check_against_the_formula(index, documents, queries, language="en"):
    """The index gives what the formula gives, for every document."""
    assert len(index) == len(documents)
    for query in queries:
        expected = bm25(documents, query, language)
        found = index.search(query, k=len(documents) + 5)
        assert set(found.ids) == {name for name in expected if expected[name] > 0}
        np.testing.assert_allclose(found.scores, [expected[name] for name in found.ids], rtol=2e-5)
        assert (np.diff(found.scores) <= 0).all()
        names = [*documents, "no such document"]
        np.testing.assert_allclose(index.scores(query, names), [*(expected[name] for name in documents), 0], rtol=2e-5)


@pytest.fixture
def index(tmp_path):
    return WordIndex.build(tmp_path / "words", batches(DOCUMENTS), language="en")


# ---- damage --------------------------------------------------------------------------------------------------------


def manifest(index):
    return json.loads((index.folder / "index.json").read_text())


def segment_file(index):
    return index.folder / manifest(index)["segments"][0]["name"]


def damages():
    def cut(index):
        path = segment_file(index)
        path.write_bytes(path.read_bytes()[:-10])

    def lose(index):
        segment_file(index).unlink()

    def lose_deleted(index):
        index.update(delete=["router"])
        next(index.folder.glob("deleted-*")).unlink()

    def header(index):
        path = segment_file(index)
        path.write_bytes(b"\xff" * path.stat().st_size)

    def offsets(index):
        path = segment_file(index)
        path.write_bytes(path.read_bytes().replace(b'"shape": [8]', b'"shape": [9]'))

    def half(index):
        path = index.folder / "index.json"
        path.write_text(path.read_text()[:100])

    def edited(index):
        path = index.folder / "index.json"
        path.write_text(path.read_text().replace('"language": "en"', '"language": "de"'))

    def other(index):
        (index.folder / "index.json").write_text('{"format": "something else"}')

    def not_a_dict(index):
        (index.folder / "index.json").write_text("[1]")

    return {
        function.__name__: function for function in (cut, lose, lose_deleted, header, offsets, half, edited, other, not_a_dict)
    }


def flip_postings(index):
    """Damage that shows in a search alone."""
    raw = bytearray(segment_file(index).read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    low, high = json.loads(raw[8:start])["documents"]["data_offsets"]
    raw[start + low : start + high] = b"\xff" * (high - low)
    segment_file(index).write_bytes(raw)


def state(index):
    """All that an index holds, but for the names of its files."""
    entries = [(e["sha256"], e["bytes"], e["deleted"] and e["deleted"]["sha256"]) for e in index._state.manifest.segments]
    return {**vars(index._state.manifest), "segments": entries}
