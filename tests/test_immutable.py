import pytest

from deepmem_integrations._immutable import Immutable


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
