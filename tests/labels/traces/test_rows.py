"""Files of traces as tools and people leave them: every ending, cut-off lines, byte order marks, pretty printing."""

import csv
import json
import os

import pytest

from deepmem_integrations import Relevance
from deepmem_integrations._files import read_lines
from deepmem_integrations.errors import DeepMemoryError, InvalidRelevanceError, StorageError
from deepmem_integrations.labels.traces.rows import rows_of
from tests.labels.traces.samples import LANGFUSE, LANGSMITH, OTEL, STORE

EXPECTED = ((("reset", 1.0),),)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def labels(path, format="langsmith", **options):
    return Relevance.from_traces(path, format, policy="first", documents=STORE, **options).labels


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_lines_whatever_the_encoding_and_the_name(tmp_path, encoding, end):
    for name in ("runs.jsonl", "runs.json", "runs.txt"):
        path = tmp_path / name
        path.write_bytes(lines(LANGSMITH).replace("\n", end).encode(encoding))
        assert labels(path) == EXPECTED


def test_json_documents(tmp_path):
    path = tmp_path / "runs.json"
    for value in (LANGSMITH, {"runs": LANGSMITH}, {"data": LANGSMITH[:3], "meta": {}, "scores": LANGSMITH[3:]}):
        for indent in (None, 2):
            path.write_text(json.dumps(value, indent=indent))
            assert labels(path) == EXPECTED
    path.write_text("\n".join(json.dumps(request, indent=1) for request in OTEL[:1]))
    assert Relevance.read_traces(path, "otel")[1].searches == 1
    path.write_text("")
    with pytest.raises(InvalidRelevanceError, match="The traces hold no search"):
        labels(path)


