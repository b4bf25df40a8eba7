import numpy as np
import pytest
from langchain_core.documents import Document
from llama_index.core.schema import TextNode

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels import InvalidLabelsWarning, find_texts


def prose(seed, words=200):
    rng = np.random.default_rng(seed)
    return " ".join("".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=rng.integers(2, 9))) for _ in range(words))


def chunks(name, text, size):
    """Chunks of about ``size`` characters, cut between words."""
    found, rest = {}, text.split(" ")
    while rest:
        taken = 1
        while taken < len(rest) and (len(" ".join(rest[: taken + 1])) <= size or len(rest) - taken < 10):
            taken += 1
        found[f"{name}-{size}-{len(found)}"] = " ".join(rest[:taken])
        rest = rest[taken:]
    return found


PAGES = {f"page-{i}": prose(i) for i in range(5)}


def chunked(size):
    return {name: text for page, whole in PAGES.items() for name, text in chunks(page, whole, size).items()}


@pytest.mark.parametrize(("before", "after"), [(300, 600), (600, 300), (600, 1200), (1200, 300), (300, 300)])
def test_labels_go_along_with_their_text(before, after):
    old, new = chunked(before), chunked(after)
    labels = Relevance([f"query {i}" for i in range(len(old))], [[(name, 2.0)] for name in old])
    moved, carried = labels.carry_over(old, new)
    assert (carried.lost, carried.lost_queries) == (0, 0)
    for (name, *_), judged in zip(labels.relevance, moved.labels, strict=True):
        assert {target.rsplit("-", 2)[0] for target, _ in judged} == {name[0].rsplit("-", 2)[0]}, "never to another page"
        assert all(0.5 <= weight <= 2.0 for _, weight in judged)
    if before > after:
        assert max(map(len, moved.labels)) > 1


def test_layout_case_and_markup_change_nothing():
    old = {"a": PAGES["page-1"]}
    marked = "<p>" + PAGES["page-1"].upper().replace(" ", "\n  ") + "</p>"
    assert find_texts(["a"], old, {"b": marked})["a"]["b"] > 0.95


def test_scripts_without_spaces_go_along():
    text = "提交后撤销更改的方法是运行还原命令。合并后撤销更改需要指定主线编号。"
    assert find_texts(["a"], {"a": text}, {"x": text[:17], "y": text[17:], "z": "完全不同的内容，与撤销无关，讲述分支的用途。"})[
        "a"
    ].keys() == {
        "x",
        "y",
    }


def test_what_is_judged_irrelevant_goes_along_and_answers_win():
    old = {"a": PAGES["page-0"][:600], "b": PAGES["page-0"][600:]}
    labels = Relevance(["q", "r"], [[("a", 1.0), ("b", -1.0)], [("b", 0.0)]])
    moved = labels.relabel(old, {"whole": PAGES["page-0"]})
    assert moved.labels == ((("whole", 1.0),), ())
    assert moved.irrelevant == ((), (("whole", 0.0),))


def test_what_is_lost_is_counted_and_warned_of():
    labels = Relevance(["q", "r"], [[("page-0", 1.0), ("page-1", 1.0)], [("page-1", 1.0)]], ["one", "two"])
    new = {"page-0": PAGES["page-0"]}
    carried = labels.carry_over(PAGES, new)[1]
    assert (carried.judgements, carried.lost, carried.queries, carried.lost_queries) == (3, 2, 2, 1)
    assert str(carried).splitlines() == [
        "1 of 3 judgements carried over, 2 lost (66.7%); 1 of 2 queries have none left",
        "2 judged documents: 1 stay as they are, 0 have other ids or chunks, 1 are gone",
    ]
    with pytest.warns(InvalidLabelsWarning, match="Left out 1 of 2 labelled queries: 2 × document's text is gone"):
        left = labels.relabel(PAGES, new)
    assert left.query_ids == ("one",)
    assert left.left_out == {"document's text is gone": 2, "no document left": 1}


def test_a_document_whose_old_text_is_not_given_stays_if_its_id_is_there():
    labels = Relevance(["q"], [[("page-0", 1.0)]])
    assert labels.relabel({}, PAGES) == labels
    with pytest.warns(InvalidLabelsWarning):
        assert len(labels.relabel({}, {"other": "text"})) == 0


def test_short_and_empty_texts():
    assert find_texts(["a"], {"a": "Undo"}, {"b": "undo!", "c": "redo", "d": ""})["a"] == {"b": 1.0}
    assert find_texts(["a"], {"a": ""}, {"b": "", "c": "text"}) == {"a": {}}
    assert find_texts([], PAGES, PAGES) == {}


