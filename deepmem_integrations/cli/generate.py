"""``deepmem generate``."""

from typing import Annotated

import typer

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
    Seed,
    Store,
    TokensPerMinute,
    printing,
    rate_limit,
)
from deepmem_integrations.cli.stores import open_store


def generate(
    labels: NewLabelsFile,
    store: Store,
    embedding: Embedding,
    llm: Annotated[
        str, typer.Option(metavar="URI", help="openai:MODEL, or extractive: sentences of the documents, without a model.")
    ],
    path: Folder = None,
    per_document: Annotated[int, typer.Option(min=1, help="Queries for each document.")] = 4,
    max_documents: Annotated[
        int | None, typer.Option(min=1, help="How many documents to ask about, spread over the store.")
    ] = None,
    max_tokens: MaxTokens = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    limit_file: LimitFile = None,
    ray: Ray = None,
    checkpoint: Checkpoint = None,
    force: Force = False,
    estimate: Estimate = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Let a language model write labelled queries.

    The queries are written for the store's documents, filtered, and kept as JSON lines, which the command train takes.
    """
    from deepmem_integrations import generation
    from deepmem_integrations.generation.named import language_model

    if labels.exists() and not force and not estimate:
        raise typer.BadParameter(f"{labels} exists already: name another file, or replace this one with --force.")
    limit = rate_limit(requests_per_minute, tokens_per_minute, limit_file)
    with printing(as_json) as show:
        memory = open_store(store, embedding, path, models=False).memory
        generator = generation.QueryGenerator(
            language_model(llm),
            per_document,
            memory=memory,
            max_documents=max_documents,
            budget=generation.Budget(max_tokens=max_tokens),
            limit=limit,
            on=ray,
            checkpoint=checkpoint,
            seed=seed,
        )
        if estimate:
            expected = generator.estimate(memory.documents())
            usage = {name: getattr(expected.usage, name) for name in ("requests", "input_tokens", "output_tokens")}
            show({"documents": expected.documents, **usage}, str(expected))
            return
        result = generator.generate(memory.documents())
        result.relevance.to_jsonl(labels)
        counts = {"file": str(labels), "queries": len(result.relevance), "left_out": dict(result.relevance.left_out)}
        show({**counts, "stopped": result.stopped}, f"{result}\nWritten to {labels}.")