def test_a_line_that_is_cut_off_is_named_or_dropped(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(lines(LANGSMITH) + json.dumps(LANGSMITH[0])[:40])
    with pytest.raises(InvalidRelevanceError, match=r"runs.jsonl, line 5: not JSON \(.*\); is the line cut off\?"):
        labels(path)
    read = Relevance.from_traces(path, "langsmith", policy="first", documents=STORE, on_invalid="drop")
    assert read.labels == EXPECTED
    assert read.left_out == {"a row that cannot be read": 1}
    path.write_text(json.dumps(LANGSMITH[0])[:40] + "\n" + lines(LANGSMITH))
    for name in ("runs.jsonl", "runs.json"):  # the second line tells that these are JSON lines
        path = path.rename(tmp_path / name)
        with pytest.raises(InvalidRelevanceError, match="line 1: not JSON"):
            labels(path)
    path.write_text(json.dumps(LANGSMITH, indent=2)[:-40])
    with pytest.raises(
        InvalidRelevanceError, match=r"runs.json, line \d+: neither JSON nor JSON lines \(.*\); is the file cut off\?"
    ):
        labels(path, on_invalid="drop")
    path.write_text("7\n" + lines(LANGSMITH))
    with pytest.raises(InvalidRelevanceError, match="line 1: a row is an object with the fields of the format; got 7"):
        labels(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_as_exports_and_excel_write_it(tmp_path, delimiter):
    path, names = tmp_path / "runs.csv", sorted({name for row in LANGSMITH for name in row})
    long = {**LANGSMITH[2], "outputs": {"output": "word\n" * 40_000}}  # beyond what Python's csv takes by itself
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, names, delimiter=delimiter)
        writer.writeheader()
        for row in (*LANGSMITH[:2], long, LANGSMITH[3]):
            writer.writerow({name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()})
    assert labels(path) == EXPECTED
    assert [row.where for row in rows_of(path)] == [f"{path}, line {number}" for number in (2, 3, 4, 5)]
    text = path.read_text(encoding="utf-8-sig")
    path.write_text(text.rstrip()[:-30])
    with pytest.raises(InvalidRelevanceError, match=r"runs.csv, line 5: .*"):
        labels(path)
    path.write_text(f'{text}x{delimiter}"cut')
    with pytest.raises(InvalidRelevanceError, match=r"runs.csv, line 6: not CSV \(.*\); is the line cut off\?"):
        labels(path)
    assert labels(path, on_invalid="drop") == EXPECTED


def test_parquet_and_folders(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "export" / "year=2026"
    folder.mkdir(parents=True)
    texts = [{name: json.dumps(row[name]) if isinstance(row[name], dict) else row[name] for name in row} for row in LANGSMITH[:3]]
    parquet.write_table(pyarrow.Table.from_pylist(texts), folder / "runs.parquet")
    nested = [
        {"id": "t", "trace_id": "t", "run_type": "retriever", **{name: LANGSMITH[1][name] for name in ("inputs", "outputs")}}
    ]
    parquet.write_table(pyarrow.Table.from_pylist(nested), tmp_path / "nested.parquet")
    (tmp_path / "export" / "feedback.jsonl").write_text(lines(LANGSMITH[3:]))
    (tmp_path / "export" / "README.md").write_text("not traces")
    assert labels(tmp_path / "export") == EXPECTED
    assert labels([tmp_path / "nested.parquet", {**LANGSMITH[3], "trace_id": "t", "run_id": "t"}]) == EXPECTED
    whole = (folder / "runs.parquet").read_bytes()
    (folder / "runs.parquet").write_bytes(whole[:-20])
    with pytest.raises(InvalidRelevanceError, match="runs.parquet is no whole Parquet file"):
        labels(tmp_path / "export")
    with pytest.raises(InvalidRelevanceError, match="holds no file of traces"):
        labels(make(tmp_path / "empty"))


def make(folder):
    folder.mkdir()
    return folder


def test_files_come_through_the_guarded_door(tmp_path):
    with pytest.raises(StorageError, match="Cannot read .*gone.jsonl"):
        labels(tmp_path / "gone.jsonl")
    for name in ("pipe.jsonl", "pipe.csv", "pipe.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(StorageError, match="it is no regular file"):
            labels(tmp_path / name)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(lines(LANGSMITH).replace("thanks", "café").encode("latin-1"))
    with pytest.raises(StorageError, match="is not UTF-8 text"):
        labels(latin)
    with pytest.raises(InvalidRelevanceError, match="compressed: unpack the file first"):
        labels(tmp_path / "runs.jsonl.gz")
    for bad in ("\0", "a" * 5000):
        with pytest.raises(DeepMemoryError):
            labels(bad)


def test_a_long_line_is_refused_and_long_files_are_streamed(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    path.write_text("a\u2028b\n\nc")
    assert list(read_lines(path)) == [(1, "a\u2028b"), (2, ""), (3, "c")]
    monkeypatch.setattr("deepmem_integrations._files.MOST_LINE", 4)
    assert [line for _, line in read_lines(path)] == ["a\u2028b", "", "c"]
    path.write_text("abcd")
    with pytest.raises(StorageError, match="line 1 has more than 4 characters"):
        list(read_lines(path))


def test_rows_are_read_one_at_a_time():
    read = []

    def rows():
        for row in (*LANGFUSE, {"id": "later"}):
            read.append(row["id"])
            yield row

    next(rows_of(rows()))
    assert read == ["o1"]


@pytest.mark.slow
def test_a_large_file_takes_no_more_memory_than_its_searches(tmp_path):
    """200 MB of prompts around 100 searches are read in less than 60 MB more than one search takes."""
    import subprocess
    import sys

    path = tmp_path / "runs.jsonl"
    with path.open("w") as file:
        for number in range(100):
            trace = {"id": f"r{number}", "trace_id": f"r{number}"}
            file.write(json.dumps({**LANGSMITH[1], **trace, "parent_run_id": None}) + "\n")
            prompt = {**LANGSMITH[2], "id": f"m{number}", "trace_id": f"r{number}", "parent_run_id": None}
            file.write(json.dumps({**prompt, "inputs": {"prompt": "word " * 400_000}}) + "\n")
            file.write(json.dumps({**LANGSMITH[3], "run_id": f"r{number}", "trace_id": f"r{number}"}) + "\n")
    code = (
        "import resource, sys; from deepmem_integrations import Relevance;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "labels = Relevance.from_traces(sys.argv[1], 'langsmith', policy='first', documents={'a': 'Run git reset.'});"
        "print(len(labels), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    count, kilobytes = map(int, done.stdout.split())
    assert count == 100
    assert kilobytes < 60_000


@pytest.mark.parametrize("odd", [None, 3, "x", True, [None], {"a": None}], ids=repr)
@pytest.mark.parametrize("format", ["otel", "phoenix"])
def test_what_is_no_span_in_a_request_is_passed_over(tmp_path, format, odd):
    """Before, it was an AttributeError."""
    parts = [
        {"resourceSpans": [odd]},
        {"resourceSpans": [{"scopeSpans": [odd]}]},
        {"resourceSpans": [{"scopeSpans": [{"spans": [odd]}]}]},
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"events": [odd], "attributes": [odd]}]}]}]},
        {"resourceLogs": [{"scopeLogs": [{"logRecords": [odd]}]}]},
    ]
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(f"{json.dumps(part)}\n" for part in parts))
    with pytest.raises(InvalidRelevanceError, match="none of 3 spans is a retriever's"):
        Relevance.read_traces(path, format)
