import pickle

import numpy as np
import pytest

from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.corpora import Lots, Selection, selection
from deepmem_integrations.errors import InvalidVectorsError

SIZE, NEAR = 90, 3


@pytest.fixture
def corpus():
    rng = np.random.default_rng(1)
    vectors = unit_rows(rng.normal(size=(1_000, 6)), "document")
    vectors[500:600] = vectors[:100]  # equal cosines, in different parts
    return vectors


@pytest.fixture
def queries(corpus):
    return corpus[[3, 77, 503, 900, 950]]


def ids_of(rows):
    return [f"doc-{row}" for row in rows]


def expected(corpus, queries, named, lots):
    order = np.argsort(-(queries @ corpus.T), axis=1, kind="stable")
    sure = {*order[:, :NEAR].ravel().tolist(), *named}
    others = [row for row in np.argsort(lots.of(0, len(corpus))).tolist() if row not in sure]
    return sorted({*sure, *others[: max(0, SIZE - len(sure))]})


@pytest.mark.parametrize("named", [[], [5, 999], range(0, 1_000, 5)], ids=["none", "some", "more than there is room for"])
def test_parts_of_a_corpus_give_the_same_choice_as_a_full_sort(corpus, queries, named, monkeypatch):
    monkeypatch.setattr(selection, "_TOGETHER", 64)
    lots = Lots(np.random.default_rng(0).bit_generator.state)
    names = set(ids_of(named))
    whole = Selection(queries, names, NEAR, SIZE, lots)
    joined = Selection(queries, names, NEAR, SIZE, lots)
    limit = lots.limit(len(corpus), SIZE)
    for first in range(0, 1_000, 100):
        rows = range(first, first + 100)
        whole.add(first, ids_of(rows), corpus[rows])
        # A part knows what was found by the time that it began, here two parts earlier.
        part = Selection(queries, names, NEAR, SIZE, lots, threshold=joined.threshold if first % 300 else None, limit=limit)
        part.add(first, ids_of(rows), corpus[rows])
        joined.join(pickle.loads(pickle.dumps(part.part())))
    wanted = expected(corpus, queries, named, lots)
    for chosen in (whole.chosen(), joined.chosen()):
        assert chosen.ids == ids_of(wanted)
        np.testing.assert_array_equal(chosen.numbers, wanted)
        np.testing.assert_array_equal(chosen.vectors, corpus[wanted])


def test_the_lots_of_a_part_need_none_of_those_before():
    state = np.random.default_rng(4).bit_generator.state
    np.testing.assert_array_equal(Lots(state).of(700, 50), np.random.default_rng(4).random(1_000)[700:750])
    assert Lots(state).limit(1_000, 10) == np.sort(np.random.default_rng(4).random(1_000))[9]
    assert Lots(state).limit(10, 10) == 1.0


def test_two_documents_of_one_id_in_different_parts_are_refused(corpus, queries):
    chosen = Selection(queries, {"doc-1"}, NEAR)
    chosen.add(0, ids_of(range(10)), corpus[:10])
    chosen.add(10, ids_of([50, 1]), corpus[10:12])
    with pytest.raises(InvalidVectorsError, match="'doc-1' is 2 times in the corpus"):
        chosen.chosen()
