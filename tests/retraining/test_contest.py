import numpy as np
import pytest

from deepmem_integrations import QueryAdapter, Relevance
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.errors import MissingExtraError
from deepmem_integrations.evaluation import Interval
from deepmem_integrations.retraining import HeldOutQueries, decide
from deepmem_integrations.retraining.contest import FEWEST, MEAN, NDCG_OF_SHOWN, _verdict
from deepmem_integrations.words import Found, WordIndex


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [f"doc-{i}" for i in range(200)], vectors


TURN = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0].astype(np.float32)


def queries(corpus, count, spellings=1, noise=0.1):
    """Queries that lie at their documents but for a turn, which `good` undoes."""
    rng = np.random.default_rng(2)
    rows = np.repeat(rng.permutation(200)[:count], spellings)
    vectors = corpus[1][rows] @ TURN + noise * rng.normal(size=(len(rows), 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [f"What is topic {row}{'?' * (i % spellings)}" for i, row in enumerate(rows)]
    return HeldOutQueries(vectors.astype(np.float32), Relevance(texts, [[(f"doc-{row}", 1.0)] for row in rows]))


def model(part=1.0):
    return QueryAdapter(16, linear=(part * (TURN.T - np.eye(16))).astype(np.float32))


def test_a_better_model_is_put_in_use_and_a_worse_one_is_not(corpus):
    held = queries(corpus, 60)
    up = decide(model(), held, *corpus, in_use=("old", model(0.3)))
    assert up.better
    assert up.reason.startswith("better beyond chance than the model in use, old, on 60 held-out questions: ndcg@10 +")
    assert up.scores["new model"]["recall@10"] > up.scores["model in use"]["recall@10"]
    down = decide(model(0.3), held, *corpus, in_use=("old", model()))
    assert not down.better
    assert down.reason.startswith("worse beyond chance than the model in use, old")
    assert down.gains[MEAN].mean == pytest.approx(-up.gains[MEAN].mean)
    assert set(down.to_json()["gains"]["ndcg@10"]) == {"mean", "low", "high"}


def test_a_model_that_is_the_same_changes_nothing(corpus):
    decision = decide(model(), queries(corpus, 60), *corpus, in_use=("old", model()))
    assert (decision.better, decision.reason[:11]) == (False, "no better t")


def test_a_harmful_model_gives_way_to_the_identity(corpus):
    assert decide(QueryAdapter(16), queries(corpus, 60, noise=0), *corpus, in_use=("old", model(-1.0))).better


def test_without_a_model_in_use_plain_retrieval_is_the_rival(corpus):
    decision = decide(model(), queries(corpus, 60), *corpus, in_use=None)
    assert decision.better
    assert "better beyond chance than plain retrieval" in decision.reason
    assert set(decision.scores) == {"new model", "without model"}
    assert not decide(model(-1.0), queries(corpus, 60, noise=0), *corpus, in_use=None).better


@pytest.mark.parametrize("held", [None, 5])
def test_too_few_questions_decide_nothing(corpus, held):
    held = None if held is None else queries(corpus, held, spellings=10)
    kept = decide(model(), held, *corpus, in_use=("old", QueryAdapter(16)))
    assert not kept.better
    assert f"too few to compare models ({FEWEST} are needed): the model in use stays until there are more labels" in kept.reason
    first = decide(model(), held, *corpus, in_use=None)
    assert first.better
    assert "the choice of the training stands" in first.reason


@pytest.mark.parametrize("old", [None, QueryAdapter(3)], ids=["unreadable", "another embedding model"])
def test_a_model_that_cannot_be_compared_does_not_block(corpus, old):
    decision = decide(model(), queries(corpus, 60), *corpus, in_use=("old", old))
    assert decision.better
    assert "than plain retrieval" in decision.reason
    assert "the model in use, old, " in decision.reason
    assert decision.against == "old"
    assert decide(model(), None, *corpus, in_use=("old", old)).better


class Numbers:
    """Finds the document whose number a query tells."""

    def search(self, text, k, filter=None):
        return Found([f"doc-{text.split()[-1].rstrip('?')}"], np.ones(1, dtype=np.float32))


def test_a_model_that_ranks_by_words_is_compared_with_them_or_stays(corpus):
    champion = QueryAdapter(16, ranking=Ranking(words=1.0, search="Numbers"))
    held = queries(corpus, 60)
    decision = decide(model(0.5), held, *corpus, in_use=("old", champion))
    assert not decision.better
    assert "ranks by the words of a Numbers, which is not at hand or is damaged" in decision.reason
    decision = decide(model(0.5), held, *corpus, in_use=("old", champion), searches=(Numbers(),))
    assert not decision.better
    assert decision.scores["model in use"]["recall@10"] == 1


def test_a_word_index_that_cannot_be_searched_is_no_reason_to_replace_the_model(corpus, tmp_path, monkeypatch):
    index = WordIndex.build(tmp_path, [(corpus[0], [f"topic {row}" for row in range(200)])], language="en")
    champion, held = QueryAdapter(16, ranking=Ranking(words=1.0)), queries(corpus, 60)
    assert "compared" not in decide(model(0.5), held, *corpus, in_use=("old", champion), searches=(index,)).reason

    def search(*_, **__):
        raise MissingExtraError("Stemmer", "words")

    monkeypatch.setattr(WordIndex, "search", search)
    decision = decide(model(0.5), held, *corpus, in_use=("old", champion), searches=(index,))
    assert not decision.better
    assert "which cannot be searched here (" in decision.reason


def clicked(corpus, held, adapter):
    """What users open of ten documents that a model shows: one decision in ten is wrong, and low ranks are rarely read."""
    rng = np.random.default_rng(3)
    rows, texts, labels, shown = [], [], [], []
    for row, (text, [(right, _)]) in enumerate(zip(held.labels.queries, held.labels.labels, strict=True)):
        ten = [corpus[0][found] for found in np.argsort(-(corpus[1] @ adapter.transform(held.vectors[row])))[:10]]
        looked = [name for rank, name in enumerate(ten, start=1) if rng.random() < 1 / rank]
        opened = [(name, 1.0) for name in looked if (name == right) != (rng.random() < 0.1)]
        if opened:
            for column, value in ((rows, row), (texts, text), (labels, opened), (shown, ten)):
                column.append(value)
    return held.vectors[rows], texts, labels, shown


def test_clicks_on_what_a_model_showed_do_not_favour_that_model(corpus):
    held, old = queries(corpus, 200), model(0.6)
    vectors, texts, labels, shown = clicked(corpus, held, old)
    decision = decide(model(), HeldOutQueries(vectors, Relevance(texts, labels, shown=shown)), *corpus, in_use=("old", old))
    assert decision.better, decision.reason
    assert list(decision.gains) == [NDCG_OF_SHOWN]
    blind = decide(model(), HeldOutQueries(vectors, Relevance(texts, labels)), *corpus, in_use=("old", old))
    assert blind.gains["recall@10"].high < 0, "what the old model did not show counts as wrong"
    worse = decide(model(-0.6), HeldOutQueries(vectors, Relevance(texts, labels, shown=shown)), *corpus, in_use=("old", old))
    assert not worse.better


def test_clicks_and_other_labels_decide_together(corpus):
    held, old = queries(corpus, 200), model(0.6)
    vectors, texts, labels, shown = clicked(corpus, held, old)
    both = Relevance(texts, labels, shown=shown) + Relevance(
        [f"{text}, please" for text in held.labels.queries], held.labels.labels
    )
    decision = decide(model(), HeldOutQueries(np.concatenate([vectors, held.vectors]), both), *corpus, in_use=("old", old))
    assert decision.better, decision.reason
    assert list(decision.gains) == ["ndcg@10", "recall@10", NDCG_OF_SHOWN, MEAN]


def test_no_figure_of_clicks_is_above_100_points(corpus):
    """Many spellings of a question at the most common rank, others at rare ranks, and labels that do not say what was shown."""
    held = queries(corpus, 60, noise=0.02)
    rows = [0] * 100 + list(range(60)) + [0] * 20
    near = [[corpus[0][found] for found in np.argsort(-(corpus[1] @ model().transform(held.vectors[row])))[:10]] for row in rows]
    shown = [
        (*ten[1 : 1 + place], ten[0], *ten[1 + place :]) for ten, place in zip(near, [0] * 100 + [*range(10)] * 8, strict=True)
    ]
    texts = ["How do I undo a commit" + "?" * row for row in range(100)] + [f"Topic {row}" for row in range(80)]
    told = Relevance(texts, [[(ten[0], 1.0)] for ten in near], shown=[*shown[:160], *[None] * 20])
    noise = 0.01 * np.random.default_rng(4).normal(size=(180, 16)).astype(np.float32)
    decision = decide(model(), HeldOutQueries(held.vectors[rows] + noise, told), *corpus, in_use=("old", model(-1.0)))
    new, old = decision.scores["new model"], decision.scores["model in use"]
    assert new[NDCG_OF_SHOWN] == pytest.approx(1, abs=0.02)
    assert new[NDCG_OF_SHOWN] <= 1 + 1e-9
    for metric, score in new.items():
        assert decision.gains[metric].mean == pytest.approx(score - old[metric]), "both are means over questions"


def test_parents_that_were_shown_are_compared(corpus):
    held, old = queries(corpus, 200), model(0.6)
    vectors, texts, labels, shown = clicked(corpus, held, old)
    parent_of = {name: f"page-{row // 2}" for row, name in enumerate(corpus[0])}
    of_pages = [[(parent_of[name], weight) for name, weight in row] for row in labels]
    pages = [list(dict.fromkeys(parent_of[name] for name in ten)) for ten in shown]
    documents, parents = (
        decide(
            *(model(), HeldOutQueries(vectors, Relevance(texts, of_pages, shown=lists, level="doc_uri")), *corpus),
            in_use=("old", old),
            corpus_parents=parent_of,
        )
        for lists in (shown, pages)
    )
    assert parents == documents
    assert parents.gains[NDCG_OF_SHOWN].mean > 0


def test_spellings_of_a_question_count_as_one(corpus):
    decision = decide(model(), queries(corpus, 30, spellings=4), *corpus, in_use=("old", QueryAdapter(16)))
    assert decision.questions == 30


def interval(low, mean, high):
    return Interval(mean, low, high)


@pytest.mark.parametrize(
    ("mean", "ndcg", "better", "verdict"),
    [
        (interval(0.01, 0.02, 0.03), interval(0.01, 0.02, 0.03), True, "better beyond chance than"),
        (interval(-0.009, 0.002, 0.013), interval(-0.02, 0.0, 0.02), True, "better on average, and surely hardly worse, than"),
        (interval(-0.02, 0.01, 0.04), interval(-0.02, 0.01, 0.04), False, "better on average, but not surely within 1 point"),
        (interval(0.01, 0.02, 0.03), interval(-0.03, -0.02, -0.01), False, "ndcg@10 worse beyond chance"),
        (interval(-0.005, -0.001, 0.003), interval(-0.005, -0.001, 0.003), False, "no better than"),
        (interval(-0.05, -0.03, -0.01), interval(-0.05, -0.03, -0.01), False, "worse beyond chance than"),
    ],
)
def test_the_rule(mean, ndcg, better, verdict):
    decided = _verdict({"ndcg@10": ndcg, "recall@10": interval(-0.1, 0.0, 0.1), MEAN: mean})
    assert decided[0] is better
    assert decided[1].startswith(verdict)


def test_against_plain_retrieval_the_held_out_queries_of_the_training_count_as_well():
    unsure = {"ndcg@10": interval(-0.03, 0.01, 0.05), "recall@10": interval(-0.04, 0.01, 0.06), MEAN: interval(-0.03, 0.01, 0.05)}
    assert _verdict(unsure, plain=True) == (True, "better on average, as the training found on its own held-out queries, than")
    assert not _verdict(unsure)[0]
    assert not _verdict(unsure | {MEAN: interval(-0.04, -0.001, 0.04)}, plain=True)[0]
    assert not _verdict(unsure | {"ndcg@10": interval(-0.04, -0.02, -0.001)}, plain=True)[0]


def test_an_identity_in_use_is_plain_retrieval(corpus):
    held, slight = queries(corpus, 60, noise=1.2), model(0.5)
    kept, taken = (decide(slight, held, *corpus, in_use=("old", old)) for old in (model(0.01), QueryAdapter(16)))
    assert (kept.better, taken.better) == (False, True), (kept.reason, taken.reason)
