import numpy as np
import pytest

from deepmem_integrations import Relevance
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.adapter import PROBES
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidRelevanceError, StorageError
from deepmem_integrations.jobs.inputs import read_inputs, write_inputs
from tests.embeddings import LookupEmbeddings
from tests.jobs.helpers import leftovers


def test_what_cannot_be_trained_on_is_told_before_a_process_starts(memory, problem):
    calls = []
    with pytest.raises(InvalidRelevanceError, match="'nope' is not in the corpus"):
        memory.train(["a"], [[("nope", 1.0)]], calls.append, wait=False)
    assert calls == [], "nothing was embedded"
    with pytest.raises(EmbeddingMismatchError, match="4 dimensions where 32 are expected"):
        memory.train(problem.train, embedding_function=lambda texts: np.ones((len(texts), 4)), wait=False)
    with pytest.raises(ValueError, match="max_unseen_loss is a number of points"):
        memory.train(problem.train, max_unseen_loss=-1, wait=False)
    assert {job.state for job in memory.jobs.all()} == {"failed"}
    assert leftovers(memory) == []


class Counting(LookupEmbeddings):
    """Keeps every text that it embeds, on either side."""

    def __init__(self, problem):
        super().__init__(problem)
        self.embedded = []

    def embed_query(self, text):
        self.embedded.append(text)
        return super().embed_query(text)


@pytest.fixture
def counting(problem):
    return Counting(problem)


@pytest.fixture
def corpus(problem):
    return GivenCorpus(problem.ids, problem.ids, problem.ids, LookupEmbeddings(problem))


OPTIONS = {"max_unseen_loss": None, "seed": 0, "keep_texts": False}


@pytest.mark.parametrize("wrong", ["labels", "validation"])
def test_labels_are_checked_before_a_query_is_embedded(corpus, counting, problem, tmp_path, wrong):
    unknown = Relevance(["one more"], [[("nowhere", 1.0)]])
    given = {"labels": problem.train, "validation": problem.test, wrong: unknown}
    with pytest.raises(InvalidRelevanceError, match="'nowhere' is not in the corpus"):
        write_inputs(tmp_path, corpus, given["labels"], given["validation"], Embedder(counting), OPTIONS)
    assert counting.embedded == []


def test_what_was_written_is_read(corpus, counting, problem, tmp_path):
    labels = problem.train + Relevance(["written"], [[("doc-1", 0.5)]], generated=True)
    options = {"max_unseen_loss": 2.0, "seed": 3, "keep_texts": True}
    write_inputs(tmp_path / "new", corpus, labels, problem.test, Embedder(counting), options)
    read = read_inputs(tmp_path / "new")
    assert read.labels == labels
    assert read.corpus_ids == problem.ids
    assert read.options == options
    np.testing.assert_allclose(read.corpus, unit_rows(problem.corpus, "row"), atol=1e-6)
    np.testing.assert_allclose(read.queries[:-1], unit_rows(problem.train_queries, "row"), atol=1e-6)
    vectors, validation = read.validation
    assert validation == problem.test
    np.testing.assert_allclose(vectors, unit_rows(problem.test_queries, "row"), atol=1e-6)
    read.fingerprint.check(Embedder(LookupEmbeddings(problem)).fingerprint())
    assert read.fingerprint.model == "lookup"
    assert set(counting.embedded) == {*labels.queries, *problem.test.queries, *PROBES}
    write_inputs(tmp_path / "other", corpus, labels, None, Embedder(counting), options)
    assert read_inputs(tmp_path / "other").validation is None


def test_damaged_inputs_are_an_error_that_names_the_file(corpus, counting, problem, tmp_path):
    write_inputs(tmp_path, corpus, problem.train, None, Embedder(counting), OPTIONS)
    for name, content in (("options.json", b"{"), ("queries.json", b"\xff"), ("corpus.npy", b"no array")):
        before = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StorageError, match=name):
            read_inputs(tmp_path)
        (tmp_path / name).write_bytes(before)
    assert read_inputs(tmp_path).labels == problem.train
    (tmp_path / "corpus.npy").write_bytes(b"no array")
    with pytest.raises(StorageError, match=r"corpus\.npy is damaged: start the training again\.$"):
        read_inputs(tmp_path)


def test_all_judgements_and_times_are_written_and_read(corpus, counting, problem, tmp_path):
    relevance = [[*labels, (problem.ids[-1 - row], -row / 2)] for row, labels in enumerate(problem.train.labels[:3])]
    relevance.append([(problem.ids[9], -1.0)])
    labels = Relevance(problem.train.queries[:4], relevance, times=[1, None, 3, None])
    write_inputs(tmp_path / "judged", corpus, labels, labels.take([3]), Embedder(counting), OPTIONS)
    inputs = read_inputs(tmp_path / "judged")
    assert inputs.labels == labels
    assert inputs.validation[1] == labels.take([3])
    answered = Relevance(labels.queries[:3], labels.labels[:3], times=labels.times[:3])
    write_inputs(tmp_path / "plain", corpus, answered, None, Embedder(counting), OPTIONS)
    assert read_inputs(tmp_path / "plain").data["queries"] != inputs.data["queries"], "the fingerprint tells them apart"
    unknown = Relevance(["no"], [[("nowhere", -1.0)]])
    with pytest.raises(InvalidRelevanceError, match="'nowhere' is not in the corpus"):
        write_inputs(tmp_path / "wrong", corpus, unknown, None, Embedder(counting), OPTIONS)
