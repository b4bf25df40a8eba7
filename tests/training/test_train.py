import threading

import numpy as np
import pytest
import torch

from deepmem_integrations import Relevance, evaluate, train_adapter
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidRelevanceError, InvalidVectorsError


def test_training_helps_on_queries_that_took_no_part(problem, trained):
    result = evaluate(problem.test_queries, problem.test, problem.corpus, problem.ids, adapter=trained.adapter, top_k=(1, 10))
    assert result.gains["ndcg@10"].low > 0.05
    assert result.gains["recall@10"].low > 0.02


def test_a_seed_fixes_the_result(problem, trained):
    again = train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids)
    assert again.report.chosen == trained.report.chosen
    np.testing.assert_array_equal(again.adapter.transform(problem.test_queries), trained.adapter.transform(problem.test_queries))


def test_global_random_state_and_thread_count_are_left_alone(problem):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the legacy global state is what must not change
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    threads = torch.get_num_threads()
    train_adapter(problem.train_queries[:30], problem.train.take(range(30)), problem.corpus, problem.ids)
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002
    assert torch.get_num_threads() == threads


def test_the_order_of_the_rows_does_not_matter(problem, trained):
    order = np.random.default_rng(1).permutation(len(problem.train))
    shuffled = train_adapter(problem.train_queries[order], problem.train.take(order), problem.corpus, problem.ids)
    assert shuffled.report.chosen == trained.report.chosen
    np.testing.assert_array_equal(
        shuffled.adapter.transform(problem.test_queries), trained.adapter.transform(problem.test_queries)
    )


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_labels_give_the_identity(problem, seed):
    order = np.random.default_rng(seed).permutation(len(problem.train))
    shuffled = [problem.train.relevance[row] for row in order]
    result = train_adapter(problem.train_queries, shuffled, problem.corpus, problem.ids, seed=seed)
    assert result.adapter.is_identity
    assert result.report.chosen == "identity"
    assert "chance" in result.report.reason or "better than the identity" in result.report.reason
    assert abs(result.report.agreement) < 3


@pytest.mark.parametrize("count", [1, 2, 9])
def test_too_few_queries_give_the_identity(problem, count):
    result = train_adapter(problem.train_queries[:count], problem.train.take(range(count)), problem.corpus, problem.ids)
    assert result.adapter.is_identity
    queries = "query is" if count == 1 else "queries are"
    assert f"{count} labelled {queries} too few" in result.report.reason
    assert result.report.seen is None
    x = problem.test_queries
    np.testing.assert_allclose(result.adapter.transform(x), x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-6)


def test_one_document_gives_the_identity():
    result = train_adapter(np.random.default_rng(0).normal(size=(20, 4)), [[("a", 1.0)]] * 20, np.ones((1, 4)), ["a"])
    assert result.adapter.is_identity
    assert "nothing to rank" in result.report.reason


@pytest.mark.parametrize("weight", [1e300, 1e-300, 5, 10**300])
def test_weights_of_any_size_count_by_their_ratio(problem, trained, weight):
    labels = [[(document, weight)] for [(document, _)] in problem.train.labels]
    same = train_adapter(problem.train_queries, labels, problem.corpus, problem.ids)
    np.testing.assert_array_equal(same.adapter.transform(problem.test_queries), trained.adapter.transform(problem.test_queries))


def test_a_document_that_answers_every_query_does_not_blind_the_guard(problem):
    hub = [[*labels, ("doc-299", 0.2)] for labels in problem.train.relevance]
    report = train_adapter(problem.train_queries, hub, problem.corpus, problem.ids).report
    assert report.unseen.base["ndcg@10"] > 0
    moved = [row["unseen ndcg@10"] for row in report.candidates]
    assert len(set(moved)) > 10, "the unseen view tells candidates apart"


def test_where_all_ask_for_the_same_the_harm_to_others_cannot_be_known():
    rng = np.random.default_rng(0)
    result = train_adapter(
        rng.normal(size=(40, 8)), [[("a", 1.0)]] * 40, rng.normal(size=(30, 8)), [*"abcdefghij", *map(str, range(20))]
    )
    assert result.adapter.is_identity
    assert "cannot be measured" in result.report.reason


