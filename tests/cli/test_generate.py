import contextlib
import sqlite3

import pytest

from deepmem_integrations import Relevance
from tests.cli.helpers import deepmem, process


@pytest.mark.slow
def test_generate(shop, tmp_path):
    labels = tmp_path / "labels.jsonl"
    options = ("generate", labels, *shop.store, "--llm", "extractive", "--per-document", 2, "--max-documents", 20)
    expected = deepmem(*options, "--estimate", "--json")
    assert expected.code == 0
    assert not labels.exists()
    assert expected.json["documents"] == 20
    done = deepmem(*options, "--json")
    assert done.code == 0, done.err
    written = Relevance.from_jsonl(labels)
    assert len(written) == done.json["queries"] > 0
    assert all(written.generated)
    assert deepmem("train", labels, *shop.store, "--path", tmp_path / "m").code == 0
    asked = deepmem(
        *("generate", labels, "--force", *shop.store, "--llm", "openai:gpt-4o-mini", "--max-documents", 5),
        *("--max-tokens", 100_000),
    )
    assert asked.code == 0, asked.err
    assert f"Written to {labels}." in asked.out, asked.err
    keep = ("--checkpoint", tmp_path / "answers.jsonl", "--seed", 3)
    sent = [deepmem(*options[:-6], "--force", "--llm", "openai:gpt-4o-mini", "--max-documents", 5, *keep).out for _ in range(2)]
    assert "5 requests sent" in sent[0]
    assert "0 requests sent, 5 answers from the checkpoint" in sent[1]
    again = deepmem("generate", labels, *shop.store, "--llm", "extractive")
    assert again.code == 2
    assert "exists already" in again.err
    options = ("generate", labels, "--force", *shop.store)
    wrong = deepmem(*options, "--llm", "gpt-5")
    assert wrong.code == 1
    assert "'gpt-5' names no language model" in wrong.err
    assert deepmem(*options).code == 2


def test_limits_of_a_provider(shop, tmp_path):
    labels, file = tmp_path / "labels.jsonl", tmp_path / "limit.db"
    options = ("generate", labels, *shop.store, "--llm", "openai:gpt-4o-mini", "--max-documents", 3)
    wrong = deepmem(*options, "--limit-file", file)
    assert wrong.code == 2
    assert "--limit-file shares a limit" in wrong.err
    done = deepmem(*options, "--limit-file", file, "--requests-per-minute", 500, "--tokens-per-minute", 1_000_000)
    assert done.code == 0, done.err
    with contextlib.closing(sqlite3.connect(file)) as turns:
        assert turns.execute("SELECT count(*) FROM turns").fetchone() == (3,)
    wrong = deepmem(*options, "--force", "--ray", "somewhere")
    assert wrong.code == 2
    assert "is no Ray cluster" in wrong.err


@pytest.mark.slow
@pytest.mark.enable_socket
def test_on_a_cluster(shop, tmp_path):
    labels = [tmp_path / "here.jsonl", tmp_path / "there.jsonl"]
    for path, more in zip(labels, ((), ("--ray", "local", "--requests-per-minute", 500)), strict=True):
        done = process("generate", path, *shop.store, "--llm", "openai:gpt-4o-mini", "--max-documents", 6, *more)
        assert done.code == 0, done.err
    assert labels[0].read_text() == labels[1].read_text()
