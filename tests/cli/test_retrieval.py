import html
import json
import re
import shlex
import shutil
import sys

import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.cli.retrieval import _command
from deepmem_integrations.models import ModelFolder
from tests.cli.helpers import deepmem, process


@pytest.mark.slow
def test_evaluate(shop):
    shown = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store)
    assert shown.code == 0
    assert "recall@100" in shown.out
    assert "took part in the training" not in shown.err
    learned = process("evaluate", shop.folder / "train.jsonl", *shop.store, "--model", shop.job["id"])
    assert f"{len(shop.train)} of the {len(shop.train)} queries took part in the training of {shop.job['id']}" in learned.err
    unknown = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "--model", "nope")
    assert unknown.code == 1
    assert "Please choose from the following models" in unknown.err
    answer = deepmem("evaluate", shop.folder / "test.json", *shop.store, "-k", 3, "-k", 1, "--log", "--json").json
    assert answer["queries"] == len(shop.test)
    assert [name for name in answer["with model"] if name.startswith("recall")] == ["recall@1", "recall@3"]
    assert answer["with model"]["recall@3"] > answer["without model"]["recall@3"]
    assert (shop.folder / "ds_eval_queries").is_dir()
    wrong = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "-k", 0)
    assert wrong.code == 2
    untrained = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "--path", shop.folder / "none")
    assert untrained.code == 1
    assert "no trained model" in untrained.err


def test_evaluate_where(shop):
    for pair in ("tenant", "=acme"):
        wrong = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "--where", pair)
        assert (wrong.code, "KEY=VALUE" in wrong.err) == (2, True)
    none = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "--where", "tenant=acme", "--where", "year=2024")
    assert none.code == 1
    assert "documents of the store passes the filter {'tenant': ['acme'], 'year': ['2024', 2024.0]}" in none.err
    name = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "--where", "name=nan", "--where", "name=inf")
    assert "passes the filter {'name': ['nan', 'inf']}" in name.err
    whole = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "--json").json
    assert whole["store"]["overlap"] == 1.0
    both = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "--where", "a=b", "--retriever", "app:found")
    assert both.code == 2


SEARCH = """
from deepmem_integrations.words import Found
import numpy as np


class Numbers:
    def search(self, text, k, filter=None):
        return Found([], np.empty(0, dtype=np.float32))


search, wrong = Numbers(), 5
"""


def test_a_search_by_words_of_your_own(shop, ranking, tmp_path, monkeypatch, caplog):
    (tmp_path / "own_words.py").write_text(SEARCH)
    monkeypatch.chdir(tmp_path)
    where = ranking(Ranking(words=100.0, search="Numbers"))
    assert deepmem("evaluate", shop.folder / "test.jsonl", *where).code == 0
    told = "was trained with the words of a Numbers, and a WordIndex gives other scores: results come without words"
    assert told in caplog.text
    caplog.clear()
    found = deepmem("evaluate", shop.folder / "test.jsonl", *where, "--words", "own_words:search", "--json")
    assert found.code == 0
    assert deepmem("search", "a question", *where, "--words", "own_words:search").code == 0
    assert "words of a Numbers" not in caplog.text
    wrong = deepmem("evaluate", shop.folder / "test.jsonl", *where, "--words", "own_words:wrong")
    assert wrong.code == 2 and "no object with search(text, k, filter)" in wrong.err
    both = deepmem("train", shop.folder / "train.jsonl", *where, "--words", "own_words:search", "--no-words")
    assert both.code == 2 and "give one of the two" in both.err


APPLICATION = """
from deepmem_integrations.langchain import DeepLake, DeepMemoryRetriever
from tests.cli.helpers import langchain_embeddings

db = DeepLake("{folder}/ds", embedding=langchain_embeddings(), read_only=True)
plain = db.as_retriever(search_kwargs={{"k": 3}})


def make():
    return DeepMemoryRetriever(vectorstore=db, memory="{folder}/ds.deepmemory", k=3)


class search:
    chain = plain | (lambda documents: documents[:1])


broken = plain | (lambda documents: "an answer")
"""


