from deepmem_integrations import Relevance
from tests.cli.helpers import deepmem
from tests.openai_server import openai_server


def test_judge(shop, tmp_path, monkeypatch):
    queries, labels, checkpoint = tmp_path / "queries.txt", tmp_path / "labels.jsonl", tmp_path / "answers.jsonl"
    asked = [shop.test.queries[0], shop.test.queries[1]]
    queries.write_text(f'{asked[0]}\n\n{{"query": "{asked[1]}"}}\n{asked[0]}\n')
    answer = shop.test.labels[0][0][0]
    text = next(document.text for document in shop.documents if document.id == answer)
    people = Relevance([asked[0]], [[(answer, 1.0), (next(one.id for one in shop.documents if one.id != answer), 0)]])
    people.to_jsonl(tmp_path / "people.jsonl")
    options = ("judge", queries, labels, *shop.store, "--llm", "openai:gpt-4o-mini", "--depth", 3, "--checkpoint", checkpoint)
    expected = deepmem(*options, "--estimate", "--json")
    assert expected.code == 0, expected.err
    assert not labels.exists()
    with openai_server() as server:
        server.script = lambda messages, attempt: {"grade": 3 if text[:200] in messages[-1]["content"] else 0}
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}")
        done = deepmem(*options, "--sample", tmp_path / "people.jsonl", "--json")
    assert done.code == 0, done.err
    written = Relevance.from_jsonl(labels)
    assert written.queries == tuple(asked)
    assert sum(map(len, written.relevance)) == expected.json["documents"]
    assert done.json["left_out"] == {"query: asked before": 1}
    assert done.json["agreement"]["pairs"] == 2
    assert all("κ 1.00" in judge for judge in written.judges)
    again = deepmem(*options)
    assert again.code == 2
    assert "exists already" in again.err
    queries.write_text('{"question": "which?"}\n')
    wrong = deepmem(*options, "--force")
    assert wrong.code == 1
    assert "line 1: expected a query" in wrong.err
