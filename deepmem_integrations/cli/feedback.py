"""The commands on a feedback log: ``deepmem feedback …``."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from deepmem_integrations._files import read_text, user_path
from deepmem_integrations.cli.options import EMBEDDING_HELP, STORE_HELP, AsJson, Folder, printing, typed_path
from deepmem_integrations.cli.stores import open_store
from deepmem_integrations.feedback import FeedbackLog, Policy

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Read a feedback log, make labels of it, and forget.",
)

Log = Annotated[
    str,
    typer.Option(
        "--log",
        "-l",
        envvar="DEEPMEM_FEEDBACK",
        metavar="PLACE",
        help="The feedback log: an SQLite file, or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE.",
    ),
]
Since = Annotated[datetime | None, typer.Option(help="Only queries asked at this time or later, in UTC.")]
Until = Annotated[datetime | None, typer.Option(help="Only queries asked before this time, in UTC.")]
Tenant = Annotated[str | None, typer.Option(help="Only queries of this tenant.")]


def open_log(place: str, *, make: bool = False) -> FeedbackLog:
    """Open a log, and no new file where the path is misspelt."""
    if not make and "://" not in place and not Path(user_path(place)).is_file():
        raise typer.BadParameter(f"there is no feedback log {place}.")
    return FeedbackLog(place)


def stats(log: Log, as_json: AsJson = False) -> None:
    """Count queries, documents shown, and feedback."""
    with printing(as_json) as show, open_log(log) as opened:
        counts = opened.stats()
        del counts["dropped"]  # of this process, which has recorded nothing
        names = {name: name.replace("_", " ") for name in counts}
        width = max(map(len, names.values()))
        values = {name: f"{value:,}" if isinstance(value, int) else value or "-" for name, value in counts.items()}
        show(counts, "\n".join(f"{names[name]:<{width}}  {value}" for name, value in values.items()))


def labels(
    file: Annotated[Path, typer.Argument(metavar="FILE", parser=typed_path, help="The file to write, as JSON lines.")],
    log: Log,
    policy: Annotated[
        Policy,
        typer.Option(
            help="What counts beside thumbs on documents and grades: nothing (judged), the documents that answers cite (cited), "
            "the thumb on the answer for the first document (first) or for all (shared), or clicks."
        ),
    ],
    tenant: Tenant = None,
    since: Since = None,
    until: Until = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="TEXTS",
            parser=typed_path,
            help="For a log that keeps hashes: a file with the texts that users may have asked, a text a line.",
        ),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="A metadata key, such as doc_uri, by which the labels are to name the parents of documents; it needs --store "
            "and --embedding.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", "-s", envvar="DEEPMEM_STORE", metavar="URI", help=f"{STORE_HELP} It tells the parents."),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option("--embedding", "-e", envvar="DEEPMEM_EMBEDDING", metavar="URI", help=EMBEDDING_HELP)
    ] = None,
    path: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Write the labels that follow from the log, for the command train."""
    if level is not None and (store is None or embedding is None):
        raise typer.BadParameter("--level needs --store and --embedding, whose documents tell the parents.")
    with printing(as_json) as show, open_log(log) as opened:
        known = () if texts is None else read_text(texts).split("\n")
        found = opened.labels(policy, tenant=tenant, since=since, until=until, texts=known)
        if level is not None and store is not None and embedding is not None:
            found = found.at_level(level, open_store(store, embedding, path, models=False).memory.documents())
        found.to_jsonl(file)
        counts = {
            "queries": len(found),
            "labels": sum(map(len, found.labels)),
            "judged_irrelevant": sum(map(len, found.irrelevant)),
            "left_out": found.left_out,
        }
        lines = [f"{found!r} → {file}", *(f"left out: {count} × {reason}" for reason, count in found.left_out.items())]
        show(counts, "\n".join(lines))


def forget(
    log: Log,
    query: Annotated[list[str] | None, typer.Option(help="The id of a query or of its run; may be repeated.")] = None,
    user: Annotated[str | None, typer.Option(help="A user, with all feedback.")] = None,
    session: Annotated[str | None, typer.Option(help="A session.")] = None,
    older_than_days: Annotated[float | None, typer.Option(min=0, help="An age in days.")] = None,
    as_json: AsJson = False,
) -> None:
    """Delete queries with all that belongs to them, for good."""
    with printing(as_json) as show, open_log(log) as opened:
        age = None if older_than_days is None else timedelta(days=older_than_days)
        count = opened.forget(query or None, user=user, session=session, older_than=age)
        show({"forgotten": count}, f"{count:,} queries are forgotten.")


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", parser=typed_path, help="The file to write.")],
    log: Log,
    as_json: AsJson = False,
) -> None:
    """Write the whole log as JSON lines, a query a line."""
    with printing(as_json) as show, open_log(log) as opened:
        count = opened.export(file)
        show({"queries": count}, f"{count:,} queries → {file}")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", parser=typed_path, help="A file that the command export wrote.")],
    log: Log,
    as_json: AsJson = False,
) -> None:
    """Add an exported log to a log, which is made where there is none."""
    with printing(as_json) as show, open_log(log, make=True) as opened:
        count = opened.import_from(file)
        show({"queries": count}, f"{count:,} queries → {opened!r}")


for _command, _name, _example in (
    (stats, "stats", "deepmem feedback stats --log feedback.db"),
    (labels, "labels", "deepmem feedback labels labels.jsonl --log feedback.db --policy cited"),
    (forget, "forget", "deepmem feedback forget --log feedback.db --user u-9"),
    (export, "export", "deepmem feedback export feedback.jsonl --log feedback.db"),
    (import_, "import", "deepmem feedback import feedback.jsonl --log postgresql+psycopg://deepmem@host/deepmem"),
):
    app.command(_name, epilog=f"\b\nExample:\n  {_example}")(_command)
