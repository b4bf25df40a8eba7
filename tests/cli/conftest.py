"""A store with documents, labels in every form, and a model."""

import numpy as np
import pytest

from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.demo.documents import api_documents
from deepmem_integrations.demo.run import load_questions
from tests.cli.helpers import Shop, deepmem
from tests.openai_server import embed, openai_server


@pytest.fixture(scope="package")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    documents = api_documents()[:60]
    train, test = load_questions("train", documents), load_questions("test", documents)
    DeepLakeStore(folder / "ds").add(
        [document.id for document in documents],
        np.array([embed(document.text) for document in documents]),
        [document.text for document in documents],
        [{"page": f"page-{row // 3}"} for row in range(len(documents))],
    )
    train.to_jsonl(folder / "train.jsonl")
    test.to_jsonl(folder / "test.jsonl")
    train.to_beir(folder / "beir", "train")
    test.to_llama_index(folder / "test.json", {document.id: document.text for document in documents})
    with pytest.MonkeyPatch.context() as patch, openai_server() as server:
        patch.setenv("OPENAI_BASE_URL", server.url)
        patch.setenv("OPENAI_API_KEY", "good-key")
        patch.setenv("COLUMNS", "120")
        for name in ("DEEPMEM_STORE", "DEEPMEM_EMBEDDING", "DEEPMEM_PATH"):
            patch.delenv(name, raising=False)
        shop = Shop(folder, documents, train, test)
        done = deepmem("train", folder / "train.jsonl", *shop.store, "--keep-texts", "--json")
        assert done.code == 0, done.err
        shop.job = done.json
        yield shop
