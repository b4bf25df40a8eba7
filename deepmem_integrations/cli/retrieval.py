"""The commands that search."""

import shutil
import textwrap
from itertools import zip_longest
from typing import Annotated

import typer

from deepmem_integrations.cli.options import AsJson, Embedding, Folder, LabelsFile, Store, printing, read_labels
from deepmem_integrations.cli.stores import Found, open_store
from deepmem_integrations.errors import ModelNotFoundError
from deepmem_integrations.evaluation import TOP_K


def _asked(query: str) -> str:
    if not query.strip():
        raise typer.BadParameter("the query is empty: write what a user would ask.")
    return query


Query = Annotated[str, typer.Argument(metavar="QUERY", help="The text of a query, as a user would write it.", callback=_asked)]


def evaluate(
    labels: LabelsFile,
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    split: Annotated[str, typer.Option(help="The split to read, if LABELS is a BEIR folder.")] = "test",
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="A cut-off k of the metrics. The option may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The name of a model; by default the model in use.")] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Add the queries, and the documents that they found, to a Deep Lake data set.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure retrieval with and without the model.

    Use labelled queries that took no part in the training.
    """
    with printing(as_json) as show:
        memory = open_store(store, embedding, path).memory
        relevance = read_labels(labels, split)
        evaluation = memory.measure(relevance, top_k=sorted(set(k or TOP_K)), qvs_params={"log_queries": log}, model=model)
        show(evaluation.to_json(), evaluation.table())


def search(
    query: Query,
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many documents to show.")] = 5,
    without: Annotated[bool, typer.Option("--without", help="Search only without Deep Memory.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search, without and with Deep Memory side by side."""
    with printing(as_json) as show:
        opened = open_store(store, embedding, path)
        vector = opened.memory.embedder.embed_query(query)
        found = {"without": opened.search(vector.tolist(), k)}
        if not without:
            try:
                found["with"] = opened.search(opened.memory.transform(vector).tolist(), k)
            except ModelNotFoundError:
                typer.echo("There is no trained model yet, so this is the store's own answer.", err=True)
        answer = {side: [{"id": name, "text": text} for name, text in hits] for side, hits in found.items()}
        show({"query": query, **answer}, _side_by_side(found))


def explain(
    query: Query,
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    top: Annotated[int, typer.Option(min=1, help="How many training queries to name at most.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Name the training queries that move a query."""
    with printing(as_json) as show:
        explanation = open_store(store, embedding, path).memory.explain(query, top)
        hint = "\nThe training queries are shown by their ids. To see their texts, train with --keep-texts."
        no_texts = explanation.influences and not any(influence.texts for influence in explanation.influences)
        show({"query": query, **explanation.to_json()}, f"{explanation}{hint if no_texts else ''}")


def _side_by_side(sides: dict[str, Found]) -> str:
    """Return a table with a column for each side, as wide as the terminal allows."""
    titles = {"without": "without Deep Memory", "with": "with Deep Memory"}
    width = max(30, (shutil.get_terminal_size().columns - 4) // len(sides) - 2)
    rows = [[titles[side] for side in sides], ["-" * width for _ in sides]]
    for hits in zip_longest(*sides.values()):
        names = [hit[0] if hit else "" for hit in hits]
        texts = [textwrap.shorten(hit[1], width, placeholder=" …") if hit and hit[1].strip() else "" for hit in hits]
        rows += [names, texts, [""] * len(sides)]
    lines = []
    rank = 0
    for number, row in enumerate(rows):
        starts = number >= 2 and (number - 2) % 3 == 0
        rank += starts
        cells = "  ".join(f"{cell[:width]:<{width}}" for cell in row)
        lines.append(f"{rank if starts else '':>2}  {cells}".rstrip())
    return "\n".join(lines).rstrip()
