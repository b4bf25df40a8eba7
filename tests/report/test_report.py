import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.evaluation import WITH, WITHOUT
from deepmem_integrations.report import ContextLength, EvaluationReport
from deepmem_integrations.report.charts import Mark, whiskers
from deepmem_integrations.report.page import LIMIT, QUERIES
from deepmem_integrations.report.summary import summarise
from tests.embeddings import LookupEmbeddings
from tests.report.conftest import SCRIPT, make_memory


class Reader(HTMLParser):
    """Collects the tags of a page, its text, and the addresses that it names."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.addresses = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data") and value]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_figures_are_those_of_the_evaluation(report, trained, problem):
    evaluation, values = trained.measure(problem.test, top_k=[1, 10]), report.to_json()
    everything = values["curves"]["all"]
    for side in (WITHOUT, WITH):
        for name in ("recall@1", "recall@10", "ndcg@10"):
            assert everything["scores"][side][name]["mean"] == pytest.approx(evaluation[side][name])
            band = everything["scores"][side][name]
            assert band["low"] <= band["mean"] <= band["high"]
    gain = evaluation.gains["recall@10"]
    assert everything["gains"][WITHOUT]["recall@10"] == pytest.approx({"mean": gain.mean, "low": gain.low, "high": gain.high})
    assert f"{100 * evaluation[WITH]['recall@10']:.1f}% of the right documents" in str(report)
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_seen_and_unseen_queries_stand_apart(report, problem):
    asked = {name for labels in problem.train.labels for name, _ in labels}
    seen = sum(labels[0][0] in asked for labels in problem.test.labels)
    curves = report.to_json()["curves"]
    assert 0 < seen < len(problem.test)
    assert (curves["seen"]["queries"], curves["unseen"]["queries"]) == (seen, len(problem.test) - seen)
    total = sum(curves[view]["queries"] * curves[view]["scores"][WITH]["ndcg@10"]["mean"] for view in ("seen", "unseen"))
    assert total / len(problem.test) == pytest.approx(curves["all"]["scores"][WITH]["ndcg@10"]["mean"])


def test_the_promise_is_that_of_the_training_report(report, trained):
    promised = trained.folder.info(trained.get_model()).report["seen"]["gains"]["ndcg@10"]
    rows = {(row["view"], row["metric"]): row for row in report.to_json()["promise"]}
    assert rows["seen", "ndcg@10"]["promised"] == promised
    assert len(rows) == 4
    assert rows["seen", "ndcg@10"]["kept"] is (rows["seen", "ndcg@10"]["measured"]["high"] >= promised["low"])


def test_queries_come_worst_first_with_ranks_and_reasons(report, trained, problem):
    queries, evaluation = report.to_json()["queries"], trained.measure(problem.test, top_k=[10, 100])
    changes = [query["ndcg@10"]["difference"] for query in queries]
    assert changes == sorted(changes)
    assert changes[0] < 0 < changes[-1]
    assert {query["id"] for query in queries} == set(problem.test.query_ids)
    worst = queries[0]
    row = problem.test.query_ids.index(worst["id"])
    (right,) = worst["right"]
    assert evaluation.found[WITH][row][right["with"] - 1] == right["id"] == problem.test.labels[row][0][0]
    assert worst["outcome"] == "loss"
    assert [document["id"] for document in worst["after"]] == evaluation.found[WITH][row][:3]
    evidence = worst["evidence"]
    assert evidence["documents"][0]["vectors"] == right["without"]
    assert evidence["alike"]["query"] in problem.train.queries, "the training kept the texts"
    assert evidence["degrees"] > 0


def test_advice_on_the_number_of_documents(report):
    advice = report.to_json()["advice"]
    rows = {row["k"]: row for row in advice["rows"]}
    reached = [k for k, row in rows.items() if row["recall"][WITH] >= rows[10]["recall"][WITHOUT]]
    assert advice["enough"] == min(reached) < 10
    words = len(f"The text of doc-1. {SCRIPT}".split())
    assert rows[3]["context"][WITH] == 3 * words
    assert rows[3]["price of 1,000 queries"][WITH] == pytest.approx(1000 * 3 * words * 2.5 / 1e6)
    assert f"{advice['enough']} documents now do</strong> what 10 did" in report.html()


def test_without_tokens_characters_are_counted_and_have_no_price(trained, problem):
    advice = trained.report(problem.test.take(range(5))).to_json()["advice"]
    assert (advice["unit"], advice["price"], advice["rows"][0]["price of 1,000 queries"][WITH]) == ("characters", None, None)
    assert advice["rows"][0]["context"][WITH] > 50
    with pytest.raises(ValueError, match=r'price is for a million tokens.*tokens="o200k_base"'):
        trained.report(problem.test, price=2.0)
    with pytest.raises(ValueError, match=r"0 or more; got -1"):
        ContextLength.of(len, -1)
    with pytest.raises(ValueError, match=r"knows no encoding or model 'nope'. Its encodings are .*o200k_base"):
        trained.report(problem.test, tokens="nope")
    with pytest.raises(InvalidRelevanceError):
        trained.report(list(problem.test.queries))


def test_the_health_of_labels(report, problem, trained):
    health = report.to_json()["labels"]
    asked = {name for labels in problem.train.labels for name, _ in labels}
    assert health["training"]["queries"] == len(problem.train)
    assert health["training"]["by a language model"] == 0
    assert health["documents without labels"]["count"] == len(problem.ids) - len(asked)
    assert asked.isdisjoint(health["documents without labels"]["ids"])
    assert health["labels without documents"] == {"count": 0, "ids": []}
    suggested = health["label next"]["documents"]
    assert suggested and asked.isdisjoint(document["id"] for document in suggested)
    assert health["test"]["in the training too"] == 0
    flattering = trained.report(problem.train.take(range(10)))
    assert "10 of the 10 test queries took part in the training" in flattering.html()


def test_a_label_whose_document_is_gone_is_named(trained, problem):
    gone = problem.train.labels[0][0][0]
    kept = [row for row, name in enumerate(problem.ids) if name != gone]
    ids = [problem.ids[row] for row in kept]
    texts = [f"The text of {name}. {SCRIPT}" for name in ids]
    smaller = type(trained)(GivenCorpus(ids, ids, texts, trained.embedder), trained.embedder, trained.folder.path)
    test = problem.test.take([row for row, labels in enumerate(problem.test.labels) if labels[0][0] != gone])
    health = smaller.report(test).to_json()["labels"]
    assert health["labels without documents"] == {"count": 1, "ids": [gone]}


def test_script_in_texts_and_queries_is_text(trained, problem):
    rows = range(20)
    asked = [f"{problem.test.queries[row]} {SCRIPT}" for row in rows]
    labels = Relevance(asked, [problem.test.labels[row] for row in rows], [f"{SCRIPT}{row}" for row in rows])
    page = trained.report(labels, command=f"deepmem {SCRIPT}").html()
    read = Reader(page)
    assert read.tags.count("script") == 1, "the page's own"
    assert "img" not in read.tags
    assert sum(SCRIPT in text for text in read.texts) > 20
    assert "default-src 'none'" in html.unescape(page) and "script-src 'sha256-" in html.unescape(page)


def test_the_page_names_nothing_to_load(report):
    read = Reader(report.html())
    assert read.addresses and all(address.startswith("#") for address in read.addresses)
    assert "url(" not in report.html() and "@import" not in report.html()


def test_without_texts_no_text_is_in_the_report(trained, problem):
    report = trained.report(problem.test, texts=False)
    texts = [*problem.test.queries, *problem.train.queries, "The text of"]
    everything = json.dumps(report.to_json()) + report.html()
    assert [text for text in texts if f'"{text}"' in everything or f">{text}<" in everything] == []
    assert "The text of" not in everything
    assert problem.ids[0] in everything
    assert "queries and documents have their ids" in report.html()


def test_files_and_the_frame_of_a_notebook(report, tmp_path):
    report.save(tmp_path / "report.html")
    report.save(str(tmp_path / "report.json"))
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report.html()
    again = EvaluationReport(json.loads((tmp_path / "report.json").read_text(encoding="utf-8")))
    assert again.html() == report.html()
    frame = Reader(report._repr_html_())
    assert frame.tags == ["iframe"], "the page cannot leave its frame"
    assert repr(report).startswith("EvaluationReport('Ten results now hold")


def test_a_training_that_gained_nothing_says_so(problem, tmp_path):
    memory = make_memory(problem, tmp_path)
    shuffled = np.random.default_rng(0).permutation(len(problem.train))
    memory.train(Relevance(problem.train.queries, [problem.train.labels[row] for row in shuffled]), words=False)
    report = memory.report(problem.test)
    assert str(report) == "Training found nothing that helps, so results stay as they were."
    values = report.to_json()
    assert values["summary"]["verdict"] == "unchanged"
    assert values["summary"]["limits"][0].startswith("The reason: ")
    assert {query["outcome"] for query in values["queries"]} == {"same"}
    assert "Untransformed vectors rank, as before the training." in report.html()


def test_few_labels_promise_nothing(problem, tmp_path):
    memory = make_memory(problem, tmp_path)
    memory.train(problem.train.take(range(5)), words=False)
    page = memory.report(problem.test.take(range(3))).html()
    assert "The training promised nothing" in page
    assert "only 3 different questions" in page


def test_words_and_the_hybrid_stand_beside_the_model(problem, tmp_path):
    """The words of documents tell the answers here, and the vectors tell nothing."""
    texts = [f"{name} about topic{row}" for row, name in enumerate(problem.ids)]
    queries = [f"topic{row}: what is known?" for row in range(150)]
    labels = Relevance(queries, [[(problem.ids[row], 1.0)] for row in range(150)])
    embeddings = LookupEmbeddings(problem)
    memory = DeepMemory(GivenCorpus(problem.ids, problem.ids, texts, embeddings), embeddings, tmp_path / "words")
    train, test = labels.split(0.3)
    memory.train(train)
    report = memory.report(test)
    values = report.to_json()
    assert values["choice"]["weights"]["words"] > 0
    assert set(values["curves"]["all"]["scores"]) >= {"words alone", "hybrid (RRF)", "transform alone"}
    assert values["choice"]["runner-up"]["candidate"] != values["choice"]["chosen"]
    assert "common hybrid" in str(report)
    assert values["queries"][-1]["evidence"]["documents"][0]["words"] == 1
    disagreeing = values["labels"]["label next"]["queries"]
    assert [query["agreement"] for query in disagreeing] == sorted(query["agreement"] for query in disagreeing)


@pytest.mark.slow
def test_a_thousand_queries_are_under_two_megabytes(report):
    """However long the texts of documents are; beyond a thousand, the page shows the worst and the best."""
    values = report.to_json()
    long = json.loads(json.dumps(values["queries"][0]))
    for side in ("before", "after"):
        for document in long[side]:
            document |= {"id": f"{'folder/' * 5}{document['id']}", "text": "文" * 160}
    queries = [{**long, "id": f"q{number}", "query": f"number {number} " + "word " * 20} for number in range(1_500)]
    few, many = (EvaluationReport({**values, "queries": queries[:count]}).html() for count in (1_000, 1_500))
    assert len(few.encode()) < LIMIT < 2_000_000
    assert few.count("<summary><b>") == many.count("<summary><b>") == QUERIES
    assert "500 between them are in the JSON file alone" in many


@pytest.mark.parametrize(
    ("low", "high", "beside", "verdict", "sentence"),
    [
        (0.02, 0.1, (0.01, 0.05), "gain", r"Ten results now hold 50.0% .*and \+3.0 .* over the common hybrid"),
        (0.02, 0.1, (-0.05, -0.01), "gain", r"but the common hybrid of vectors and words does better"),
        (-0.02, 0.1, (-0.05, 0.05), "open", r"No gain can be shown.*that chance explains"),
        (-0.1, -0.02, (-0.05, 0.05), "loss", r"makes these queries worse: recall@10 falls"),
    ],
)
def test_the_sentence_follows_the_intervals(low, high, beside, verdict, sentence, report):
    values = report.to_json()

    def every(low, high):
        return {name: {"mean": (low + high) / 2, "low": low, "high": high} for name in values["curves"]["all"]["gains"][WITHOUT]}

    scores = {side: {name: {"mean": 0.5} for name in every(0, 1)} for side in (WITHOUT, "hybrid (RRF)", WITH)}
    gains = {WITHOUT: every(low, high), "hybrid (RRF)": every(*beside)}
    summary = summarise(
        {"all": {"queries": 100, "questions": 100, "scores": scores, "gains": gains}},
        values["queries"],
        values["labels"],
        unchanged=False,
        reason=None,
    )
    assert summary["verdict"] == verdict
    assert re.search(sentence, summary["sentence"])
    if verdict == "loss":
        assert any(limit.startswith("It does worse in recall at k = 1, 2") for limit in summary["limits"])


def test_names_in_charts_are_escaped():
    chart = whiskers([("<b>&", [Mark("with", {"mean": 0.0, "low": 0.0, "high": 0.0})])], title='"<i>', zero=True)
    assert "<b>" not in chart and "<i>" not in chart and "&lt;b&gt;&amp;" in chart
    assert "+1" in chart, "no difference is drawn as if it were large"
