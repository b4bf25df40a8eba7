"""A data set on an S3 endpoint: moto's server, on this machine."""

import numpy as np
import pytest

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import StoreError

pytestmark = pytest.mark.slow


def test_a_data_set_on_s3(s3):
    store = DeepLakeStore("s3://bucket/dataset", creds=s3)
    x = np.random.default_rng(0).normal(size=(20, 8))
    store.add([f"d{i}" for i in range(20)], x, [f"t{i}" for i in range(20)], [{"k": i % 2} for i in range(20)])
    store.delete(["d0"])
    again = DeepLakeStore("s3://bucket/dataset", creds=s3, read_only=True)
    assert len(again) == 19
    assert again.search(x[3], 1, filter={"k": 1})[0].text == "t3"
    with pytest.raises(StoreError, match="no local folder"):
        from deepmem_integrations import DeepMemory

        DeepMemory.from_deeplake(again, lambda texts: np.ones((len(texts), 8)))
