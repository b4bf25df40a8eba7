import re

import deepmem_integrations
from tests.cli.helpers import deepmem, process


def test_the_command_line():
    assert process("--version").out == f"deepmem-integrations {deepmem_integrations.__version__}\n"
    assert "demo" in process("--help").out
    assert "openai:MODEL" in process("demo", "--help").out
    assert process("nope").code == 2
    wrong = process("demo", "--embedding", "bert")
    assert wrong.code == 1
    assert wrong.err.startswith("deepmem: 'bert' names no embedding model")


def test_without_its_extra_the_command_line_says_what_to_install(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('typer', name='typer')")
    done = process("demo", PYTHONPATH=f"{tmp_path}:.")
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith('Install it with: pip install "deepmem-integrations[cli]"\n')


COMMANDS = (
    "demo", "generate", "train", "status", "jobs", "cancel", "delete", "models", "use", "refresh", "evaluate", "search",
    "explain", "doctor",
)  # fmt: skip


def test_help_lists_every_command_and_shows_an_example_of_each():
    shown = deepmem("--help")
    assert shown.code == 0
    listed = re.search(r"Commands:\n(.*?)\n\n", shown.out, re.DOTALL)[1]
    assert [line.split()[0] for line in listed.splitlines()] == list(COMMANDS)
    assert "..." not in listed, "each fits on its line"
    assert "chroma:FOLDER#COLLECTION" in shown.out
    for command in COMMANDS:
        told = deepmem(command, "--help")
        assert re.search(rf"\n  Example:\n    deepmem {command}", told.out), told.out
        assert "--json" in told.out


def test_as_a_shell_runs_it(shop, tmp_path):
    assert process("nope").code == 2
    assert process("status", shop.job["id"], *shop.jobs).out.startswith("-" * 62)
    answer = process("search", shop.test.queries[0], *shop.store, "--json")
    assert answer.code == 0, answer.err
    assert len(answer.json["with"]) == 5
    wrong = process("train", shop.folder / "nope.jsonl", *shop.store)
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err.startswith("deepmem: Cannot read")


def test_shells_complete_it():
    done = process(_DEEPMEM_COMPLETE="complete_bash", COMP_WORDS="deepmem ev", COMP_CWORD="1")
    assert done.out.split() == ["evaluate"]
    done = process(_DEEPMEM_COMPLETE="complete_bash", COMP_WORDS="deepmem train --val", COMP_CWORD="2")
    assert done.out.split() == ["--validation", "--validation-split"]
