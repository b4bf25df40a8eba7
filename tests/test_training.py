import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepmem_integrations import Relevance, evaluate, train_adapter
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidRelevanceError, InvalidVectorsError
from deepmem_integrations.evaluation import score_rankings
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training import corpus_sample
from deepmem_integrations.training.attention import CorpusStatistics, target_means, value_space
from deepmem_integrations.training.candidates import CANDIDATES
from deepmem_integrations.training.cross_validation import HeldOut, cross_validate
from deepmem_integrations.training.data import TrainingData
from deepmem_integrations.training.folds import folds
from deepmem_integrations.training.guard import choose, label_agreement
from deepmem_integrations.training.linear import MAX_NEGATIVES, negative_rows, train_linear
from tests.conftest import make_problem


@pytest.fixture(scope="module")
def trained(problem):
    return train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids)


def test_training_helps_on_queries_that_took_no_part(problem, trained):
    result = evaluate(problem.test_queries, problem.test, problem.corpus, problem.ids, adapter=trained.adapter, top_k=(1, 10))
    assert result.gains["ndcg@10"].low > 0.05
    assert result.gains["recall@10"].low > 0.02


def test_the_report_tells_what_and_why(trained, problem):
    report = trained.report
    assert report.chosen != "identity"
    assert "best on held-out training queries" in report.reason
    assert (report.queries, report.documents) == (240, 300)
    assert report.labelled_documents == len({d for labels in problem.train.labels for d, _ in labels})
    assert [row["candidate"] for row in report.candidates] == [str(candidate) for candidate in CANDIDATES]
    assert json.loads(json.dumps(report.to_json()))["seen"]["gains"]["ndcg@10"]["low"] > 0
    assert "seen answers" in str(report)
    assert "unseen answers" in str(report)
    assert json.dumps(trained.adapter.metadata)


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


def test_a_query_that_is_there_twice_is_merged(problem):
    vectors = np.concatenate([problem.train_queries[:40], problem.train_queries[:1]])
    labels = [*problem.train.take(range(40)).relevance, [("doc-299", 1.0)]]
    result = train_adapter(vectors, labels, problem.corpus, problem.ids)
    assert (result.report.queries, result.report.merged_queries) == (40, 1)


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
    assert f"{count} labelled queries are too few" in result.report.reason
    assert result.report.seen is None
    x = problem.test_queries
    np.testing.assert_allclose(result.adapter.transform(x), x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-6)


def test_one_document_gives_the_identity():
    result = train_adapter(np.random.default_rng(0).normal(size=(20, 4)), [[("a", 1.0)]] * 20, np.ones((1, 4)), ["a"])
    assert result.adapter.is_identity
    assert "nothing to rank" in result.report.reason


def test_vectors_of_one_text_that_differ_by_rounding_are_one_query(problem):
    vectors = np.concatenate([problem.train_queries[:40], problem.train_queries[:40] * 3 + 1e-6])
    result = train_adapter(vectors, problem.train.take(range(40)).relevance * 2, problem.corpus, problem.ids)
    assert (result.report.queries, result.report.merged_queries) == (len({v.tobytes() for v in problem.train_queries[:40]}), 40)


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


def test_labels_that_agree_with_the_vectors_are_told_from_those_that_do_not():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(40, 8)).astype(np.float32)
    near = (targets + rng.normal(size=targets.shape)).astype(np.float32)
    assert label_agreement(near, targets) > 5
    chance = [label_agreement(near[rng.permutation(40)], targets) for _ in range(200)]
    assert abs(np.mean(chance)) < 0.5
    assert np.mean(np.array(chance) > 3) < 0.02
    assert label_agreement(near[:1], targets[:1]) == 0
    assert label_agreement(near, np.repeat(targets[:1], 40, axis=0)) == pytest.approx(0, abs=1e-3), "all ask for the same"


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


