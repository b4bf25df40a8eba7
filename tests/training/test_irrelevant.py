"""Documents that were judged irrelevant: a training learns from them, and is not led astray by noise."""

from dataclasses import replace

import numpy as np
import pytest

from deepmem_integrations import Relevance, evaluate, train_adapter
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels import LabelRows
from deepmem_integrations.training import data as data_module
from deepmem_integrations.training import linear, train
from deepmem_integrations.training.candidates import TRANSFORMS
from tests.training.helpers import as_problem

TOPICS, JUNK, DIMENSION = 20, 12, 48


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def make_junk(seed=0, asked=8):
    """Topics whose popular junk, a dozen outdated pages each, outranks every true answer; no true answer is asked for twice.

    Returns:
        The corpus, its ids, and training and test queries as (vectors, answers, topics).
    """
    rng = np.random.default_rng(seed)
    topics = unit(rng.normal(size=(TOPICS, DIMENSION)))
    junk = unit(np.repeat(topics, JUNK, axis=0) + 0.04 * rng.normal(size=(TOPICS * JUNK, DIMENSION)))
    corpus, ids = [junk], [f"junk-{row // JUNK}-{row % JUNK}" for row in range(len(junk))]

    def ask(name):
        about = np.repeat(np.arange(TOPICS), asked)
        vectors = unit(topics[about] + 0.08 * rng.normal(size=(len(about), DIMENSION)))
        corpus.append(unit(vectors + 0.11 * rng.normal(size=vectors.shape)))
        answers = [f"{name}-{row}" for row in range(len(about))]
        ids.extend(answers)
        return vectors, answers, about

    return (ask("train"), ask("test")), corpus, ids


@pytest.fixture(scope="module")
def junk():
    (train_side, test_side), corpus, ids = make_junk()
    return train_side, test_side, np.concatenate(corpus), ids


def test_thumbs_down_alone_teach_what_is_not_an_answer(junk):
    (queries, answers, topics), (test_queries, test_answers, _), corpus, ids = junk
    texts = [f"question {row}" for row in range(len(queries))]
    # Half of the queries have no answer at all: somebody only said what was wrong.
    answered = [[(answer, 1.0)] if row % 2 else [] for row, answer in enumerate(answers)]
    down = [[(f"junk-{topic}-{rank}", -1.0) for rank in range(JUNK)] for topic in topics]
    both = Relevance(texts, [[*one, *other] for one, other in zip(answered, down, strict=True)])
    known = [row for row, labels in enumerate(answered) if labels]
    without = Relevance([texts[row] for row in known], [answered[row] for row in known])
    test = Relevance([f"test {row}" for row in range(len(test_answers))], [[(answer, 1.0)] for answer in test_answers])

    def gain(vectors, labels):
        result = train_adapter(vectors, labels, corpus, ids)
        return result, evaluate(test_queries, test, corpus, ids, adapter=result.adapter, top_k=[10]).gains["recall@10"]

    result, gained = gain(queries, both)
    _, gained_without = gain(queries[known], without)
    assert gained.low > 0.3
    assert gained.low > gained_without.high
    assert result.report.irrelevant == len(queries) * JUNK
    assert f"and {len(queries) * JUNK:,} judgements that a document is irrelevant" in str(result.report)
    assert int(result.report.seen.queries.split()[0]) == len(known), "a query without an answer is not held out"


@pytest.mark.parametrize("kind", ["any document", "one that was shown", "the answer of another query"])
@pytest.mark.parametrize("seed", range(2))
def test_thumbs_down_at_random_do_no_harm(problem, trained, kind, seed):
    rng = np.random.default_rng(seed)
    shown = np.argsort(-problem.train_queries @ problem.corpus.T, axis=1)[:, :20]
    asked = sorted(problem.train.document_ids)
    relevance = []
    for row, labels in enumerate(problem.train.labels):
        names = {"any document": problem.ids, "one that was shown": [problem.ids[at] for at in shown[row]]}.get(kind, asked)
        drawn = set(rng.choice(names, size=3).tolist()) - {name for name, _ in labels}
        relevance.append([*labels, *((name, -1.0) for name in sorted(drawn))])
    noisy = Relevance(problem.train.queries, relevance)
    adapter = train_adapter(problem.train_queries, noisy, problem.corpus, problem.ids).adapter
    with_noise, without = (
        evaluate(problem.test_queries, problem.test, problem.corpus, problem.ids, adapter=one, top_k=[10])
        for one in (adapter, trained.adapter)
    )
    for metric in ("recall@10", "ndcg@10"):
        assert with_noise.gains[metric].low > 0, "better than no model, as without thumbs down"
        lost = without.per_query["with model"][metric] - with_noise.per_query["with model"][metric]
        assert lost.mean() - 1.96 * lost.std() / np.sqrt(len(lost)) < 0.01, "no worse by more than chance"


