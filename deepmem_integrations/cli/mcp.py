"""The command mcp, which serves a store to agents over the Model Context Protocol."""

import contextlib
from functools import partial
from typing import Annotated

import typer

from deepmem_integrations._extras import require
from deepmem_integrations._redaction import redact
from deepmem_integrations.cli.feedback import open_log
from deepmem_integrations.cli.options import Embedding, Folder, Store, Words
from deepmem_integrations.cli.stores import open_store


def mcp(
    store: Store,
    embedding: Embedding,
    path: Folder = None,
    words: Words = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            "-l",
            envvar="DEEPMEM_FEEDBACK",
            metavar="PLACE",
            help="A feedback log, which keeps what is searched, and what was thought of it. It is made where there is none.",
        ),
    ] = None,
    max_text: Annotated[int, typer.Option(min=100, help="How many characters of each document to return at most.")] = 4000,
) -> None:
    """Serve a store to agents over MCP.

    The tools are search, why and, with --log, feedback. A client starts this command, and talks to it on its standard streams.
    The server reads the store and the model in use, and changes neither. Without --log, nothing is recorded.
    """
    for module in ("mcp.server.lowlevel", "mcp_types"):  # older versions than 2 have no mcp_types
        require(module, extra="mcp")
    from deepmem_integrations.cli.mcp_tools import Tools, serve

    opened = open_store(store, embedding, path, words=words)
    with contextlib.nullcontext() if log is None else open_log(log, make=True) as record:
        serve(Tools(opened, record, max_text=max_text, hide=partial(redact, uri=store)))
