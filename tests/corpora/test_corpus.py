import numpy as np
import pytest

from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.corpora import DeepLakeCorpus, GivenCorpus, ListedCorpus, read_corpus, unit_batches
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import InvalidVectorsError


def never():
    raise AssertionError("the queries were asked for")


class Batches(ListedCorpus):
    """The problem in batches, with objects of its own for documents."""

    def __init__(self, problem):
        self.problem = problem

    def vectors(self):
        for start in range(0, len(self.problem.ids), 70):
            yield self.problem.ids[start : start + 70], self.problem.corpus[start : start + 70]

    def documents(self):
        yield [("document", name) for name in self.problem.ids]


@pytest.fixture(params=["given", "deeplake", "batches"])
def listed(request, problem, embeddings, tmp_path):
    if request.param == "given":
        return GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings)
    if request.param == "deeplake":
        store = DeepLakeStore(tmp_path / "dataset")
        store.add(problem.ids, problem.corpus)
        return DeepLakeCorpus(store)
    return Batches(problem)


def test_a_listed_corpus_gives_all_documents_and_never_asks_for_the_queries(listed, problem):
    assert listed.listed
    ids, vectors = read_corpus(listed.around(never, 1, {"doc-7", "nowhere"}))
    assert ids == problem.ids
    np.testing.assert_allclose(vectors, unit_rows(problem.corpus, "row"), atol=1e-6)


def test_given_documents_are_embedded_once_when_they_are_first_needed(problem, embeddings):
    calls = []

    def embed(texts):
        calls.append(len(texts))
        return embeddings.embed_documents(texts)

    corpus = GivenCorpus(["one", "two"], ["a", "b"], problem.ids[:2], embed)
    assert list(corpus.documents()) == [["one", "two"]]
    assert calls == []
    for _ in range(2):
        ((ids, vectors),) = corpus.vectors()
        assert ids == ["a", "b"]
        np.testing.assert_allclose(vectors, problem.corpus[:2], atol=1e-6)
    assert calls == [2]


def test_documents_of_a_data_set_become_objects_of_the_framework(problem, tmp_path):
    store = DeepLakeStore(tmp_path / "dataset")
    store.add(["a", "b"], problem.corpus[:2], ["A", "B"])
    assert list(DeepLakeCorpus(store, lambda document: (document.id, document.text)).documents()) == [[("a", "A"), ("b", "B")]]


def test_batches_are_unit_rows_and_empty_ones_are_left_out(problem):
    batches = [([], np.empty((0, 32))), (problem.ids[:2], 7 * problem.corpus[:2]), (problem.ids[2:3], problem.corpus[2:3])]
    found = list(unit_batches(batches))
    assert [ids for ids, _ in found] == [problem.ids[:2], problem.ids[2:3]]
    for (_, vectors), rows in zip(found, (slice(0, 2), slice(2, 3)), strict=True):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, unit_rows(problem.corpus[rows], "row"), atol=1e-6)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([(["a"], np.eye(2)[:1]), (["b"], np.eye(3)[:1])], r"The batches have different dimensions: \[2, 3\]"),
        ([(["a"], np.eye(2)[:1]), (["a"], np.eye(2)[:1])], r"'a' appears twice in the corpus \(again in row 1\)"),
        ([(["a", 3], np.eye(2))], r"Document ids are strings; row 1 has 3 \(int\)"),
        ([(["a"], np.eye(2))], "1 ids for 2 vectors"),
        ([(["a"], np.eye(2)[:1]), (["b"], np.zeros((1, 2)))], r"Corpus vector 1 \(id 'b'\) is all zeros"),
        ([], "The corpus is empty"),
    ],
)
def test_batches_that_cannot_be_used_are_named(batches, message):
    with pytest.raises(InvalidVectorsError, match=message):
        read_corpus(iter(batches))


def test_an_array_of_another_library_is_an_array():
    torch = pytest.importorskip("torch")
    pandas = pytest.importorskip("pandas")
    vectors = np.eye(3, dtype=np.float32)
    for given in (torch.tensor(vectors), pandas.DataFrame(vectors)):
        ids, read = read_corpus(given, list("abc"))
        assert ids == list("abc")
        np.testing.assert_array_equal(read, vectors)
    with pytest.raises(InvalidVectorsError, match="got set, and batches bring their own ids"):
        read_corpus({1.0}, ["a"])
