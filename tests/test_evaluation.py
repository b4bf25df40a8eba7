import json

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmem_integrations import QueryAdapter, Relevance, evaluate
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidRelevanceError, InvalidVectorsError
from deepmem_integrations.evaluation import Interval, bootstrap_mean, score_rankings
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.words import WordIndex
from tests.adapter.helpers import remembering

CUTOFFS = (1, 3, 10, 50)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_scores_equal_trec_eval(seed):
    rng = np.random.default_rng(seed)
    n, documents = 8, 40
    rankings = np.stack([rng.permutation(documents) for _ in range(n)])
    labels = [
        {int(row): float(rng.integers(1, 4)) for row in rng.choice(documents, size=rng.integers(1, 12), replace=False)}
        for _ in range(n)
    ]
    ours = score_rankings(rankings, LabelRows.of_rows(labels), CUTOFFS)

    qrels = {f"q{i}": {f"d{row}": int(weight) for row, weight in query.items()} for i, query in enumerate(labels)}
    run = {f"q{i}": {f"d{row}": float(-rank) for rank, row in enumerate(ranking)} for i, ranking in enumerate(rankings)}
    cut = ",".join(map(str, CUTOFFS))
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {f"recall.{cut}", f"ndcg_cut.{cut}", "recip_rank"}).evaluate(run)
    for k in CUTOFFS:
        for name, trec in ((f"recall@{k}", f"recall_{k}"), (f"ndcg@{k}", f"ndcg_cut_{k}")):
            np.testing.assert_allclose(ours[name], [theirs[f"q{i}"][trec] for i in range(n)], atol=1e-6)
    np.testing.assert_allclose(ours["mrr@50"], [theirs[f"q{i}"]["recip_rank"] for i in range(n)], atol=1e-6)


def test_with_and_without_on_a_hand_made_case():
    corpus = np.eye(3, dtype=np.float32)
    queries = np.array([[1, 0.1, 0], [0.2, 1, 0.1]], dtype=np.float32)
    relevance = Relevance(["p", "q"], [[("b", 1.0)], [("b", 1.0), ("c", 1.0)]])
    turn = np.array([[0, 5, 0], [0, 0, 0], [0, 0, 0]], dtype=np.float32)
    result = evaluate(queries, relevance, corpus, ["a", "b", "c"], adapter=QueryAdapter(3, linear=turn), top_k=(1, 2, 500))
    assert result["without model"]["recall@1"] == pytest.approx((0 + 0.5) / 2)
    assert result["with model"]["recall@1"] == pytest.approx((1 + 0.5) / 2)
    assert result["with model"]["recall@500"] == 1.0, "k above the number of documents"
    assert result.gains["recall@1"].mean == pytest.approx(0.5)
    assert "recall@1         25.0     75.0   +50.0" in result.table()
    assert result.to_json()["gain"]["recall@1"]["mean"] == pytest.approx(0.5)


def test_without_an_adapter_nothing_differs(problem):
    result = evaluate(problem.test_queries, problem.test, problem.corpus, problem.ids, top_k=(10,))
    assert result["with model"] == result["without model"]
    assert result.gains["recall@10"] == Interval(0.0, 0.0, 0.0)


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        interval = bootstrap_mean(rng.normal(0.3, 1.0, size=(80, 1)), resamples=500, seed=seed)[0]
        inside += interval.low <= 0.3 <= interval.high
    assert 180 <= inside <= 198, "a 95% interval"


