"""One conversation in the shape of each tool: a chain retrieves two documents for a query, a model answers, a person judges.

The shapes are those that the tools write. `CHECKED` says which were compared with the tools' own packages, by tests here or in
`test_servers.py`.
"""

import json

QUERY = "how do I undo a commit?"
STORE = {"revert": "Run git revert.", "reset": "Run git reset.", "stash": "Run git stash."}
SHOWN = ["reset", "revert"]
CHECKED = {
    "langsmith": "langsmith.schemas.Run and Feedback, and what LangChain's tracer posts",
    "langfuse": "langfuse.api.ObservationV2 and BooleanScore",
    "phoenix": "a Phoenix server",
    "otel": "opentelemetry-sdk and its OTLP encoder",
    "ubi": "the JSON schemas of UBI 1.3",
    "mlflow": "an MLflow server",
}
UUID = "00000000-0000-4000-8000-00000000000{}"


def _langchain(name, **more):
    return {"page_content": STORE[name], "metadata": {"source": f"{name}.md"}, "type": "Document", **more}


LANGSMITH = [
    *(
        {
            "id": UUID.format(number),
            "trace_id": UUID.format(1),
            "parent_run_id": UUID.format(1) if number > 1 else None,
            "dotted_order": f"20261128T09300000000{number}Z{UUID.format(number)}",
            "session_id": UUID.format(9),
            "name": run_type,
            "run_type": run_type,
            "start_time": f"2026-11-28T09:30:0{number}.000000",
            "inputs": {"query": QUERY} if run_type == "retriever" else {"messages": [[{"content": f"Answer: {QUERY}"}]]},
            "outputs": {"documents": [_langchain(name) for name in SHOWN]} if run_type == "retriever" else {"output": "git"},
            "error": None,
        }
        for number, run_type in enumerate(["chain", "retriever", "llm"], start=1)
    ),
    {
        "id": UUID.format(8),
        "run_id": UUID.format(1),
        "trace_id": UUID.format(1),
        "key": "user_score",
        "score": 1.0,
        "value": None,
        "comment": "thanks",
        "correction": None,
        "feedback_source": {"type": "api", "metadata": None},
        "created_at": "2026-11-28T09:31:00+00:00",
        "modified_at": "2026-11-28T09:31:00+00:00",
    },
]
LANGFUSE = [
    *(
        {
            "id": f"o{number}",
            "traceId": "t1",
            "parentObservationId": "o1" if number > 1 else None,
            "type": kind,
            "name": kind.lower(),
            "startTime": f"2026-11-28T09:30:0{number}.000Z",
            "projectId": "p",
            "input": QUERY if kind == "RETRIEVER" else {"question": QUERY},
            "output": [{"id": None, **_langchain(name)} for name in SHOWN] if kind == "RETRIEVER" else "git",
        }
        for number, kind in enumerate(["CHAIN", "RETRIEVER", "GENERATION"], start=1)
    ),
    {
        "id": "s1",
        "traceId": "t1",
        "observationId": None,
        "sessionId": None,
        "name": "user_score",
        "value": 1.0,
        "stringValue": "True",
        "dataType": "BOOLEAN",
        "source": "API",
        "timestamp": "2026-11-28T09:31:00.000Z",
        "createdAt": "2026-11-28T09:31:00.000Z",
        "updatedAt": "2026-11-28T09:31:00.000Z",
        "environment": "default",
    },
]
_PHOENIX_DOCUMENTS = {
    f"retrieval.documents.{place}.document.{name}": value
    for place, document in enumerate(SHOWN)
    for name, value in (("content", STORE[document]), ("metadata", json.dumps({"source": f"{document}.md"})))
}
PHOENIX = [
    *(
        {
            "id": f"U3Bhbjo{number}",
            "name": kind.lower(),
            "context": {"trace_id": "a" * 32, "span_id": f"{number:016x}"},
            "span_kind": kind,
            "parent_id": f"{1:016x}" if number > 1 else None,
            "start_time": f"2026-11-28T09:30:0{number}+00:00",
            "end_time": "2026-11-28T09:30:09+00:00",
            "status_code": "OK",
            "attributes": {
                "openinference.span.kind": kind,
                "input.value": QUERY,
                **(_PHOENIX_DOCUMENTS if kind == "RETRIEVER" else {"output.value": "git"}),
            },
            "events": [],
        }
        for number, kind in enumerate(["CHAIN", "RETRIEVER", "LLM"], start=1)
    ),
    {
        "id": "U3BhbkFubm90YXRpb246MQ==",
        "span_id": f"{1:016x}",
        "name": "user_score",
        "annotator_kind": "HUMAN",
        "result": {"label": "thumbs-up", "score": None, "explanation": None},
        "metadata": {},
        "source": "APP",
        "updated_at": "2026-11-28T09:31:00+00:00",
    },
]


def _otlp(value):
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
    return {kinds[type(value)]: str(value) if isinstance(value, int) and not isinstance(value, bool) else value}


