"""On the test collections that ``DEEPMEM_DATA`` names. The test queries are only looked at here, to judge."""

import pytest

from deepmem_integrations import evaluate, train_adapter


def judge(collection, **options):
    queries, relevance = collection.split("train")
    result = train_adapter(queries, relevance, collection.corpus, collection.ids, **options)
    queries, relevance = collection.split("test")
    return result, evaluate(queries, relevance, collection.corpus, collection.ids, adapter=result.adapter, top_k=(10,))


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
