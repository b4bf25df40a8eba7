"""What is the same of a kind of store through both frameworks; the stores themselves are in the files beside this one."""

import numpy as np
import pytest

from deepmem_integrations.corpora import stores
from deepmem_integrations.corpora.stores import StoreCorpus, batches, kind_of
from deepmem_integrations.errors import StoreError


class Store:
    pass


class Grown(Store):
    pass


class Ranked(StoreCorpus):
    """A store of vectors that ranks by anything."""

    def __init__(self, metric, vectors):
        super().__init__(Store())
        self._metric, self._given = metric, np.asarray(vectors, dtype=np.float32)

    @property
    def metric(self):
        return self._metric

    def read_vectors(self):
        for row, vector in enumerate(self._given):
            yield [str(row)], vector[None]

    def read_documents(self):
        yield from ()


EVEN, UNEVEN = np.eye(3), np.diag([1.0, 2.0, 3.0])


@pytest.mark.parametrize(("metric", "vectors"), [("cosine", UNEVEN), ("l2", EVEN), ("dot", EVEN), ("l2", 1.02 * EVEN)])
def test_what_ranks_as_cosine_similarity_does_is_read(metric, vectors):
    corpus = Ranked(metric, vectors)
    length = 1.0 if metric == "cosine" else np.linalg.norm(vectors[0])
    assert corpus.measure().length == pytest.approx(length), "the length that counts in scores"
    np.testing.assert_allclose(np.concatenate([batch for _, batch in corpus.vectors()]), vectors)
    assert [ids for ids, _ in corpus.around(lambda: pytest.fail("asked for queries"), 1, ())] == [["0"], ["1"], ["2"]]


@pytest.mark.parametrize(("metric", "vectors"), [("l2", UNEVEN), ("dot", UNEVEN), ("manhattan", EVEN)])
def test_what_ranks_otherwise_is_refused_with_the_cure(metric, vectors):
    with pytest.raises(StoreError, match=rf"Store ranks by {metric}, .* lengths of .* Make the store with cosine distance"):
        list(Ranked(metric, vectors).vectors())


class Failing(Ranked):
    """A store whose connection ends in the middle of a scan."""

    def read_vectors(self):
        yield from super().read_vectors()
        raise ConnectionResetError("the server is gone")

    def read_documents(self):
        yield ["a document"]
        raise ConnectionResetError("the server is gone")


@pytest.mark.parametrize("read", ["vectors", "documents"])
def test_a_store_that_fails_in_the_middle_of_a_scan_is_a_store_error(read):
    batches = getattr(Failing("cosine", EVEN), read)()
    next(batches)
    with pytest.raises(StoreError, match="documents of Store cannot be read: ConnectionResetError: the server is gone"):
        list(batches)


def test_an_empty_store_tells_no_length_unless_lengths_are_of_no_use():
    assert Ranked("l2", np.empty((0, 3))).measure() is None
    assert Ranked("cosine", np.empty((0, 3))).measure().length == 1.0


def test_a_subclass_is_of_the_kind_of_its_base():
    assert kind_of(Store(), ["tests.Store", "other.Store"]) == "tests.Store"
    assert kind_of(Grown(), {"tests.Store": 1}) == "tests.Store"
    assert kind_of(Grown(), ["tests.Store", "tests.Grown"]) == "tests.Grown", "the nearest"
    assert kind_of(Store(), ["chroma.Store", "tests.Grown"]) is None


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (3, [3]), (7, [3, 3, 1])])
def test_anything_is_cut_into_lists(monkeypatch, count, sizes):
    monkeypatch.setattr(stores, "BATCH", 3)
    found = list(batches(iter(range(count))))
    assert [len(batch) for batch in found] == sizes
    assert [item for batch in found for item in batch] == list(range(count))
