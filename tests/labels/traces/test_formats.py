"""Each format: what its reader finds in the tool's own shape, and how judgements of documents are given there."""

import copy
import json
from datetime import UTC, datetime

import pytest

from deepmem_integrations import Relevance
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.traces.spans import at, items_at, nested
from tests.labels.traces.samples import CHECKED, LANGFUSE, LANGSMITH, MLFLOW, OTEL, PHOENIX, QUERY, STORE, TRACES, UBI, UUID


@pytest.mark.parametrize("format", [name for name in TRACES if name != "ubi"])
def test_a_thumb_on_the_answer(format):
    labels, report = Relevance.read_traces(TRACES[format], format, policy="first", documents=STORE)
    assert labels.queries == (QUERY,)
    assert labels.labels == ((("reset", 1.0),),)
    assert labels.times == (
        datetime(2026, 11, 28, 12, 50, 2, tzinfo=UTC) if format == "otel" else datetime(2026, 11, 28, 9, 30, 2, tzinfo=UTC),
    )
    assert report.searches == 1
    assert report.judgements == 1
    assert report.documents["id" if format == "otel" else "text"] == 1
    assert labels.judges == ("user_score, by a program" if format == "otel" else None,)
    shared = Relevance.from_traces(TRACES[format], format, policy="shared", documents=STORE)
    assert shared.labels == ((("reset", 0.5), ("revert", 0.5)),)


@pytest.mark.parametrize("format", [name for name in TRACES if name != "ubi"])
def test_no_thumb_on_an_answer_is_guessed_to_be_about_documents(format):
    labels = Relevance.from_traces(TRACES[format], format, documents=STORE)
    assert len(labels) == 0
    assert labels.left_out == {"a thumb on an answer, which the policy 'judged' does not use": 1}


def test_every_sample_says_what_it_was_checked_against():
    assert CHECKED.keys() == TRACES.keys()


# ---- LangSmith ---------------------------------------------------------------------------------------------------


def test_langsmith_takes_the_ids_of_documents_and_nested_runs():
    root, retriever, _, thumb = copy.deepcopy(LANGSMITH)
    for document, name in zip(retriever["outputs"]["documents"], ("stash", "reset"), strict=True):
        document["id"] = name
    root["child_runs"] = [{key: value for key, value in retriever.items() if key != "trace_id"}]
    labels = Relevance.from_traces([root, {**thumb, "score": 0, "trace_id": None}], "langsmith", policy="first")
    assert labels.irrelevant == ((("stash", -1.0),),)


def test_langsmith_as_the_second_version_of_its_api_tells_runs():
    """Kinds are written large, and all runs around a run are told, the outermost one first."""
    rows = []
    for row in LANGSMITH:
        parents = [name for name in (row.get("parent_run_id"),) if name]
        newer = {"run_type": row["run_type"].upper(), "parent_run_ids": parents} if "run_type" in row else {}
        rows.append({**{name: value for name, value in row.items() if name != "parent_run_id"}, **newer})
    rows[3] = {**rows[3], "run_id": rows[2]["id"], "trace_id": None}  # about the model's answer, beside the search
    labels = Relevance.from_traces(rows, "langsmith", policy="first", documents=STORE)
    assert labels.labels == ((("reset", 1.0),),)


def test_langsmith_reads_the_mean_of_feedback_where_its_rows_are_missing():
    runs = copy.deepcopy(LANGSMITH[:3])
    runs[0]["feedback_stats"] = {"user_score": {"n": 2, "avg": 0.5, "values": {}}, "comment": {"n": 1, "avg": None}}
    assert Relevance.from_traces(runs, "langsmith", policy="first", documents=STORE).labels == ((("reset", 0.5),),)
    both = [*runs, {**LANGSMITH[3], "score": -1}]
    assert Relevance.from_traces(both, "langsmith", policy="first", documents=STORE).irrelevant == ((("reset", -1.0),),)


def test_langsmith_grades_documents_by_a_mapping_or_by_metadata():
    thumb = {"run_id": UUID.format(2), "trace_id": UUID.format(1), "key": "relevance"}
    rows = [
        *LANGSMITH[:3],
        {**thumb, "value": {"revert": 1, "reset": 0}},
        {**thumb, "score": 1, "extra": {"document_id": "stash"}},
        {**thumb, "score": 1, "value": "no", "feedback_source": {"type": "model", "metadata": {"document_id": "revert"}}},
    ]
    labels = Relevance.from_traces(rows, "langsmith", documents=STORE)
    assert labels.labels == ((("revert", 1.0), ("stash", 1.0)),)
    assert labels.irrelevant == ((("reset", 0.0),),)
    assert labels.judges == (None,)  # people's words stand against a program's