def _span(number, name, attributes, **more):
    return {
        "traceId": "b" * 32,
        "spanId": f"{number:016x}",
        "parentSpanId": f"{1:016x}" if number > 1 else "",
        "name": name,
        "kind": 3,
        "startTimeUnixNano": f"179587020{number}000000000",
        "endTimeUnixNano": "1795870209000000000",
        "attributes": [{"key": key, "value": _otlp(value)} for key, value in attributes.items()],
        **more,
    }


_OTEL_DOCUMENTS = json.dumps([{"id": name, "score": 0.9 - place / 10} for place, name in enumerate(SHOWN)])
OTEL = [
    {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "support"}}]},
                "scopeSpans": [
                    {
                        "scope": {"name": "app"},
                        "spans": [
                            _span(1, "chain", {"http.status_code": 200}),
                            _span(
                                2,
                                "retrieval docs",
                                {
                                    "gen_ai.operation.name": "retrieval",
                                    "gen_ai.data_source.id": "docs",
                                    "gen_ai.retrieval.top_k": 2,
                                    "gen_ai.retrieval.query.text": QUERY,
                                    "gen_ai.retrieval.documents": _OTEL_DOCUMENTS,
                                },
                            ),
                            _span(3, "chat", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}),
                        ],
                    }
                ],
            }
        ]
    },
    {
        "resourceLogs": [
            {
                "scopeLogs": [
                    {
                        "logRecords": [
                            {
                                "traceId": "b" * 32,
                                "spanId": f"{3:016x}",
                                "eventName": "gen_ai.evaluation.result",
                                "timeUnixNano": "1795870210000000000",
                                "attributes": [
                                    {"key": "gen_ai.evaluation.name", "value": {"stringValue": "user_score"}},
                                    {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 1.0}},
                                ],
                            }
                        ]
                    }
                ]
            }
        ]
    },
]
UBI = [
    {
        "query_id": "q1",
        "client_id": "browser-1",
        "user_query": QUERY,
        "object_id_field": "_id",
        "timestamp": "2026-11-28T09:30:02Z",
        "query_response_id": "r1",
        "query_response_hit_ids": SHOWN,
    },
    *(
        {
            "action_name": action,
            "query_id": "q1",
            "client_id": "browser-1",
            "timestamp": "2026-11-28T09:30:05Z",
            "message_type": "CLICK_THROUGH",
            "event_attributes": {
                "object": {"object_id": name, "object_id_field": "_id"},
                "position": {"ordinal": SHOWN.index(name) + 1},
            },
        }
        for action, name in (("impression", "reset"), ("impression", "revert"), ("click", "revert"), ("watch", "reset"))
    ),
]


def _mlflow(number, kind, inputs, outputs):
    return {
        "trace_id": "DmDdbp+8DLfDWLAPs475Tw==",
        "span_id": ["", "tdux4gQwBW8=", "YJ1/chmSrWc=", "AAAAAAAAAAM="][number],
        "parent_span_id": "tdux4gQwBW8=" if number > 1 else None,
        "name": kind.lower(),
        "start_time_unix_nano": 1795858200000000000 + number * 10**9,
        "end_time_unix_nano": 1795858209000000000,
        "events": [],
        "status": {"code": "STATUS_CODE_OK", "message": ""},
        "attributes": {
            "mlflow.traceRequestId": '"tr-1"',
            "mlflow.spanType": json.dumps(kind),
            "mlflow.spanInputs": json.dumps(inputs),
            "mlflow.spanOutputs": json.dumps(outputs),
        },
    }


MLFLOW = [
    {
        "info": {
            "trace_id": "tr-1",
            "request_time": "2026-11-28T09:30:01Z",
            "state": "OK",
            "assessments": [
                {
                    "assessment_id": "a-1",
                    "assessment_name": "user_score",
                    "trace_id": "tr-1",
                    "source": {"source_type": "HUMAN", "source_id": "bob"},
                    "create_time": "2026-11-28T09:31:00Z",
                    "last_update_time": "2026-11-28T09:31:00Z",
                    "feedback": {"value": True},
                    "valid": True,
                }
            ],
        },
        "data": {
            "spans": [
                _mlflow(1, "CHAIN", {"question": QUERY}, "git"),
                _mlflow(
                    2,
                    "RETRIEVER",
                    {"query": QUERY},
                    [{"page_content": STORE[name], "metadata": {"doc_uri": f"{name}.md"}, "id": None} for name in SHOWN],
                ),
                _mlflow(3, "CHAT_MODEL", {"messages": []}, "git"),
            ]
        },
    }
]
TRACES = {
    "langsmith": LANGSMITH,
    "langfuse": LANGFUSE,
    "phoenix": PHOENIX,
    "otel": OTEL,
    "ubi": UBI,
    "mlflow": MLFLOW,
}
"""Format → rows. In all but UBI the answer has a thumb up; in UBI the second document was opened."""