@pytest.mark.slow
def test_evaluate_a_retriever(shop, tmp_path, monkeypatch):
    (tmp_path / "application.py").write_text(APPLICATION.format(folder=shop.folder))
    (tmp_path / "incomplete.py").write_text("import a_package_that_is_missing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "application", raising=False)

    def evaluated(*options):
        return deepmem("evaluate", shop.folder / "test.jsonl", *shop.store, "-k", 1, "-k", 3, *options)

    exact, served = evaluated("--json").json, evaluated("--retriever", "application:make", "--json").json
    assert served["without model"] == exact["without model"], "a Deep Lake store ranks by cosine"
    assert served["with model"] == pytest.approx(exact["with model"])
    swapped = evaluated("--retriever", "application:plain", "--plain", "application:make", "--json").json
    assert swapped["gain"]["recall@3"]["mean"] == pytest.approx(-served["gain"]["recall@3"]["mean"])
    alone = evaluated("--retriever", "application:search.chain", "--concurrency", 1)
    assert (alone.code, "gain" in alone.out, "recall@3" in alone.out) == (0, False, True)
    first = evaluated("--retriever", "application:search.chain", "--json").json["with model"]
    assert first["recall@3"] == first["recall@1"] == exact["without model"]["recall@1"]
    for options, code, told in (
        (("--retriever", "application"), 2, "MODULE:OBJECT"),
        (("--retriever", "nowhere:retriever"), 2, "no module 'nowhere'"),
        (("--retriever", "application:nothing"), 2, "has no 'nothing'"),
        (("--plain", "application:plain"), 2, "go with --retriever"),
        (("--retriever", "application:plain", "--model", "m"), 2, "leave --model"),
        (("--retriever", "application:plain", "--id-key", "nope"), 1, "no id by id_key='nope'"),
        (("--retriever", "application:broken"), 1, "no list of documents"),
        (("--retriever", "application:broken"), 1, "The query is row 0 of the labels"),
        (("--retriever", "application:db"), 1, "Call its as_retriever()"),
    ):
        wrong = evaluated(*options)
        assert wrong.code == code, wrong.err
        assert told in re.sub(r"[\s│]+", " ", wrong.err)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        evaluated("--retriever", "incomplete:retriever")


def test_report(shop, monkeypatch):
    page, values = shop.folder / "report.html", shop.folder / "report.json"
    shown = deepmem("report", shop.folder / "test.jsonl", page, *shop.store)
    assert shown.code == 0, shown.err
    assert shown.out.endswith(f"The report is in {page}.\n")
    assert shop.test.queries[0] in html.unescape(page.read_text(encoding="utf-8"))
    monkeypatch.setenv("DEEPMEM_STORE", shop.store[1])
    monkeypatch.setenv("DEEPMEM_EMBEDDING", shop.store[3])
    answer = deepmem("report", shop.folder / "test.jsonl", values, "--no-texts", "--json")
    assert answer.json == json.loads(values.read_text(encoding="utf-8"))
    assert shop.test.queries[0] not in values.read_text(encoding="utf-8")
    command = answer.json["provenance"]["command"]
    assert command.startswith(f"deepmem report {shop.folder / 'test.jsonl'} {values} --store {shop.store[1]} --embedding ")
    assert command.endswith(" --no-texts")
    priceless = deepmem("report", shop.folder / "test.jsonl", page, "--price", 2)
    assert (priceless.code, "Say how to count tokens" in priceless.err) == (2, True)


def test_a_command_in_a_report_has_no_password():
    store = "pgvector:postgresql+psycopg://me:s3/cr@t@host/db?password=other&x=1#docs"
    command = _command(["test.jsonl", "r.html"], {"--store": store, "--path": None}, [])
    assert "cr@t" not in command and "s3/" not in command and "other" not in command
    assert shlex.split(command)[5] == "pgvector:postgresql+psycopg://me:***@host/db?password=***&x=1#docs"


def test_search_side_by_side(shop):
    query = shop.test.queries[0]
    shown = deepmem("search", query, *shop.store, "-k", 2)
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert re.fullmatch(r" +without Deep Memory +with Deep Memory", lines[0])
    assert [line[:2] for line in lines if line[:2].strip()] == [" 1", " 2"]
    answer = deepmem("search", query, *shop.store, "-k", 60, "--json").json
    assert {hit["id"] for hit in answer["with"]} == {hit["id"] for hit in answer["without"]} == {d.id for d in shop.documents}
    assert answer["with"] != answer["without"], "in another order"
    assert answer["with"][0]["text"]
    assert lines[2].split()[1:] == [answer["without"][0]["id"], answer["with"][0]["id"]]
    alone = deepmem("search", query, *shop.store, "-k", 3, "--without", "--json").json
    assert alone == {"query": query, "without": answer["without"][:3]}
    untrained = deepmem("search", query, *shop.store, "-k", 3, "--path", shop.folder / "none", "--json")
    assert (untrained.code, untrained.json) == (0, alone)
    assert "no trained model yet" in untrained.err
    assert deepmem("search", query, *shop.store, "-k", "many").code == 2
    assert deepmem("search", " ", *shop.store).code == 2


def test_explain(shop):
    shown = deepmem("explain", shop.train.queries[3], *shop.store)
    assert shown.code == 0
    assert shown.out.startswith("a transform alone: moved by ")
    answer = deepmem("explain", shop.train.queries[3], *shop.store, "--top", 2, "--json").json
    assert [len(influence["texts"]) for influence in answer["influences"]] == [1, 1]
    assert answer["influences"][0]["texts"] == [shop.train.queries[3]]
    assert deepmem("explain", "x", *shop.store, "--path", shop.folder / "none").code == 1
    assert deepmem("explain", *shop.store).code == 2


@pytest.fixture
def ranking(shop, tmp_path):
    """A function that puts a model with a ranking in use, and returns the options that name it."""
    shutil.copytree(shop.folder / "ds.deepmemory", tmp_path / "m")
    folder = ModelFolder(tmp_path / "m")
    trained = folder.in_use()[1]

    def use(ranking):
        folder.save_model("ranking", QueryAdapter(**(trained._parts()._asdict() | {"ranking": ranking})))
        folder.write_in_use("ranking")
        return (*shop.store, "--path", folder.path)

    return use


def ids(done, side="with"):
    assert done.code == 0, done.err
    return [hit["id"] for hit in done.json[side]]


def test_search_ranks_by_words_as_a_retriever_does(shop, ranking):
    where = ranking(Ranking(words=100.0))
    query = f"what is {shop.documents[-1].id}?"
    found = deepmem("search", query, *where, "-k", 3, "--evidence", "--json")
    assert ids(found)[0] == ModelFolder(where[-1]).lexical_search.search(query, 1).ids[0]
    evidence = found.json["with"][0]["evidence"]
    assert evidence["words"]["rank"] == 1
    assert evidence["score"] == pytest.approx(evidence["vector"]["score"] + 100 * evidence["words"]["score"], rel=1e-4)
    assert "evidence" not in found.json["without"][0]
    plain = deepmem("search", query, *where, "-k", 3, "--no-words", "--json")
    assert ids(plain) == ids(deepmem("search", query, *ranking(None), "-k", 3, "--json")), "the transform alone"
    assert "evidence" not in plain.json["with"][0]


def test_search_ranks_by_answers_as_a_retriever_does(shop, ranking):
    where = ranking(Ranking(answers=10.0))
    query = shop.train.queries[3]
    found = deepmem("search", query, *where, "-k", 2, "--evidence", "--json")
    assert ids(found)[0] in dict(shop.train.labels[3])
    assert found.json["with"][0]["evidence"]["answers"]["rank"] == 1
    plain = deepmem("search", query, *where, "-k", 2, "--no-answers", "--json")
    assert ids(plain) == ids(deepmem("search", query, *ranking(None), "-k", 2, "--json")), "the transform alone"


def test_search_shows_the_evidence_below_each_document(shop, ranking, monkeypatch):
    where = ranking(Ranking(words=1.0, answers=1.0))
    query = shop.train.queries[3]
    wide = deepmem("search", query, *where, "-k", 2, "--evidence")
    assert wide.code == 0, wide.err
    shown = r"score -?\d\.\d{4}\n +vector -?\d\.\d\d [#–]\d*  words \d+\.\d\d [#–]\d*  answers \d\.\d\d [#–]\d*\n"
    assert len(re.findall(shown, f"{wide.out}\n")) == 2
    monkeypatch.setenv("COLUMNS", "80")
    narrow = deepmem("search", query, *where, "-k", 1, "--evidence").out.splitlines()
    assert [line.split()[0] for line in narrow[-4:]] == ["score", "vector", "words", "answers"]
    alone = deepmem("search", query, *where, "-k", 1, "--evidence", "--without")
    assert "words" not in alone.out.splitlines()[0]


@pytest.mark.slow
def test_search_goes_on_without_a_damaged_word_index(shop, ranking):
    where = ranking(Ranking(words=100.0))
    query = f"what is {shop.documents[-1].id}?"
    (where[-1] / "words" / "index.json").write_text("{")
    done = process("search", query, *where, "-k", 3, "--json")
    assert ids(done) == ids(deepmem("search", query, *ranking(None), "-k", 3, "--json")), "the transform alone"
    assert done.err.count("results come without words") == 1


def test_evaluate_shows_words_and_the_common_hybrid(shop, ranking):
    where = ranking(Ranking(words=1.0))
    shown = deepmem("evaluate", shop.folder / "test.jsonl", *where, "-k", 10)
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[0].split()[:6] == ["metric", "without", "words", "RRF", "transform", "with"]
    assert "gain over RRF" in shown.out
    answer = deepmem("evaluate", shop.folder / "test.jsonl", *where, "-k", 10, "--json").json
    sides = {"without model", "words alone", "hybrid (RRF)", "transform alone", "with model"}
    assert sides | {"gain", "gain over hybrid", "queries", "questions", "unscored", "store"} == set(answer)


def test_explain_shows_what_each_channel_brings(shop, ranking):
    where = ranking(Ranking(words=1.0, answers=1.0))
    query, (answer, _) = shop.train.queries[3], shop.train.labels[3][0]
    shown = deepmem("explain", query, *where, "--top", 3)
    assert shown.code == 0, shown.err
    assert "a retriever ranks by vector + words + answers(τ=0.1), with the query moved by 0.0°" in shown.out
    assert re.search(r"document +score +vector +words +answers +without\n +1  ", shown.out)
    assert "remembered queries behind the answers:" in shown.out
    told = deepmem("explain", query, *where, "--top", 3, "--json").json
    assert [len(told[name]) for name in ("influences", "documents")] == [3, 3]
    assert told["votes"][0]["texts"] == [query]
    assert answer in told["votes"][0]["documents"]
    assert {"id", "score", "vector", "words", "answers", "without"} == set(told["documents"][0])
