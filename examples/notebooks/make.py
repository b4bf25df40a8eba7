"""Make the notebooks of the pages in docs/ that start with a framework: one source for both.

python examples/notebooks/make.py
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
REPOSITORY = "https://github.com/deepmem-integrations/deepmem-integrations"
NOTEBOOKS = {"langchain": ("start-langchain.md", "langchain"), "llama_index": ("start-llama-index.md", "llama-index")}
"""The name of a notebook → its page, and the extra that it needs beside ``demo``."""

_BLOCK = re.compile(r"```python\n(.*?)```\n?", re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)(\.\./)?([^)]+)\)")


def notebook_of(name: str) -> str:
    """Return the notebook's JSON text: the page in cells, below a cell that installs what it needs."""
    page, extra = NOTEBOOKS[name]
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    parts = _BLOCK.split(text)  # prose and code by turns
    cells = [_cell("markdown", _absolute(part)) if row % 2 == 0 else _cell("code", part) for row, part in enumerate(parts)]
    install = f"""%pip install -q "deepmem-integrations[demo,{extra}] @ git+{REPOSITORY}\""""
    badge = (
        f"https://colab.research.google.com/github/{REPOSITORY.partition('.com/')[2]}/blob/main/examples/notebooks/{name}.ipynb"
    )
    cells.insert(0, _cell("markdown", f"[Open in Colab]({badge})"))
    cells.insert(2, _cell("code", install))
    for row, cell in enumerate(cells):
        cell["id"] = f"cell-{row}"
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def _absolute(markdown: str) -> str:
    """Let relative links of a page in docs/ lead to the repository."""
    return _LINK.sub(lambda found: f"]({REPOSITORY}/blob/main/{'' if found[1] else 'docs/'}{found[2]})", markdown)


def _cell(kind: str, text: str) -> dict[str, object]:
    cell: dict[str, object] = {"cell_type": kind, "metadata": {}, "source": text.strip().splitlines(keepends=True)}
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}


if __name__ == "__main__":
    for notebook in NOTEBOOKS:
        (Path(__file__).parent / f"{notebook}.ipynb").write_text(notebook_of(notebook), encoding="utf-8")
