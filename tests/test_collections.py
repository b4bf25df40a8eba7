"""On the test collections that ``DEEPMEM_DATA`` names. The test queries are only looked at here, to judge."""

import numpy as np
import pytest

from deepmem_integrations import evaluate, train_adapter
from deepmem_integrations.words import WordIndex


def judge(collection, words=None, **options):
    queries, relevance = collection.split("train")
    result = train_adapter(queries, relevance, collection.corpus, collection.ids, words=words, **options)
    queries, relevance = collection.split("test")
    given = (queries, relevance, collection.corpus, collection.ids)
    return result, evaluate(*given, adapter=result.adapter, top_k=(10,), words=words)


@pytest.mark.slow
def test_scifact_reaches_80(collections):
    result, evaluation = judge(collections("scifact"))
    assert evaluation["without model"]["ndcg@10"] == pytest.approx(0.649, abs=0.002)
    assert evaluation["with model"]["ndcg@10"] >= 0.80
    assert result.report.seen.gains["ndcg@10"].low > 0


@pytest.mark.slow
def test_tatqa_whose_answers_were_never_seen_is_not_harmed(collections):
    result, evaluation = judge(collections("tatqa"))
    for metric in ("ndcg@10", "recall@10"):
        assert evaluation.gains[metric].mean >= -0.005
    assert result.report.unseen is not None


@pytest.mark.slow
@pytest.mark.parametrize("model", ["minilm", "wordllama"])
@pytest.mark.parametrize("name", ["scifact", "nfcorpus", "tatqa", "cranfield", "stackfaq"])
def test_no_collection_is_harmed(collections, name, model):
    _, evaluation = judge(collections(name, model))
    for metric in ("ndcg@10", "recall@10"):
        assert evaluation.gains[metric].high >= -0.005


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scifact", "tatqa", "cranfield", "stackfaq"])
def test_a_retriever_is_not_worse_than_the_vectors_or_the_common_hybrid(collections, name, tmp_path):
    collection = collections(name)
    words = WordIndex.build(tmp_path / "words", [(collection.ids, collection.texts)])
    _, evaluation = judge(collection, words)
    for metric in ("ndcg@10", "recall@10"):
        assert evaluation.gains[metric].high >= -0.005
        assert evaluation.gains_over("hybrid (RRF)")[metric].mean >= -0.005


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scifact", "tatqa"])
def test_words_follow_documents_that_come_after_the_training(collections, name, tmp_path):
    """Sixty labels on the documents of the first half; then the other half comes, and people ask for these documents."""
    collection = collections(name)
    ids, texts, half = collection.ids, collection.texts, len(collection.ids) // 2
    old = set(ids[:half])
    words = WordIndex.build(tmp_path / "words", [(ids[:half], texts[:half])])
    queries, labels = collection.split("train")
    rows = [row for row, pairs in enumerate(labels.labels) if all(document in old for document, _ in pairs)]
    drawn = np.sort(np.random.default_rng(0).permutation(rows)[:60]).tolist()
    adapter = train_adapter(queries[drawn], labels.take(drawn), collection.corpus[:half], ids[:half], words=words).adapter

    assert words.refresh([(ids, texts)]).added == len(ids) - half
    queries, labels = collection.split("test")
    new = [row for row, pairs in enumerate(labels.labels) if not any(document in old for document, _ in pairs)]
    evaluation = evaluate(queries[new], labels.take(new), collection.corpus, ids, adapter=adapter, top_k=(10,), words=words)
    assert len(new) > 100
    assert evaluation.gains["ndcg@10"].mean > 0.02, evaluation.table()