def test_corpus_in_batches_equals_an_array(problem):
    batches = ((problem.ids[i : i + 70], problem.corpus[i : i + 70]) for i in range(0, 300, 70))
    batches = [([], np.empty((0, 32))), *batches]
    whole = evaluate(problem.test_queries, problem.test, problem.corpus, problem.ids)
    assert evaluate(problem.test_queries, problem.test, batches) == whole


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"relevance": [[("a", 1.0)]]}, InvalidRelevanceError, "2 query vectors for 1"),
        ({"relevance": [[("a", 1.0)], [("z", 1.0)]]}, InvalidRelevanceError, "Row 1 .*'z' is not in the corpus"),
        ({"query_vectors": np.zeros((0, 3)), "relevance": []}, InvalidRelevanceError, "no labelled query"),
        ({"query_vectors": np.ones((2, 4))}, EmbeddingMismatchError, "4 dimensions where 3"),
        ({"query_vectors": [[1, 2, 3], [0, 0, 0]]}, InvalidVectorsError, "Query vector 1 is all zeros"),
        ({"query_vectors": [[1, 2, 3], [0, float("nan"), 0]]}, InvalidVectorsError, "Query vector 1 holds NaN"),
        ({"query_vectors": [["x"]]}, InvalidVectorsError, "not a matrix of numbers"),
        ({"query_vectors": [1, 2, 3]}, InvalidVectorsError, "need the shape"),
        ({"corpus_vectors": np.zeros((0, 3)), "corpus_ids": []}, InvalidVectorsError, "corpus is empty"),
        ({"corpus_ids": ["a", "b", "a"]}, InvalidVectorsError, "'a' appears twice"),
        ({"corpus_ids": ["a", "b"]}, InvalidVectorsError, "2 ids for 3"),
        ({"corpus_ids": ["a", "b", 3]}, InvalidVectorsError, "row 2 has 3"),
        ({"corpus_ids": None}, InvalidVectorsError, "Pass corpus_ids"),
        ({"corpus_ids": None, "corpus_vectors": [[1, 0, 0]]}, InvalidVectorsError, "Pass corpus_ids"),
        (
            {"corpus_ids": None, "corpus_vectors": [(["a"], np.eye(3)), (["b", "c"], np.eye(1, 3))]},
            InvalidVectorsError,
            "1 ids for 3",
        ),
        ({"corpus_vectors": iter([])}, InvalidVectorsError, "corpus_ids go with an array"),
        ({"top_k": 10}, ValueError, "top_k"),
        ({"top_k": ()}, ValueError, "top_k"),
        ({"top_k": (0,)}, ValueError, "top_k"),
        ({"adapter": QueryAdapter(4, linear=np.eye(4, dtype=np.float32))}, EmbeddingMismatchError, "3 dimensions where 4"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = {
        "query_vectors": np.eye(3)[:2],
        "relevance": [[("a", 1.0)], [("b", 1.0)]],
        "corpus_vectors": np.eye(3),
        "corpus_ids": ["a", "b", "c"],
        **change,
    }
    with pytest.raises(error, match=message):
        evaluate(**arguments)


def test_an_identity_fits_vectors_of_any_dimension():
    labels = [[("a", 1.0)], [("b", 1.0)]]
    with_identity = evaluate(np.eye(3)[:2], labels, np.eye(3), ["a", "b", "c"], adapter=QueryAdapter(4))
    assert with_identity == evaluate(np.eye(3)[:2], labels, np.eye(3), ["a", "b", "c"])


# ---- words and answers ------------------------------------------------------------------------------------------------


@pytest.fixture
def pages(tmp_path):
    """Four pages whose vectors are alike, and queries that name a page by a word."""
    ids, texts = ["a", "b", "c", "d"], ["about apples", "about bananas", "about cherries", "about dates"]
    corpus = np.eye(4, dtype=np.float32) + 1
    queries = np.array([[1, 1, 1, 1.01], [1.01, 1, 1, 1]], dtype=np.float32)
    labels = Relevance(["a banana?", "a cherry? cherries!"], [[("b", 1.0)], [("c", 1.0)]])
    return queries, labels, corpus, ids, WordIndex.build(tmp_path / "words", [(ids, texts)], language="en")


def test_a_model_that_ranks_by_words_is_judged_beside_its_parts(pages):
    *given, index = pages
    adapter = QueryAdapter(4, ranking=Ranking(words=1.0))
    result = evaluate(*given, adapter=adapter, top_k=(1, 10), words=index)
    assert list(result) == ["without model", "transform alone", "words alone", "hybrid (RRF)", "with model"]
    assert [result[side]["recall@1"] for side in result] == [0, 0, 1, pytest.approx(0.5, abs=0.5), 1]
    assert result["transform alone"] == result["without model"]
    assert result.found["with model"][0][0] == "b"
    assert result.found["words alone"][0] == ["b", "d", "a", "c"], "documents without the word keep the order of the vectors"
    heading, _, first, *_ = result.table().splitlines()
    assert heading.split()[:6] == ["metric", "without", "words", "RRF", "transform", "with"]
    assert heading.endswith("gain over RRF")
    assert first.startswith("recall@1 ")
    assert result.to_json()["gain over hybrid"]["recall@1"]["mean"] == result.gains_over("hybrid (RRF)")["recall@1"].mean


def test_an_index_older_than_the_documents_is_told_once(pages, caplog):
    queries, labels, corpus, ids, index = pages
    new = np.concatenate([corpus, corpus.mean(axis=0, keepdims=True)])
    evaluate(queries, labels, new, [*ids, "new page"], adapter=QueryAdapter(4, ranking=Ranking(words=1.0)), words=index)
    assert caplog.text.count("is older than the store: it lacks the document 'new page'") == 1


def test_answers_are_judged_without_words(problem):
    answered = [name for ((name, _),) in problem.train.labels]
    adapter = remembering(problem.train_queries, answered, ranking=Ranking(answers=0.8))
    judged = evaluate(problem.test_queries, problem.test, problem.corpus, problem.ids, adapter=adapter)
    assert "words alone" not in judged
    assert judged["with model"]["recall@1"] > judged["without model"]["recall@1"] + 0.1
    assert judged["transform alone"] == judged["without model"]
    assert "transform" in judged.table().splitlines()[0]


def test_words_need_texts(pages):
    queries, labels, *corpus, index = pages
    with pytest.raises(InvalidRelevanceError, match="the queries need texts: pass a Relevance"):
        evaluate(queries, [list(pairs) for pairs in labels.labels], *corpus, words=index)


# ---- judged irrelevant -----------------------------------------------------------------------------------------------


def test_what_was_judged_is_counted_and_a_query_without_an_answer_is_left_out():
    corpus, ids = np.eye(4), ["a", "b", "c", "d"]
    relevance = Relevance(["p", "q"], [[("b", 1.0), ("a", -1.0), ("d", 0)], [("a", -1.0)]])
    queries = [[1.0, 0.9, 0.8, 0.0], [1.0, 0.9, 0.0, 0.0]]
    result = evaluate(queries, relevance, corpus, ids, top_k=[1, 2, 4])
    scores = result.per_query["without model"]
    assert scores["judged@2"].tolist() == [1.0, 0.5]
    assert scores["irrelevant@2"].tolist() == [0.5, 0.5]
    assert scores["irrelevant@4"].tolist() == [0.5, 0.25]
    assert scores["recall@2"].tolist()[0] == 1.0
    assert np.isnan(scores["recall@2"][1])
    side = result["without model"]
    assert (side["recall@1"], side["recall@2"], side["mrr@2"], side["judged@2"]) == (0.0, 1.0, 0.5, 0.75)
    assert result.gains["recall@2"] == Interval(0, 0, 0)
    assert result.unscored == 1
    assert result.to_json()["unscored"] == 1
    assert "irrelevant@4" in result.table()
    assert "1 queries are left out of recall, nDCG and MRR: their documents were judged irrelevant" in result.table()


def test_without_such_judgements_nothing_is_added():
    result = evaluate([[1.0, 0.0]], [[("a", 1.0)]], np.eye(2), ["a", "b"], top_k=[1])
    assert list(result["without model"]) == ["recall@1", "ndcg@1", "mrr@1"]
    assert "judged" not in result.table()
    with pytest.raises(InvalidRelevanceError, match="All judged documents are irrelevant"):
        evaluate([[1.0, 0.0]], [[("a", -1.0)]], np.eye(2), ["a", "b"])


# ---- spellings of a question -----------------------------------------------------------------------------------------


def test_the_interval_of_spellings_is_that_of_their_questions():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 2))
    alone = bootstrap_mean(values)
    spelled = np.repeat(values, 5, axis=0)
    together = bootstrap_mean(spelled, groups=np.repeat(np.arange(60), 5))
    for one, other in zip(alone, together, strict=True):
        assert (one.low, one.mean, one.high) == pytest.approx((other.low, other.mean, other.high))
    rows = bootstrap_mean(spelled)
    assert rows[0].high - rows[0].low < 0.6 * (alone[0].high - alone[0].low), "rows alone pass for five times the evidence"


