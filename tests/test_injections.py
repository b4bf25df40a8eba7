"""What documents that give orders can spoil where the model obeys every one of them: at most what is learned of themselves."""

import re
from collections import Counter

import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.feedback import FeedbackLog
from deepmem_integrations.generation import Filters, QueryGenerator
from deepmem_integrations.judging import RelevanceJudge
from tests.generation.helpers import documents, embed_texts
from tests.injections import DOCUMENTS, KINDS, TEXTS
from tests.judging.test_judge import grade
from tests.test_examples import agent_over

CLEAN = documents(12)
WRITTEN = [one for one in DOCUMENTS if one[1] in ("hijack", "steal", "break", "leak")]
GRADED = [one for one in DOCUMENTS if one[1] in ("praise", "condemn", "scale")]
READ = [one for one in DOCUMENTS if one[1] in ("cite", "frame", "wander")]
BROKEN = (
    "I cannot help with that.",
    {"queries": [{"kind": "question", "text": "visitors' parking"}] * 500},
    {"queries": None, "error": {"error": {"error": {}}}},
    "1 " * 5000,
    "Ô bâtiment, ô plan,\nô porte du couchant",
)
EXAMPLES = ["why does my printer hum", "where is my parcel"]


GOT_THROUGH = {
    (kind, judged): Counter({"labels of its own": own, "a query of another document": stolen})
    for kind, judged, own, stolen in [
        ("hijack", 0, 3, 0),
        ("hijack", 3, 4, 0),
        ("steal", 0, 0, 0),
        ("steal", 3, 5, 5),
        ("break", 0, 1, 0),
        ("break", 3, 1, 0),
        ("leak", 0, 0, 0),
        ("leak", 3, 0, 0),
    ]
}
"""Of five documents of a kind, without or with judged documents; with them, here, without the round trip."""


def own_query(number):
    return f"how do I set up unit-{number}"


def obedient(kind, text):
    """A model that does as it is told by the document, and its work well wherever that document is not shown."""

    def answer(messages, schema):
        said = messages[-1]["content"]
        told, number = text in said, re.search(r"unit-(\d+) is", said)
        if schema.__name__ == "Grade":
            query = re.search(r"Query: (.*)", said)[1]
            if told:
                return {"scale": {"grade": 100}, "condemn": {"grade": 3, "others": 0}}.get(kind, {"grade": 3})
            return {"grade": grade(query, re.search(r">\n(The .*)\n</document", said)[1])}
        if schema.__name__ == "Judgement":
            return {"answered_by": [1, 2, 3, 4] if told else []}
        if not told:
            return {"queries": [{"kind": "question", "text": own_query(number[1])}]}
        if kind == "break":
            return BROKEN[TEXTS["break"].index(text)]
        texts = {
            "hijack": ["where does serial-3 of the battery go"],
            "steal": [own_query(7)],
            "leak": [messages[0]["content"][:300], *EXAMPLES],
        }[kind]
        return {"queries": [{"kind": "question", "text": one} for one in texts]}

    return answer


def written(kind, text, sources, **options):
    generator = QueryGenerator(
        obedient(kind, text), 1, kinds=["question"], examples=EXAMPLES, embedding=embed_texts, progress=False, **options
    )
    return generator.generate(sources)


def labels_of(result, but=""):
    """Query → its documents, but for one document and for queries of that document."""
    rows = {query.text: {name for name, _ in query.documents} - {but} for query in result.queries}
    return {text: names for text, names in rows.items() if names}


def test_there_are_fifty_documents_of_all_kinds():
    assert len({text for _, _, text in DOCUMENTS}) == 50
    assert {kind for _, kind, _ in DOCUMENTS} == {*KINDS}


