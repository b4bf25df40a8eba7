"""Deep Lake data sets in shards, on disk; tests/test_cluster.py reads them from S3 and on a cluster."""

import pickle

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, _vectors
from deepmem_integrations.corpora import DeepLakeCorpus, open_shards, read_corpus
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import StoreError
from deepmem_integrations.jobs import trainer
from deepmem_integrations.jobs.inputs import read_inputs
from deepmem_integrations.training import corpus_sample


@pytest.fixture
def store(problem, tmp_path):
    """The problem's documents and another one, which is deleted."""
    store = DeepLakeStore(tmp_path / "pages")
    vectors = np.concatenate([problem.corpus[:7], problem.corpus[:1], problem.corpus[7:]])
    store.add([*problem.ids[:7], "gone", *problem.ids[7:]], vectors, [f"text {n}" for n in range(301)])
    store.delete(["gone"])
    return store


@pytest.fixture
def blocks(monkeypatch):
    """Let blocks have 10 documents, and so shards 40."""
    monkeypatch.setattr(_vectors, "_BLOCK_FLOATS", 320)


def test_shards_are_ranges_of_rows_without_the_deleted_ones(store, problem, blocks):
    corpus = DeepLakeCorpus(store).in_shards()
    assert [(shard.first, shard.count) for shard in corpus.shards()] == [(n, 40) for n in range(0, 280, 40)] + [(280, 20)]
    assert (len(corpus), corpus.dimension) == (300, 32)
    ids, vectors = read_corpus(corpus.vectors())
    assert ids == problem.ids
    np.testing.assert_array_equal(vectors, read_corpus(DeepLakeCorpus(store).vectors())[1])
    assert corpus.known({"doc-7", "doc-299", "gone", "no-such"}) == {"doc-7", "doc-299"}
    texts = [pair for ids, texts in corpus.texts() for pair in zip(ids, texts, strict=True)]
    assert texts == [(document.id, document.text) for batch in corpus.documents() for document in batch]
    again = pickle.loads(pickle.dumps(corpus.shards()[-1]))
    assert [len(names) for names, _ in again.batches()] == [10, 10]


def test_a_write_changes_nothing_of_the_version_that_is_read(store, problem, blocks):
    corpus = DeepLakeCorpus(store).in_shards()
    batches = corpus.vectors()
    first = next(batches)
    store.delete(problem.ids[:50])
    store.add(["new"], problem.corpus[:1])
    assert [*first[0], *(name for names, _ in batches for name in names)] == problem.ids
    there = open_shards(corpus.kind, corpus.to_json())
    assert read_corpus(there.vectors())[0] == problem.ids
    assert len(DeepLakeCorpus(store).in_shards()) == 251


def test_another_data_set_at_the_same_path_is_refused(store, problem, tmp_path):
    shard = DeepLakeCorpus(store).in_shards().shards()[0]
    kept = pickle.dumps(shard)
    other = DeepLakeStore(store.path, overwrite=True)
    other.add(problem.ids, problem.corpus)
    with pytest.raises(StoreError, match="has no version"):
        pickle.loads(kept)
    other.delete(problem.ids[:1])
    with pytest.raises(StoreError, match="was deleted and made again while it was read"):
        list(pickle.loads(kept).batches())
    DeepLakeStore(store.path, overwrite=True)
    with pytest.raises(StoreError, match="There is no Deep Lake data set"):
        pickle.loads(kept)


def test_what_this_process_alone_can_read_has_no_shards(store, problem):
    assert DeepLakeCorpus(store).under({"tenant": "acme"}).in_shards() is None
    in_memory = DeepLakeStore("mem://shards")
    assert DeepLakeCorpus(in_memory).in_shards() is None
    in_memory.add(["a"], [[1.0, 0.0]])
    assert DeepLakeCorpus(in_memory).in_shards() is None


def test_a_store_at_a_version(store, problem):
    then = store.snapshot()
    store.delete(problem.ids[:10])
    then.refresh()
    assert (len(then), len(store), len(then.snapshot())) == (300, 290, 300)
    assert then.search(problem.corpus[3], 1)[0].id == "doc-3"
    assert len(then.ids()) == 300 and len(pickle.loads(pickle.dumps(then))) == 300
    with pytest.raises(StoreError, match="read-only"):
        then.delete(["doc-3"])
    with pytest.raises(StoreError, match="has no version 'nothing'"):
        DeepLakeStore(store.path, version="nothing")


@pytest.mark.slow
def test_a_training_reads_the_data_set_and_gives_the_model_of_a_copy(store, problem, embeddings, tmp_path, blocks, monkeypatch):
    monkeypatch.setattr(corpus_sample, "MAX_DOCUMENTS", 200)
    monkeypatch.setattr(corpus_sample, "NEAR", 3)
    copies = []

    def read(folder):
        copies.append((folder / "corpus.npy").exists())
        return read_inputs(folder)

    monkeypatch.setattr(trainer, "read_inputs", read)
    memories = [DeepMemory.from_deeplake(store, embeddings, tmp_path / name) for name in ("shards", "copy")]
    memories[0].train(problem.train, words=False)
    monkeypatch.setattr(DeepLakeCorpus, "in_shards", lambda self: None)
    memories[1].train(problem.train, words=False)
    assert copies == [False, True]
    one, other = (memory.adapter for memory in memories)
    np.testing.assert_array_equal(one.transform(problem.test_queries), other.transform(problem.test_queries))
    reports = [{k: v for k, v in adapter.metadata["report"].items() if k != "seconds"} for adapter in (one, other)]
    assert reports[0] == reports[1] and reports[0]["ranked_documents"] < 300
    assert one.metadata["data"] == other.metadata["data"]
