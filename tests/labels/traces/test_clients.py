"""The clients of LangSmith and Langfuse against a server on this machine, which answers as their APIs are documented to.

The hosted servers are not reachable from here. The clients are the packages' own, which check the shape of every answer.
"""

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.errors import InvalidRelevanceError, StorageError
from tests.labels.traces.samples import LANGFUSE, LANGSMITH, QUERY, STORE, UUID

PAGE = 2
"""How many rows a page has at most, so that there are several."""


@contextmanager
def answering(answer, *, busy=1):
    """Run a server, and yield its address and a list of what it was asked.

    Args:
        answer: A function from a path, its parameters and a body to a status and a value.
        busy: How many requests are refused at first because there are too many.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            place, body = urlsplit(self.path), self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parameters = {name: values if len(values) > 1 else values[0] for name, values in parse_qs(place.query).items()}
            body = json.loads(body) if body else {}
            tries = sum(path == place.path for path, *_ in asked)
            asked.append((place.path, parameters, body))
            late = tries < busy and not place.path.endswith("/info")
            status, value = (429, {"detail": "too many"}) if late else answer(place.path, parameters, body)
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if late:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def page_of(rows, cursor):
    start = int(cursor or 0)
    return rows[start : start + PAGE], str(start + PAGE) if start + PAGE < len(rows) else None


# ---- LangSmith -----------------------------------------------------------------------------------------------------

RUNS, FEEDBACK = LANGSMITH[:3], LANGSMITH[3:]


def langsmith(path, parameters, body):
    if path == "/info":
        return 200, {"version": "0.16.4"}
    if path == "/sessions":
        found = [
            {
                "id": UUID.format(9),
                "name": "support",
                "tenant_id": UUID.format(7),
                "reference_dataset_id": None,
                "start_time": RUNS[0]["start_time"],
            }
        ]
        return 200, found if parameters.get("name") == "support" else []
    if path == "/runs/query":
        runs = [run for run in RUNS if body.get("run_type") in (None, run["run_type"])]
        judged = {one["run_id"] for one in FEEDBACK}
        rows = [{**run, "feedback_stats": {"user_score": {"n": 1, "avg": 0.0}} if run["id"] in judged else {}} for run in runs]
        rows, cursor = page_of([{name: run[name] for name in body["select"]} for run in rows], body.get("cursor"))
        return 200, {"runs": rows, "cursors": {"next": cursor}}
    if path == "/feedback":
        runs = parameters["run"] if isinstance(parameters["run"], list) else [parameters["run"]]
        rows = [one for one in FEEDBACK if one["run_id"] in runs]
        return 200, rows[int(parameters["offset"]) :][: int(parameters["limit"])]
    return 404, {"detail": path}


@pytest.mark.slow
def test_langsmith():
    from langsmith import Client

    with answering(langsmith) as (url, asked):
        client = Client(api_url=url, api_key="secret", auto_batch_tracing=False)
        told = {"policy": "first", "documents": STORE, "project": "support"}
        labels, report = Relevance.read_traces(client, "langsmith", **told, since=datetime(2026, 11, 1))
        assert (labels.queries, labels.labels) == ((QUERY,), ((("reset", 1.0),),))
        assert (report.spans, report.searches, report.judgements, report.left_out) == (3, 1, 1, {})
        queries = [body for path, _, body in asked if path == "/runs/query"]
        assert [body.get("run_type") for body in queries] == ["retriever", "retriever", None, None], (
            "one was refused, one goes on"
        )
        assert all("outputs" not in body["select"] for body in queries[2:]), "prompts stay where they are"
        assert {body["start_time"] for body in queries} == {"2026-11-01T00:00:00+00:00"}
        assert [parameters["run"] for path, parameters, _ in asked if path == "/feedback"] == [UUID.format(1)] * 2
        before = Relevance.from_traces(client, "langsmith", **told, until=datetime(2026, 11, 28, 9, tzinfo=UTC))
        assert not len(before)
        assert before.left_out == {"a query that was asked at another time": 1}
        assert 'lt(start_time, "2026-11-28T09:00:00+00:00")' in {body.get("filter") for _, _, body in asked}
        with pytest.raises(InvalidRelevanceError, match="Say with project="):
            Relevance.from_traces(client, "langsmith")
        with pytest.raises(StorageError, match="Cannot read the traces of LangSmith: .*sales"):
            Relevance.from_traces(client, "langsmith", project="sales")
    with answering(langsmith, busy=10) as (url, _), pytest.raises(StorageError, match="LangSmith: .*429"):
        client = Client(api_url=url, api_key="secret", auto_batch_tracing=False, retry_config=0)
        Relevance.from_traces(client, "langsmith", project="support")


# ---- Langfuse ------------------------------------------------------------------------------------------------------

OBSERVATIONS = [
    {**row, "input": json.dumps(row["input"]), "output": json.dumps(row["output"]), "endTime": None} for row in LANGFUSE[:3]
]
"""The API gives inputs and outputs as texts."""
SCORE = {name: LANGFUSE[3][name] for name in ("id", "name", "source", "timestamp", "environment", "createdAt", "updatedAt")}
SCORES = [
    {**SCORE, "projectId": "p", "value": True, "dataType": "BOOLEAN", "subject": {"kind": "trace", "id": "t1"}},
    {
        **(SCORE | {"id": "s2", "name": "relevance"}),
        **{"projectId": "p", "value": "bad", "dataType": "CATEGORICAL", "metadata": {"document_id": "revert"}},
        "subject": {"kind": "observation", "id": "o2", "traceId": "t1"},
    },
    {
        **(SCORE | {"id": "s3"}),
        "projectId": "p",
        "value": False,
        "dataType": "BOOLEAN",
        "subject": {"kind": "session", "id": "x"},
    },
]
CORE = ("id", "traceId", "startTime", "endTime", "projectId", "parentObservationId", "type")


def langfuse(path, parameters, body):
    if path == "/api/public/v2/observations":
        fields = (*CORE, *(("input", "output") if "io" in parameters["fields"].split(",") else ()))
        rows = [row for row in OBSERVATIONS if parameters.get("type") in (None, row["type"])]
        rows = [{name: row[name] for name in fields} for row in rows]
    elif path == "/api/public/v3/scores":
        assert parameters["fields"] == "details,subject"
        rows = SCORES
    else:
        return 404, {"message": path}
    rows, cursor = page_of(rows, parameters.get("cursor"))
    return 200, {"data": rows, "meta": {"cursor": cursor, "limit": int(parameters["limit"])}}


@pytest.mark.slow
def test_langfuse():
    """Runs where Langfuse is installed: `.ci/run traces`."""
    api = pytest.importorskip("langfuse.api", exc_type=ImportError)
    with answering(langfuse) as (url, asked):
        client = api.LangfuseAPI(base_url=url, username="pk-lf-1", password="sk-lf-1")
        told = {"policy": "first", "documents": STORE}
        thumbs, report = Relevance.read_traces(client, "langfuse", **told, feedback="user_score", since=datetime(2026, 11, 1))
        assert (thumbs.queries, thumbs.labels) == ((QUERY,), ((("reset", 1.0),),))
        assert (report.spans, report.searches, report.judgements) == (3, 1, 2)
        grades = Relevance.from_traces(client, "langfuse", documents=STORE, feedback="relevance", weights={"bad": -1, "good": 1})
        assert grades.irrelevant == ((("revert", -1.0),),)
        observed = [parameters for path, parameters, _ in asked if path.endswith("observations")]
        assert [one.get("type") for one in observed[:5]] == ["RETRIEVER", "RETRIEVER", "SPAN", None, None]
        assert all("io" not in one["fields"] for one in observed if "type" not in one), "prompts stay where they are"
        assert observed[0]["fromStartTime"].startswith("2026-11-01T00:00:00")
        with pytest.raises(InvalidRelevanceError, match="leave project= out"):
            Relevance.from_traces(client, "langfuse", project="support")
        whole = pytest.importorskip("langfuse").Langfuse(
            public_key="pk-lf-1", secret_key="sk-lf-1", base_url=url, tracing_enabled=False
        )
        assert Relevance.from_traces(whole, "langfuse", **told, feedback="user_score") == thumbs
    with answering(lambda *_: (401, {"message": "wrong key"}), busy=0) as (url, _):
        client = api.LangfuseAPI(base_url=url, username="pk-lf-1", password="sk-lf-2")
        with pytest.raises(StorageError, match="Cannot read the traces of Langfuse"):
            Relevance.from_traces(client, "langfuse")