def test_langsmith_reads_what_langchain_posts():
    """The shape is made by LangChain's tracer and by langsmith's own serializer, and read back by its own classes."""
    from langchain_core.documents import Document
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
    from langchain_core.vectorstores import InMemoryVectorStore
    from langsmith import schemas
    from langsmith._internal._serde import dumps_json

    store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
    store.add_documents([Document(text, id=name) for name, text in STORE.items()])
    collector = RunCollectorCallbackHandler()
    found = store.as_retriever(search_kwargs={"k": 2}).invoke(QUERY, config={"callbacks": [collector]})
    run = json.loads(dumps_json(collector.traced_runs[0]._get_dicts_safe()))
    thumb = schemas.Feedback(**{**LANGSMITH[3], "run_id": run["id"], "trace_id": run["trace_id"]})
    for rows in ([run, json.loads(thumb.model_dump_json())], [schemas.Run(**run), thumb]):
        labels = Relevance.from_traces(rows, "langsmith", policy="first", documents=STORE)
        assert labels.queries == (QUERY,)
        assert labels.labels == (((found[0].id, 1.0),),)
    for row in LANGSMITH[:3]:
        schemas.Run(**row)


# ---- Langfuse ----------------------------------------------------------------------------------------------------


def test_langfuse_in_the_fields_of_exports_and_of_a_trace():
    snake = [
        {name: row[camel] for name, camel in names.items() if camel in row}
        for names, row in (
            (
                {
                    **{name: name for name in ("id", "type", "input", "output", "name", "value", "source")},
                    **{"trace_id": "traceId", "parent_observation_id": "parentObservationId", "start_time": "startTime"},
                    **{"data_type": "dataType", "string_value": "stringValue", "observation_id": "observationId"},
                },
                row,
            )
            for row in LANGFUSE
        )
    ]
    snake[1]["output"] = json.dumps(snake[1]["output"])
    whole = {"id": "t1", "observations": [{**row, "traceId": None} for row in LANGFUSE[:3]], "scores": [LANGFUSE[3]]}
    for rows in (snake, [whole], {"data": [{"id": "t1", "name": "chat"}, *LANGFUSE], "meta": {"page": 1}}):
        assert Relevance.from_traces(rows, "langfuse", policy="first", documents=STORE).labels == ((("reset", 1.0),),)


def test_langfuse_categories_comments_and_older_spans():
    chain, retriever, answer, score = copy.deepcopy(LANGFUSE)
    retriever["type"] = "SPAN"
    score |= {"dataType": "CATEGORICAL", "value": 2, "stringValue": "Bad", "observationId": "o3"}
    comment = {**score, "dataType": "TEXT", "stringValue": "hm", "value": 0}
    rows = [chain, retriever, answer, comment, score]
    assert Relevance.from_traces(rows, "langfuse", policy="first", documents=STORE).irrelevant == ((("reset", -1.0),),)
    score |= {"source": "EVAL", "name": "judge"}
    rows = [chain, retriever, answer, score]
    assert Relevance.from_traces(rows, "langfuse", policy="first", documents=STORE).judges == ("judge, by a program",)


# ---- Phoenix -----------------------------------------------------------------------------------------------------


def test_phoenix_annotations_of_documents_are_labels():
    about = {"span_id": f"{2:016x}", "name": "relevance", "annotator_kind": "HUMAN"}
    rows = [
        *PHOENIX[:3],
        {**about, "document_position": 0, "result": {"label": "irrelevant"}},
        {**about, "document_position": 1, "result": {"score": 1.0, "label": "relevant"}},
        {**about, "document_position": 1, "annotator_kind": "LLM", "result": {"score": 0.0}},
        {**about, "document_position": 0, "result": {"explanation": "hm"}},
    ]
    labels = Relevance.from_traces(rows, "phoenix", documents=STORE)
    assert labels.labels == ((("revert", 1.0),),)
    assert labels.irrelevant == ((("reset", -1.0),),)
    assert labels.left_out == {"feedback without a value": 1}
    with pytest.raises(InvalidRelevanceError, match="row 3: it judges the document at place 2, of 2 that were found"):
        Relevance.from_traces([*PHOENIX[:3], {**about, "document_position": 2, "result": {"score": 1}}], "phoenix")
    with pytest.raises(InvalidRelevanceError, match="row 0: document_position is the place"):
        Relevance.from_traces([{**about, "document_position": -1, "result": {"score": 1}}], "phoenix")