def test_nan_is_left_out_of_means_and_intervals():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 1))
    gaps = np.concatenate([values, np.full((40, 1), np.nan)])
    (one,), (other,) = bootstrap_mean(values), bootstrap_mean(gaps)
    assert other.mean == pytest.approx(one.mean)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.05)


def test_an_evaluation_draws_questions(problem):
    texts = [f"{word} {query}" for query in problem.test.queries[:60] for word in ("where is", "please, where is")]
    labels = [labels for labels in problem.test.labels[:60] for _ in range(2)]
    vectors = np.repeat(problem.test_queries[:60], 2, axis=0)
    result = evaluate(vectors, Relevance(texts, labels), problem.corpus, problem.ids, top_k=[10])
    assert result.questions == 60
    assert "120 queries, 60 different questions" in result.table()


@pytest.mark.parametrize("top_k", [np.array([1, 2]), [np.int64(1), np.int32(2)], iter([1, 2]), range(1, 3)])
def test_cut_offs_come_in_any_form(top_k):
    result = evaluate([[1.0, 0.1]], [[("b", 1.0)]], [[1.0, 0.0], [0.0, 1.0]], iter(["a", "b"]), top_k=top_k)
    assert result["with model"]["recall@1"] == 0.0
    assert result.top_k == (1, 2)
    json.dumps(result.to_json())


def test_one_question_says_nothing_of_others():
    turned = QueryAdapter(2, linear=np.array([[-1.0, 1.0], [1.0, -1.0]], dtype=np.float32))
    one = evaluate([[1.0, 0.1]], Relevance(["q"], [{"b": 1.0}]), np.eye(2), ["a", "b"], adapter=turned, top_k=[1])
    assert str(one.gains["recall@1"]) == "+100.0 [-100.0, +100.0]"
    assert "+100.0 [-100.0, +100.0] *" not in one.table()
    assert "Fewer than 30 different questions say little" in one.table()


def test_what_is_no_adapter_is_named(problem):
    for other in ("support.safetensors", object()):
        with pytest.raises(TypeError, match=r"adapter is a QueryAdapter \(of a TrainingResult: result.adapter\)"):
            evaluate(problem.test_queries, problem.test, problem.corpus, problem.ids, adapter=other)