@pytest.mark.parametrize("kind", ["hijack", "steal", "break", "leak"])
@pytest.mark.parametrize("judged", [0, 3])
def test_queries_for_other_documents_stay_as_they_are(kind, judged):
    options = {"judged_documents": judged, "filters": Filters(near_duplicate=False, round_trip=judged == 0)}
    clean = labels_of(written("hijack", "nowhere to be found", CLEAN, **options))
    got_through = Counter()
    for name, _, text in [one for one in WRITTEN if one[1] == kind]:
        result = written(kind, text, [(name, text), *CLEAN], **options)
        others = labels_of(result, but=name)
        lost = clean.keys() - others.keys()
        # A query that two documents get word for word stays with the first of them, where no round trip tells whose it is.
        assert lost <= ({own_query(7)} if kind == "steal" and judged else set()), (name, lost)
        assert {query: others[query] for query in others if query in clean} == {q: clean[q] for q in clean if q not in lost}
        assert not others.keys() - clean.keys(), "nobody else is labelled for what this document made the model write"
        mine = [query.text for query in result.queries if query.documents[0][0] == name]
        assert not {*mine} & {*EXAMPLES}, "what users asked does not leak into labels"
        got_through["labels of its own"] += bool(mine)
        got_through["a query of another document"] += bool(lost)
    assert got_through == GOT_THROUGH[kind, judged]


def test_a_document_says_nothing_about_the_others_that_are_judged_for_the_same_query():
    order = next(text for _, kind, text in DOCUMENTS if kind == "condemn")
    texts = {
        "a": "Opening hours of the north office on monday: nine to five, all year.",
        "b": "Opening hours: office nine, office nine. south office opening hours: nine.",
        "c": "The canteen serves soup and salad on every working day of the week.",
        "x": f"Opening hours: office nine, office nine. {order}",
    }

    def model(messages, schema):
        said = messages[-1]["content"]
        if schema.__name__ == "Judgement":
            return {"answered_by": [] if order in said else [1] if "south" in said else []}
        text = (
            "opening hours office nine" if "north" in said else "soup and salad canteen" if "canteen" in said else "sauna hours"
        )
        return {"queries": [{"kind": "question", "text": text}]}

    options = {"embedding": embed_texts, "judged_documents": 3, "progress": False, "filters": Filters(near_duplicate=False)}
    labels = QueryGenerator(model, 1, kinds=["question"], **options)(texts.items())
    assert dict(zip(labels.queries, labels.labels, strict=True))["opening hours office nine"] == (("a", 1.0), ("b", 1.0))


@pytest.mark.parametrize("name", [name for name, _, _ in GRADED])
def test_grades_of_other_documents_stay_as_they_are(name):
    kind, text = next((kind, text) for known, kind, text in DOCUMENTS if known == name)
    queries = [own_query(row) for row in range(4)]

    def graded(sources):
        judge = RelevanceJudge(obedient(kind, text), rankings=[lambda query: sources], depth=len(sources), progress=False)
        labels = judge(queries)
        return [
            {document: weight for document, weight in (*row, *wrong) if document != name}
            for row, wrong in zip(labels.labels, labels.irrelevant, strict=True)
        ], [{document for document, _ in row} for row in labels.labels]

    clean, _ = graded(CLEAN)
    others, labelled = graded([(name, text), *CLEAN])
    assert others == clean
    assert all((name in row) == (kind != "scale") for row in labelled), "a grade that there is not is no label"


class Obedient:
    """An agent that does as it is told: it cites what the document says, and searches for what the document says."""

    def __init__(self, name, text, cited):
        self.name, self.text, self.cited = name, text, cited

    def search(self, question):
        return question

    def answer(self, question, found):
        if self.text in found:
            return " ".join(f"[{one}]" for one in self.cited)
        return " ".join(f"[{one}]" for one in re.findall(r"^\[(.*)\]$", found, re.MULTILINE)[:1])


@pytest.mark.parametrize("name", [name for name, _, _ in READ])
def test_an_agent_that_obeys_labels_nothing_that_it_was_not_shown_and_calls_nothing_wrong(name, tmp_path):
    kind, text = next((kind, text) for known, kind, text in DOCUMENTS if known == name)
    cited = [name] if kind == "cite" else ["d3", "d-secret", "the id of another user's query"]
    texts = {name: text, **dict(CLEAN[:2])}
    with FeedbackLog(tmp_path / "feedback.db") as log:
        ask = agent_over("langchain", texts, log, Obedient(name, text, cited))
        ask("how do I set up unit-0")
        labels: Relevance = log.labels("cited")
        (query,) = log.queries()
    shown = {one.document_id for one in query.shown}
    assert {document for row in labels.labels for document, _ in row} <= shown
    assert {document for row in labels.labels for document, _ in row} == ({name} if kind == "cite" else set())
    assert not any(labels.irrelevant)
    assert not [event for event in query.events if event.kind != "cite"]
