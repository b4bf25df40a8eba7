import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations import Relevance
from deepmem_integrations.errors import DeepMemoryError, InvalidRelevanceError, StorageError

names = st.text(min_size=1).filter(str.strip)


rows = st.lists(
    st.tuples(names, st.dictionaries(st.text(min_size=1), st.floats(0.01, 100), min_size=1, max_size=3)), min_size=1, max_size=6
)


def of_rows(value):
    return Relevance([query for query, _ in value], [list(labels.items()) for _, labels in value])


@given(rows)
def test_jsonl_round_trip(tmp_path_factory, value):
    relevance = of_rows(value)
    path = tmp_path_factory.mktemp("jsonl") / "labels.jsonl"
    relevance.to_jsonl(path)
    assert Relevance.from_jsonl(path) == relevance


def test_jsonl_takes_bare_ids_and_names_bad_lines(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"query": "a", "relevance": ["d1", ["d2", 0.5]]}\n\n{"query": "b", "relevance": ["d3"], "more": 1}\n')
    relevance = Relevance.from_jsonl(path)
    assert relevance.relevance == [[("d1", 1.0), ("d2", 0.5)], [("d3", 1.0)]]
    path.write_text('{"query": "a", "relevance": ["d1"]}\n{"query": "a"\n')
    with pytest.raises(InvalidRelevanceError, match="line 2: not JSON"):
        Relevance.from_jsonl(path)
    path.write_text('{"question": "a"}\n')
    with pytest.raises(InvalidRelevanceError, match="line 1: needs the keys"):
        Relevance.from_jsonl(path)
    with pytest.raises(StorageError, match="Cannot read"):
        Relevance.from_jsonl(tmp_path / "none.jsonl")


def test_beir_round_trip_with_two_splits(tmp_path):
    train = Relevance(['it\'s "quoted"', "two\u2028lines"], [[("d1", 2.0)], [("d 2", 1.0), ("d3", 1.0)]], ["1", "2"])
    test = Relevance(["other"], [[("d1", 1.0)]], ["3"])
    train.to_beir(tmp_path, "train")
    test.to_beir(tmp_path, "test")
    assert Relevance.from_beir(tmp_path, "train") == train
    assert Relevance.from_beir(tmp_path, "test") == test
    with pytest.raises(InvalidRelevanceError, match="another text for the query id '3'"):
        Relevance(["changed"], [[("d1", 1.0)]], ["3"]).to_beir(tmp_path, "test")


def test_beir_keeps_weights_exactly_and_refuses_ids_it_cannot_hold(tmp_path):
    exact = Relevance(["q"], [[("a", 1234567.0), ("b", 0.123456789)]])
    exact.to_beir(tmp_path)
    assert Relevance.from_beir(tmp_path) == exact
    with pytest.raises(InvalidRelevanceError, match=r"'d\\t2' cannot stand in a tab-separated file"):
        Relevance(["q"], [[("d\t2", 1.0)]]).to_beir(tmp_path)


def test_beir_scores_of_zero_mean_judged_irrelevant(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "one"}\n{"_id": "2", "text": "two"}\n')
    qrels = tmp_path / "qrels" / "train.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\n1\ta\t1\n1\tb\t0\n2\tc\t-1\n")
    relevance = Relevance.from_beir(tmp_path)
    assert list(relevance) == [("1", "one", (("a", 1.0),)), ("2", "two", ())]
    assert relevance.irrelevant == ((("b", 0.0),), (("c", -1.0),))
    assert relevance.left_out == {}
    relevance.to_beir(tmp_path, "again")
    assert Relevance.from_beir(tmp_path, "again") == relevance
    qrels.write_text("query-id\tcorpus-id\tscore\n1\ta\tmany\n")
    with pytest.raises(InvalidRelevanceError, match="line 2: expected"):
        Relevance.from_beir(tmp_path)
    qrels.write_text("1\t0\t512\t1\n")
    with pytest.raises(InvalidRelevanceError, match="line 1: expected .*4 fields"):
        Relevance.from_beir(tmp_path)
    qrels.write_text("query-id\tcorpus-id\tscore\n9\ta\t1\n")
    with pytest.raises(InvalidRelevanceError, match="'9' is not in queries"):
        Relevance.from_beir(tmp_path)


