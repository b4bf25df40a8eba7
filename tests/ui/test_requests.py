"""Requests as browsers, and pages that mean harm, send them."""

import asyncio
import re
import socket

import httpx
import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.jobs.inputs import write_inputs
from deepmem_integrations.ui import security
from deepmem_integrations.ui.app import listen, make_app
from deepmem_integrations.ui.security import Access
from deepmem_integrations.ui.texts import text_files
from deepmem_integrations.ui.workspace import Workspace
from tests.report.conftest import SCRIPT
from tests.ui.conftest import open_texts

BASE = "http://127.0.0.1:8765"


class Client:
    """Sends requests to the application itself, and keeps its cookies."""

    def __init__(self, app):
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE, headers={"origin": BASE})

    def request(self, method, path, **options):
        return asyncio.run(self._http.request(method, path, **options))

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, **options):
        return self.request("POST", path, **options)


def client_of(work, access=None):
    access = access or Access("127.0.0.1", 8765)
    return Client(make_app(work, access)), access


@pytest.fixture
def client(work):
    client, access = client_of(work)
    assert client.get(access.url).status_code == 303
    return client


def csrf(client, page="/labels"):
    return re.search(r'name="csrf" value="([^"]+)"', client.get(page).text)[1]


def post(client, path, page="/?q=undo", **form):
    return client.post(path, data={"csrf": csrf(client, page), **form})


def test_only_the_token_lets_in(work):
    client, access = client_of(work)
    for path in ("/", "/labels", "/models/x/report", "/?token=wrong", "/?token="):
        assert client.get(path).status_code == 403
        assert "git revert" not in client.get(path).text
    entered = client.get(f"/labels?find=x&token={access.token}")
    assert (entered.status_code, entered.headers["location"]) == (303, "/labels?find=x")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and access.token.lower() not in cookie
    assert client.get("/labels").status_code == 200
    assert client.get("/?token=wrong").status_code == 403


