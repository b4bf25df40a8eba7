"""The parts that commands share: options, the reading of labels, and the printing of answers."""

import contextlib
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deepmem_integrations._files import user_path
from deepmem_integrations.cluster import check_address
from deepmem_integrations.errors import StorageError
from deepmem_integrations.jobs import JobFolder
from deepmem_integrations.labels import Relevance
from deepmem_integrations.models import ModelFolder, beside, check_outside
from deepmem_integrations.words import WordIndex

if TYPE_CHECKING:
    from deepmem_integrations.generation import RateLimit

STORES = (
    "deeplake:PATH",
    "chroma:FOLDER#COLLECTION",
    "chroma:http://HOST:8000#COLLECTION",
    "parquet:PATH, files with columns id, vector and text, or as in parquet:s3://BUCKET/PAGES#id=url&vector=embedding",
    "lance:PATH, a Lance data set with such columns, on disk or as in lance:s3://BUCKET/PAGES.lance",
    "faiss:FOLDER, written by LangChain's save_local",
    "qdrant:FOLDER#COLLECTION",
    "qdrant:http://HOST:6333#COLLECTION, with the key in QDRANT_API_KEY",
    "pgvector:postgresql+psycopg://USER:PASSWORD@HOST/DATABASE#COLLECTION",
)
EMBEDDINGS = ("minilm", "openai:MODEL", "sentence-transformers:NAME_OR_FOLDER")
LANGUAGE_MODELS = ("openai:MODEL", "extractive")
STORE_HELP = "The vector store, e.g. deeplake:./ds; deepmem --help lists all kinds."
EMBEDDING_HELP = "The store's embedding model, e.g. openai:text-embedding-3-small."


def typed_path(text: str) -> Path:
    """Read a path. A shell leaves ``~`` as it is in ``--path=~/x``, and an environment file does so everywhere."""
    return Path(user_path(text))


Store = Annotated[str, typer.Option("--store", "-s", envvar="DEEPMEM_STORE", metavar="URI", help=STORE_HELP)]
Embedding = Annotated[str, typer.Option("--embedding", "-e", envvar="DEEPMEM_EMBEDDING", metavar="URI", help=EMBEDDING_HELP)]
StoreOfJobs = Annotated[
    str | None,
    typer.Option(
        "--store",
        "-s",
        envvar="DEEPMEM_STORE",
        metavar="URI",
        help="A local Deep Lake data set, in place of --path.",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--path",
        "-p",
        envvar="DEEPMEM_PATH",
        metavar="FOLDER",
        parser=typed_path,
        help="The folder of the jobs and models; by default beside a local Deep Lake data set.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else to the standard output.")]
ChangeEmbedding = Annotated[
    bool,
    typer.Option(
        "--change-embedding",
        help="Replace a model in use that belongs to another embedding model. Services with that one then fail on every query.",
    ),
]
By = Annotated[str | None, typer.Option(help="Who asks, for the audit log; by default the user of the process.")]


def ray_address(typed: str) -> str:
    """Return the address of a Ray cluster as it was typed.

    Raises:
        BadParameter: It is no address.
    """
    try:
        check_address(typed)
    except ValueError as error:
        raise typer.BadParameter(f"{typed!r} is no Ray cluster: write local, auto, HOST:6379 or ray://HOST:10001.") from error
    return typed


Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        parser=ray_address,
        help="Work on a Ray cluster: local (this machine's CPUs), auto (the cluster that runs here), HOST:6379 or ray://HOST:10001.",
    ),
]
OnInvalidChoice = Annotated[
    Literal["raise", "drop"],
    typer.Option(help="What to do about labels whose documents are gone from the store: stop, or drop and count them."),
]
Level = Annotated[
    str | None,
    typer.Option(
        metavar="KEY",
        help="The metadata key whose values the labels name, such as doc_uri, where they name parents of documents and the file "
        "does not say so.",
    ),
]
Split = Annotated[str, typer.Option(help="The split of a BEIR folder.")]
MaxUnseenLoss = Annotated[
    float | None, typer.Option(min=0, help="How many points may be given up on answers that no training query asked for.")
]
Words = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:OBJECT",
        help="A search by words of your own, in place of the word index: an object with search(text, k, filter), or a function "
        "that returns one.",
    ),
]
InUseChoice = Literal["always", "if-better", "never"]
Seed = Annotated[int, typer.Option(help="Fixes the result.")]
LabelsFile = Annotated[
    Path,
    typer.Argument(
        metavar="LABELS",
        parser=typed_path,
        help="Labelled queries: JSON lines, a BEIR folder, or LlamaIndex's EmbeddingQAFinetuneDataset (.json).",
    ),
]
NewLabelsFile = Annotated[Path, typer.Argument(metavar="LABELS", parser=typed_path, help="The file of JSON lines to write.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Stop before this many tokens are used.")]
RequestsPerMinute = Annotated[int | None, typer.Option(min=1, help="The most requests that the provider gets in any minute.")]
TokensPerMinute = Annotated[int | None, typer.Option(min=1, help="The most tokens that the provider gets in any minute.")]
LimitFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        parser=typed_path,
        help="A file by which several processes share these limits. On a Ray cluster they are shared without one.",
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="FILE_OR_URL",
        help="A file, or a folder such as s3://BUCKET/ANSWERS, that keeps every answer: a later run goes on there.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file of labels, if it exists.")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Estimate requests and tokens, and ask nothing.")]


