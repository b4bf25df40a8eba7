import json
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.demo.documents import MIN_CHARACTERS, api_documents
from deepmem_integrations.demo.run import load_questions, run_demo
from deepmem_integrations.embedding import OpenAIEmbedding, load_embedding
from deepmem_integrations.errors import EmbeddingError
from tests.openai_server import embed, openai_server

PACKAGE = '''
"""The package's own docstring, long enough to be a document of its own in the corpus."""
import typing

class Dataset:
    """A dataset that can be written to, described in rather more than sixty characters."""
    def append(self, data: dict) -> None:
        """Append rows to the dataset.

        <!-- test-context
        secret = "hidden from readers"
        -->

        The same text stands in ReadOnlyDataset, so that both are one document.
        """
    @typing.overload
    def __getitem__(self, offset: int) -> Row:
        """Get a single row by its position in the dataset, counted from zero at the start."""
    @typing.overload
    def __getitem__(self, column: str) -> Column:
        """Get a whole column by its name; the column is read when it is used, not before."""
    @property
    def short(self) -> int:
        """Too short."""

class ReadOnlyDataset:
    def append(self, data: dict) -> None:
        """Append rows to the dataset.

        The same text stands in ReadOnlyDataset, so that both are one document.
        """
'''


@pytest.fixture
def server(monkeypatch):
    with openai_server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "good-key")
        yield server


def test_documents_are_docstrings_by_symbol(tmp_path):
    folder = tmp_path / "some_package"
    folder.mkdir()
    (folder / "__init__.pyi").write_text(PACKAGE)
    (folder / "types.pyi").write_text(
        "def Text() -> Type:\n    '''A text column, which may be indexed for exact or inverted search.'''\n"
    )
    documents = {document.id: document for document in api_documents(folder)}
    assert list(documents) == [
        "some_package",
        "some_package.Dataset",
        "some_package.Dataset.append",
        "some_package.Dataset.__getitem__(offset: int)",
        "some_package.Dataset.__getitem__(column: str)",
        "some_package.types.Text",
    ]
    append = documents["some_package.Dataset.append"]
    assert append.symbols == ("some_package.Dataset.append", "some_package.ReadOnlyDataset.append")
    assert "hidden" not in append.text
    assert append.text.endswith("so that both are one document.")


def test_the_installed_documentation_is_a_corpus():
    documents = api_documents()
    assert len(documents) >= 200
    assert len({document.id for document in documents}) == len(documents)
    assert len({document.text for document in documents}) == len(documents)
    assert min(len(document.text) for document in documents) >= MIN_CHARACTERS


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


def test_openai_embeddings_in_the_order_of_the_texts(server):
    model = OpenAIEmbedding("text-embedding-3-small")
    texts = ["one text", "another one", "a third"]
    np.testing.assert_allclose(model.embed_documents(texts), [embed(text) for text in texts])
    assert server.requests == [
        ("/v1/embeddings", "Bearer good-key", {"model": "text-embedding-3-small", "input": texts, "encoding_format": "float"})
    ]


def test_embedding_models_that_cannot_be_used(server, monkeypatch):
    for uri in ("bert", "openai", "openai:", ""):
        with pytest.raises(EmbeddingError, match="names no embedding model: use minilm, or openai:"):
            load_embedding(uri)
    with pytest.raises(EmbeddingError, match="Incorrect API key"):
        OpenAIEmbedding("m", api_key="bad-key").embed_query("x")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EmbeddingError, match="openai:m cannot be used.*OPENAI_API_KEY"):
        load_embedding("openai:m")


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


# ---- the command line ------------------------------------------------------------------------------------------------


def deepmem(*arguments, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", "from deepmem_integrations.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_command_line():
    assert deepmem("--version").stdout == "deepmem-integrations 0.1.0\n"
    assert "demo" in deepmem("--help").stdout
    assert "openai:MODEL" in deepmem("demo", "--help").stdout
    assert deepmem("nope").returncode == 2
    wrong = deepmem("demo", "--embedding", "bert")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("deepmem: 'bert' names no embedding model")


def test_without_its_extra_the_command_line_says_what_to_install(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('typer', name='typer')")
    done = deepmem("demo", PYTHONPATH=f"{tmp_path}:.")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith('Install it with: pip install "deepmem-integrations[cli]"\n')


@pytest.mark.slow
def test_the_demo_as_a_user_runs_it(tmp_path):
    done = deepmem("demo", "--path", str(tmp_path))
    assert done.returncode == 0, done.stderr
    evaluation = done.stdout.split("== 3.")[1]
    for metric in ("recall@10", "recall@1 "):
        line = next(line for line in evaluation.splitlines() if line.startswith(metric))
        assert line.endswith("*")
        assert float(line.split("[")[1].split(",")[0]) > 5, "clearly up, in points"
    assert (tmp_path / "dataset.deepmemory" / "current").exists()