def test_llama_index_round_trip(tmp_path):
    relevance = Relevance(["one", "two"], [[("a", 1.0)], [("b", 1.0), ("c", 1.0)]], ["q1", "q2"])
    path = tmp_path / "dataset.json"
    relevance.to_llama_index(path, {"a": "A", "b": "B", "c": "C"})
    assert json.loads(path.read_text())["relevant_docs"] == {"q1": ["a"], "q2": ["b", "c"]}
    assert Relevance.from_llama_index(path) == relevance
    with pytest.raises(InvalidRelevanceError, match="'b' is not in the corpus"):
        relevance.to_llama_index(path, {"a": "A"})
    path.write_text('{"queries": {"a": "q"}, "relevant_docs": {"a": "doc1"}}')
    with pytest.raises(DeepMemoryError, match="lists of document ids"):
        Relevance.from_llama_index(path)
    path.write_text('{"queries": []}')
    with pytest.raises(DeepMemoryError, match="is not an EmbeddingQAFinetuneDataset"):
        Relevance.from_llama_index(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_files_as_windows_writes_them(tmp_path, encoding, newline):
    """Excel, Notepad and PowerShell put a byte order mark first; ``>`` of PowerShell writes UTF-16."""
    mark = "\ufeff" if encoding.startswith("utf-16-") else ""

    def write(path, text):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((mark + text.replace("\n", newline)).encode(encoding))

    expected = Relevance(["wö ist es?", "who"], [[("ä", 1.0)], [("b", 2.0)]], ["q1", "q2"])
    expected.to_jsonl(tmp_path / "plain.jsonl")
    write(tmp_path / "labels.jsonl", (tmp_path / "plain.jsonl").read_text(encoding="utf-8"))
    assert Relevance.from_jsonl(tmp_path / "labels.jsonl") == expected
    write(tmp_path / "beir" / "queries.jsonl", '{"_id": "q1", "text": "wö ist es?"}\n{"_id": "q2", "text": "who"}\n')
    write(tmp_path / "beir" / "qrels" / "train.tsv", "query-id\tcorpus-id\tscore\nq1\tä\t1\nq2\tb\t2\n")
    assert Relevance.from_beir(tmp_path / "beir") == expected
    value = {"queries": {"q1": "wö ist es?"}, "corpus": {}, "relevant_docs": {"q1": ["ä"]}, "mode": "text"}
    write(tmp_path / "llama.json", json.dumps(value, ensure_ascii=False, indent=1))
    assert Relevance.from_llama_index(tmp_path / "llama.json") == expected.take([0])


def test_what_pandas_writes_where_a_value_is_missing(tmp_path):
    lines = [
        '{"query": "one", "relevance": [["a", 1.0]], "query_id": NaN, "generated": NaN}',
        '{"query": "two", "relevance": ["b"], "query_id": null, "generated": null}',
        '{"query": "three", "relevance": {"c": 0.5}, "query_id": "0", "generated": true}',
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    found = Relevance.from_jsonl(tmp_path / "labels.jsonl")
    assert found.query_ids == ("1", "2", "0"), "row numbers that are ids of others give way"
    assert found.labels == ((("a", 1.0),), (("b", 1.0),), (("c", 0.5),))
    assert found.generated == (False, False, True)
    (tmp_path / "labels.jsonl").write_text('{"query": NaN, "relevance": [["a", 1.0]]}')
    with pytest.raises(InvalidRelevanceError, match="not a string: got NoneType"):
        Relevance.from_jsonl(tmp_path / "labels.jsonl")
