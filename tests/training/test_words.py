from types import SimpleNamespace

import numpy as np
import pytest

from deepmem_integrations import Relevance, train_adapter
from deepmem_integrations.errors import InvalidRelevanceError, InvalidVectorsError
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.training.words import QueryWords
from deepmem_integrations.words import Found, WordIndex


class Named:
    """A search by words that finds the document that a text names, and one that the corpus does not have."""

    name = "by name"

    def search(self, text, k, filter=None):
        return Found([text.split()[-1], "unknown"][:k], np.array([3.0, 1.0], dtype=np.float32)[:k])


def test_words_are_looked_up_once_and_unknown_documents_do_not_count():
    words = QueryWords(Named(), ["about b", "about a"], {"a": 0, "b": 1}, ["a", "b"])
    assert words.found == [{1: 3.0}, {0: 3.0}]
    assert words.unit == 3.0
    np.testing.assert_array_equal(words.scores(0, np.array([0, 1])), [0, 3])
    np.testing.assert_array_equal(words.extended(["b"]).scores(2, np.array([1, 0])), [3, 0])
    assert QueryWords(Named(), ["about c"], {"a": 0}, ["a"]).unit == 1.0


def test_the_unit_is_above_0_whatever_a_search_scores_by():
    for scores in ([0.0, 0.0], [-2.0, -2.0], [float("nan"), float("inf")], []):
        search = SimpleNamespace(search=lambda text, k, found=scores: Found(["a", "b"][: len(found)], np.array(found)))
        assert QueryWords(search, ["one", "two"], {"a": 0, "b": 1}, ["a", "b"]).unit == 1.0


@pytest.fixture(scope="module")
def named():
    """Queries whose vectors are noise around their document's, and which say a word that only their document has."""
    rng = np.random.default_rng(0)
    corpus = rng.normal(size=(120, 16)).astype(np.float32)
    ids = [f"page-{row}" for row in range(120)]
    texts = [f"the page on subject{row} and other things" for row in range(120)]
    asked = rng.permutation(120)
    vectors = corpus[asked] + 1.6 * rng.normal(size=(120, 16)).astype(np.float32)
    labels = Relevance([f"what about subject{row}" for row in asked], [[(ids[row], 1.0)] for row in asked])
    return corpus, ids, texts, vectors, labels


def test_where_words_answer_they_are_weighed(named, tmp_path):
    corpus, ids, texts, vectors, labels = named
    result = train_adapter(vectors[:80], labels.take(range(80)), corpus, ids, corpus_texts=texts)
    ranking = result.adapter.ranking
    assert ranking.words > 0
    assert ranking.search == "WordIndex"
    assert result.report.ranking.seen.gains["ndcg@10"].low > 0
    rows = {row["candidate"]: row for row in result.report.ranking.channels}
    assert set(rows) == {
        "without model",
        "transform alone",
        "words alone",
        "hybrid (RRF)",
        "answers alone",
        "chosen ranking",
    }
    assert rows["chosen ranking"]["seen ndcg@10"] >= rows["words alone"]["seen ndcg@10"] - 1e-6
    assert "a retriever ranks by" in str(result.report)
    ranker = Ranker(result.adapter, words=WordIndex.build(tmp_path / "words", [(ids, texts)]))
    right = 0
    for row in range(80, 120):
        query = ranker.query(labels.queries[row], vectors[row])
        cosines = (corpus / np.linalg.norm(corpus, axis=1, keepdims=True)) @ np.array(query.vector)
        right += query.rank(ids, cosines, query.words(100)).ids[0] == labels.labels[row][0][0]
    assert right >= 36
    again = train_adapter(vectors[:80], labels.take(range(80)), corpus, ids, corpus_texts=texts)
    assert again.adapter.with_metadata(report=None).to_bytes() == result.adapter.with_metadata(report=None).to_bytes()


def test_where_words_mislead_they_are_left_out(named):
    corpus, ids, texts, _, labels = named
    near = corpus[[ids.index(name) for ((name, _),) in labels.labels]] + 0.3
    shifted = texts[1:] + texts[:1]  # the words of each query name another document
    result = train_adapter(near, labels, corpus, ids, corpus_texts=shifted)
    assert result.adapter.ranking is None or result.adapter.ranking.words == 0


def test_a_search_of_the_callers_own_is_weighed_in_its_own_scale(named):
    corpus, ids, _, vectors, labels = named

    class Huge:
        def search(self, text, k, filter=None):
            return Found([f"page-{text.rpartition('subject')[2]}"], np.array([1e6], dtype=np.float32))

    ranking = train_adapter(vectors, labels, corpus, ids, words=Huge()).adapter.ranking
    assert 0 < ranking.words < 1e-4
    assert ranking.search == "Huge"


def test_without_texts_words_are_refused(named):
    corpus, ids, texts, vectors, labels = named
    bare = [list(pairs) for pairs in labels.labels]
    with pytest.raises(InvalidRelevanceError, match="the queries need texts: pass query_texts, or a Relevance"):
        train_adapter(vectors, bare, corpus, ids, corpus_texts=texts)
    with pytest.raises(InvalidRelevanceError, match=r"validation queries need texts: pass \(vectors, Relevance\)"):
        train_adapter(vectors, labels, corpus, ids, corpus_texts=texts, validation=(vectors[:12], bare[:12]))
    with pytest.raises(InvalidVectorsError, match="got 3 texts and 120 ids"):
        train_adapter(vectors, labels, corpus, ids, corpus_texts=texts[:3])
    with pytest.raises(ValueError, match="leave one of them out"):
        train_adapter(vectors, labels, corpus, ids, corpus_texts=texts, words=Named())
    kept = train_adapter(vectors[:20], bare[:20], corpus, ids, corpus_texts=texts, query_texts=list(labels.queries[:20]))
    assert kept.report.queries == 20


def test_texts_that_are_no_list_and_words_that_are_no_search_are_refused(named):
    corpus, ids, texts, vectors, labels = named
    for given in (dict(zip(ids, texts, strict=True)), iter(texts), set(texts), "text"):
        with pytest.raises(TypeError, match="corpus_texts is a list of texts in the order of corpus_ids; got"):
            train_adapter(vectors, labels, corpus, ids, corpus_texts=given)
    for given in (False, "words"):
        with pytest.raises(TypeError, match="words is a search by words, such as a WordIndex; got"):
            train_adapter(vectors, labels, corpus, ids, words=given)
