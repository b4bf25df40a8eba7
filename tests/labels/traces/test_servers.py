"""Phoenix and MLflow as real servers: an application retrieves and is traced, a person judges through the tool's own client,
labels come out, and a model that is trained on them answers better. Langfuse's samples are read by its own classes.

The packages stand in servers.txt beside this file, and have an environment of their own: `.ci/run traces`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.errors import StorageError
from deepmem_integrations.langchain import DeepMemoryRetriever
from tests.labels.traces.samples import LANGFUSE
from tests.langchain.helpers import Lookup, documents_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # those of the tools are not ours to mend
]


@contextlib.contextmanager
def serving(command, port, path, folder, **environment):
    """Run a server until it answers, and stop it in the end."""
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment})
        try:
            end = time.monotonic() + 600
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
                    break
                assert server.poll() is None and time.monotonic() < end, (folder / "server.log").read_text()[-3000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def store(problem):
    store = InMemoryVectorStore(Lookup(problem))
    store.add_documents(documents_of(problem))
    return store


@pytest.fixture
def memory(store, tmp_path):
    return DeepMemory.from_langchain(store, path=tmp_path / "models")


@pytest.fixture
def retriever(store, memory):
    return DeepMemoryRetriever(vectorstore=store, memory=memory, k=10)


def right(problem):
    """Query → the document that answers it."""
    return dict(zip(problem.train.queries, (labels[0][0] for labels in problem.train.labels), strict=True))


def check(labels, report, problem, memory):
    """The labels are what the person said, and a model that is trained on them is better."""
    answers = right(problem)
    assert len(labels) == len(problem.train)
    for query, judged in zip(labels.queries, labels.labels, strict=True):
        assert judged in ((), ((answers[query], 1.0),))
    assert sum(map(len, labels.labels)) > 100
    assert all(labels.irrelevant)
    assert report.documents["ambiguous"] == report.documents["unmatched"] == 0
    assert all(time is not None for time in labels.times)
    memory.train(labels)
    measured = memory.evaluate(problem.test)
    assert measured["with model"]["recall@10"] > measured["without model"]["recall@10"] + 0.05
    print({name: measured[name]["recall@10"] for name in ("without model", "with model")})  # noqa: T201 - for the report of a run


def test_phoenix(problem, store, memory, retriever, tmp_path):
    pytest.importorskip("phoenix.server", exc_type=ImportError)
    instrumentation = pytest.importorskip("openinference.instrumentation.langchain", exc_type=ImportError)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from phoenix.client import Client

    port, command = free_port(), shutil.which("phoenix", path=str(Path(sys.executable).parent))
    environment = {
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_WORKING_DIR": str(tmp_path),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with serving([command, "serve"], port, "/healthz", tmp_path, **environment) as url:
        provider = TracerProvider(resource=Resource({"openinference.project.name": "support"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
        instrumentor = instrumentation.LangChainInstrumentor()
        instrumentor.instrument(tracer_provider=provider)
        try:
            shown = {query: retriever.invoke(query) for query in problem.train.queries}
        finally:
            instrumentor.uninstrument()
        provider.shutdown()
        client, spans = Client(base_url=url), []
        end = time.monotonic() + 120
        while len(spans) < len(problem.train) and time.monotonic() < end:
            time.sleep(1)
            with contextlib.suppress(Exception):  # the project is made with its first span
                spans = client.spans.get_spans(project_identifier="support", limit=10_000)
        answers, judged = right(problem), []
        for span in spans:
            query = span["attributes"]["input.value"]
            found = [document.id for document in shown[query]]
            for place in sorted({0, *(place for place, name in enumerate(found) if name == answers[query])}):
                good = found[place] == answers[query]
                result = {"score": float(good), "label": "relevant" if good else "irrelevant"}
                about = {"span_id": span["context"]["span_id"], "document_position": place, "annotator_kind": "HUMAN"}
                judged.append({**about, "name": "relevance", "result": result})
        # One that was right at once has nothing that is wrong: the last one shown is.
        judged += [
            {**one, "document_position": 9, "result": {"score": 0.0, "label": "irrelevant"}}
            for one in judged
            if one["document_position"] == 0 and one["result"]["score"]
        ]
        client.spans.log_document_annotations(document_annotations=judged, sync=True)
        client.spans.add_span_annotation(
            span_id=spans[0]["context"]["span_id"],
            annotation_name="user_score",
            annotator_kind="HUMAN",
            label="thumbs-up",
            sync=True,
        )
        labels, report = Relevance.read_traces(client, "phoenix", documents=memory.documents(), project="support")
        thumbs = Relevance.from_traces(
            client, "phoenix", policy="first", feedback="user_score", documents=memory.documents(), project="support"
        )
    with pytest.raises(StorageError, match="Cannot read the traces of Phoenix"):
        Relevance.from_traces(client, "phoenix", project="support")
    assert report.documents["text"] == len(judged)  # the instrumentor writes no ids
    assert thumbs.queries == (spans[0]["attributes"]["input.value"],)
    assert thumbs.labels == (((shown[thumbs.queries[0]][0].id, 1.0),),)
    check(labels, report, problem, memory)


def test_mlflow(problem, store, memory, retriever, tmp_path):
    mlflow = pytest.importorskip("mlflow", exc_type=ImportError)
    from mlflow.entities import AssessmentSource

    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    with serving(command, port, "/health", tmp_path) as url:
        mlflow.set_tracking_uri(url)
        mlflow.set_experiment("support")
        person, answers = AssessmentSource(source_type="HUMAN", source_id="bob"), right(problem)

        @mlflow.trace(span_type="RETRIEVER")
        def search(query: str):
            return retriever.invoke(query)

        @mlflow.trace(span_type="CHAIN")
        def answer(question: str):
            return f"see {search(question)[0].id}"

        for question in problem.train.queries:
            answer(question)
        mlflow.flush_trace_async_logging()
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("support").experiment_id
        traces, token = [], None
        while token or not traces:
            page = client.search_traces([experiment], max_results=100, page_token=token)
            traces, token = [*traces, *page], page.token
        assert len(traces) == len(problem.train)
        for trace in traces:
            (span,) = trace.search_spans(span_type="RETRIEVER")
            found, asked = [one["id"] for one in span.outputs], span.inputs["query"]
            wrong = next(name for name in found if name != answers[asked])
            grades = {name: 1.0 for name in found if name == answers[asked]} | {wrong: 0.0}
            mlflow.log_feedback(trace_id=trace.info.trace_id, span_id=span.span_id, name="relevance", value=grades, source=person)
        mlflow.log_feedback(trace_id=traces[0].info.trace_id, name="user_score", value=False, source=person)
        labels, report = Relevance.read_traces(client, "mlflow", documents=memory.documents(), project="support")
        thumbs = Relevance.from_traces(client, "mlflow", policy="first", feedback="user_score", project=experiment)
        with pytest.raises(ValueError, match="MLflow has no experiment 'sales'"):
            Relevance.from_traces(client, "mlflow", project="sales")
        with pytest.raises(ValueError, match="Say with project="):
            Relevance.from_traces(client, "mlflow")
    assert report.documents["id"] == report.judgements - 1 == sum(map(len, labels.relevance))
    (span,) = traces[0].search_spans(span_type="RETRIEVER")
    assert thumbs.queries == (span.inputs["query"],)
    assert thumbs.irrelevant == (((span.outputs[0]["id"], -1.0),),)
    check(labels, report, problem, memory)


def test_langfuse_reads_the_samples():
    api = pytest.importorskip("langfuse.api", exc_type=ImportError)
    from langfuse.api.core.pydantic_utilities import parse_obj_as

    rows = [*(parse_obj_as(api.ObservationV2, row) for row in LANGFUSE[:3]), parse_obj_as(api.Score, LANGFUSE[3])]
    labels = Relevance.from_traces(rows, "langfuse", policy="first", documents={"a": "Run git reset."})
    assert labels.labels == ((("a", 1.0),),)