def test_trainings_at_once_leave_the_thread_count_as_it_was(problem):
    before = torch.get_num_threads()

    def train():
        train_adapter(problem.train_queries[:40], problem.train.take(range(40)), problem.corpus, problem.ids)

    threads = [threading.Thread(target=train) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.get_num_threads() == before


def test_small_and_odd_shapes_train():
    # Fewer documents than 10, all queries asking for the same one, more dimensions than documents.
    rng = np.random.default_rng(0)
    result = train_adapter(rng.normal(size=(12, 50)), [[("a", 1.0)]] * 12, rng.normal(size=(3, 50)), ["a", "b", "c"])
    assert result.report.queries == 12
    same = train_adapter(rng.normal(size=(12, 4)), [[("a", 1.0)]] * 12, np.ones((5, 4)), list("abcde"))
    assert np.isfinite(same.adapter.transform(rng.normal(size=(3, 4)))).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"relevance": [[("a", 1.0)]]}, InvalidRelevanceError, "2 query vectors for 1"),
        ({"relevance": [[("a", 1.0)], []]}, InvalidRelevanceError, "Row 1 .*no relevant document"),
        ({"relevance": [[("a", 1.0)], [("q", 1.0)]]}, InvalidRelevanceError, "'q' is not in the corpus"),
        ({"relevance": [], "query_vectors": np.ones((0, 3))}, InvalidRelevanceError, "no labelled query"),
        ({"query_vectors": [[1, 0, 0], [0, 0, 0]]}, InvalidVectorsError, "Query vector 1 is all zeros"),
        ({"query_vectors": [[1, 0, 0], [0, np.nan, 0]]}, InvalidVectorsError, "Query vector 1 holds NaN"),
        ({"query_vectors": np.ones((2, 5))}, EmbeddingMismatchError, "5 dimensions, those of the corpus 3"),
        (
            {"corpus_vectors": np.array([[1, 0, 0], [0, np.inf, 0]])},
            InvalidVectorsError,
            r"Corpus vector 1 \(id 'b'\) holds NaN or inf",
        ),
        ({"corpus_vectors": np.array([[1, 0, 0], [0, 0, 0]])}, InvalidVectorsError, r"Corpus vector 1 \(id 'b'\) is all zeros"),
        ({"corpus_vectors": np.ones((0, 3)), "corpus_ids": []}, InvalidVectorsError, "corpus is empty"),
        ({"corpus_vectors": iter([]), "corpus_ids": None}, InvalidVectorsError, "corpus is empty"),
        ({"max_unseen_loss": -1}, ValueError, "max_unseen_loss"),
        ({"max_unseen_loss": float("nan")}, ValueError, "max_unseen_loss"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = {
        "query_vectors": np.eye(3)[:2],
        "relevance": [[("a", 1.0)], [("b", 1.0)]],
        "corpus_vectors": np.eye(3)[:2],
        "corpus_ids": ["a", "b"],
        **change,
    }
    with pytest.raises(error, match=message):
        train_adapter(**arguments)


def test_progress_ends_at_the_total(problem):
    steps = []
    train_adapter(
        problem.train_queries[:40],
        problem.train.take(range(40)),
        problem.corpus,
        problem.ids,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1]
    assert steps == sorted(steps)


def test_validation_queries_choose_in_place_of_held_out_ones(problem):
    half = len(problem.test_queries) // 2
    own = problem.test.take(range(half))
    result = train_adapter(
        problem.train_queries, problem.train, problem.corpus, problem.ids, validation=(problem.test_queries[:half], own)
    )
    assert result.report.seen.queries == f"{half} validation queries"
    assert "held-out" in result.report.unseen.queries
    assert "best on validation queries" in result.report.reason
    by_hand = evaluate(problem.test_queries[:half], own, problem.corpus, problem.ids, adapter=result.adapter, top_k=(10,))
    assert result.report.seen.chosen["ndcg@10"] == pytest.approx(by_hand["with model"]["ndcg@10"], abs=1e-5)
    assert result.report.seen.gains["recall@10"].mean == pytest.approx(by_hand.gains["recall@10"].mean, abs=1e-5)


def test_validation_queries_that_train_too_do_not_count(problem):
    both = np.concatenate([problem.train_queries[:5], problem.test_queries])
    labels = [*problem.train.relevance[:5], *problem.test.relevance]
    report = train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, validation=(both, labels)).report
    assert report.validation_left_out == 5
    assert report.seen.queries == f"{len(problem.test)} validation queries"
    with pytest.raises(InvalidRelevanceError, match="Every validation query is a training query"):
        train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, validation=(both[:5], labels[:5]))


