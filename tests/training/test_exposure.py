import numpy as np
import pytest

from deepmem_integrations import Relevance, train_adapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.evaluation import evaluate
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training import train
from deepmem_integrations.training.exposure import LEAST, Exposure, exposure, weights_of_queries

NEAR = np.array([np.random.default_rng(seed).permutation(1_000)[:100] for seed in range(300)])


def labels_at(*ranks):
    """Labels of one query for each tuple of ranks."""
    return LabelRows.of_rows([{int(NEAR[query][rank - 1]): 1.0 for rank in ranks_} for query, ranks_ in enumerate(ranks)])


def test_a_sharp_edge_is_where_a_list_ended():
    assert exposure(labels_at(*[(1 + query % 10,) for query in range(60)]), NEAR, 1_000) == 10


def test_rare_ranks_count_more():
    ranks = [1] * 150 + [5] * 30 + [10] * 6 + [1, 5]
    weights = weights_of_queries([*range(186), 186, 186], ranks, np.arange(187))
    assert weights.mean() == pytest.approx(1)
    often, seldom, least, both = weights[[0, 150, 180, 186]] / weights[0]
    assert (often, seldom, least) == pytest.approx((1, 151 / 31, 10.0)), "ten times as much at most"
    assert both == pytest.approx((1 + 151 / 31) / 2)
    np.testing.assert_allclose(
        weights_of_queries(range(6), [1, 2, 3] * 2, np.arange(6)), 1, err_msg="all ranks are as common as each other"
    )


def test_one_label_beyond_the_nearest_shows_that_any_document_could_be_labelled():
    beyond = LabelRows.of_rows([{int(NEAR[query][query % 10]): 1.0} for query in range(60)] + [{1: 1.0}])
    assert 1 not in NEAR[60]
    assert exposure(beyond, NEAR, 1_000) == 0
    assert exposure(labels_at(*[(1 + query % 10,) for query in range(60)], (80,)), NEAR, 1_000) == 0


def test_few_labels_at_the_edge_prove_nothing():
    assert exposure(labels_at(*[(1,)] * 80, *[(10,)] * (LEAST - 1)), NEAR, 1_000) == 0
    assert exposure(labels_at(*[(1,)] * 80, *[(10,)] * LEAST), NEAR, 1_000) == 10


def test_a_perfect_search_shows_no_edge():
    assert exposure(labels_at(*[tuple(range(1, 7))] * 100), NEAR, 1_000) == 0, "six answers each, all at the top"


def test_a_small_corpus_has_no_beyond():
    assert exposure(labels_at(*[(1 + query % 10,) for query in range(60)]), NEAR, 29) == 0


# ---- trainings -------------------------------------------------------------------------------------------------------


def clicked(problem, rng, *, looks=lambda rank: 1.0, right=1.0, wrong=0.0, k=5):
    """The rows of queries with clicks, and what users clicked among the first k of the untransformed search."""
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    order = np.argsort(-(unit(problem.train_queries) @ unit(problem.corpus).T), axis=1)[:, :k]
    rows, labels = [], []
    for row, answers in enumerate(problem.train.labels):
        good = {document for document, _ in answers}
        shown = [problem.ids[document] for document in order[row]]
        chance = [looks(rank) * (right if document in good else wrong) for rank, document in enumerate(shown, start=1)]
        if clicks := [(document, 1.0) for document, p in zip(shown, chance, strict=True) if rng.random() < p]:
            rows.append(row)
            labels.append(clicks)
    return rows, Relevance([problem.train.queries[row] for row in rows], labels)


def gain(problem, adapter):
    result = evaluate(problem.test_queries, problem.test, problem.corpus, problem.ids, adapter=adapter, top_k=[10])
    return 100 * result.gains["ndcg@10"].mean


@pytest.mark.parametrize(
    "behaviour",
    [{}, {"right": 0.8, "wrong": 0.03}, {"looks": lambda rank: 1 / rank}],
    ids=["perfect", "noisy", "biased by position"],
)
def test_clicks_on_what_was_shown_are_learned_from(problem, behaviour):
    rows, clicks = clicked(problem, np.random.default_rng(0), **behaviour)
    result = train_adapter(problem.train_queries[rows], clicks, problem.corpus, problem.ids)
    assert result.report.shown in (4, 5)  # few look at the last document, who are biased by position
    assert f"they name only what the untransformed search has in its first {result.report.shown}" in str(result.report)
    assert result.report.chosen != "identity", result.report
    unbiased = train_adapter(
        problem.train_queries[: len(rows)], problem.train.take(range(len(rows))), problem.corpus, problem.ids
    )
    assert unbiased.report.shown == 0
    assert gain(problem, result.adapter) > 2 / 3 * gain(problem, unbiased.adapter)


@pytest.mark.parametrize("looks", [lambda rank: 1.0, lambda rank: 1 / rank], ids=["everywhere", "at the top"])
def test_clicks_at_random_teach_nothing(problem, looks):
    rows, clicks = clicked(problem, np.random.default_rng(0), right=0.5, wrong=0.5, looks=looks)
    result = train_adapter(problem.train_queries[rows], clicks, problem.corpus, problem.ids)
    assert (result.report.shown, result.report.chosen) == (5, "identity"), result.report
    assert "no more than chance" in result.report.reason or "no candidate did better" in result.report.reason


def test_validation_queries_are_judged_on_the_whole_corpus(problem):
    rows, clicks = clicked(problem, np.random.default_rng(0))
    rows, clicks = rows[: len(rows) - 30], clicks.take(range(len(rows) - 30))
    held = range(len(problem.train) - 40, len(problem.train))
    validation = (problem.train_queries[list(held)], problem.train.take(held))
    result = train_adapter(problem.train_queries[rows], clicks, problem.corpus, problem.ids, validation=validation)
    assert result.report.seen.queries.endswith("validation queries")
    assert result.report.seen.base["recall@10"] < 1


