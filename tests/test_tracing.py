"""OpenTelemetry's attributes on the spans around retrievers, in both frameworks; and that they become labels."""

import asyncio
import json
import subprocess
import sys

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.schema import TextNode

from deepmem_integrations import QueryAdapter, Relevance, langchain, llama_index
from deepmem_integrations.tracing import CAPTURE, data_source, recording_span

sdk = pytest.importorskip("opentelemetry.sdk.trace")
from opentelemetry import trace  # noqa: E402 - after the check above
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

TEXTS = {"revert": "Run git revert.", "reset": "Run git reset.", "stash": "Run git stash."}


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("app")


def of_langchain(**options):
    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents([Document(text, id=name) for name, text in TEXTS.items()])
    retriever = langchain.DeepMemoryRetriever(vectorstore=store, memory=QueryAdapter(8), k=2, **options)
    return {
        "sync": lambda query: [document.id for document in retriever.invoke(query)],
        "async": lambda query: [document.id for document in asyncio.run(retriever.ainvoke(query))],
    }


def of_llama_index(**options):
    nodes = [TextNode(id_=name, text=text) for name, text in TEXTS.items()]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(8))
    retriever = llama_index.DeepMemoryRetriever(index, memory=QueryAdapter(8), similarity_top_k=2, **options)
    return {
        "sync": lambda query: [node.node_id for node in retriever.retrieve(query)],
        "async": lambda query: [node.node_id for node in asyncio.run(retriever.aretrieve(query))],
    }


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    "options", [{}, {"deep_memory": False}, {"answers": False, "words": False}], ids=["on", "off", "transform"]
)
@pytest.mark.parametrize("framework", [of_langchain, of_llama_index])
def test_a_span_tells_ids_scores_model_and_source(framework, options, how, tracer, exporter, monkeypatch):
    ask = framework(**options)[how]
    plain = ask("Run git stash.")
    monkeypatch.setenv(CAPTURE, "true")
    with tracer.start_as_current_span("retrieval"):
        found = ask("Run git stash.")
    assert found == plain
    (span,) = exporter.get_finished_spans()
    told = dict(span.attributes)
    documents = json.loads(told.pop("gen_ai.retrieval.documents"))
    assert [one["id"] for one in documents] == found
    if options.get("deep_memory", True):
        assert all(isinstance(one["score"], float) for one in documents)
    model = {} if not options.get("deep_memory", True) else {"gen_ai.request.model": told["gen_ai.request.model"]}
    assert told == {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": "InMemoryVectorStore" if framework is of_langchain else "SimpleVectorStore",
        "gen_ai.retrieval.query.text": "Run git stash.",
        **model,
    }
    row = json.loads(span.to_json())
    thumb = {
        "name": "gen_ai.evaluation.result",
        "attributes": {"gen_ai.evaluation.name": "t", "gen_ai.evaluation.score.value": 1},
    }
    labels = Relevance.from_traces([row | {"events": [thumb]}], "otel", policy="first", documents=TEXTS)
    assert (labels.queries, labels.labels) == (("Run git stash.",), (((found[0], 1.0),),))


@pytest.mark.parametrize("framework", [of_langchain, of_llama_index])
def test_no_query_without_permission_and_no_other_span(framework, tracer, exporter, monkeypatch):
    monkeypatch.delenv(CAPTURE, raising=False)
    ask = framework()["sync"]
    with tracer.start_as_current_span("retrieval"):
        ask("my secret")
    with tracer.start_as_current_span("chat") as chat:
        chat.set_attribute("gen_ai.operation.name", "chat")
        ask("my secret")
    retrieval, chat = exporter.get_finished_spans()
    assert "my secret" not in retrieval.to_json()
    assert dict(chat.attributes) == {"gen_ai.operation.name": "chat"}


def test_nothing_is_told_where_nothing_is_recorded(tracer):
    assert recording_span() is None
    with trace.use_span(trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)):
        assert recording_span() is None
    code = (
        "import sys; from deepmem_integrations.tracing import recording_span;"
        "print(recording_span(), 'opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "False"]


def test_the_name_of_the_collection():
    class Store:
        _collection_name = "docs"

    assert data_source(Store()) == "docs"