def test_generated_labels_are_used_boldly_unless_a_limit_is_given(problem):
    written = Relevance(problem.train.queries, problem.train.relevance, generated=True)
    bold = train_adapter(problem.train_queries, written, problem.corpus, problem.ids).report
    assert (bold.generated, bold.max_unseen_loss) == (bold.queries, None)
    assert "best recall@10" in bold.reason
    assert bold.seen.chosen["recall@10"] == max(row["seen recall@10"] for row in bold.candidates)
    limited = train_adapter(problem.train_queries, written, problem.corpus, problem.ids, max_unseen_loss=1).report
    assert limited.max_unseen_loss == 1
    best = max(limited.candidates, key=lambda row: row["unseen ndcg@10"] + row["unseen recall@10"])
    for metric in ("ndcg@10", "recall@10"):
        assert limited.unseen.chosen[metric] >= best[f"unseen {metric}"] - 0.01 - 1e-9


def test_queries_that_people_wrote_judge_where_there_are_enough(problem):
    flags = [row % 3 > 0 for row in range(len(problem.train))]
    mixed = Relevance(problem.train.queries, problem.train.relevance, generated=flags)
    report = train_adapter(problem.train_queries, mixed, problem.corpus, problem.ids).report
    assert "that people wrote" in report.seen.queries
    assert int(report.seen.queries.split()[0]) == report.queries - report.generated
    assert report.max_unseen_loss == 1


def test_where_every_document_has_a_label_nothing_is_unseen_but_harm_is_limited_all_the_same(problem):
    everything = np.concatenate([problem.train_queries, problem.corpus])
    labels = [*problem.train.relevance, *[[(name, 1.0)] for name in problem.ids]]
    report = train_adapter(everything, labels, problem.corpus, problem.ids).report
    assert report.labelled_documents == report.documents
    assert report.max_unseen_loss is None
    assert all(report.unseen.gains[metric].high > -0.01 for metric in report.unseen.gains)


def test_ids_and_texts_are_kept_as_asked(problem):
    names = [f"q{row}" for row in range(len(problem.train))]
    result = train_adapter(
        problem.train_queries,
        problem.train.relevance,
        problem.corpus,
        problem.ids,
        query_ids=names,
        query_texts=problem.train.queries,
    )
    kept = dict(zip(result.adapter.remembered_queries.query_ids, result.adapter.remembered_queries.texts, strict=True))
    assert kept == dict(zip(names, problem.train.queries, strict=True))
    with pytest.raises(InvalidRelevanceError, match="has its own"):
        train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, query_ids=names)
    with pytest.raises(InvalidRelevanceError, match="2 query_texts"):
        train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, query_texts=["a", "b"])


# ---- the corpus ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["memory-mapped", "batches", "float64"])
def test_a_corpus_in_any_form_gives_the_same_adapter(problem, trained, form, tmp_path):
    corpus, ids = problem.corpus, problem.ids
    if form == "memory-mapped":
        np.save(tmp_path / "corpus.npy", corpus)
        corpus = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    elif form == "batches":
        parts = np.array_split(np.arange(len(ids)), 7)
        corpus, ids = (([problem.ids[row] for row in part], problem.corpus[part]) for part in parts), None
    else:
        corpus = corpus.astype(np.float64)
    result = train_adapter(problem.train_queries, problem.train, corpus, ids)
    assert result.report.chosen == trained.report.chosen
    np.testing.assert_allclose(
        result.adapter.transform(problem.test_queries), trained.adapter.transform(problem.test_queries), atol=1e-4
    )


def test_scalars_of_numpy_and_iterators_train_the_same(problem, trained):
    ids = iter(problem.ids)
    result = train_adapter(
        problem.train_queries, problem.train, problem.corpus, ids, seed=np.int64(0), max_unseen_loss=np.float32(1)
    )
    given = train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, max_unseen_loss=1.0)
    assert result.adapter.transform(problem.test_queries[0]).tolist() == given.adapter.transform(problem.test_queries[0]).tolist()


def test_lists_that_cannot_be_right_are_named(problem):
    few, labels = problem.train_queries[:5], problem.train.relevance[:5]
    for options, message in (
        ({"validation": problem.test}, r"the pair \(query vectors, Relevance\).* DeepMemory.train takes a Relevance"),
        ({"query_texts": {"q": "text"}}, "query_texts is a list, .*got a dict"),
        ({"query_texts": {"a", "b", "c", "d", "e"}}, "query_texts is a list; got a set, whose items would be paired at random"),
    ):
        with pytest.raises(InvalidRelevanceError, match=message):
            train_adapter(few, labels, problem.corpus, problem.ids, **options)
    with pytest.raises(InvalidVectorsError, match="corpus_ids is a list; got a set"):
        train_adapter(few, labels, problem.corpus, set(problem.ids))
