"""The documentation's site in a browser: it loads nothing from elsewhere, and all can search and read it: see `.ci/run docs`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="MkDocs is in the extra docs")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

ROOT = Path(__file__).parent.parent
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return folder


def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    loads = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["'](https?:)?//[^>]*>""")
    found = {tag[0] for page in pages for tag in loads.finditer(page.read_text(encoding="utf-8"))}
    assert [tag for tag in found if 'rel="canonical"' not in tag] == []


def test_the_reference_has_every_public_name(site):
    import deepmem_integrations
    from deepmem_integrations import feedback, langchain, llama_index

    text = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    packages = (deepmem_integrations, langchain, llama_index)
    names = {f"{package.__name__}.{name}" for package in packages for name in package.__all__ if name != "__version__"}
    names |= {f"{feedback.__name__}.{name}" for name in ("FeedbackLog", "LoggedQuery", "Shown", "Event")}
    assert {name for name in names if f'id="{name}"' not in text and not text.count(f'id="{name}.')} <= {
        "deepmem_integrations.FeedbackLog"  # which stands there as deepmem_integrations.feedback.FeedbackLog
    }


def test_the_search_works_in_a_folder_without_a_server(site, browser):
    page = browser.new_page(viewport=DESKTOP)
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("roll back")
    page.wait_for_selector(".md-search-result__item a")
    assert "retraining.html" in page.locator(".md-search-result__item a").first.get_attribute("href")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_everyone_can_read_the_pages(site, browser, scheme, size):
    page = browser.new_page(viewport=size, color_scheme=scheme)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    for name in ("index", "how-it-works", "start-langchain", "evidence", "api/facade"):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the screen"
        for violation in axe.Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [node["html"][:160] for node in violation["nodes"]]
                problems.append((name, violation["id"], len(nodes), nodes[:3]))
    page.close()
    assert problems == []