@pytest.mark.parametrize(
    "make", [lambda name, text: Document(id=name, page_content=text), lambda name, text: TextNode(id_=name, text=text)]
)
def test_documents_of_both_frameworks(make):
    old = [make(name, text) for name, text in PAGES.items()]
    labels = Relevance(["q"], [[("page-3", 1.0)]])
    assert labels.relabel(old, {"new": PAGES["page-3"]}).labels == ((("new", 1.0),),)
    with pytest.raises(InvalidRelevanceError, match=r"a int is no document: pass id → text"):
        labels.relabel([3], {})
    with pytest.raises(InvalidRelevanceError, match="a document has no id"):
        labels.relabel([Document("text")], {})


def test_prune_leaves_out_what_is_gone_without_a_warning():
    labels = Relevance(["a", "b"], [[("doc-1", 1.0), ("doc-2", -1.0)], [("doc-2", 1.0)]])
    pruned = labels.prune(["doc-1"])
    assert (pruned.labels, pruned.irrelevant) == (((("doc-1", 1.0),),), ((),))
    assert labels.prune(["doc-1", "doc-2"]) is labels


class Embeddings:
    """A vector for each text, and for a query that of the text in it."""

    def __init__(self, texts):
        rng = np.random.default_rng(0)
        self.vectors = {text: rng.normal(size=24) for text in texts}

    def __call__(self, texts):
        return np.stack([self.vectors.get(text, self.vectors[next(iter(self.vectors))]) + 0.01 * len(text) for text in texts])


def test_remembered_answers_move_with_the_texts(tmp_path):
    pytest.importorskip("torch")
    old, new = chunked(600), {name: text for name, text in chunked(300).items() if not name.startswith("page-4")}
    queries = [f"question {i} {text}" for i, text in enumerate(old.values())]
    embed = Embeddings([*old.values(), *new.values(), *queries])
    labels = Relevance(queries, [[(name, 1.0)] for name in old], [f"q{i}" for i in range(len(old))])
    before = DeepMemory(GivenCorpus(list(old.items()), list(old), list(old.values()), embed), embed, tmp_path / "m")
    first = before.train(labels, words=False)
    after = DeepMemory(GivenCorpus(list(new.items()), list(new), list(new.values()), embed), embed, tmp_path / "m")
    moved = after.relabel(old)
    assert after.get_model() == moved
    assert (after.audit()[-1].action, after.audit()[-1].before) == ("relabel", first)
    remembered = after.adapter.remembered_queries
    assert set(remembered.document_ids) <= set(new)
    row = remembered.query_ids.index("q0")
    assert remembered.documents_of(row).keys() == find_texts([next(iter(old))], old, new)[next(iter(old))].keys()
    gone = {query_id for query_id, name in zip(labels.query_ids, old, strict=True) if name.startswith("page-4")}
    assert set(remembered.query_ids) == set(labels.query_ids) - gone
    assert after.prune() == moved, "nothing is gone now"
    assert after.rollback() == first
    pruned = after.prune()
    assert pruned != first or not set(before.adapter.remembered_queries.document_ids) - set(new)


def test_training_and_evaluation_drop_labels_of_documents_that_are_gone(memory, problem):
    pytest.importorskip("torch")
    gone = Relevance(["train 3", "gone"], [[("doc-0", 1.0), ("gone", 1.0)], [("gone", 1.0)]], ["x", "y"])
    labels = problem.train.take(range(60)) + gone
    with pytest.raises(InvalidRelevanceError, match="'gone' is not in the corpus"):
        memory.train(labels)
    with pytest.warns(InvalidLabelsWarning, match="Left out 1 of 62 labelled queries: 2 × document not in the corpus"):
        memory.train(labels, on_invalid="drop")
    assert memory.adapter.remembered_queries.trained == 61
    with pytest.raises(InvalidRelevanceError, match="'gone' is not in the corpus"):
        memory.measure(problem.test + gone)
    with pytest.warns(InvalidLabelsWarning):
        assert len(memory.measure(problem.test + gone, on_invalid="drop").query_ids) == len(problem.test) + 1
    vectors = np.concatenate([problem.test_queries, problem.test_queries[:2]])
    with pytest.warns(InvalidLabelsWarning):
        measured = memory.measure(problem.test + gone, embedding=vectors, on_invalid="drop")
    assert len(measured.query_ids) == len(problem.test) + 1
    with pytest.warns(InvalidLabelsWarning), pytest.raises(InvalidRelevanceError, match="No judged document is in the store"):
        memory.train(gone.take([1]), on_invalid="drop")


@pytest.mark.parametrize("text", ["", "→ ✓ ∑", "$$$"])
def test_a_document_without_letters_is_itself_while_its_text_is_the_same(text):
    same = {"picture": text, "page": PAGES["page-1"]}
    assert find_texts(["picture", "page"], same, same) == {"picture": {"picture": 1.0}, "page": {"page": 1.0}}
    assert find_texts(["picture"], same, {**same, "picture": text + "?!"}) == {"picture": {}}
    assert find_texts(["picture"], same, {"other": text}) == {"picture": {}}
