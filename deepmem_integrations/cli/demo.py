"""``deepmem demo``."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from deepmem_integrations.cli.options import AsJson, Seed, printing, typed_path


def demo(
    embedding: Annotated[
        str, typer.Option(help="minilm (in a package, no download), or openai:MODEL with OPENAI_API_KEY set.")
    ] = "minilm",
    path: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            parser=typed_path,
            help="Keep the data set and the model in this folder, in place of earlier ones; by default both are deleted.",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """See it work on Deep Lake's own API documentation.

    The demo needs no key, no server and no download.
    """
    from deepmem_integrations.demo.run import run_demo

    with printing(as_json) as show, tempfile.TemporaryDirectory(prefix="deepmem-demo-") as temporary:
        evaluation = run_demo(path or Path(temporary), embedding=embedding, seed=seed)
        kept = (
            "Run it with --path FOLDER to keep the data set and the trained model."
            if path is None
            else f"The data set and, beside it, the trained model are in {path.resolve()}."
        )
        show(evaluation.to_json(), f"\n{kept}")