def test_phoenix_data_frames_and_spans_of_other_exporters():
    pandas = pytest.importorskip("pandas")
    flat = [
        {
            "context.span_id": row["context"]["span_id"],
            "context.trace_id": row["context"]["trace_id"],
            "parent_id": row["parent_id"],
            "span_kind": row["span_kind"],
            "start_time": pandas.Timestamp(row["start_time"]),
            "attributes.input.value": QUERY,
            "attributes.retrieval.documents": (
                [{"document.content": STORE[name], "document.id": name} for name in ("stash", "reset")]
                if row["span_kind"] == "RETRIEVER"
                else float("nan")
            ),
        }
        for row in PHOENIX[:3]
    ]
    frame = pandas.DataFrame(flat).set_index("context.span_id")
    assert Relevance.from_traces([*frame.reset_index().to_dict("records"), PHOENIX[3]], "phoenix", policy="first").labels == (
        (("stash", 1.0),),
    )
    report = Relevance.read_traces(frame, "phoenix")[1]
    assert (report.spans, report.searches) == (3, 1)
    python = [
        {
            **row,
            "context": {key: f"0x{value}" for key, value in row["context"].items()},
            "parent_id": row["parent_id"] and f"0x{row['parent_id']}",
        }
        for row in PHOENIX[:3]
    ]
    assert Relevance.from_traces([*python, PHOENIX[3]], "phoenix", policy="first", documents=STORE).labels == ((("reset", 1.0),),)


def test_phoenix_rerankers_stand_for_the_retriever_before_them():
    reranker = copy.deepcopy(PHOENIX[1])
    reranker["context"]["span_id"] = f"{7:016x}"
    reranker["attributes"] = {
        "openinference.span.kind": "RERANKER",
        "reranker.query": QUERY,
        "reranker.output_documents.0.document.id": "revert",
        "reranker.output_documents.1.document.id": "reset",
    }
    rows = [*PHOENIX[:2], reranker, PHOENIX[3]]
    assert Relevance.from_traces(rows, "phoenix", policy="first", documents=STORE).labels == ((("revert", 1.0),),)


def test_phoenix_annotations_among_the_attributes():
    span = copy.deepcopy(PHOENIX[1])
    span["attributes"] |= {
        "annotations.0.annotation.name": "thumb",
        "annotations.0.annotation.score": 0,
        "annotations.0.annotation.annotator_kind": "HUMAN",
    }
    assert Relevance.from_traces([span], "phoenix", policy="first", documents=STORE).irrelevant == ((("reset", -1.0),),)


def test_attributes_nest_in_the_order_of_their_numbers():
    flat = {f"retrieval.documents.{i}.document.id": str(i) for i in (10, 2, 0)}
    assert [at(one, "document.id") for one in items_at(nested(flat), "retrieval.documents")] == ["0", "2", "10"]
    assert items_at(nested({"input": "a", "input.value": "b"}), "input.value") == []


# ---- OpenTelemetry -----------------------------------------------------------------------------------------------


def test_otel_structured_documents_and_events_of_spans():
    rows = copy.deepcopy(OTEL[:1])
    span = rows[0]["resourceSpans"][0]["scopeSpans"][0]["spans"][1]
    values = [
        {
            "kvlistValue": {
                "values": [{"key": "id", "value": {"stringValue": name}}, {"key": "score", "value": {"doubleValue": 0.5}}]
            }
        }
        for name in ("stash", "reset")
    ]
    span["attributes"][-1]["value"] = {"arrayValue": {"values": values}}
    span["events"] = [
        {
            "name": "gen_ai.evaluation.result",
            "attributes": [
                {"key": "gen_ai.evaluation.name", "value": {"stringValue": "thumb"}},
                {"key": "gen_ai.evaluation.score.label", "value": {"stringValue": "fail"}},
            ],
        }
    ]
    labels = Relevance.from_traces(rows, "otel", policy="first")
    assert labels.irrelevant == ((("stash", -1.0),),)