def test_queries_without_an_answer_tell_nothing_of_what_was_shown():
    near = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] * 24)
    answered = LabelRows.of_rows([{row // 2 % 4: 1.0} if row % 2 == 0 else {} for row in range(24)])
    assert exposure(answered.take(np.arange(0, 24, 2)), near[::2], documents=100) == 4
    assert exposure(answered, near, documents=100) == 4
    assert exposure(LabelRows.empty(24), near, documents=100) == 0
    found = Exposure.of(answered, [{row: rank for rank, row in enumerate(range(4), start=1)}] * 24)
    np.testing.assert_allclose(found.weights, 1)
    assert found.by_chance[0].sum() == found.by_chance[1].sum() == pytest.approx(1), "12 labels of 24 queries, in two metrics"


def test_labels_by_rank_alone_are_what_chance_gives():
    """Whatever a candidate does with the ranks, the labels bring it no more than chance, at any evenness of the weights."""
    rng = np.random.default_rng(0)
    lists = [rng.permutation(30)[:6] for _ in range(4_000)]
    clicked = [int(rng.choice(6, p=np.array([32, 16, 8, 4, 2, 1]) / 63)) for _ in lists]
    labels = LabelRows.of_rows([{int(rows[place]): 1.0} for rows, place in zip(lists, clicked, strict=True)])
    shown = Exposure.of(labels, [{int(row): rank for rank, row in enumerate(rows, start=1)} for rows in lists])
    assert shown.depth == 6
    for discounts in (1 / np.arange(1, 7), np.arange(6.0), np.array([0, 0, 0, 0, 0, 1.0])):
        own = shown.weights * discounts[clicked]
        chance = [
            expected[0][np.searchsorted(rows, ranked)] @ discounts
            for expected, rows, ranked in zip(shown.by_chance, shown.lists, lists, strict=True)
        ]
        assert own.mean() == pytest.approx(np.mean(chance))


def test_labels_that_say_what_was_shown_are_compared_on_it(problem):
    """What was shown is a pool that no single search gives, so that nothing but the labels tells of it."""
    rows, rng = {name: row for row, name in enumerate(problem.ids)}, np.random.default_rng(0)
    shown, labels = [], []
    for row, ((name, _),) in enumerate(problem.train.labels):
        pool = [name, *(problem.ids[other] for other in rng.choice(300, size=9, replace=False))]
        shown.append([pool[place] for place in rng.permutation(len(pool))] if row else None)
        labels.append([(name, 1.0)])
    told = Relevance(problem.train.queries, labels, shown=shown)
    merged = train._merge(unit_rows(problem.train_queries, "query"), told, None, problem.corpus, problem.ids, 0)
    lists = merged.shown()
    for place, row in enumerate(merged.order.tolist()):
        ranks = None if shown[row] is None else {rows[name]: shown[row].index(name) + 1 for name in shown[row]}
        assert lists[place] == ranks
    weights = Exposure.of(merged.data.labels, lists).weights
    assert weights.mean() == pytest.approx(1)
    ranks = np.array([0 if one is None else one.index(name) + 1 for one, ((name, _),) in zip(shown, labels, strict=True)])
    counts = np.bincount(ranks[ranks > 0])
    expected = np.array([np.sqrt(counts.max() / counts[rank]) if rank else 1.0 for rank in ranks])[merged.order]
    np.testing.assert_allclose(weights, expected / expected.mean())
    report = train_adapter(problem.train_queries, told, problem.corpus, problem.ids).report
    assert report.shown == 10
    assert "among the first 10 documents that were shown" in report.seen.queries


def test_queries_without_an_answer_do_not_raise_the_weights_of_the_others():
    labels = LabelRows.of_rows([{7: 1.0}, {7: 1.0}, {8: 1.0}, {}, {}, {9: 1.0}])
    ranks = [{7: 1, 8: 2}, {7: 1, 8: 2}, {7: 1, 8: 2}, {7: 1}, {7: 1}, None]
    weights = Exposure.of(labels, ranks).weights
    assert weights[[0, 1, 2, 5]].mean() == pytest.approx(1), "scores above 100% would be reported"
    assert weights[2] > weights[0] == weights[5]


@pytest.mark.parametrize("generated", [False, True], ids=["spellings", "queries of a language model"])
def test_no_score_is_above_100_percent(generated):
    """Search is perfect, and what users saw stood at rare ranks where a question has one spelling, or users asked it."""
    rng = np.random.default_rng(0)
    corpus = unit_rows(rng.normal(size=(300, 32)).astype(np.float32), "vector")
    rows = [*range(60), *(range(60, 160) if generated else [60] * 100)]
    queries = unit_rows(corpus[rows] + 0.02 * rng.normal(size=(160, 32)).astype(np.float32), "query")
    lists = []
    for query in range(160):
        first, *others = (f"doc-{found}" for found in np.argsort(-(corpus @ queries[query]))[:10])
        place = 1 + query % 9 if query < 60 and query % 3 else 0
        lists.append([*others[:place], first, *others[place:]] if query < 60 or not generated else None)
    texts = [f"topic {row}{'?' * (query - 60)}" for query, row in enumerate(rows)]
    people = [generated and query >= 60 for query in range(160)]
    told = Relevance(texts, [[(f"doc-{row}", 1.0)] for row in rows], shown=lists, generated=people)
    report = train_adapter(queries, told, corpus, [f"doc-{row}" for row in range(300)]).report
    for view in (report.seen, report.unseen):
        assert view.base["recall@10"] == pytest.approx(1), report