def test_another_name_for_this_server_is_refused(client):
    """DNS rebinding: a page's own name is bound to 127.0.0.1 after the page has loaded."""
    for host in ("evil.example:8765", "127.0.0.1:1", "127.0.0.1", "127.0.0.1.evil.example:8765", "a@b:8765", ""):
        assert client.get("/labels", headers={"host": host}).status_code == 421
    assert client.get("/labels", headers={"host": "localhost:8765"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_post_from_another_page_is_refused(client, work, headers):
    form = {"csrf": csrf(client, "/?q=undo"), "q": "undo", "document": "revert.md#1", "thumb": "up"}
    assert client.post("/thumb", data=form, headers=headers).status_code == 403
    assert work.labelled() == []
    assert client.post("/thumb", data=form).status_code == 303
    assert len(work.labelled()) == 1


def test_a_form_without_the_sessions_secret_is_refused(client, work):
    for form in ({}, {"csrf": ""}, {"csrf": "ü"}):
        assert client.post("/thumb", data={"q": "undo", "document": "revert.md#1", "thumb": "up", **form}).status_code == 403
    assert client.post("/thumb", json={"csrf": "x"}).status_code == 415
    assert client.post("/thumb", data={"q": "x" * 100_000}).status_code == 413
    assert client.request("PUT", "/thumb").status_code == 405
    assert work.labelled() == []


def test_paths_outside_of_the_folder_are_refused(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "notes", outside):
        folder.mkdir(parents=True)
        (folder / "a.md").write_text("A secret, or a note.")
    (root / "link").symlink_to(outside)
    (root / "notes" / "b.md").symlink_to(outside / "a.md")
    work = Workspace(tmp_path / "memory", root, open_texts)
    client, access = client_of(work)
    client.get(access.url)
    for name in ("..", "../outside", str(outside), "link", "notes/../../outside", "no such", "a\0b", "~", "/"):
        refused = post(client, "/documents/folder", "/documents", folder=name)
        assert refused.status_code == 400
        assert work.works.get("read") is None
    assert "is not inside of" in refused.text
    assert work.folders() == [(".", 1), ("notes", 1)]
    assert text_files(root) == [root / "notes" / "a.md"], "links lead out of the folder"


def test_names_in_addresses_stay_in_the_folder(client, work):
    (work.own / "reports").mkdir()
    (work.own / "secret.json").write_text("{}")
    for name in ("..%2Fsecret", "%2e%2e%2fsecret", "x", "secret"):
        for path in (f"/models/{name}/report", f"/models/{name}"):
            assert client.get(path).status_code == 404
    for name in ("..%2fapp.py", "app.py", "__init__.py"):
        assert client.get(f"/static/{name}").status_code == 404


def test_script_is_shown_as_text(client, work):
    page = client.get("/", params={"q": f'{SCRIPT}" autofocus onfocus="alert(1)'})
    assert "hostile.md#1" in page.text
    assert "<script>document" not in page.text and "<img src=x" not in page.text and 'onfocus="' not in page.text
    assert "&lt;script&gt;" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert post(client, "/thumb", q=SCRIPT, document=SCRIPT, thumb="up").status_code == 303
    assert "<script>document" not in client.get("/labels").text
    assert "<script>document" not in client.get("/labels", params={"find": SCRIPT}).text


def test_thumbs_become_labels_to_correct(client, work):
    assert (
        post(client, "/thumb", q="how to undo", document="revert.md#1", thumb="up").headers["location"] == "/?q=how+to+undo&k=5"
    )
    post(client, "/thumb", q="how to undo", document="clone.md#1", thumb="down")
    (label,) = work.labelled()
    assert label.values == {"revert.md#1": 1.0, "clone.md#1": -1.0}
    assert {shown.document_id for shown in label.query.shown} == {"revert.md#1", "clone.md#1", "hostile.md#1"}
    assert work.labels().labels == ((("revert.md#1", 1.0),),)
    assert client.get("/?q=how+to+undo").text.count('aria-pressed="true"') == 2
    post(client, "/thumb", q="how to undo", document="clone.md#1", thumb="none", back="labels")
    assert work.judged("how to undo") == {"revert.md#1": 1.0}
    post(client, "/labels/forget", "/labels", query_id=label.query.query_id)
    assert work.labelled() == []
    post(client, "/thumb", q="how to undo", document="clone.md#1", thumb="up")
    assert len(work.labelled()) == 1, "a query that was forgotten may be asked again"


def test_other_addresses_need_a_password(work, monkeypatch):
    monkeypatch.setattr(security, "WAIT", 0)
    for password in (None, "short"):
        with pytest.raises(ValueError):
            Access("0.0.0.0", 8765, password)
    client, access = client_of(work, Access("0.0.0.0", 8765, "correct horse"))
    assert "token" not in access.url
    assert client.get("/").headers["location"] == "/login"
    assert client.get("/static/ui.css").status_code == 200
    wrong = client.post("/login", data={"name": "Ada", "password": "wrong"})
    assert (wrong.status_code, wrong.headers.get("set-cookie")) == (403, None)
    assert client.post("/login", data={"password": "correct horse"}, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("/", headers={"host": "evil.example:8765"}).status_code == 421
    assert client.post("/login", data={"name": "Ada", "password": "correct horse"}).status_code == 303
    post(client, "/thumb", q="undo", document="revert.md#1", thumb="up")
    assert work.labelled()[0].source == "Ada"


def test_the_page_marks_labels_whose_texts_are_gone(client, work):
    work.judge("how to undo", "revert.md#1", True, list, "Ada")
    work.judge("how to build", "gone:0123456789ab:<b>.md#1", True, list, "Ada")
    page = client.get("/labels").text
    assert "1 labelled query, the newest first. Of 1 more the documents have other texts now" in page
    assert page.count("The text is gone.") == 1 and "<code>&lt;b&gt;.md#1</code>" in page
    assert page.count("Mark as wrong: ") == 1 and page.count("Remove: ") == 2
    assert "1 labelled query, of which a fifth" in client.get("/train").text


GENERATE = {"kind": "extractive", "model": "", "per_document": "2", "documents": "", "tokens": ""}


def test_limits_are_read_however_they_are_written(client, work, monkeypatch):
    taken = []
    generator = work.generator
    monkeypatch.setattr(work, "generator", lambda *settings: taken.append(settings) or generator(*settings))
    for tokens, documents in (("100000", "10"), ("1e5", "1e1"), (" 100000.0 ", "10.0")):
        form = {**GENERATE, "per_document": "3.0", "tokens": tokens, "documents": documents, "do": "estimate"}
        assert "requests to send" in post(client, "/generate", page="/generate", **form).text
    assert set(taken) == {("extractive", 3, 10, 100_000)}
    post(client, "/generate", page="/generate", **GENERATE, do="estimate")
    assert taken[-1] == ("extractive", 2, None, None)


@pytest.mark.parametrize("name", ["per_document", "documents", "tokens"])
@pytest.mark.parametrize("text", ["many", "0", "-5", "2000000000", "1.5", "NaN", "1e999999999", "1,5", "Infinity"])
def test_a_limit_that_is_not_understood_is_no_freedom(client, work, name, text):
    refused = post(client, "/generate", page="/generate", **{**GENERATE, name: text}, do="write").text
    assert "is no whole number from 1 to" in refused and f'value="{text}"' in refused
    assert work.works.get("generate") is None


PUBLIC = {"host": "docs.example.com", "origin": "https://docs.example.com"}


def test_a_proxy_shows_the_application_to_others(work):
    client, access = client_of(work, Access("127.0.0.1", 8765, "correct horse", "https://docs.example.com"))
    assert access.url == "https://docs.example.com/"
    for headers in (PUBLIC, {**PUBLIC, "host": "docs.example.com:443"}, {"origin": PUBLIC["origin"]}):  # with Host kept, or not
        entered = client.post("/login", data={"name": "Ada", "password": "correct horse"}, headers=headers)
        assert entered.status_code == 303
        assert "secure" in entered.headers["set-cookie"].lower()
    login = {"name": "Ada", "password": "correct horse"}
    for origin in ("http://docs.example.com", "https://evil.example", "https://docs.example.com:8443", "null", ""):
        assert client.post("/login", data=login, headers={**PUBLIC, "origin": origin}).status_code == 403
    for host in ("evil.example", "docs.example.com:80", "docs.example.com:8765", "docs.example.com.evil.example"):
        assert client.get("/login", headers={"host": host}).status_code == 421
    with pytest.raises(ValueError, match="set a password"):
        Access("127.0.0.1", 8765, None, "https://docs.example.com")
    for host, port in (("docs.example.com", 80), ("docs.example.com:8080", 8080)):
        assert Access("127.0.0.1", 8765, "correct horse", f"http://docs.example.com:{port}").knows(host)


def test_the_name_of_the_machine_is_looked_up_once(monkeypatch):
    asked = []
    monkeypatch.setattr(security.socket, "getfqdn", lambda: asked.append(1) or "machine.example")
    access = Access("0.0.0.0", 8765, "correct horse")
    assert access.knows("machine.example:8765") and not access.knows("evil.example:8765")
    assert len(asked) == 1


def test_a_lost_training_is_gone_on_with_or_given_up(client, work, monkeypatch):
    memory = work.opened.memory

    def lose():
        with memory.jobs.new() as running:
            write_inputs(
                memory.jobs.inputs(running.job.id),
                memory.corpus,
                Relevance(["undo a commit?"], [[("revert.md#1", 1.0)]]),
                None,
                memory.embedder,
                {"max_unseen_loss": None, "seed": 0, "keep_texts": False, "resumable": True},
            )
            running.begin()
            running.hand_over()  # to nobody, as if this process had been killed
        return running.job.id

    lost = lose()
    page = client.get("/train").text
    assert "A training was lost" in page and page.count(lost) == 4
    resumed = []
    monkeypatch.setattr(memory, "resume", lambda job, wait: resumed.append((job, wait)))
    assert post(client, "/train/resume", page="/train", job=lost).status_code == 303
    assert resumed == [(lost, False)]
    assert post(client, "/train/cancel", page="/train", job=lost).status_code == 303
    assert "A training was lost" not in client.get("/train").text
    assert not memory.jobs.inputs(lost).exists()


def test_an_address_accepts_before_the_server_runs():
    with listen("127.0.0.1", 0) as listening:
        socket.create_connection(listening.getsockname(), timeout=5).close()
