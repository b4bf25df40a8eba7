"""Every Python block of the README and of the pages in docs/ runs; every link between the pages leads somewhere.

The blocks of some pages build on one another and load a model: tests/test_migration.py and tests/test_start.py run those.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "llms.txt", *sorted((ROOT / "docs").rglob("*.md"))]
SLOW = ("migration", "start-langchain", "start-llama-index")


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


BLOCKS = [
    pytest.param(page, number, id=f"{page.stem}-{number}")
    for page in PAGES
    if page.stem not in SLOW
    for number in range(len(blocks_of(page)))
]

LABELS = """
import numpy as np
from deepmem_integrations import Relevance
texts = [f"Document {i}" for i in range(30)]
Relevance([f"question {i}" for i in range(60)], [[(f"doc-{i % 30}", 1.0)] for i in range(60)]).to_jsonl("labels.jsonl")
"""
"""What the reader of the README has: documents, and labels for them."""

GIVEN = {
    "from_langchain(vectorstore, path": LABELS
    + """
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
vectorstore = InMemoryVectorStore.from_texts(
    texts, DeterministicFakeEmbedding(size=16), ids=[f"doc-{i}" for i in range(30)]
)
""",
    "from_llama_index(index, path": LABELS
    + """
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode
index = VectorStoreIndex([TextNode(id_=f"doc-{i}", text=text) for i, text in enumerate(texts)], embed_model=MockEmbedding(16))
""",
}

EXPECTED = {
    "from_langchain(vectorstore, path": "assert len(documents) == 10",
    "from_llama_index(index, path": "assert len(nodes) == 10",
}


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")  # LlamaIndex's agents read such attributes
@pytest.mark.parametrize(("page", "number"), BLOCKS)
def test_a_block_runs(page, number, tmp_path, monkeypatch):
    """Each runs in this process, which has imported the frameworks already; a process for each would import them again."""
    block = blocks_of(page)[number]
    if page == README:
        (mark,) = [mark for mark in GIVEN if mark in block]
        block = f"{GIVEN[mark]}\n{block}\n{EXPECTED[mark]}"
    monkeypatch.chdir(tmp_path)
    exec(compile(block, f"{page.name}, block {number}", "exec"), {"__name__": "__main__"})


def test_the_readme_has_its_two_commands_and_a_block_for_each_framework():
    text = README.read_text(encoding="utf-8")
    assert len(blocks_of(README)) == 2
    assert len(re.findall(r"^python3 -m venv .* && \.venv/bin/deepmem demo$", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^python3 -m venv .* && \.venv/bin/pytest$", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paths_in_the_text_exist(page):
    paths = re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|md|txt|toml))`", page.read_text(encoding="utf-8"))
    folders = (ROOT, ROOT / "deepmem_integrations", page.parent)
    missing = [path for path in paths if not any((folder / path).exists() for folder in folders)]
    assert missing == []


def test_every_page_has_its_place_on_the_site():
    """The strict build says so as well, for who has MkDocs."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    from_elsewhere = {"benchmarks.md", "changelog.md", "contributing.md"}  # docs/site/hooks.py
    assert set(re.findall(r"[\w/-]+\.md", nav)) == pages | from_elsewhere


def test_the_readme_leads_to_the_pages():
    linked = set(re.findall(r"\]\(docs/([^)#]+)\)", README.read_text(encoding="utf-8")))
    assert linked >= {"evidence.md", "labels.md", "langchain.md", "llama-index.md", "migration.md", "serving.md", "stores.md"}


def test_the_picture_of_the_readme_shows_the_results():
    from benchmarks.picture import FILE, picture
    from benchmarks.results import FOLDER, read

    assert "](docs/pictures/gain.svg)" in "\n".join(README.read_text(encoding="utf-8").splitlines()[:60])
    assert FILE.read_text(encoding="utf-8") == picture(read(FOLDER / "compare.json")), "run python -m benchmarks.picture"


def test_rows_of_the_faq_are_those_of_the_evidence():
    evidence, faq = ((ROOT / "docs" / name).read_text(encoding="utf-8").splitlines() for name in ("evidence.md", "faq.md"))
    rows = [line for line in faq if re.match(r"\|.*\d\.\d", line)]
    assert len(rows) == 9
    assert [row for row in rows if row not in evidence] == []


def test_every_page_is_in_the_list_for_language_models():
    listed = re.findall(r"\]\((docs/[^)#]+)\)", (ROOT / "llms.txt").read_text(encoding="utf-8"))
    assert {ROOT / name for name in listed} == {*(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "index.md"}
