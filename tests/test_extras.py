import ast
import pickle
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from deepmem_integrations._extras import require
from deepmem_integrations.errors import MissingExtraError

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TRANSITIVE = {
    "chromadb": "langchain-chroma",
    "fsspec": "fsspec[s3]",
    "pydantic": "openai",
    "qdrant_client": "langchain-qdrant",
    "ray": "ray[client]",
    "s3fs": "fsspec[s3]",
    "sqlalchemy": "langchain-postgres",
    "transformers": "sentence-transformers",
}
"""What comes with another requirement."""


def name_of(requirement):
    return re.match(r"[\w.-]+(\[[\w,-]+\])?", requirement)[0].lower()


def requirements_of(extra):
    """Follow extras that take others in."""
    found = set()
    for requirement in EXTRAS[extra]:
        if inner := re.match(r"deepmem-integrations\[(.*)\]$", requirement):
            found |= {name for one in inner[1].split(",") for name in requirements_of(one)}
        else:
            found.add(name_of(requirement))
    return found


def calls():
    """Every package that is named as missing: (file and line, package, extra, distribution)."""
    for path in sorted((ROOT / "deepmem_integrations").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("require", "MissingExtraError"):
                values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                named = {keyword.arg: keyword.value.value for keyword in node.keywords if isinstance(keyword.value, ast.Constant)}
                if values:
                    package, extra = (*values, named.get("extra"), None)[:2]
                    yield f"{path.name}:{node.lineno}", package.partition(".")[0], extra, named.get("distribution")


def test_a_missing_extra_prints_its_install_line():
    with pytest.raises(MissingExtraError, match=r'pip install "deepmem-integrations\[ann\]"$') as caught:
        require("no_such_package", extra="ann")
    assert isinstance(caught.value, ImportError)


def test_a_missing_package_of_a_store_prints_its_own_install_line():
    with pytest.raises(MissingExtraError, match="pip install langchain-ann$") as caught:
        require("langchain_ann", distribution="langchain-ann")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.distribution == "langchain-ann"


def test_a_broken_package_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import another_missing_one")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="another_missing_one"):
        require("broken_package", extra="ann")


def test_every_install_line_brings_the_package_that_is_missing():
    installed, wrong, found = packages_distributions(), [], list(calls())
    for place, package, extra, distribution in found:
        offered = requirements_of(extra) if extra in EXTRAS else {distribution}
        brought = {name.lower() for name in installed.get(package, [])} | {TRANSITIVE.get(package)}
        if not offered & brought:
            wrong.append(f"{place}: {package} is not in {extra or distribution}")
    assert len(found) > 20
    assert wrong == []


def test_extras_take_in_extras_that_there_are():
    every = [requirement for requirements in EXTRAS.values() for requirement in requirements]
    named = {
        extra for text in every for inner in re.findall(r"^deepmem-integrations\[(.*?)\]", text) for extra in inner.split(",")
    }
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for inner in re.findall(r'"(?:deepmem-integrations|\.)\[([\w,-]+)\]"', text):
            named |= set(inner.split(","))
    assert named - set(EXTRAS) == set()


def test_the_page_on_installing_lists_the_extras():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    listed = {name for row in re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", row)}
    assert listed == set(EXTRAS) - {"dev", "docs"}
