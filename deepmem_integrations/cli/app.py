"""The application with all commands, in the order in which ``deepmem --help`` lists them."""

from typing import Annotated

from deepmem_integrations import __version__
from deepmem_integrations._extras import require

require("typer", extra="cli")

import typer  # noqa: E402 - after the check above

from deepmem_integrations.cli.demo import demo  # noqa: E402
from deepmem_integrations.cli.doctor import doctor  # noqa: E402
from deepmem_integrations.cli.feedback import app as feedback  # noqa: E402
from deepmem_integrations.cli.generate import generate  # noqa: E402
from deepmem_integrations.cli.jobs import cancel, delete, jobs, models, publish, refresh, resume, status, train, use  # noqa: E402
from deepmem_integrations.cli.judge import judge  # noqa: E402
from deepmem_integrations.cli.mcp import mcp  # noqa: E402
from deepmem_integrations.cli.options import EMBEDDINGS, LANGUAGE_MODELS, STORES  # noqa: E402
from deepmem_integrations.cli.retraining import audit, retrain, rollback  # noqa: E402
from deepmem_integrations.cli.retrieval import evaluate, explain, report, search  # noqa: E402
from deepmem_integrations.cli.traces import traces  # noqa: E402
from deepmem_integrations.cli.ui import ui  # noqa: E402

_STORE = "--store deeplake:./ds --embedding minilm"

_KINDS = "\n\n".join(
    f"\b\n{title}\n" + "\n".join(f"  {kind}" for kind in kinds)
    for title, kinds in (
        ("Stores (--store):", STORES),
        ("Embedding models (--embedding):", EMBEDDINGS),
        ("Language models (--llm):", LANGUAGE_MODELS),
    )
)
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text, in a terminal of any width and in a pipe
    pretty_exceptions_enable=False,
    epilog=f"{_KINDS}\n\n--store, --embedding and --path may stand in DEEPMEM_STORE, DEEPMEM_EMBEDDING and DEEPMEM_PATH.",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"deepmem-integrations {__version__}")
        raise typer.Exit


@app.callback()
def deepmem(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Deep Memory: learn how your users ask, retrieve better."""


for _command, _example in (
    (demo, "deepmem demo --path ./deepmem-demo"),
    (ui, "deepmem ui ./notes"),
    (generate, f"deepmem generate labels.jsonl {_STORE} --llm openai:gpt-4o-mini"),
    (judge, f"deepmem judge queries.txt labels.jsonl {_STORE} --llm openai:gpt-4o-mini"),
    (traces, f"deepmem traces labels.jsonl runs.jsonl feedback.jsonl --format langsmith --policy first {_STORE}"),
    (train, f"deepmem train labels.jsonl {_STORE}"),
    (retrain, f"deepmem retrain labels.jsonl {_STORE} --new-labels 50 --age 30"),
    (status, "deepmem status 6508464cd80cab681bfcfff3 --store deeplake:./ds --wait"),
    (jobs, "deepmem jobs --store deeplake:./ds"),
    (resume, "deepmem resume 6508464cd80cab681bfcfff3 --store deeplake:./ds"),
    (cancel, "deepmem cancel 6508464cd80cab681bfcfff3 --store deeplake:./ds"),
    (delete, "deepmem delete 6508464cd80cab681bfcfff3 --store deeplake:./ds --model"),
    (models, "deepmem models --store deeplake:./ds"),
    (use, "deepmem use 6508464cd80cab681bfcfff3 --store deeplake:./ds"),
    (rollback, "deepmem rollback --store deeplake:./ds"),
    (audit, "deepmem audit --store deeplake:./ds"),
    (publish, "deepmem publish s3://bucket/support.deepmemory --path support.deepmemory"),
    (refresh, f"deepmem refresh {_STORE}"),
    (evaluate, f"deepmem evaluate test.jsonl {_STORE}"),
    (report, f"deepmem report test.jsonl report.html {_STORE}"),
    (search, f'deepmem search "how do I undo a commit?" {_STORE}'),
    (explain, f'deepmem explain "how do I undo a commit?" {_STORE}'),
    (mcp, f"deepmem mcp {_STORE} --log feedback.db"),
    (doctor, f"deepmem doctor {_STORE}"),
):
    app.command(epilog=f"\b\nExample:\n  {_example}")(_command)
app.add_typer(feedback, name="feedback")
