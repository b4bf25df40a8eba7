"""The rows of traces from live servers, by the clients of Phoenix and MLflow."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deepmem_integrations.errors import DeepMemoryError, InvalidRelevanceError, StorageError

_MOST = 2**31 - 1
_PAGE = 100
_NODES = 40
"""How many spans are asked for in a query of GraphQL; Phoenix takes 50 at most."""
_ANNOTATIONS = "... on Span { spanId documentEvaluations { name score label annotatorKind documentPosition } }"


def rows_of_client(client: Any, project: str | None) -> Iterator[Mapping[str, Any]] | None:
    """Return the rows of a client's server; None where the object is no client.

    Args:
        client: A ``phoenix.client.Client`` or an ``mlflow.MlflowClient``.
        project: The project of Phoenix, by default ``"default"``, or the experiment of MLflow, by name or id.

    Raises:
        InvalidRelevanceError: MLflow has no such experiment, or the client is asynchronous.
        StorageError: The server does not answer, or refuses. It is raised as the rows are read.
    """
    module, name = type(client).__module__, type(client).__name__
    if module.startswith("phoenix.client") and hasattr(client, "spans"):
        if name.startswith("Async"):
            raise InvalidRelevanceError("Pass phoenix.client.Client: labels are not read asynchronously.")
        return _reading("Phoenix", _phoenix(client, project or "default"))
    return (
        _reading("MLflow", _mlflow(client, project))
        if module.startswith("mlflow.") and hasattr(client, "search_traces")
        else None
    )


def _reading(tool: str, rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield rows, with what the tool's own package raises as an error of ours."""
    try:
        yield from rows
    except DeepMemoryError:
        raise
    except Exception as error:  # of a package that is not known here
        raise StorageError(f"Cannot read the traces of {tool}: {error or type(error).__name__}.") from error


def _phoenix(client: Any, project: str) -> Iterator[Mapping[str, Any]]:
    spans: Sequence[Mapping[str, Any]] = client.spans.get_spans(project_identifier=project, limit=_MOST)
    yield from spans
    retrievers = [one["id"] for one in spans if one.get("span_kind") in ("RETRIEVER", "RERANKER") and one.get("id")]
    traces = sorted({one["context"]["trace_id"] for one in spans})
    for start in range(0, len(spans), _PAGE):
        page = spans[start : start + _PAGE]
        yield from client.spans.get_span_annotations(spans=page, project_identifier=project)
    # The client writes annotations of documents and of traces, and has no method that reads them.
    for start in range(0, len(traces), _PAGE):
        yield from _pages(client, f"v1/projects/{project}/trace_annotations", {"trace_ids": traces[start : start + _PAGE]})
    for start in range(0, len(retrievers), _NODES):
        names = [json.dumps(name) for name in retrievers[start : start + _NODES]]
        nodes = [f"n{row}: node(id: {name}) {{ {_ANNOTATIONS} }}" for row, name in enumerate(names)]
        answer = client._client.post("graphql", json={"query": f"{{ {' '.join(nodes)} }}"})
        answer.raise_for_status()
        told = answer.json()
        if told.get("errors"):
            raise StorageError(f"Cannot read the annotations of documents of Phoenix: {told['errors'][0].get('message')}")
        for span in told["data"].values():
            yield from ({**one, "spanId": span["spanId"]} for one in span["documentEvaluations"])


def _pages(client: Any, path: str, parameters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    cursor = None
    while True:
        answer = client._client.get(path, params={**parameters, "limit": _PAGE, **({"cursor": cursor} if cursor else {})})
        answer.raise_for_status()
        page = answer.json()
        yield from page["data"]
        cursor = page.get("next_cursor")
        if not cursor:
            return


def _mlflow(client: Any, project: str | None) -> Iterator[Mapping[str, Any]]:
    if project is None:
        raise InvalidRelevanceError("Say with project= of which experiment of MLflow the traces are, by its name or id.")
    experiment = client.get_experiment_by_name(project)
    if experiment is None and not project.isdecimal():
        raise InvalidRelevanceError(f"MLflow has no experiment {project!r}.")
    name = "locations" if "locations" in inspect.signature(client.search_traces).parameters else "experiment_ids"
    token = None
    while True:
        found = client.search_traces(
            **{name: [project if experiment is None else experiment.experiment_id]}, max_results=_PAGE, page_token=token
        )
        yield from (trace.to_dict() for trace in found)
        token = found.token
        if not token:
            return
