"""Small adapters, made by hand."""

import numpy as np

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Fingerprint, RememberedQueries, ValueSpace
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.labels import LabelRows


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


def remembering(queries, labels, **parts):
    """An adapter that moves nothing, and remembers queries with the one document that answers each."""
    keys = unit(np.asarray(queries, dtype=np.float32))
    names = sorted(set(labels))
    dimension = keys.shape[1]
    remembered = RememberedQueries(
        query_ids=tuple(f"q{row}" for row in range(len(keys))),
        texts=None,
        owners=np.arange(len(keys)),
        labels=LabelRows.of_rows([{names.index(name): 1.0} for name in labels]),
        document_ids=tuple(names),
        documents=np.zeros((len(names), dimension), dtype=np.float32),
        space=ValueSpace(np.zeros(dimension, dtype=np.float32), np.eye(dimension, dtype=np.float32), 1.0),
        trained=len(keys),
        trained_in_all=len(keys),
    )
    attention = Attention(keys, remembered.values, 0.1, 0.0)
    return QueryAdapter(dimension, attention=attention, remembered_queries=remembered, **parts)
