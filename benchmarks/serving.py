"""Measures what a transform costs a query: ``bash benchmarks/run serving``.

In the same run, each transform is compared with one numpy product of a query with a matrix of as many bytes as the adapter
holds, and with LlamaIndex's own linear adapter. For very many keys, the script also measures what the lists of keys miss
against a search of all keys.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a server runs one query a thread

import numpy as np
from llama_index.core import MockEmbedding
from llama_index.embeddings.adapter import AdapterEmbeddingModel
from llama_index.embeddings.adapter.utils import LinearLayer
from numpy.typing import NDArray

from benchmarks.results import FOLDER, machine
from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter.attention import Attention, KernelSpace
from deepmem_integrations.adapter.lists import MANY_KEYS, Lists

KEYS = (1_000, 10_000, 100_000)
DIMENSIONS = (384, 1_536)
REPEATS = 200


def adapter(keys: int, dimension: int) -> tuple[QueryAdapter, Attention]:
    """Make an adapter with both parts over clustered keys. Returns it and its attention part without lists."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(keys // 20, dimension))
    places = topics[rng.integers(len(topics), size=keys)] + 0.7 * rng.normal(size=(keys, dimension))
    places = (places / np.linalg.norm(places, axis=1, keepdims=True)).astype(np.float32)
    values = rng.normal(size=(keys, dimension)).astype(np.float32)
    space = KernelSpace(np.zeros(dimension, dtype=np.float32), np.eye(dimension, dtype=np.float32))
    attention = Attention(places, values, 0.1, 8.0, space)
    linear = (0.1 * rng.normal(size=(dimension, dimension)) / np.sqrt(dimension)).astype(np.float32)
    if keys < MANY_KEYS:
        return QueryAdapter(dimension, linear=linear, attention=attention), attention
    order, lists = Lists.of(places)
    listed = replace(attention, keys=places[order], values=values[order], lists=lists)
    return QueryAdapter(dimension, linear=linear, attention=listed), replace(listed, lists=None)


def llama_index_adapter(dimension: int) -> AdapterEmbeddingModel:
    """Make LlamaIndex's linear adapter over an embedding model that costs no time."""
    with tempfile.TemporaryDirectory() as folder:
        LinearLayer(dimension, dimension).save(folder)
        return AdapterEmbeddingModel(MockEmbedding(embed_dim=dimension), folder, device="cpu")


def milliseconds(works: dict[str, Callable[[NDArray[np.float32]], object]], queries: NDArray[np.float32]) -> dict[str, float]:
    """Return the median time of each work over the queries, one query at a time.

    The works take turns, so that other load on the machine slows all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for query in queries:
        for name, work in works.items():
            work(query)  # an untimed call first, because the other works have filled the caches
            started = time.perf_counter()
            work(query)
            taken[name].append(time.perf_counter() - started)
    return {name: 1e3 * float(np.median(times)) for name, times in taken.items()}


def main() -> None:
    """Measure, print and write ``results/serving.json``."""
    rows = []
    for dimension in DIMENSIONS:
        theirs = llama_index_adapter(dimension)
        for keys in KEYS:
            ours, exact = adapter(keys, dimension)
            rng = np.random.default_rng(1)
            picked = ours.attention.keys[rng.integers(keys, size=REPEATS)]  # type: ignore[union-attr]
            queries = (picked + 0.7 * rng.normal(size=picked.shape) / np.sqrt(dimension)).astype(np.float32)
            held = 2 * dimension + keys  # rows: the linear part, the whitening, the keys
            matrix = np.ones((held, dimension), dtype=np.float32)
            works = {
                "transform_ms": ours.transform,
                "product_ms": matrix.__matmul__,
                "llama_index_ms": lambda _: theirs.get_query_embedding("a question"),  # noqa: B023
            }
            times = milliseconds(works, queries)
            shift, expected = ours.attention.shift(queries), exact.shift(queries)  # type: ignore[union-attr]
            error = np.linalg.norm(shift - expected, axis=1) / np.linalg.norm(expected, axis=1)
            rows.append(
                {
                    "keys": keys,
                    "dimension": dimension,
                    **times,
                    "ratio_to_product": times["transform_ms"] / times["product_ms"],
                    "median_error": float(np.median(error)),
                    "mean_error": float(error.mean()),
                }
            )
            print(
                f"{keys:>7,} keys × {dimension:>5}: "
                f"{times['transform_ms']:7.3f} ms, one product over the same bytes {times['product_ms']:7.3f} ms "
                f"(ratio {rows[-1]['ratio_to_product']:.2f}), LlamaIndex's LinearLayer {times['llama_index_ms']:7.3f} ms, "
                f"movement off by {100 * error.mean():.2f}% on average"
            )
        here = {row["keys"]: row for row in rows if row["dimension"] == dimension}
        print(f"  100,000 keys over 10,000: {here[100_000]['transform_ms'] / here[10_000]['transform_ms']:.2f} times")
    text = json.dumps({"rows": rows, **machine(["llama-index-embeddings-adapter"])}, indent=1)
    (FOLDER / "serving.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