def test_of_a_large_corpus_a_part_stands_for_all(problem, monkeypatch):
    monkeypatch.setattr(corpus_sample, "MAX_DOCUMENTS", 400)
    monkeypatch.setattr(corpus_sample, "NEAR", 3)
    rng = np.random.default_rng(9)
    corpus = np.concatenate([rng.normal(size=(2_000, problem.corpus.shape[1])), problem.corpus]).astype(np.float32)
    ids = [*[f"other-{row}" for row in range(2_000)], *problem.ids]
    queries = problem.train_queries[:60]
    labelled = {document for labels in problem.train.labels[:60] for document, _ in labels}
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
    batches = ((ids[start : start + 150], corpus[start : start + 150]) for start in range(0, len(ids), 150))
    kept = corpus_sample.read_corpus_sample(batches, None, unit(queries), labelled, seed=0)
    assert kept.total == 2_300
    assert len(kept.ids) == 400
    assert labelled <= set(kept.ids)
    near = np.argsort(-(unit(queries) @ unit(corpus).T), axis=1)[:, :3]
    assert {ids[row] for row in near.ravel()} <= set(kept.ids), "the nearest to every query are there"
    np.testing.assert_allclose(kept.vectors, unit(corpus)[[ids.index(name) for name in kept.ids]], atol=1e-6)
    np.testing.assert_allclose(kept.statistics.mean, unit(corpus).mean(axis=0), atol=1e-6)
    drawn = [int(name.split("-")[1]) for name in kept.ids if name.startswith("other")]
    assert 700 < np.mean(drawn) < 1_300, "others are drawn from all of it"
    report = train_adapter(queries, problem.train.take(range(60)), corpus, ids).report
    assert (report.documents, report.ranked_documents) == (2_300, 400)
    assert "a sample of 400 documents" in str(report)


# ---- the parts -------------------------------------------------------------------------------------------------------


def as_problem(given, seed=0):
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
    rows = {name: row for row, name in enumerate(given.ids)}
    corpus = unit(given.corpus)
    return TrainingData(
        unit(given.train_queries),
        LabelRows.of(given.train, rows),
        corpus,
        CorpusStatistics.empty(corpus.shape[1]).add(corpus),
        seed,
    )


def test_the_linear_loss_is_the_cross_entropy_it_claims_to_be():
    rng = np.random.default_rng(0)
    queries, corpus = rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    labels = LabelRows.of_rows([{0: 1.0, 3: 3.0}, {1: 1.0}, {2: 1.0}, {4: 2.0, 5: 2.0}, {6: 1.0}, {7: 1.0}])
    weight = torch.from_numpy(0.1 * rng.normal(size=(5, 5)).astype(np.float32))
    from deepmem_integrations.training.linear import SCALE, _loss

    ours = _loss(torch.from_numpy(queries), torch.from_numpy(target_means(labels, corpus)), torch.from_numpy(corpus), weight)
    target = torch.zeros(6, 9)
    for query in range(6):
        for row, gain in labels.weight_of(query).items():
            target[query, row] = gain
    moved = torch.nn.functional.normalize(torch.from_numpy(queries) @ (torch.eye(5) + weight), dim=1)
    theirs = torch.nn.functional.cross_entropy(SCALE * moved @ torch.from_numpy(corpus).T, target / target.sum(1, keepdim=True))
    torch.testing.assert_close(ours, theirs)


def test_linear_training_starts_at_the_identity_and_keeps_the_asked_epochs(problem):
    given = as_problem(problem)
    kept = given.linear("labelled", (1, 3))
    assert set(kept) == {1, 3}
    assert 0 < np.abs(kept[1]).max() < np.abs(kept[3]).max() < 1
    alone = train_linear(given.queries, target_means(given.labels, given.corpus), given.corpus, epochs=(1,), seed=0)
    assert not np.array_equal(alone[1], kept[1]), "other negatives, other gradient"


