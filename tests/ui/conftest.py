import numpy as np
import pytest

from deepmem_integrations import DeepMemory, embedding
from deepmem_integrations.cli.stores import open_store
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.opened import Hit, Opened
from deepmem_integrations.ui import workspace
from deepmem_integrations.ui.workspace import Workspace
from tests.openai_server import embed
from tests.report.conftest import SCRIPT

TEXTS = {
    "revert.md#1": "Undo a commit with git revert, which keeps the history as it was.",
    "clone.md#1": "Clone a repository with git clone, and its history comes along.",
    "hostile.md#1": f"Text that would like to run: {SCRIPT}",
}


def embed_all(texts):
    return [embed(text) for text in texts]


def open_texts(uri, embedding, folder):
    """Open a small store in memory, as the command line opens one that a URI names."""
    ids, texts = list(TEXTS), list(TEXTS.values())
    vectors = np.array(embed_all(texts))

    def search(vector, k, cosines, where):
        scores = vectors @ np.array(vector)
        return [Hit(ids[row], texts[row], float(scores[row])) for row in np.argsort(-scores)[:k]]

    memory = DeepMemory(GivenCorpus(list(zip(ids, texts, strict=True)), ids, texts, embed_all), embed_all, folder)
    return Opened(memory, search, lambda names, where: [Hit(name, TEXTS[name]) for name in names if name in TEXTS])


@pytest.fixture
def work(tmp_path):
    (tmp_path / "root").mkdir()
    opened = Workspace(tmp_path / "memory", tmp_path / "root", open_texts, store="texts:here")
    yield opened
    opened.close()


class Model:
    """Embeds without a model of its own."""

    model_name = "words"

    def embed_query(self, text):
        return embed(text)

    def embed_documents(self, texts):
        return embed_all(texts)


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A workspace of a folder of text files, ``notes.texts``."""
    for module in (workspace, embedding):
        monkeypatch.setattr(module, "load_embedding", lambda name: Model())
    (tmp_path / "notes").mkdir()
    opened = Workspace(tmp_path / "memory", tmp_path, open_store, texts=tmp_path / "notes")
    yield opened
    opened.close()
