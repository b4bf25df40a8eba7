import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations.labels.grouping import document_groups, drop_shared

LABELS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=15)


def shared(documents, one, other):
    return {d for row in one for d in documents[row]} & {d for row in other for d in documents[row]}


@given(LABELS, st.integers(0, 3))
def test_groups_share_no_document_and_do_not_fall_apart(documents, seed):
    groups = document_groups(documents, largest=len(documents), rng=np.random.default_rng(seed))
    assert sorted(row for group in groups for row in group) == list(range(len(documents)))
    for number, group in enumerate(groups):
        assert all(not shared(documents, group, other) for other in groups[:number])
        reached, left = group[:1], set(group[1:])
        while near := [row for row in left if shared(documents, reached, [row])]:
            reached, left = reached + near, left - set(near)
        assert not left, "not connected with the rest of its group"


@pytest.mark.parametrize(("largest", "sizes"), [(3, [1, 3]), (2, [1, 1, 1, 1])])
def test_a_group_that_is_too_large_is_broken_up(largest, sizes):
    chain = [["a", "b"], ["b", "c"], ["c", "d"], ["z"]]
    groups = document_groups(chain, largest=largest, rng=np.random.default_rng(0))
    assert sorted(map(len, groups)) == sizes


def test_the_order_is_drawn():
    documents = [[row] for row in range(20)]
    orders = [document_groups(documents, largest=1, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@given(LABELS, st.data())
def test_what_shares_a_document_with_the_held_out_part_is_dropped_and_counted(documents, data):
    held = data.draw(st.lists(st.sampled_from(range(len(documents))), unique=True))
    rows, dropped = drop_shared(documents, held)
    others = [row for row in range(len(documents)) if row not in held]
    assert rows == [row for row in others if not shared(documents, [row], held)]
    assert dropped == len(others) - len(rows)