def test_what_training_scores_is_what_the_adapter_remembers(problem):
    """The values and votes of cross-validation are those of the adapter, also where queries of the same vector differ."""
    relevance = [[*labels, (problem.ids[-1 - row % 7], -1.0)] for row, labels in enumerate(problem.train.labels[:40])]
    relevance += [[(problem.ids[row], 0), (problem.ids[-1], -0.5)] for row in range(10)]
    vectors = np.concatenate([problem.train_queries[:40], problem.train_queries[:5], problem.train_queries[60:65]])
    labels = Relevance([f"query {row}" for row in range(50)], relevance)
    merged = train._merge(unit(vectors), labels, None, problem.corpus, problem.ids, 0).with_questions(None)
    candidate = next(c for c in TRANSFORMS if c.attention)
    fitted = merged.data.fit(candidate)
    adapter = train._fit(merged, decision_for(candidate), None, None)
    np.testing.assert_allclose(adapter.attention.values, fitted.attention.values, atol=1e-5)
    remembered = adapter.remembered_queries
    for key in range(len(merged.data.votes)):
        mine = {remembered.document_ids[row]: weight for row, weight in remembered.answers.weight_of(key).items()}
        theirs = {merged.corpus.ids[row]: weight for row, weight in merged.data.votes.weight_of(key).items()}
        assert mine == pytest.approx(theirs)
    assert min(merged.data.votes.weights) < 0


def decision_for(candidate):
    choice = train.Choice(candidate, "chosen by hand")
    return train._Decision(choice, choice, {}, 0.0, None, 0)


def test_thumbs_down_without_any_answer_measure_nothing(problem):
    down = Relevance(problem.train.queries[:30], [[(problem.ids[row], -1.0)] for row in range(30)])
    result = train_adapter(problem.train_queries[:30], down, problem.corpus, problem.ids)
    assert result.adapter.is_identity
    assert result.report.reason.startswith("0 labelled queries are too few")
    name = problem.ids[3]
    assert result.adapter.answers(problem.train_queries[3])[name] < -0.5, "they are remembered all the same"


def test_validation_queries_need_an_answer(problem):
    half = problem.test.take(range(40))
    judges = half + Relevance(["thumb"], [[(problem.ids[0], -1.0)]], ["thumb"])
    validation = (problem.test_queries[:41], judges)
    report = train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, validation=validation).report
    assert report.validation_left_out == 1
    none = (problem.test_queries[:1], judges.take([40]))
    with pytest.raises(InvalidRelevanceError, match="or has no document that answers it"):
        train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, validation=none)


def test_what_a_query_judged_irrelevant_is_its_hard_negative_over_the_corpus(problem, monkeypatch):
    data = as_problem(problem)
    wrong = LabelRows.of_strengths([{250 + row % 40: -1.0} if row % 2 else {} for row in range(len(data.labels))])
    seen = {}

    def train_linear(queries, targets, labels, corpus, pool, near, *, seed, parents):
        seen[len(pool)] = linear._hard_negatives(labels, len(corpus), pool, near)

    monkeypatch.setattr(data_module, "train_linear", train_linear)
    for negatives in ("labelled", "corpus"):
        replace(data, irrelevant=wrong).linear(negatives)
    over_labelled, over_corpus = (seen[size] for size in sorted(seen))
    for row in range(len(data.labels)):
        own = set(data.labels[row][0].tolist())
        first = [250 + row % 40] if row % 2 else []
        others = [near for near in data.near[row].tolist() if near not in own and near not in first]
        assert over_corpus[row].tolist() == [*first, *others][:2]
        plain = [near for near in data.near[row].tolist() if near not in own and near in set(data.labels.documents.tolist())]
        assert over_labelled[row].tolist() == plain[:2], "documents that nobody asked for are not pushed away from others"


def test_queries_without_an_answer_take_no_part_in_the_linear_part(problem):
    data = as_problem(problem)
    half = LabelRows.of_rows([data.labels.weight_of(row) if row % 2 else {} for row in range(len(data.labels))])
    rows = np.arange(1, len(data.labels), 2)
    expected = data.take(rows, data.labels.take(rows)).linear("labelled")
    np.testing.assert_allclose(replace(data, labels=half).linear("labelled"), expected, atol=1e-6)
    assert not replace(data, labels=LabelRows.empty(len(data.labels))).linear("corpus").any()
