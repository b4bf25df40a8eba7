"""The notebooks, which are pages of docs/ as well, and the page for the shell: they are tried as a newcomer would."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.notebooks.make import NOTEBOOKS, notebook_of

ROOT = Path(__file__).parent.parent
SHELL = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "start-shell.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_its_page(name):
    path = ROOT / "examples" / "notebooks" / f"{name}.ipynb"
    assert path.read_text(encoding="utf-8") == notebook_of(name), "run python examples/notebooks/make.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_gains(name, tmp_path):
    cells = json.loads(notebook_of(name))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert [row for row, text in enumerate(code) if text.startswith("%pip")] == [0]
    done = subprocess.run([sys.executable, "-c", "\n".join(code[1:])], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    gain = re.search(r"^recall@1 [ \d.]+ \+(\S+)", done.stdout, re.MULTILINE)
    assert gain and float(gain[1]) > 10
    without, with_ = (re.search(rf"^{side}: +(.*)$", done.stdout, re.MULTILINE)[1] for side in ("without", "with"))
    assert without != with_ and "deeplake.connect" in with_
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_page_for_the_shell_runs(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", "\n".join(SHELL)], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert "documents of the labels all 2 are in the store" in done.stdout
    assert re.search(r"(QueryAdapter|identity)", done.stdout)
    assert (tmp_path / "mine.deepmemory").is_dir()
