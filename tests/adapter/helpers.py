"""Small adapters, made by hand."""

import numpy as np

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Fingerprint
from deepmem_integrations.adapter.attention import Attention


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make_adapter(seed=0, dimension=4, **parts):
    rng = np.random.default_rng(seed)
    keys = unit(rng.normal(size=(6, dimension))).astype(np.float32)
    values = rng.normal(size=(6, dimension)).astype(np.float32)
    given = {
        "linear": (0.3 * rng.normal(size=(dimension, dimension))).astype(np.float32),
        "attention": Attention(keys, values, temperature=0.1, strength=2.0),
        "fingerprint": Fingerprint(dimension, "a-model", unit(rng.normal(size=(3, dimension))).astype(np.float32)),
        "metadata": {"note": "é"},
    }
    return QueryAdapter(dimension, **{**given, **parts})
