"""The page in a browser: Debian's Chromium, driven by Playwright."""

import json

import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.report import EvaluationReport
from tests.report.conftest import SCRIPT

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(browser, tmp_path):
    """Open a report as a file; nothing may be loaded but the file, and the console stays empty."""
    told, loaded, contexts = [], [], []

    def open_(report, **options):
        report.save(tmp_path / "report.html")
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: loaded.append(request.url))
        page.goto(f"file://{tmp_path}/report.html")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert told == []
    assert {address.rpartition("/")[2] for address in loaded} == {"report.html"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_everybody_can_read_it(opened, report, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(report, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off, and nothing scrolls sideways"
    page.locator(".queries summary").first.click()
    page.locator(".numbers summary").first.click()
    findings = Axe().run(page).response["violations"]
    assert [(finding["id"], finding["impact"], finding["nodes"][0]["html"]) for finding in findings] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(250, 249, 246)") is (scheme == "light")


def test_search_and_filter_with_the_keyboard(opened, report):
    page, values = opened(report), report.to_json()
    losses = sum(query["outcome"] == "loss" for query in values["queries"])
    page.get_by_role("searchbox").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("status").inner_text() == f"{losses} of {len(values['queries'])} queries"
    page.keyboard.press("ArrowLeft")
    page.get_by_role("searchbox").fill(values["queries"][3]["query"])
    page.keyboard.press("Tab")
    shown = page.locator(".queries > li:visible")
    assert values["queries"][3]["query"] in shown.all_inner_texts()[0] or shown.count() > 1
    assert shown.count() < len(values["queries"])
    summary = shown.first.locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    assert shown.first.locator(".in").is_visible()
    page.get_by_role("searchbox").fill("no query has these words")
    assert page.get_by_role("status").inner_text().startswith("0 of ")


def test_script_of_a_text_does_not_run(opened, trained, problem):
    labels = Relevance([f"{query} {SCRIPT}" for query in problem.test.queries[:10]], problem.test.labels[:10])
    page = opened(trained.report(labels))
    assert page.title().startswith("Deep Memory, evaluation report")
    assert page.locator("img").count() == 0
    page.locator(".queries summary").first.click()
    assert SCRIPT in page.locator(".queries > li").first.inner_text()


def test_a_thousand_queries_scroll(opened, report):
    """Lines out of sight are not laid out: the browser skips their content."""
    values = json.loads(json.dumps(report.to_json()))
    queries = [{**values["queries"][number % 100], "id": str(number)} for number in range(1_000)]
    page = opened(EvaluationReport({**values, "queries": queries}))
    rows = page.locator(".queries > li")
    assert rows.count() == 1_000
    skipped = "li => !li.querySelector('summary').checkVisibility({contentVisibilityAuto: true})"
    assert rows.last.evaluate(skipped)
    rows.last.scroll_into_view_if_needed()
    for _ in range(100):  # Playwright's own waiting evaluates a string, which the page's policy forbids
        if not rows.last.evaluate(skipped):
            break
        page.wait_for_timeout(100)
    assert not rows.last.evaluate(skipped)
    assert rows.first.evaluate(skipped)


def test_it_prints_and_shows_in_a_frame(browser, opened, report, tmp_path):
    page = opened(report, color_scheme="dark")
    assert page.pdf(path=tmp_path / "report.pdf")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".tools").is_visible()
    notebook = browser.new_context().new_page()
    notebook.set_content(f"<title>A notebook</title>{report._repr_html_()}")
    frame = notebook.frame_locator("iframe")
    assert frame.get_by_role("heading", level=1).inner_text() == str(report)
    assert frame.get_by_role("status").inner_text().endswith("queries"), "its script runs in the frame"
    notebook.context.close()
