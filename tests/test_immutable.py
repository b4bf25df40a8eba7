import copy
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest

from deepmem_integrations._immutable import Immutable, ReadOnlyArrays


class Point(Immutable):
    def __init__(self, x):
        vars(self).update(x=x)


def test_attributes_are_set_once():
    point = Point(3)
    assert point.x == 3
    for name in ("x", "y"):
        with pytest.raises(AttributeError, match=f"A Point never changes, so its {name} cannot be set: make a new one"):
            setattr(point, name, 4)
        with pytest.raises(AttributeError, match=f"A Point never changes, so its {name} cannot be deleted: make a new one"):
            delattr(point, name)
    assert vars(point) == {"x": 3}


@dataclass(frozen=True)
class Table(ReadOnlyArrays):
    name: str
    rows: np.ndarray
    other: np.ndarray | None = None


@pytest.mark.parametrize(
    "again", [lambda x: x, copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: replace(x, name="b")]
)
def test_arrays_refuse_to_be_written_into(again):
    rows = np.zeros(3)
    table = again(Table("a", rows))
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0] = 1
    rows[0] = 1  # the caller's own array is no copy, and stays writable
    np.testing.assert_array_equal(Table("a", rows).rows, rows)
