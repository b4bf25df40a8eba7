"""The command ``deepmem demo``."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from deepmem_integrations.cli.options import AsJson, Seed, printing


def demo(
    embedding: Annotated[
        str, typer.Option(help="minilm, which comes in a package, or openai:MODEL, which needs OPENAI_API_KEY.")
    ] = "minilm",
    path: Annotated[
        Path | None,
        typer.Option(
            help="Keep the data set and the model in this folder, where an earlier data set is replaced. By default, delete both."
        ),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """See Deep Memory work on Deep Lake's own API documentation.

    The demo needs no key, no server and no download.
    """
    from deepmem_integrations.demo.run import run_demo

    with printing(as_json) as show, tempfile.TemporaryDirectory(prefix="deepmem-demo-") as temporary:
        evaluation = run_demo(path or Path(temporary), embedding=embedding, seed=seed)
        kept = (
            "Run the demo with --path FOLDER to keep the data set and the trained model."
            if path is None
            else f"The data set and, beside it, the trained model are in {path.resolve()}."
        )
        show(evaluation.to_json(), f"\n{kept}")