def rate_limit(requests: int | None, tokens: int | None, file: Path | None) -> "RateLimit | None":
    """Return the limit that options set, if any.

    Raises:
        BadParameter: There is a file and no limit.
    """
    from deepmem_integrations.generation import RateLimit

    if requests is None and tokens is None:
        if file is not None:
            raise typer.BadParameter("--limit-file shares a limit: set --requests-per-minute or --tokens-per-minute.")
        return None
    return RateLimit(requests, tokens, file=file)


Show = Callable[[Any, str], None]
"""A function that takes the answer as JSON values and as text, and prints one of the two."""


@contextlib.contextmanager
def printing(as_json: bool) -> Iterator[Show]:
    """Yield a function that prints the answer. With JSON, everything else that is printed goes to the standard error.

    The function raises a StorageError where the answer cannot be written, as on a full disk.
    """
    out = sys.stdout

    def show(value: Any, text: str) -> None:
        # JSON has an escape for every character, which a reader turns back.
        holds_all = (getattr(out, "encoding", None) or "utf-8").lower().startswith("utf")
        try:
            print(json.dumps(value, ensure_ascii=not holds_all, indent=2) if as_json else text, file=out, flush=True)
        except BrokenPipeError:  # a reader such as head has seen enough
            raise
        except OSError as error:
            raise StorageError(f"The answer cannot be written to the standard output: {error.strerror}.") from error

    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield show


def read_labels(path: Path, split: str, level: str | None = None) -> Relevance:
    """Read labelled queries from a file or folder of any known form.

    Args:
        path: A BEIR folder, a ``.json`` file of LlamaIndex, or any other file with JSON lines.
        split: The split of a BEIR folder.
        level: What the labels name: see `Relevance`. None leaves that to the file.

    Raises:
        InvalidRelevanceError: The file has another form.
        StorageError: The file cannot be read.
    """
    if path.is_dir():
        return Relevance.from_beir(path, split, level=level)
    return (Relevance.from_llama_index if path.suffix == ".json" else Relevance.from_jsonl)(path, level=level)


def load_object(name: str, option: str) -> Any:
    """Import what ``module:object`` names, and call it if it is a function.

    Args:
        name: The module, found in the current folder or among the installed packages, and the object in it.
        option: The option that names the object, for errors.

    Raises:
        BadParameter: There is no such module, or no such object in it. An error within the module is raised as it is.
    """
    module, _, path = name.partition(":")
    if not module or not path:
        raise typer.BadParameter(f"{option} {name!r} is not of the form MODULE:OBJECT, as in app.search:retriever.")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)  # python -m does so; an installed command does not
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise typer.BadParameter(f"{option}: there is no module {module!r} in {here} or among the installed packages.") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise typer.BadParameter(f"{option}: the module {module!r} has no {path!r}.")
        found = getattr(found, part)
    return found() if inspect.isfunction(found) else found


def check_words(words: str | None, no_words: bool) -> None:
    """Refuse a search by words where words are left out.

    Raises:
        BadParameter: Both are asked for.
    """
    if words is not None and no_words:
        raise typer.BadParameter("--words names a search by words, and --no-words leaves words out: give one of the two.")


def words_line(index: WordIndex) -> str:
    """Say in one line what a word index holds."""
    language = f"language {index.language}" if index.language else "words are not stemmed"
    return f"word index of {len(index):,} documents, {language}, {index.statistics.bytes / 1e3:,.0f} kB"


def folder_of(store: str | None, path: Path | None) -> JobFolder:
    """Return the jobs and models of a store."""
    return JobFolder(ModelFolder(models_path(store, path)))


def models_path(store: str | None, path: Path | None) -> Path:
    """Return the folder of the models of a store.

    Raises:
        BadParameter: The folder is not known, or is no folder.
        StoreError: The folder is a local Deep Lake data set or lies in it.
    """
    kind, _, place = (store or "").partition(":")
    if path is None and kind == "deeplake" and place:
        path = Path(beside(place))
    if path is None:
        raise typer.BadParameter(
            "say where the models are with --path FOLDER: only a local Deep Lake data set has them beside it."
        )
    if path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is no folder: the models are in a folder of their own.")
    if kind == "deeplake" and place:
        check_outside(path, place)
    return path