def test_negatives_are_labelled_documents_or_the_corpus_or_a_sample_of_it():
    labels = LabelRows.of_rows([{5: 1.0}, {2: 1.0, 5: 1.0}])
    assert negative_rows("labelled", labels, 10, 0).tolist() == [2, 5]
    assert negative_rows("corpus", labels, 10, 0).tolist() == list(range(10))
    sampled = negative_rows("corpus", labels, 10 * MAX_NEGATIVES, 0)
    assert {2, 5} <= set(sampled.tolist())
    assert MAX_NEGATIVES <= len(sampled) <= MAX_NEGATIVES + 2


def test_memory_values_are_whitened_targets_of_mean_alignment_one():
    rng = np.random.default_rng(0)
    corpus = rng.normal(size=(50, 6)).astype(np.float32) + 2
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    labels = LabelRows.of_rows([{3: 1.0}, {7: 1.0, 9: 1.0}, {11: 2.0}])
    statistics = CorpusStatistics.empty(6).add(corpus[:20]).add(corpus[20:])
    np.testing.assert_allclose(statistics.mean, corpus.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(statistics.covariance, np.cov(corpus.T, bias=True), atol=1e-6)
    covariance = corpus.T.astype(float) @ corpus / 50
    ridge = 0.01 * np.trace(covariance) / 6 * np.eye(6)
    np.testing.assert_allclose(statistics.value_map(), np.linalg.inv(covariance + ridge), rtol=1e-3)
    targets = target_means(labels, corpus)
    np.testing.assert_allclose(targets[1], corpus[[7, 9]].mean(axis=0), atol=1e-6)
    values = value_space(targets, labels, corpus, statistics).place(targets)
    best = [max(corpus[row] @ values[query] for row in labels.weight_of(query)) for query in range(3)]
    assert np.mean(best) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("view", ["seen", "unseen"])
def test_folds_hold_every_query_out_once_and_unseen_ones_share_no_document(view):
    rng = np.random.default_rng(0)
    labels = LabelRows.of_rows([dict.fromkeys(rng.choice(40, size=2, replace=False).tolist(), 1.0) for _ in range(60)])
    held_out = []
    for fold in folds(labels, view, seed=0):
        held_out += fold.held.tolist()
        assert not set(fold.train) & set(fold.held)
        assert len(fold.train) + len(fold.held) == 60, "no query is left out, however labels connect them"
        for position, query in enumerate(fold.held):
            scored = fold.held_labels.weight_of(position).keys()
            assert scored
            assert scored | set(fold.answered[position]) == labels.weight_of(query).keys()
            if view == "unseen":
                assert not scored & set(fold.train_labels.documents.tolist())
    assert sorted(held_out) == list(range(60))


def test_cross_validation_scores_are_those_of_the_adapters_it_stands_for():
    made = make_problem(seed=3, documents=60, train=36, dimension=8)
    two_answers = [[*labels, (made.ids[row % 7], 2.0)] for row, labels in enumerate(made.train.relevance)]
    given = as_problem(replace(made, train=Relevance(made.train.queries, two_answers)))
    views = cross_validate(given, tick=lambda: None)
    for view in ("seen", "unseen"):
        for fold in folds(given.labels, view, given.seed):
            for index in range(0, len(CANDIDATES), 13):
                adapter = given.take(fold.train, fold.train_labels).fit(CANDIDATES[index])
                scores = adapter.transform(given.queries[fold.held]) @ given.corpus.T
                for position, documents in enumerate(fold.answered):
                    scores[position, documents] = -np.inf
                rankings = np.argsort(-scores, axis=1, kind="stable")
                expected = score_rankings(rankings, fold.held_labels, (10,))
                np.testing.assert_allclose(views[view].ndcg[index, fold.held], expected["ndcg@10"], atol=1e-5)
                np.testing.assert_allclose(views[view].recall[index, fold.held], expected["recall@10"], atol=1e-5)


def held_out(**means):
    """Scores of all candidates: the identity at 0.5, others as given, with a little noise."""
    rng = np.random.default_rng(0)
    base = np.full((len(CANDIDATES), 200), 0.5) + 0.05 * rng.normal(size=200)
    for index, mean in means.get("gains", {}).items():
        base[index] += mean + 0.05 * rng.normal(size=200)
    zero = np.zeros_like(base)
    return HeldOut(base, base, zero, zero)


def test_the_guard_prefers_what_holds_up_on_unseen_answers():
    # Candidate 20 shines where answers were seen and ruins the rest; 30 is good at both.
    views = {"seen": held_out(gains={20: 0.3, 30: 0.1}), "unseen": held_out(gains={20: -0.1, 30: 0.05})}
    assert choose(views, agreement=9.0, max_unseen_loss=1.0, seed=0).candidate == CANDIDATES[30]
    # A candidate that is best on seen answers and gives up 2 points on unseen ones is a matter of the tolerance.
    views = {"seen": held_out(gains={20: 0.3, 30: 0.1}), "unseen": held_out(gains={20: 0.03, 30: 0.05})}
    assert choose(views, agreement=9.0, max_unseen_loss=1.0, seed=0).candidate == CANDIDATES[30]
    assert choose(views, agreement=9.0, max_unseen_loss=5.0, seed=0).candidate == CANDIDATES[20]


def test_each_metric_is_guarded_by_itself():
    good, bad = held_out(gains={20: 0.1}), held_out(gains={20: -0.03})
    mixed = HeldOut(bad.ndcg, good.recall, np.zeros_like(bad.ndcg), np.zeros_like(bad.ndcg))
    assert choose({"seen": held_out(gains={20: 0.3}), "unseen": mixed}, agreement=9.0).candidate == CANDIDATES[0]


def test_a_gain_that_popularity_explains_does_not_count():
    scores = held_out(gains={20: 0.2})
    popularity = scores.ndcg - held_out().ndcg
    views = {"seen": HeldOut(scores.ndcg, scores.recall, popularity, popularity), "unseen": held_out()}
    choice = choose(views, agreement=0.0)
    assert choice.candidate == CANDIDATES[0]
    assert "no more than chance" in choice.reason
    views["seen"] = replace(scores, ndcg_by_popularity=0 * popularity, recall_by_popularity=0 * popularity)
    assert choose(views, agreement=0.0).candidate == CANDIDATES[20], "a gain beyond chance needs no agreement"


def test_the_best_of_many_lucky_candidates_does_not_count():
    rng = np.random.default_rng(0)
    chosen = 0
    for seed in range(20):
        noise = 0.5 + 0.3 * rng.normal(size=(len(CANDIDATES), 60))
        zero = np.zeros_like(noise)
        view = HeldOut(noise, noise, zero, zero)
        chosen += (
            choose({"seen": view, "unseen": held_out()}, agreement=0.0, max_unseen_loss=5.0, seed=seed).candidate != CANDIDATES[0]
        )
    assert chosen <= 3, "79 lucky candidates at a level of 5%"


def test_memory_alone_is_attention_over_the_training_queries(problem):
    given = as_problem(problem)
    candidate = next(c for c in CANDIDATES if c.linear is None and c.attention)
    adapter = given.fit(candidate)
    assert adapter.linear is None
    space = adapter.attention.space
    places = (given.queries - given.queries.mean(axis=0)) @ space.projection
    np.testing.assert_allclose(adapter.attention.keys, places / np.linalg.norm(places, axis=1, keepdims=True), atol=1e-5)
    assert len(adapter.attention.keys) > adapter.attention.neighbours
    x = given.queries[:3]
    similarity = adapter.attention.space.place(x) @ adapter.attention.keys.T
    for row in range(3):
        near = np.argsort(-similarity[row])[: adapter.attention.neighbours]
        factors = adapter.attention.strength * np.exp((similarity[row, near] - 1) / adapter.attention.temperature)
        np.testing.assert_allclose(adapter.attention.shift(x)[row], factors @ adapter.attention.values[near], atol=1e-5)
    assert isinstance(adapter.attention, Attention)
    assert isinstance(adapter, QueryAdapter)
    assert Relevance.of(problem.train) is problem.train
