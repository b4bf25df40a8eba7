"""The rows of traces from live servers, by the clients of LangSmith, Langfuse, Phoenix and MLflow."""

import inspect
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tqdm.auto import tqdm

from deepmem_integrations.errors import DeepMemoryError, InvalidRelevanceError, StorageError

_MOST = 2**31 - 1
_PAGE = 100
_NODES = 40
"""How many spans are asked for in a query of GraphQL; Phoenix takes 50 at most."""
_ANNOTATIONS = "... on Span { spanId documentEvaluations { name score label annotatorKind documentPosition } }"
_LINKS = ["id", "name", "run_type", "start_time", "trace_id", "parent_run_id"]
"""What is asked of every run of LangSmith: where it belongs."""
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
"""The servers of LangSmith may take no start for a recent one."""
_PATIENT = {"max_retries": 10}
"""Langfuse's client waits as long as the server says, and gives up after two times by itself."""


def rows_of_client(
    client: Any, project: str | None, since: datetime | None = None, until: datetime | None = None
) -> Iterator[Mapping[str, Any]] | None:
    """Return the rows of a client's server; None where the object is no client.

    Args:
        client: A ``langsmith.Client``, a ``langfuse.Langfuse``, a ``phoenix.client.Client`` or an ``mlflow.MlflowClient``.
        project: The project of LangSmith, that of Phoenix, by default ``"default"``, or the experiment of MLflow, by name or id.
        since: What was asked before need not be read. MLflow's is read all the same.
        until: What was asked then or later need not be read, likewise.

    Raises:
        InvalidRelevanceError: MLflow has no such experiment, a project has to be named or must not be, or the client is
            asynchronous or of a version that is not known.
        StorageError: The server does not answer, or refuses. It is raised as the rows are read.
    """
    package, name = type(client).__module__.split(".")[0], type(client).__name__
    if package not in ("langsmith", "langfuse", "phoenix", "mlflow"):
        return None
    if name.startswith("Async"):
        raise InvalidRelevanceError(f"Pass the client of {package} without Async: labels are not read asynchronously.")
    if package == "langsmith" and hasattr(client, "list_feedback"):
        return _reading("LangSmith", _langsmith(client, project, since, until))
    api = getattr(client, "api", client)
    if package == "langfuse" and hasattr(api, "observations"):
        return _reading("Langfuse", _langfuse(api, project, since, until))
    if package == "phoenix" and hasattr(client, "spans"):
        return _reading("Phoenix", _phoenix(client, project or "default", since, until))
    return _reading("MLflow", _mlflow(client, project)) if package == "mlflow" and hasattr(client, "search_traces") else None


def _reading(tool: str, rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield rows, with what the tool's own package raises as an error of ours."""
    try:
        yield from tqdm(rows, desc=f"Reading traces of {tool}", unit="row", delay=1)
    except DeepMemoryError:
        raise
    except Exception as error:  # of a package that is not known here
        raise StorageError(f"Cannot read the traces of {tool}: {error or type(error).__name__}.") from error


def _langsmith(client: Any, project: str | None, since: datetime | None, until: datetime | None) -> Iterator[Mapping[str, Any]]:
    """Yield retrievers with what they were asked and returned, of all other runs where they belong, and the feedback."""
    if project is None:
        raise InvalidRelevanceError("Say with project= of which project of LangSmith the traces are, by its name.")
    if not hasattr(client, "list_runs"):
        raise InvalidRelevanceError("This version of langsmith has no Client.list_runs: pass its runs and feedback as rows.")
    only: dict[str, Any] = {"project_name": project, "start_time": since or _LONG_AGO}
    if until is not None:
        only["filter"] = f'lt(start_time, "{until.isoformat()}")'

    def runs(**more: Any) -> Iterator[Mapping[str, Any]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what comes after it is for asyncio alone
            found = client.list_runs(**only, **more)
        return (run.model_dump() if hasattr(run, "model_dump") else run.dict() for run in found)

    yield from runs(run_type="retriever", select=[*_LINKS, "inputs", "outputs", "error"])
    judged: list[Any] = []
    for run in runs(select=[*_LINKS, "feedback_stats"]):
        if run.get("feedback_stats"):
            judged.append(run["id"])
        if run["run_type"] != "retriever":
            yield {name: run[name] for name in _LINKS}
    for start in range(0, len(judged), _PAGE):
        yield from (
            one.model_dump() if hasattr(one, "model_dump") else one.dict()
            for one in client.list_feedback(run_ids=judged[start : start + _PAGE])
        )


def _langfuse(api: Any, project: str | None, since: datetime | None, until: datetime | None) -> Iterator[Mapping[str, Any]]:
    """Yield retrievers and plain spans with what went in and out, of all other observations where they belong, and the scores."""
    if project is not None:
        raise InvalidRelevanceError("The keys of Langfuse belong to one project: leave project= out.")
    if "cursor" not in inspect.signature(api.observations.get_many).parameters or not hasattr(api, "scores"):
        raise InvalidRelevanceError("This version of langfuse is not known: take version 5, or pass its rows or a file.")

    def pages(get: Any, limit: int, **options: Any) -> Iterator[Mapping[str, Any]]:
        cursor = None
        while True:
            page = get(limit=limit, cursor=cursor, request_options=_PATIENT, **options)
            yield from (row.model_dump() for row in page.data)
            cursor = page.meta.cursor
            if not cursor:
                return

    within = {"from_start_time": since, "to_start_time": until}
    for kind in ("RETRIEVER", "SPAN"):
        yield from pages(api.observations.get_many, 2 * _PAGE, fields="core,io", type=kind, **within)
    for row in pages(api.observations.get_many, 10 * _PAGE, fields="core", **within):
        if row["type"] not in ("RETRIEVER", "SPAN"):
            yield row
    yield from pages(api.scores.get_many, _PAGE, fields="details,subject", from_timestamp=since)


def _phoenix(client: Any, project: str, since: datetime | None, until: datetime | None) -> Iterator[Mapping[str, Any]]:
    spans: Sequence[Mapping[str, Any]] = client.spans.get_spans(
        project_identifier=project, start_time=since, end_time=until, limit=_MOST
    )
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
