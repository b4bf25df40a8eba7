"""Commands as a user types them, in this process for speed or in a process of its own, and a store to run them on."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deepmem_integrations import Relevance
from deepmem_integrations.cli import main
from tests.openai_server import embed

SCRIPT = Path(sys.executable).parent / "deepmem"
EMBEDDING = "openai:text-embedding-3-small"


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def deepmem(*arguments, encoding="utf-8"):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code or 0
    for stream in (out, err):
        stream.seek(0)
    return Ended(code, out.read(), err.read())


def process(*arguments, **environment):
    """As a shell runs it."""
    done = subprocess.run(
        [SCRIPT, *map(str, arguments)],
        capture_output=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        env={**os.environ, "COLUMNS": "120", **environment},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass
class Shop:
    """A store with documents, labels in every form, and a model."""

    folder: Path
    documents: list
    train: Relevance
    test: Relevance

    @property
    def store(self):
        return ("--store", f"deeplake:{self.folder / 'ds'}", "--embedding", EMBEDDING)

    @property
    def jobs(self):
        return ("--path", self.folder / "ds.deepmemory")


class Texts:
    """The server's vectors as LangChain wants them."""

    model_name = "text-embedding-3-small"

    def embed_query(self, text):
        return embed(text)

    def embed_documents(self, texts):
        return [embed(text) for text in texts]


def langchain_embeddings():
    from langchain_core.embeddings import Embeddings

    return type("Model", (Texts, Embeddings), {})()
