"""What retrievers tell OpenTelemetry: the attributes of a retrieval, by the conventions for generative AI, on the current span.

See https://github.com/open-telemetry/semantic-conventions-genai, which is in development; the names are those of its version 0.1.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from deepmem_integrations.labels.records import Shown

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The environment variable by which OpenTelemetry's instrumentations ask whether texts may be recorded."""
_OPERATION = "gen_ai.operation.name"
_NAMES = ("collection_name", "_collection_name", "index_name", "_index_name", "table_name", "_table_name")
"""Where stores keep the name of their collection."""


def recording_span() -> Any | None:
    """Return the current span if it is being recorded, and takes the attributes of a retrieval.

    OpenTelemetry is never imported: where nobody else has done so, no span can be current. A span of another operation, such as
    that of a language model's answer, stays as it is.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span()
    if not span.is_recording():
        return None
    told = getattr(span, "attributes", None) or {}
    return span if told.get(_OPERATION, "retrieval") == "retrieval" else None


def describe(span: Any, query: str, shown: Sequence[Shown | None], *, store: Any, model: str | None) -> None:
    """Write the attributes of a retrieval on a span: ids and scores of the documents, the model and the data source.

    The query is written where `CAPTURE` says so, since it may be private.

    Args:
        span: The span.
        query: The query.
        shown: The documents, best first; None in the place of one without an id.
        store: The vector store.
        model: The name of the model that serves; None where there is none.
    """
    documents = [{} if one is None else {"id": one.document_id, **_score(one.score)} for one in shown]
    attributes: dict[str, Any] = {
        _OPERATION: "retrieval",
        "gen_ai.data_source.id": data_source(store),
        "gen_ai.retrieval.documents": json.dumps(documents, ensure_ascii=False),
    }
    if model is not None:
        attributes["gen_ai.request.model"] = model
    if os.environ.get(CAPTURE, "").lower() in ("true", "1", "span_only", "span_and_event"):
        attributes["gen_ai.retrieval.query.text"] = query
    span.set_attributes(attributes)


def _score(score: Any) -> dict[str, float]:
    return {} if score is None else {"score": float(score)}


def data_source(store: Any) -> str:
    """Return the name of a store's collection, or else that of its class.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> data_source(InMemoryVectorStore(DeterministicFakeEmbedding(size=8)))
        'InMemoryVectorStore'
    """
    names = (getattr(store, name, None) for name in _NAMES)
    return next((name for name in names if isinstance(name, str) and name), type(store).__name__)
