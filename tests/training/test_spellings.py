"""Questions that are asked again in other words: they are one question in all that a training and an evaluation say."""

import re
import zlib

import numpy as np
import pytest

from deepmem_integrations import Relevance, evaluate, train_adapter
from deepmem_integrations.demo.documents import api_documents
from deepmem_integrations.demo.run import load_questions

SPELLINGS = ["{}", "please tell me {}", "{} thanks", "could you tell me {}", "hi, {}!"]


def embed(texts, dimension=128):
    """A small bag of words: each word has a random vector of its own, and frequent words count little."""
    vectors = np.zeros((len(texts), dimension))
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.casefold()):
            rng = np.random.default_rng(zlib.crc32(word[:6].encode()))
            vectors[row] += rng.normal(size=dimension) * min(1, len(word) / 8)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def real():
    """The demo's real documents, with 60 of the training questions in five spellings, and the test questions."""
    documents = api_documents()
    train, test = load_questions("train", documents), load_questions("test", documents)
    rows = np.random.default_rng(0).permutation(len(train))[:60].tolist()
    spelled = Relevance(
        [spelling.format(train.queries[row]) for row in rows for spelling in SPELLINGS],
        [train.labels[row] for row in rows for _ in SPELLINGS],
    )
    return embed([document.text for document in documents]), [document.id for document in documents], spelled, test


def overlap(one, other):
    return one.low <= other.high and other.low <= one.high


def test_held_out_scores_promise_what_new_questions_get(real):
    corpus, ids, spelled, test = real
    result = train_adapter(embed(spelled.queries), spelled, corpus, ids)
    assert result.report.queries - result.report.near_duplicates == pytest.approx(60, abs=3)
    assert "different questions; all spellings of one are held out together" in str(result.report)
    assert int(result.report.seen.queries.split()[0]) == result.report.queries - result.report.near_duplicates
    truth = evaluate(embed(test.queries), test, corpus, ids, adapter=result.adapter, top_k=[10])
    for promise in (result.report.seen, result.report.ranking.seen):
        assert overlap(promise.gains["recall@10"], truth.gains["recall@10"])
        assert promise.gains["recall@10"].mean < truth.gains["recall@10"].mean + 0.1


def test_a_split_promises_what_new_questions_get(real):
    corpus, ids, spelled, test = real
    train, held = spelled.split(0.2)
    adapter = train_adapter(embed(train.queries), train, corpus, ids).adapter
    promise = evaluate(embed(held.queries), held, corpus, ids, adapter=adapter, top_k=[10])
    truth = evaluate(embed(test.queries), test, corpus, ids, adapter=adapter, top_k=[10])
    assert promise.questions == pytest.approx(12, abs=1)
    assert overlap(promise.gains["recall@10"], truth.gains["recall@10"])
    assert promise["with model"]["recall@10"] < 0.99, "no test question was a training question in other words"


def test_few_questions_in_many_spellings_are_too_few(real):
    corpus, ids, spelled, _ = real
    few = spelled.take(range(9 * len(SPELLINGS)))
    report = train_adapter(embed(few.queries), few, corpus, ids).report
    assert "9 labelled queries are too few to tell a gain from chance (10 at least; spellings of one question" in report.reason
