"""The commands that search: evaluate, report, search and explain."""

import contextlib
import math
import re
import shlex
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer

from deepmem_integrations.cli.options import (
    AsJson,
    Embedding,
    Folder,
    LabelsFile,
    Level,
    OnInvalidChoice,
    Ray,
    Split,
    Store,
    Words,
    check_words,
    load_object,
    printing,
    read_labels,
    typed_path,
)
from deepmem_integrations.cli.stores import open_store
from deepmem_integrations.errors import NotTrainedError
from deepmem_integrations.evaluation import TOP_K
from deepmem_integrations.opened import Found
from deepmem_integrations.ranking import Choice, Ranker
from deepmem_integrations.report import ContextLength
from deepmem_integrations.retriever_evaluation import CONCURRENCY

_PASSWORD = re.compile(r"(://[^/\s@:]*:).*(?=@)|([?&](?:password|token|key|secret)=)[^&#\s]*", re.IGNORECASE)
"""The password of a URL. One that holds @ or / of its own goes up to the last @."""


def _asked(query: str) -> str:
    if not query.strip():
        raise typer.BadParameter("the query is empty: ask something.")
    return query


Query = Annotated[str, typer.Argument(metavar="QUERY", help="What a user would ask.", callback=_asked)]


def _filter_of(pairs: list[str]) -> dict[str, list[Any]] | None:
    """Read KEY=VALUE pairs. A value that is a number or a truth value in JSON may be that or the same text."""
    filter: dict[str, list[Any]] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise typer.BadParameter(f"--where {pair!r} is not of the form KEY=VALUE, as in tenant=acme.")
        allowed = filter.setdefault(key, [])
        allowed.append(value)
        if value in ("true", "false"):
            allowed.append(value == "true")
        with contextlib.suppress(ValueError):
            if math.isfinite(number := float(value)):  # no store compares with others
                allowed.append(number)
    return filter or None


