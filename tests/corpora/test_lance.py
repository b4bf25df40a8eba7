"""Corpora of Lance data sets, on disk; tests/test_cluster.py reads one from S3."""

import pickle
import shutil

import lance
import numpy as np
import pyarrow as pa
import pytest

from deepmem_integrations import _vectors
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.corpora import LanceCorpus, open_shards, read_corpus
from deepmem_integrations.errors import InvalidVectorsError, StoreError
from deepmem_integrations.training import corpus_sample


def table(ids, vectors, **columns):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(vectors).ravel()), len(vectors[0]))
    return pa.table({"id": ids, "vector": lists, **columns})


@pytest.fixture
def folder(problem, tmp_path):
    """The problem's documents in three fragments, and another one, which is deleted."""
    path = tmp_path / "pages.lance"
    for start in (0, 100, 200):
        ids, vectors = problem.ids[start : start + 100], problem.corpus[start : start + 100]
        texts = [f"text of {name}" for name in ids]
        lance.write_dataset(table(ids, vectors, text=texts, page=list(range(100))), path, mode="append" if start else "create")
    lance.write_dataset(table(["gone"], problem.corpus[:1], text=["x"], page=[7]), path, mode="append")
    lance.dataset(path).delete("id = 'gone'")
    return path


@pytest.fixture
def blocks(monkeypatch):
    """Let blocks have 30 documents, and so shards 120."""
    monkeypatch.setattr(_vectors, "_BLOCK_FLOATS", 960)


def test_shards_are_ranges_of_rows_across_fragments(folder, problem, blocks):
    corpus = LanceCorpus(folder)
    assert [(shard.first, shard.count) for shard in corpus.shards()] == [(0, 120), (120, 120), (240, 60)]
    assert (len(corpus), corpus.dimension) == (300, 32)
    batches = [len(ids) for ids, _ in corpus.vectors()]
    assert batches == [30] * 10, "a batch goes over the end of a fragment"
    ids, vectors = read_corpus(corpus.vectors())
    assert ids == problem.ids
    np.testing.assert_allclose(vectors, problem.corpus, atol=1e-6)
    assert corpus.known({"doc-7", "doc-299", "gone"}) == {"doc-7", "doc-299"}
    found = [document for batch in corpus.documents() for document in batch]
    assert (found[105].id, found[105].text, found[105].metadata) == ("doc-105", "text of doc-105", {"page": 5})
    assert sum(len(texts) for _, texts in corpus.texts()) == 300
    again = pickle.loads(pickle.dumps(corpus.shards()[2]))
    assert next(again.batches())[0] == problem.ids[240:270]
    assert "options" not in repr(again), "there may be keys among them"


def test_what_a_training_reads_is_that_of_an_array_to_the_last_bit(folder, problem, blocks, monkeypatch):
    monkeypatch.setattr(corpus_sample, "MAX_DOCUMENTS", 50)
    monkeypatch.setattr(corpus_sample, "NEAR", 1)
    queries = unit_rows(problem.train_queries[:5], "query vector")
    one, other = (
        corpus_sample.read_corpus_sample(vectors, ids, queries, {"doc-7"}, 0)
        for vectors, ids in ((LanceCorpus(folder), None), (problem.corpus, problem.ids))
    )
    assert one.ids == other.ids and (one.total, len(one.ids)) == (300, 50)
    np.testing.assert_array_equal(one.vectors, other.vectors)
    np.testing.assert_array_equal(one.statistics.covariance, other.statistics.covariance)


def test_a_write_changes_nothing_of_the_version_that_is_read(folder, problem, blocks):
    corpus = LanceCorpus(folder).in_shards()
    batches = corpus.vectors()
    first = next(batches)[0]
    lance.dataset(folder).delete("page < 50")
    lance.write_dataset(table(["new"], problem.corpus[:1], text=["x"], page=[60]), folder, mode="append")
    assert [*first, *(name for ids, _ in batches for name in ids)] == problem.ids
    assert len(open_shards(corpus.kind, corpus.to_json())) == 300
    assert len(LanceCorpus(folder)) == 151
    assert len(LanceCorpus(folder, version=corpus.version)) == 300


def test_another_data_set_at_the_same_path_is_refused(folder, problem):
    shard = LanceCorpus(folder).shards()[0]
    shutil.rmtree(folder)
    for _ in range(5):
        lance.write_dataset(table(problem.ids, problem.corpus), folder, mode="append" if folder.exists() else "create")
    with pytest.raises(StoreError, match="was deleted and made again while it was read"):
        list(shard.batches())


def test_what_cannot_be_used_is_named(folder, problem, tmp_path):
    with pytest.raises(StoreError, match="Cannot read .*nothing"):
        len(LanceCorpus(tmp_path / "nothing"))
    with pytest.raises(StoreError, match="Cannot read .*pages.lance"):
        len(LanceCorpus(folder, version=99))
    with pytest.raises(StoreError, match="no column 'embedding'. Its columns are 'id', 'vector', 'text', 'page'"):
        len(LanceCorpus(folder, vector="embedding"))
    with pytest.raises(StoreError, match="no column 'body'"):
        next(LanceCorpus(folder, text="body").texts())
    with pytest.raises(StoreError, match="where ids are texts or whole numbers"):
        len(LanceCorpus(folder, id="vector"))
    lance.write_dataset(table(["a", "b"], np.array([[1.0, 2.0], [0.0, 0.0]])), tmp_path / "zeros")
    with pytest.raises(InvalidVectorsError, match=r"vector 1 \(id 'b'\) is all zeros"):
        read_corpus(LanceCorpus(tmp_path / "zeros").vectors())
    lists = pa.table({"id": ["a", "b"], "vector": [[1.0, 2.0], [1.0]]})
    lance.write_dataset(lists, tmp_path / "lists")
    with pytest.raises(InvalidVectorsError, match=r"vector 1 \(id 'b'\).*1 numbers where others have 2"):
        read_corpus(LanceCorpus(tmp_path / "lists").vectors())
    lance.dataset(folder).delete("page >= 0")
    with pytest.raises(StoreError, match="has no documents"):
        LanceCorpus(folder).dimension  # noqa: B018


def test_a_data_set_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(StoreError, match=r"^Cannot read \S+nowhere\.lance: there is no Lance data set\.$"):
        len(LanceCorpus(tmp_path / "nowhere.lance"))
