import re

from tests.cli.helpers import deepmem, process


def test_evaluate(shop):
    shown = deepmem("evaluate", shop.folder / "test.jsonl", *shop.store)
    assert shown.code == 0
    assert "recall@100" in shown.out
    assert "took part in the training" not in shown.err
    learnt = process("evaluate", shop.folder / "train.jsonl", *shop.store, "--model", shop.job["id"])
    assert f"{len(shop.train)} of the {len(shop.train)} queries took part in the training of {shop.job['id']}" in learnt.err
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
    assert shown.out.startswith("moved by ")
    answer = deepmem("explain", shop.train.queries[3], *shop.store, "--top", 2, "--json").json
    assert [len(influence["texts"]) for influence in answer["influences"]] == [1, 1]
    assert answer["influences"][0]["texts"] == [shop.train.queries[3]]
    assert deepmem("explain", "x", *shop.store, "--path", shop.folder / "none").code == 1
    assert deepmem("explain", *shop.store).code == 2