def evaluate(
    labels: LabelsFile,
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    words: Words = None,
    split: Split = "test",
    level: Level = None,
    k: Annotated[list[int] | None, typer.Option("-k", min=1, help="A cut-off; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="The name of a model; by default the one in use.")] = None,
    on_invalid: OnInvalidChoice = "raise",
    ray: Ray = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Search only documents with this metadata, such as tenant=acme; repeat a key to allow more values.",
        ),
    ] = None,
    retriever: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:OBJECT",
            help="Ask a retriever, chain or query engine of yours in place of an exact search: an object in a module, or a "
            "function without arguments that makes one. The module is in the current folder, or installed.",
        ),
    ] = None,
    plain: Annotated[str | None, typer.Option(metavar="MODULE:OBJECT", help="The retriever to compare --retriever with.")] = None,
    id_key: Annotated[
        str | None, typer.Option(help="With --retriever: the metadata key that holds the ids which the labels name.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="With --retriever: how many queries to ask at a time.")] = CONCURRENCY,
    log: Annotated[bool, typer.Option("--log", help="Keep the queries, with what they found, in a Deep Lake data set.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure retrieval with and without the model.

    Where the model ranks by words or remembered answers as well, the words alone, the common hybrid (RRF) and the transform
    alone are measured, too. Use labelled queries that took no part in the training.
    """
    if retriever is None and (plain is not None or id_key is not None):
        raise typer.BadParameter("--plain and --id-key go with --retriever MODULE:OBJECT.")
    if retriever is not None and (model is not None or log):
        raise typer.BadParameter("a --retriever serves the model of its own, and is not logged: leave --model and --log out.")
    if retriever is not None and where:
        raise typer.BadParameter("a --retriever brings its own filter: leave --where out.")
    filter = _filter_of(where or [])
    with printing(as_json) as show:
        relevance = read_labels(labels, split, level)
        memory = open_store(store, embedding, path, words=words).memory
        evaluation = memory.measure(
            relevance,
            top_k=sorted(set(k or TOP_K)),
            qvs_params={"log_queries": log},
            model=model,
            filter=filter,
            on_invalid=on_invalid,
            on=ray,
            retriever=None if retriever is None else load_object(retriever, "--retriever"),
            plain=None if plain is None else load_object(plain, "--plain"),
            id_key=id_key,
            concurrency=concurrency,
        )
        show(evaluation.to_json(), evaluation.table())


def report(
    labels: LabelsFile,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            parser=typed_path,
            help="Where to write the report: a page, or JSON where the name ends in .json.",
        ),
    ],
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    words: Words = None,
    split: Split = "test",
    level: Level = None,
    model: Annotated[str | None, typer.Option(help="The name of a model; by default the one in use.")] = None,
    no_texts: Annotated[bool, typer.Option("--no-texts", help="Leave out the texts of queries and documents.")] = False,
    tokens: Annotated[
        str | None, typer.Option(metavar="NAME", help="Count tokens by tiktoken's encoding of this name, e.g. o200k_base.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="What a million tokens cost; it needs --tokens.")] = None,
    on_invalid: OnInvalidChoice = "raise",
    as_json: AsJson = False,
) -> None:
    """Write a page that shows what the model gains and loses.

    The page is one file, which loads nothing. Use labelled queries that took no part in the training.
    """
    try:
        ContextLength.of(tokens, price)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with printing(as_json) as show:
        memory = open_store(store, embedding, path, words=words).memory
        relevance = read_labels(labels, split, level)
        options: dict[str, object] = {
            "--store": store,
            "--embedding": embedding,
            "--path": path,
            "--split": split if labels.is_dir() else None,
        }
        options |= {"--level": level, "--words": words, "--model": model, "--tokens": tokens, "--price": price}
        options["--on-invalid"] = on_invalid if on_invalid == "drop" else None
        command = _command([labels, file], options, ["--no-texts"] if no_texts else [])
        made = memory.report(
            relevance,
            file,
            model=model,
            texts=not no_texts,
            tokens=tokens,
            price=price,
            command=command,
            on_invalid=on_invalid,
        )
        show(made.to_json(), f"{made}\n\nThe report is in {file}.")


def _command(arguments: Sequence[object], options: Mapping[str, object], flags: Sequence[str]) -> str:
    """Write the command that makes a report again, with *** in place of passwords in URLs."""
    given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    words = ["deepmem", "report", *map(str, arguments), *given, *flags]
    return shlex.join(_PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", word) for word in words)


def search(
    query: Query,
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many documents to show.")] = 5,
    without: Annotated[bool, typer.Option("--without", help="Show the answers without Deep Memory alone.")] = False,
    words: Words = None,
    no_words: Annotated[bool, typer.Option("--no-words", help="Rank without the documents' words.")] = False,
    no_answers: Annotated[bool, typer.Option("--no-answers", help="Rank without remembered answers.")] = False,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Show the score and the rank of each document by vector, words and answers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Search, without and with Deep Memory side by side."""
    check_words(words, no_words)
    with printing(as_json) as show:
        opened = open_store(store, embedding, path, words=words)
        vector = opened.memory.embedder.embed_query(query)
        found: dict[str, Found] = {"without": opened.search(vector.tolist(), k, False, {})}
        choices: list[Choice] = []
        if not without:
            try:
                ranker = Ranker(opened.memory, words=not no_words, answers=not no_answers, untrained="error")
                best = opened.ranked(ranker.query(query, vector, opened.memory.embedder), k)
                found["with"], choices = [hit for hit, _ in best], [choice for _, choice in best]
            except NotTrainedError:
                typer.echo("There is no trained model yet, so this is the store's own answer.", err=True)
        answer: dict[str, list[dict[str, Any]]] = {
            side: [{"id": hit.id, "text": hit.text} for hit in hits] for side, hits in found.items()
        }
        if evidence:
            for shown, choice in zip(answer.get("with", ()), choices, strict=True):
                shown["evidence"] = choice.to_json()
        show({"query": query, **answer}, _side_by_side(found, choices if evidence else ()))


def explain(
    query: Query,
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    top: Annotated[int, typer.Option(min=1, help="How many queries and documents to name.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Tell what moves a query, and by what its documents rank."""
    with printing(as_json) as show:
        explanation = open_store(store, embedding, path).memory.explain(query, top)
        hint = "\nTraining queries are shown by their ids: train --keep-texts keeps their texts."
        texts = [named.texts for named in explanation.influences] + [named.texts for named in explanation.votes]
        no_texts = texts and not any(texts)
        show({"query": query, **explanation.to_json()}, f"{explanation}{hint if no_texts else ''}")


def _side_by_side(sides: dict[str, Found], choices: Sequence[Choice] = ()) -> str:
    """Draw a column for each side, as wide as the terminal allows, and below the answers with Deep Memory their evidence."""
    titles = {"without": "without Deep Memory", "with": "with Deep Memory"}
    width = max(30, (shutil.get_terminal_size().columns - 4) // len(sides) - 2)
    rows = [[titles[side] for side in sides], ["-" * width for _ in sides]]
    starts: dict[int, int] = {}
    for rank, hits in enumerate(zip_longest(*sides.values()), start=1):
        starts[len(rows)] = rank
        rows.append([hit.id if hit else "" for hit in hits])
        rows.append([textwrap.shorten(hit.text, width, placeholder=" …") if hit and hit.text.strip() else "" for hit in hits])
        if rank <= len(choices):
            rows += [["", line] for line in _evidence(choices[rank - 1], width)]
        rows.append([""] * len(sides))
    lines = []
    for number, row in enumerate(rows):
        cells = "  ".join(f"{cell[:width]:<{width}}" for cell in row)
        lines.append(f"{starts.get(number, ''):>2}  {cells}".rstrip())
    return "\n".join(lines).rstrip()


def _evidence(choice: Choice, width: int) -> list[str]:
    """Write the score, and the score and the rank by each kind of evidence; a dash stands for no rank.

    The kinds of evidence share a line if it is wide enough.
    """
    cells = [f"{name} {one.score:.2f} {'–' if one.rank is None else f'#{one.rank}'}" for name, one in choice.evidence.items()]
    line = "  ".join(cells)
    return [f"score {choice.score:.4f}", *([line] if len(line) <= width else cells)]
