"""``deepmem traces``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deepmem_integrations.cli.options import (
    EMBEDDING_HELP,
    STORE_HELP,
    AsJson,
    Folder,
    Force,
    NewLabelsFile,
    printing,
    typed_path,
)
from deepmem_integrations.cli.stores import open_store
from deepmem_integrations.feedback import Policy
from deepmem_integrations.labels import Relevance
from deepmem_integrations.labels.traces import Format


def traces(
    labels: NewLabelsFile,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRACES...",
            parser=typed_path,
            help="JSON, JSON lines, CSV or Parquet, or folders of these; for trec, qrels and topics.",
        ),
    ],
    format: Annotated[Format, typer.Option("--format", "-f", help="The tool that wrote the traces.")],
    policy: Annotated[
        Policy,
        typer.Option(
            help="What counts beside judgements of documents: nothing (judged), the documents that answers cite (cited), the "
            "thumb on the answer for the first document (first) or for all (shared), or clicks."
        ),
    ] = "judged",
    feedback: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="The name of feedback that counts; may be repeated.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="JSON", help='What values weigh, such as {"good": 1, "bad": -1, "fair": null}.')
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", "-s", envvar="DEEPMEM_STORE", metavar="URI", help=f"{STORE_HELP} Its documents are looked up."),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option("--embedding", "-e", envvar="DEEPMEM_EMBEDDING", metavar="URI", help=EMBEDDING_HELP)
    ] = None,
    path: Folder = None,
    id_key: Annotated[str | None, typer.Option(help="The metadata key that names documents in the traces, e.g. doc_uri.")] = None,
    level: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="A metadata key, such as doc_uri, by which the labels are to name the parents of documents.",
        ),
    ] = None,
    drop: Annotated[bool, typer.Option("--drop-invalid", help="Leave out and count rows that cannot be read.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make labels of traces of LangSmith, Phoenix, MLflow and others.

    The labels are kept as JSON lines, which the command train takes.
    """
    if labels.exists() and not force:
        raise typer.BadParameter(f"{labels} exists already: name another file, or replace this one with --force.")
    if (store is None) != (embedding is None):
        raise typer.BadParameter("--store and --embedding go together.")
    with printing(as_json) as show:
        documents = None
        if store is not None and embedding is not None:
            documents = open_store(store, embedding, path, models=False).memory.documents()
        found, report = Relevance.read_traces(
            files if format == "trec" or len(files) > 1 else files[0],
            format,
            policy=policy,
            documents=documents,
            id_key=id_key,
            level=level,
            feedback=feedback or None,
            weights=_weights(weights),
            on_invalid="drop" if drop else "raise",
        )
        found.to_jsonl(labels)
        counts = {
            "file": str(labels),
            "queries": len(found),
            "labels": sum(map(len, found.labels)),
            "judged_irrelevant": sum(map(len, found.irrelevant)),
            "documents": report.documents,
            "left_out": report.left_out,
        }
        show(counts, f"{report}\n{found!r} → {labels}")


def _weights(text: str | None) -> dict[Any, float | None] | None:
    """Read the option. Numbers among the keys, which JSON writes as texts, are numbers in traces."""
    if text is None:
        return None
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise typer.BadParameter(f'--weights is an object such as {{"good": 1, "bad": -1}} ({error}).') from error
    numbers = {}
    for key, weight in value.items():
        try:
            numbers[float(key)] = weight
        except ValueError:
            continue
    return {**value, **numbers}
