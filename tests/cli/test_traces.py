import json

from deepmem_integrations import Relevance
from tests.cli.helpers import deepmem


def rows(shop):
    """What was shown for the first test query, without ids, and a rating of the answer."""
    answer = next(document for document in shop.documents if document.id == shop.test.labels[0][0][0])
    run = {"id": "r", "trace_id": "r", "run_type": "retriever", "inputs": {"query": shop.test.queries[0]}}
    run["outputs"] = {"documents": [{"page_content": answer.text, "metadata": {}}]}
    return [run], [{"run_id": "r", "key": "rating", "score": None, "value": "good"}], answer.id


def test_traces(shop, tmp_path):
    runs, feedback, answer = rows(shop)
    (tmp_path / "runs.jsonl").write_text(json.dumps(runs[0]) + "\n{")
    (tmp_path / "feedback.json").write_text(json.dumps(feedback))
    labels, files = tmp_path / "labels.jsonl", (tmp_path / "runs.jsonl", tmp_path / "feedback.json")
    options = ("traces", labels, *files, *shop.store[:4], "--format", "langsmith", "--policy", "first")
    cut = deepmem(*options)
    assert cut.code == 1
    assert "runs.jsonl, line 2: not JSON" in cut.err
    done = deepmem(*options, "--drop-invalid", "--json", "--weights", '{"good": 0.5, "5": 1}')
    assert done.code == 0, done.err
    assert done.json["documents"] == {"id": 0, "key": 0, "text": 1, "ambiguous": 0, "unmatched": 0}
    assert done.json["left_out"] == {"a row that cannot be read": 1}
    assert Relevance.from_jsonl(labels).labels == (((answer, 0.5),),)
    again = deepmem(*options)
    assert again.code == 2
    assert "exists already" in again.err
    text = deepmem(*options, "--force", "--drop-invalid")
    assert "1 by text, 0 ambiguous, 0 not found" in text.out
    assert f"Relevance(1 queries, 1 labels) → {labels}" in text.out
    assert deepmem(*options, "--force", "--drop-invalid", "--level", "page").code == 0
    place = [document.id for document in shop.documents].index(answer)
    pages = Relevance.from_jsonl(labels)
    assert (pages.level, pages.labels) == ("page", (((f"page-{place // 3}", 1.0),),))
    for wrong in (("--weights", "good"), ("--weights", "[1]"), ("--feedback", "rating", "--format", "langsmyth")):
        assert deepmem(*options, "--force", *wrong).code == 2
    alone = deepmem("traces", labels, files[1], "--format", "langsmith", "--force", "--store", shop.store[1])
    assert "--store and --embedding go together" in alone.err
