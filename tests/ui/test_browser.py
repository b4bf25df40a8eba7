"""The application as somebody meets it: a real server, and Debian's Chromium driven by Playwright."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepmem_integrations.jobs import JobFolder
from deepmem_integrations.models import ModelFolder

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parent.parent.parent / "docs"
SCRIPT = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)>"
PATIENCE = 180_000
"""For how many milliseconds a test waits for what a small machine does."""


class Server:
    """``deepmem ui`` in a process of its own."""

    def __init__(self, folder, *arguments, **environment):
        command = "import sys; from deepmem_integrations.cli import main; main(['ui', '--port', '0', *sys.argv[1:]])"
        here = {"PYTHONPATH": os.pathsep.join(filter(None, (str(DOCS.parent), os.environ.get("PYTHONPATH"))))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, *map(str, arguments)],
            cwd=folder,
            env={**os.environ, **here, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = self.process.stdout.readline()
        self.url = re.fullmatch(r"Open (http://127\.0\.0\.1:\d+/\?token=\S+)\n", line)[1]
        self.base = self.url.partition("/?")[0]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture
def serve():
    servers = []

    def serve(folder, *arguments, **environment):
        servers.append(Server(folder, *arguments, **environment))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()


@pytest.fixture
def opened(browser):
    """Open the application; nothing may be asked for outside of the server, and the console stays empty."""
    told, asked, contexts, bases = [], [], [], []

    def open_(server, **options):
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        bases.append(server.base)
        page = context.new_page()
        watch(page)
        page.goto(server.url)
        return page

    def watch(page):
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: dialog.accept())

    open_.watch, open_.told = watch, told
    yield open_
    for context in contexts:
        context.close()
    assert told == []
    assert [address for address in asked if not address.startswith(tuple(f"{base}/" for base in bases))] == []


def check_looks(page, name):
    """Everybody can read it: nothing scrolls sideways, and axe finds nothing, at both widths, in the light and in the dark."""
    from axe_playwright_python.sync_playwright import Axe

    folder = os.environ.get("DEEPMEM_SCREENSHOTS")
    for width in (1440, 390):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
            findings = Axe().run(page).response["violations"]
            assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in findings] == [], (name, width, scheme)
            if folder:
                page.screenshot(path=Path(folder, f"{name}-{width}-{scheme}.png"))
    page.set_viewport_size({"width": 1440, "height": 900})
    page.emulate_media(color_scheme="light")


def read_folder(page, name):
    page.get_by_role("radio", name=name).check()
    page.get_by_role("button", name="Read the folder").click()
    page.get_by_role("link", name="Write queries").first.wait_for()


def write_queries(page, documents=200):
    page.get_by_role("link", name="Write queries").first.click()
    page.get_by_label("Documents at most").fill(str(documents))
    page.get_by_role("button", name="Write queries").click()
    page.get_by_role("link", name="Train a model").wait_for()


def train(page, in_use):
    page.get_by_role("link", name="Train", exact=True).click()
    page.get_by_role("radio", name=in_use).check()
    page.get_by_role("button", name="Train a model").click()
    page.get_by_role("progressbar").first.wait_for()
    page.get_by_role("link", name="See what it gains").wait_for()


def notes(folder, files=("serving.md", "security.md", "words.md", "models-and-jobs.md", "migration.md")):
    """A folder of text files, one of which would like to run."""
    place = folder / "notes"
    place.mkdir()
    for name in files:
        shutil.copy(DOCS / name, place)
    (place / "hostile.txt").write_text(f"Quokkas live on Rottnest Island. {SCRIPT}")
    return place


def test_from_a_folder_of_text_files_to_a_switched_model(serve, opened, tmp_path):
    notes(tmp_path, [path.name for path in DOCS.glob("*.md")])
    page = opened(serve(tmp_path))
    assert page.title().startswith("Documents") and "token" not in page.url
    check_looks(page, "start")
    read_folder(page, "notes")
    check_looks(page, "documents")
    for name in ("Labels", "Train", "Models", "History"):
        page.get_by_role("link", name=name, exact=True).click()
        check_looks(page, f"empty-{name.lower()}")
    page.get_by_role("link", name="Search", exact=True).click()
    page.get_by_role("searchbox").fill("where do quokkas live?")
    page.keyboard.press("Enter")
    assert "hostile.txt#1" in page.locator(".hits > li").first.inner_text()
    assert SCRIPT in page.locator(".hits > li").first.inner_text(), "as text, which does not run"
    check_looks(page, "search-without")
    page.get_by_role("button", name="Right: hostile.txt#1").focus()
    page.keyboard.press("Enter")
    page.locator("#up-without-1[aria-pressed=true]").wait_for()
    assert page.evaluate("document.activeElement.id") == "up-without-1", "the focus stays"
    page.get_by_role("link", name="Labels", exact=True).click()
    write_queries(page)
    check_looks(page, "generated")
    train(page, "Always")
    check_looks(page, "trained")
    page.get_by_role("link", name="See what it gains").click()
    assert page.locator(".queries > li").count() > 20
    page.locator(".queries summary").first.click()
    check_looks(page, "model")
    first = page.url.rpartition("/")[2]
    page.get_by_role("link", name="Open the whole report").click()
    assert page.title().startswith("Deep Memory, evaluation report")
    assert page.get_by_role("status").inner_text().endswith("queries"), "the report's own script runs under its own policy"
    page.go_back()

    train(page, "Not by itself")
    page.get_by_role("link", name="Models", exact=True).click()
    assert page.locator(".models > li").count() == 2
    check_looks(page, "models")
    page.get_by_role("button", name="Use ").click()
    page.get_by_role("button", name=f"Use {first}").wait_for()
    page.get_by_role("button", name="Roll back").click()
    page.locator(f".models > li.in-use:has-text('{first}')").wait_for()
    page.get_by_role("link", name="History", exact=True).click()
    assert page.locator(".history b").all_inner_texts() == ["Rolled back to", "Put in use", "Trained and put in use"]
    check_looks(page, "history")

    page.get_by_role("link", name="Search", exact=True).click()
    page.get_by_role("searchbox").fill("how do I undo a model that turned out to be bad?")
    page.keyboard.press("Enter")
    page.locator("section.with .hits > li").first.wait_for()
    page.get_by_text("Why did they move?").click()
    page.locator("#why").wait_for()
    check_looks(page, "search")
    page.get_by_role("link", name="Labels", exact=True).click()
    page.get_by_label("Find words").fill("where quokkas")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Mark as wrong: hostile.txt#1").click()
    page.get_by_role("button", name="Mark as right: hostile.txt#1").wait_for()
    check_looks(page, "labels")
    page.get_by_role("button", name="Delete the query where do quokkas").click()
    page.get_by_text("No label has these words").wait_for()


def test_two_tabs_and_a_killed_server(serve, opened, tmp_path):
    place = notes(tmp_path)
    server = serve(tmp_path, place)
    one = opened(server)
    read_folder(one, "notes")
    two = one.context.new_page()
    opened.watch(two)
    two.goto(f"{server.base}/generate")
    write_queries(one)
    two.reload()
    assert two.locator(".coming li").count() == 20, "what one tab began, the other shows"
    two.goto(f"{server.base}/train")
    one.get_by_role("link", name="Train a model").click()
    one.get_by_role("radio", name="Always").check()
    one.get_by_role("button", name="Train a model").click()
    two.get_by_role("button", name="Train a model").click()  # it is going on already
    models = ModelFolder(tmp_path / "notes.deepmemory")
    jobs = JobFolder(models)
    deadline = time.monotonic() + PATIENCE / 1000
    while not [job for job in jobs.all() if job.state == "training"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(jobs.all()) == 1
    server.kill()
    one.get_by_role("alert").filter(has_text="does not answer").wait_for()
    one.close()
    two.close()
    opened.told.clear()  # the browser's own words about a server that is gone
    while jobs.all()[0].running:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (job,) = jobs.all()
    assert job.state == "completed" and models.in_use_name() == job.id, "the training went on without the server"
    page = opened(serve(tmp_path, place))
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("link", name=job.id).click()
    page.get_by_role("button", name="Measure it on held-out questions").click()
    page.locator(".queries > li").first.wait_for()

    # A thousand wins and losses scroll: the browser does not lay out what is out of sight.
    report = tmp_path / "notes.deepmemory" / "ui" / "reports" / f"{job.id}.json"
    values = json.loads(report.read_text())
    many = [{**values["queries"][number % len(values["queries"])], "id": str(number)} for number in range(1_000)]
    report.write_text(json.dumps({**values, "queries": many}))
    page.reload()
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


def test_a_language_model_writes_within_a_budget_and_a_training_is_cancelled(serve, opened, tmp_path):
    from tests.openai_server import count_in, documents_in, openai_server, queries

    def about(messages, attempt):
        words = sorted({word for word in " ".join(documents_in(messages)).split() if len(word) > 5 and word.isalpha()})
        return queries(*(" ".join(["tell", "me", "about", *words[turn::2][:9]]) for turn in range(count_in(messages))))

    place = notes(tmp_path)
    with openai_server() as chat:
        chat.script = about
        page = opened(serve(tmp_path, place, OPENAI_API_KEY="good-key", OPENAI_BASE_URL=chat.url))
        read_folder(page, "notes")
        page.get_by_role("link", name="Write queries").first.click()
        page.get_by_role("radio", name="An OpenAI-compatible model").check()
        page.get_by_role("button", name="Estimate first").click()
        page.get_by_role("alert").filter(has_text="names no language model").wait_for()
        page.get_by_label("Model", exact=True).fill("a-model")
        page.get_by_label("Tokens at most").fill("5000")
        page.get_by_role("button", name="Estimate first").click()
        assert "requests to send" in page.locator(".estimate").inner_text()
        page.get_by_role("button", name="Write queries").click()
        page.get_by_role("link", name="Train a model").wait_for()
        assert "stopped" in page.locator(".work").inner_text(), "by the budget"
    train_link = page.get_by_role("link", name="Train a model")
    train_link.click()
    page.get_by_role("button", name="Train a model").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("cell", name="cancelled").wait_for()
    page.get_by_role("button", name="Train a model").wait_for()
