import os
import re
import subprocess

import pytest

import deepmem_integrations
from tests.cli.helpers import SCRIPT, deepmem, process


@pytest.mark.slow
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
    "demo", "ui", "generate", "judge", "traces", "train", "retrain", "status", "jobs", "resume", "cancel", "delete", "models",
    "use", "rollback", "audit", "publish", "refresh", "evaluate", "report", "search", "explain", "mcp", "doctor",
)  # fmt: skip


def test_help_lists_every_command_and_shows_an_example_of_each():
    shown = deepmem("--help")
    assert shown.code == 0
    listed = re.search(r"Commands:\n(.*?)\n\n", shown.out, re.DOTALL)[1]
    assert [line.split()[0] for line in listed.splitlines()] == [*COMMANDS, "feedback"]
    assert "..." not in listed, "each fits on its line"
    assert "chroma:FOLDER#COLLECTION" in shown.out
    for command in COMMANDS:
        told = deepmem(command, "--help")
        assert re.search(rf"\n  Example:\n    deepmem {command}", told.out), told.out
        assert "--json" in told.out or command == "mcp"  # which speaks JSON and nothing else


@pytest.mark.slow
def test_as_a_shell_runs_it(shop, tmp_path):
    assert process("nope").code == 2
    assert process("status", shop.job["id"], *shop.jobs).out.startswith("-" * 62)
    answer = process("search", shop.test.queries[0], *shop.store, "--json")
    assert answer.code == 0, answer.err
    assert len(answer.json["with"]) == 5
    wrong = process("train", shop.folder / "nope.jsonl", *shop.store)
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err.startswith("deepmem: Cannot read")


@pytest.mark.slow
def test_shells_complete_it():
    done = process(_DEEPMEM_COMPLETE="complete_bash", COMP_WORDS="deepmem ev", COMP_CWORD="1")
    assert done.out.split() == ["evaluate"]
    done = process(_DEEPMEM_COMPLETE="complete_bash", COMP_WORDS="deepmem train --val", COMP_CWORD="2")
    assert done.out.split() == ["--validation", "--validation-split"]


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "models {jobs}",
        "jobs {jobs}",
        "status {id} {jobs}",
        "evaluate {folder}/test.jsonl {store}",
        "report {folder}/test.jsonl {folder}/τ.html {store}",
        "search où+est+le+資料+τ {store} --evidence",
        "explain où+est+le+資料+τ {store}",
        "doctor {store}",
        "generate {folder}/τ.jsonl {store} --llm extractive --max-documents 3 --force",
    ],
)
def test_every_command_writes_to_output_that_is_not_utf_8(shop, command):
    """Windows gives pipes such an encoding, and few of them have a τ."""
    names = {"jobs": " ".join(map(str, shop.jobs)), "store": " ".join(shop.store), "id": shop.job["id"], "folder": shop.folder}
    arguments = [word.replace("+", " ") for word in command.format(**names).split()]
    done = deepmem(*arguments, encoding="cp1252")
    assert done.code in (0, 1), done.err
    assert "Traceback" not in done.err
    assert done.out
    if arguments[0] == "search":
        assert deepmem(*arguments, "--json", encoding="ascii").json == deepmem(*arguments, "--json").json


def test_a_process_writes_to_output_that_is_not_utf_8(shop):
    assert "\\u03" in process("models", *shop.jobs, PYTHONIOENCODING="cp1252").out, "τ or β"


def test_an_error_with_any_character_is_written(tmp_path):
    done = process("models", "--store", f"deeplake:{tmp_path}", "--path", tmp_path / "資料 τ", PYTHONIOENCODING="ascii")
    assert (done.code, done.out) == (1, "")
    assert "lies in the data set" in done.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device is always full")
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_an_answer_that_cannot_be_written_is_told(shop, options):
    with open("/dev/full", "w") as full:
        done = subprocess.run([SCRIPT, "models", *shop.jobs, *options], stdout=full, stderr=subprocess.PIPE, text=True)
    message = "deepmem: The answer cannot be written to the standard output: No space left on device.\n"
    assert (done.returncode, done.stderr) == (1, message)
