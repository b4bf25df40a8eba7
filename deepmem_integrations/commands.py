"""The commands of ``deepmem``."""

import tempfile
from pathlib import Path
from typing import Annotated

from deepmem_integrations import __version__
from deepmem_integrations._extras import require

require("typer", extra="cli")

import typer  # noqa: E402 - after the check above

app = typer.Typer(no_args_is_help=True, help="Deep Memory: learn how your users ask, retrieve better.")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"deepmem-integrations {__version__}")
        raise typer.Exit


@app.callback()
def deepmem(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, help="Print the version.")] = False,
) -> None:
    """Deep Memory: learn how your users ask, retrieve better."""


@app.command(epilog="Example:  deepmem demo --path ./deepmem-demo")
def demo(
    embedding: Annotated[
        str, typer.Option(help="minilm (in a package, no download), or openai:MODEL with OPENAI_API_KEY set.")
    ] = "minilm",
    path: Annotated[
        Path | None,
        typer.Option(
            help="Keep the data set and the model in this folder, replacing those of an earlier run; by default they are deleted."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes the training.")] = 0,
) -> None:
    """Train on Deep Lake's own API documentation and see retrieval get better. No key, no server, no download."""
    from deepmem_integrations.demo.run import run_demo

    with tempfile.TemporaryDirectory(prefix="deepmem-demo-") as temporary:
        run_demo(path or Path(temporary), embedding=embedding, seed=seed)
    typer.echo(
        "\nRun it with --path FOLDER to keep the data set and the trained model."
        if path is None
        else f"\nThe data set and, beside it, the trained model are in {path.resolve()}."
    )
