import json
from importlib.resources import files

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.demo.documents import api_documents
from deepmem_integrations.demo.run import load_questions, run_demo
from tests.openai_server import embed, openai_server


@pytest.fixture
def server(monkeypatch):
    with openai_server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "good-key")
        yield server


def test_the_recorded_questions_are_enough_and_apart():
    documents = api_documents()
    train, test = load_questions("train", documents), load_questions("test", documents)
    assert len(train) >= 300
    assert len(test) >= 150
    first = [labels[0][0] for labels in train.labels]
    assert sum(first.count(document.id) >= 2 for document in documents) > 0.9 * len(documents)
    normal = lambda text: " ".join("".join(c for c in text.lower() if c.isalnum() or c == " ").split())  # noqa: E731
    assert not {normal(query) for query in train.queries} & {normal(query) for query in test.queries}
    for split in ("train", "test"):
        lines = (files("deepmem_integrations.demo") / "questions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert {json.loads(line)["written_by"] for line in lines} == {"LLM"}


def test_labels_of_symbols_that_a_version_lacks_are_dropped_and_counted():
    documents = api_documents()[:100]
    train = load_questions("train", documents)
    assert 0 < len(train) < 547
    assert train.left_out["no document left"] == 547 - len(train)


@pytest.mark.slow
def test_the_whole_demo_through_an_openai_compatible_server(server, tmp_path, capsys):
    evaluation = run_demo(tmp_path, embedding="openai:text-embedding-3-small")
    assert evaluation.gains["recall@10"].low > 0
    assert evaluation.gains["recall@1"].low > 0
    printed = capsys.readouterr().out
    for part in (
        "| completed ",
        "---- Evaluating with Deep Memory ----",
        "recall@10 ",
        "The first answer changed for",
        "with Deep Memory",
    ):
        assert part in printed
    assert len(DeepLakeStore(tmp_path / "dataset", read_only=True)) == len(api_documents())
    (model,) = (tmp_path / "dataset.deepmemory" / "models").iterdir()
    adapter = QueryAdapter.load(model)
    assert adapter.fingerprint.model == "text-embedding-3-small"
    np.testing.assert_allclose(np.linalg.norm(adapter.transform(embed("x"))), 1, atol=1e-5)
    run_demo(tmp_path, embedding="openai:text-embedding-3-small")
    assert len(DeepLakeStore(tmp_path / "dataset", read_only=True)) == len(api_documents()), "a second run starts anew"
