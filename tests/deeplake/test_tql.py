import numpy as np
import pytest

from deepmem_integrations.deeplake.tql import literal
from deepmem_integrations.errors import StoreError


def test_literals():
    assert literal("it's") == "'it''s'"
    assert [literal(v) for v in (True, False, 3, 2.5, np.int64(4), np.float32(0.5))] == ["true", "false", "3", "2.5", "4", "0.5"]
    for bad in (float("nan"), float("inf"), None, [1], "a\0b"):
        with pytest.raises(StoreError):
            literal(bad)
