"""``deepmem ui``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from deepmem_integrations._extras import require
from deepmem_integrations._files import user_path
from deepmem_integrations._redaction import redacted
from deepmem_integrations.cli.options import EMBEDDING_HELP, STORES, AsJson, models_path, printing, typed_path
from deepmem_integrations.cli.stores import open_store
from deepmem_integrations.models import beside

PASSWORD = "DEEPMEM_UI_PASSWORD"


def ui(
    store: Annotated[
        str | None,
        typer.Argument(
            envvar="DEEPMEM_STORE",
            metavar="[STORE or FOLDER]",
            help="A vector store, e.g. deeplake:./ds, or a folder of text files; by default you choose in the browser.",
        ),
    ] = None,
    embedding: Annotated[
        str, typer.Option("--embedding", "-e", envvar="DEEPMEM_EMBEDDING", metavar="URI", help=EMBEDDING_HELP)
    ] = "minilm",
    memory: Annotated[
        Path | None,
        typer.Option(
            "--memory",
            "--path",
            "-p",
            envvar="DEEPMEM_PATH",
            metavar="FOLDER",
            parser=typed_path,
            help="The folder of the models; by default beside the store or the folder, or ./ui.deepmemory.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8765,
    host: Annotated[
        str, typer.Option(help=f"Another address than this machine's own needs a password, asked for or in {PASSWORD}.")
    ] = "127.0.0.1",
    public_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where a proxy shows the page to others, e.g. https://docs.example.com. It needs a password, too.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search, judge, train and switch models in the browser.

    Somebody with a folder of text files gets from nothing to a trained model there, without a line of Python. Nothing is loaded
    from elsewhere, and the page is for this machine alone unless --host says otherwise.
    """
    require("starlette", extra="ui")
    require("uvicorn", extra="ui")
    from deepmem_integrations.ui.app import listen, make_app, serve
    from deepmem_integrations.ui.security import Access, is_loopback, public_origin
    from deepmem_integrations.ui.workspace import Workspace

    texts = Path(user_path(store)).resolve() if store and Path(user_path(store)).is_dir() else None
    if texts is not None:
        folder = memory or Path(beside(str(texts)))
    else:
        if store and store.partition(":")[0] not in {known.partition(":")[0] for known in STORES}:
            raise typer.BadParameter(
                f"there is no folder {redacted(store)}, and this names no store: write a folder of text files, or a store "
                "such as deeplake:./ds."
            )
        folder = models_path(store, memory) if store else memory or Path("ui.deepmemory")
    if public_url is not None:
        try:
            public_origin(public_url)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--public-url") from None
    password = os.environ.get(PASSWORD) or None
    if (public_url or not is_loopback(host)) and password is None:
        password = typer.prompt("Password for the page", hide_input=True, confirmation_prompt=True)
    try:
        listening = listen(host, port)
    except OSError as error:
        raise typer.BadParameter(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. Choose another --port."
        ) from None
    with listening:
        try:
            access = Access(host, listening.getsockname()[1], password, public_url)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        work = Workspace(
            folder.resolve(),
            Path.cwd(),
            open_store,
            store=store if texts is None else None,
            texts=texts,
            embedding=embedding,
        )
        with printing(as_json) as show:
            show({"url": access.url, "memory": str(folder.resolve())}, f"Open {access.url}")
        typer.echo("Stop with Ctrl+C. Trainings go on.", err=True)
        if not is_loopback(host) and not (public_url or "").startswith("https:"):
            typer.echo(
                "The connection is not encrypted: put a proxy with TLS before it (--public-url), or use an SSH tunnel.", err=True
            )
        work.go_on()
        serve(make_app(work, access), listening)
