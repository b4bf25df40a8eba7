"""``deepmem judge``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deepmem_integrations._files import read_text
from deepmem_integrations.cli.options import (
    AsJson,
    Checkpoint,
    Embedding,
    Estimate,
    Folder,
    Force,
    LimitFile,
    MaxTokens,
    NewLabelsFile,
    Ray,
    RequestsPerMinute,
    Store,
    TokensPerMinute,
    printing,
    rate_limit,
    read_labels,
    typed_path,
)
from deepmem_integrations.cli.stores import open_store
from deepmem_integrations.errors import InvalidRelevanceError


def judge(
    queries: Annotated[
        Path,
        typer.Argument(
            metavar="QUERIES", parser=typed_path, help='A file of queries, a query a line, or JSON lines with "query".'
        ),
    ],
    labels: NewLabelsFile,
    store: Store,
    embedding: Embedding,
    llm: Annotated[str, typer.Option(metavar="URI", help="openai:MODEL, which grades documents.")],
    path: Folder = None,
    depth: Annotated[int, typer.Option(min=1, help="Documents from each ranking: vectors, words and the model in use.")] = 10,
    sample: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=typed_path, help="Labels by people, to measure how far the judge agrees with them."),
    ] = None,
    max_tokens: MaxTokens = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    limit_file: LimitFile = None,
    ray: Ray = None,
    checkpoint: Checkpoint = None,
    force: Force = False,
    estimate: Estimate = False,
    as_json: AsJson = False,
) -> None:
    """Let a language model judge documents for queries of users.

    For each query the documents that vectors, words and the model in use find first are graded from 0 to 3. The labels are kept
    as JSON lines, which the command train takes.
    """
    from deepmem_integrations.generation import Budget
    from deepmem_integrations.generation.named import language_model
    from deepmem_integrations.judging import RelevanceJudge

    if labels.exists() and not force and not estimate:
        raise typer.BadParameter(f"{labels} exists already: name another file, or replace this one with --force.")
    limit = rate_limit(requests_per_minute, tokens_per_minute, limit_file)
    with printing(as_json) as show:
        asked = _queries(queries)
        people = read_labels(sample, "test") if sample else None
        judge = RelevanceJudge(
            language_model(llm),
            memory=open_store(store, embedding, path).memory,
            depth=depth,
            sample=people,
            budget=Budget(max_tokens=max_tokens),
            limit=limit,
            on=ray,
            checkpoint=checkpoint,
        )
        if estimate:
            expected = judge.estimate(asked)
            usage = {name: getattr(expected.usage, name) for name in ("requests", "input_tokens", "output_tokens")}
            show({"documents": expected.documents, **usage}, str(expected))
            return
        result = judge.judge(asked)
        result.relevance.to_jsonl(labels)
        agreement = result.agreement and {name: getattr(result.agreement, name) for name in ("kappa", "low", "high", "pairs")}
        counts = {"file": str(labels), "queries": len(result.relevance), "left_out": result.relevance.left_out}
        show({**counts, "agreement": agreement, "stopped": result.stopped}, f"{result}\nWritten to {labels}.")


def _queries(path: Path) -> list[str]:
    queries = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.lstrip().startswith("{"):
            queries += [line.strip()] if line.strip() else []
            continue
        try:
            query = json.loads(line)["query"]
        except (ValueError, KeyError) as error:
            raise InvalidRelevanceError(
                f'{path}, line {number}: expected a query, or an object such as {{"query": "…"}} ({error!r}).'
            ) from error
        queries.append(query)
    return queries