def test_otel_spans_of_the_sdk_and_its_encoder():
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    encoder = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.trace_encoder")
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("chain"), tracer.start_as_current_span("retrieval") as span:
        span.set_attribute("gen_ai.operation.name", "retrieval")
        span.set_attribute("gen_ai.retrieval.query.text", QUERY)
        span.set_attribute("gen_ai.retrieval.documents", json.dumps([{"id": "stash", "score": 1.0}]))
        span.add_event("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "thumb", "gen_ai.evaluation.score.value": 1.0})
    spans = exporter.get_finished_spans()
    for rows in ([json.loads(span.to_json()) for span in spans], [MessageToDict(encoder.encode_spans(spans))]):
        labels, report = Relevance.read_traces(rows, "otel", policy="first")
        assert labels.labels == ((("stash", 1.0),),)
        assert labels.query_ids == (f"{span.context.span_id:016x}",)
        assert report.spans == 2


# ---- UBI ---------------------------------------------------------------------------------------------------------


def test_ubi_clicks_are_labels_with_what_was_shown():
    rows = copy.deepcopy(UBI)
    labels = Relevance.from_traces(rows, "ubi", policy="clicks")
    assert [[name for name, _ in row] for row in labels.labels] == [["revert"]]
    assert labels.left_out == {"feedback called 'watch', which was not chosen": 1}
    assert labels.query_ids == ("q1",)
    assert labels.shown == (("reset", "revert"),)
    for number in range(2, 12):  # ten more users ask the same, and open the first document
        for row in UBI[:4]:
            rows.append(copy.deepcopy(row) | {"query_id": f"q{number}"})
        rows[-1]["event_attributes"] = {"object": {"object_id": "reset"}, "position": {"ordinal": 1}}
        rows[-1]["action_name"] = "click"
    labels = Relevance.from_traces(rows, "ubi", policy="clicks")
    assert {name for row in labels.labels for name, _ in row} == {"reset"}
    assert labels.left_out["a click that is likelier wrong than right"] == 1


def test_ubi_clicks_were_on_the_screen_where_impressions_are_lost():
    rows = [row for row in UBI if not (row.get("action_name") == "impression" and "revert" in str(row))]
    labels = Relevance.from_traces(rows, "ubi", policy="clicks")
    assert labels.shown == (("reset", "revert"),)
    assert 0.5 < labels.labels[0][0][1] < 1, "the click is judged by its rank"


def test_ubi_actions_by_name_and_exports_of_opensearch():
    rows = [{"_index": "ubi_events", "_id": str(number), "_source": row} for number, row in enumerate(UBI)]
    labels = Relevance.from_traces(rows, "ubi", feedback={"watch": "grade"})
    assert labels.labels == ((("reset", 1.0),),)
    clicks = Relevance.from_traces({"hits": {"hits": rows}}["hits"], "ubi", policy="clicks")
    assert [name for name, _ in clicks.labels[0]] == ["revert"]


def test_ubi_events_know_the_query_where_its_row_is_missing():
    click = {**UBI[3], "user_query": QUERY}
    assert Relevance.from_traces([click], "ubi", policy="clicks").labels == ((("revert", 1.0),),)
    alone = Relevance.from_traces([UBI[3]], "ubi", policy="clicks")
    assert alone.left_out == {"feedback on a trace without a search": 1}


# ---- MLflow ------------------------------------------------------------------------------------------------------


def test_mlflow_grades_expectations_and_older_traces():
    trace = copy.deepcopy(MLFLOW[0])
    hexadecimal = "609d7f721992ad67"  # assessments name spans so, and spans themselves in base 64
    graded = {
        **trace["info"]["assessments"][0],
        "assessment_name": "relevance",
        "span_id": hexadecimal,
        "feedback": {"value": {"revert": 1.0, "stash": 0.0}},
    }
    withdrawn = {**graded, "valid": False, "feedback": {"value": {"reset": 1.0}}}
    expected = {
        "assessment_name": "expected_retrieved_context",
        "trace_id": "tr-1",
        "source": {"source_type": "HUMAN"},
        "expectation": {
            "serialized_value": {"serialization_format": "JSON_FORMAT", "value": json.dumps([{"doc_uri": "reset.md"}])}
        },
    }
    trace["info"]["assessments"] = [graded, withdrawn, expected]
    documents = [Document(name, text) for name, text in STORE.items()]
    labels, report = Relevance.read_traces([trace], "mlflow", documents=documents, id_key="doc_uri")
    assert dict(labels.labels[0]) == {"revert": 1.0, "reset": 1.0}
    assert labels.irrelevant == ((("stash", 0.0),),)
    assert labels.query_ids == (hexadecimal,)
    assert report.documents == {"id": 2, "key": 1, "text": 0, "ambiguous": 0, "unmatched": 0}
    row = {"trace_id": "tr-1", "trace": json.dumps(MLFLOW[0]), "spans": [], "assessments": []}
    assert Relevance.from_traces([row], "mlflow", policy="first", documents=STORE).labels == ((("reset", 1.0),),)
    row = {"trace_id": "tr-1", **MLFLOW[0]["data"], "assessments": MLFLOW[0]["info"]["assessments"]}
    assert Relevance.from_traces([row], "mlflow", policy="first", documents=STORE).labels == ((("reset", 1.0),),)


class Document:
    def __init__(self, id, page_content):
        self.id, self.page_content, self.metadata = id, page_content, {"doc_uri": f"{id}.md"}


# ---- ragas and TREC ----------------------------------------------------------------------------------------------


def test_ragas_by_ids_and_by_texts():
    rows = [
        {"user_input": QUERY, "reference_context_ids": ["revert", "gone"], "synthesizer_name": "single_hop"},
        {"user_input": [{"content": "hello", "type": "human"}], "reference_contexts": ["<1-hop>\n\nrun  GIT reset", "Run git."]},
        {"user_input": "nothing", "reference_contexts": None, "reference": "an answer"},
    ]
    labels, report = Relevance.read_traces(rows, "ragas", documents=STORE)
    assert labels.queries == (QUERY, "hello")
    assert labels.labels == ((("revert", 1.0),), (("reset", 1.0),))
    assert labels.generated == (True, False)
    assert labels.query_ids == ("0", "1")
    assert report.documents == {"id": 1, "key": 0, "text": 1, "ambiguous": 0, "unmatched": 2}
    assert labels.left_out == {"a query without a document of the store": 1, "a document that is unmatched": 2}
    with pytest.raises(InvalidRelevanceError, match="'ragas' holds labels and no feedback"):
        Relevance.from_traces(rows, "ragas", policy="first")


@pytest.mark.parametrize(
    "topics",
    [
        "301\tundo a commit\n302\tstash changes\n",
        '{"_id": "301", "text": "undo a commit"}\n{"qid": 302, "query": "stash changes"}\n',
        "<top>\n<num> Number: 301\n<title> undo a commit\n<desc> Description:\nSay how.\n</top>\n\n"
        "<top>\n<num>302</num>\n<title>\nstash\nchanges\n</title>\n<narr> Narrative:\nNo merges.\n</top>\n",
    ],
)
def test_trec(tmp_path, topics):
    qrels, file = tmp_path / "qrels.txt", tmp_path / "topics"
    qrels.write_text("301 0 revert 2\n302\t0\tstash\t1\n301 0 reset 0\n\n301 0 stash -1\n")
    file.write_text(topics)
    labels = Relevance.from_traces([qrels, file], "trec")
    assert dict(zip(labels.query_ids, labels.queries, strict=True)) == {"301": "undo a commit", "302": "stash changes"}
    assert labels.labels == ((("revert", 2.0),), (("stash", 1.0),))
    assert labels.irrelevant == ((("reset", 0.0), ("stash", -1.0)), ())
    with qrels.open("a") as more:
        more.write("303 0 revert 1\n301 0 revert\n")
    with pytest.raises(InvalidRelevanceError, match=r"qrels.txt, line 6: .*the query '303' is not among the topics"):
        Relevance.from_traces([qrels, file], "trec")
    dropped = Relevance.from_traces((qrels, file), "trec", on_invalid="drop")
    assert dropped == labels
    assert dropped.left_out == {"a row that cannot be read": 2}
    with pytest.raises(InvalidRelevanceError, match=r"\[qrels, topics\]"):
        Relevance.from_traces(qrels, "trec")
