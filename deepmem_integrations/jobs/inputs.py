"""Write the inputs of a training to files, and read them.

With its inputs in files, a training can run in a separate process, and no vector is held in memory twice. Vectors are ``.npy``
files, which are read memory-mapped. Everything else is JSON. Nothing is pickled.
"""

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from deepmem_integrations._files import (
    MOST_TEXT,
    is_missing,
    make_private_folder,
    open_regular,
    private_opener,
    read_json,
    write_text,
)
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter import Fingerprint
from deepmem_integrations.corpora import Batch, Corpus, CorpusAtLevel, ShardedCorpus, digest, in_shards, open_shards, unit_batches
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidRelevanceError, StorageError, StoreError
from deepmem_integrations.labels import OnInvalid, Parents, Relevance
from deepmem_integrations.training import FOUND
from deepmem_integrations.words import Filter, Found, LexicalSearch, search_name, search_words

AROUND = 20
"""How many nearest documents of each training query are taken from a corpus that cannot be listed."""


@dataclass(frozen=True)
class RecordedSearch:
    """A search by words that gives back what another search found, so that a training in another process can use it.

    Attributes:
        name: The name of the search: see `search_name`.
        results: Text → ids and scores, best first.
    """

    name: str
    results: Mapping[str, tuple[Sequence[str], Sequence[float]]]

    def search(self, text: str, k: int, filter: Filter | None = None) -> Found:
        """Return the k best documents that were found for a text."""
        if text not in self.results:  # without the text, which a user may have asked
            raise StoreError("A query of the training has no recorded search by words: its inputs are damaged. Train again.")
        ids, scores = self.results[text]
        return Found(list(ids[:k]), np.array(scores[:k], dtype=np.float32))


@dataclass(frozen=True)
class TrainingInputs:
    """The arguments of `train_adapter`, and what the file of the model records about them.

    Attributes:
        labels: The labelled queries.
        queries: (n, d) float32 unit rows, the vectors of the labelled queries.
        corpus_ids: The N document ids; None of a corpus in shards.
        corpus: (N, d) float32 unit rows, memory-mapped; or a corpus in shards, which is read where it lies.
        shape: The number of documents, and the dimension.
        validation: The vectors and labels of the queries to choose by, or None.
        held_out: The vectors and labels of queries that no training has, to compare models on, or None.
        fingerprint: The fingerprint of the embedding model.
        data: The fingerprints of the labels and of the corpus: see `ModelInfo`. The training itself finds that of a corpus in
            shards.
        words: What a search by words of the caller's own finds for the queries; None where there is no such search.
        parents: Document id → parent, where the labels name parents; None where they name documents.
        options: ``max_unseen_loss``, ``seed``, ``keep_texts``, ``change_embedding``, ``documents`` (see `Sketch`), ``id_key``,
            ``labels`` (see `labels_sketch`), ``in_use``, ``by``, ``on`` and ``resumable`` (see `DeepMemory.train`), and
            ``index_words``, which says whether the word index in the folder of models takes part.
    """

    labels: Relevance
    queries: Vectors
    corpus_ids: list[str] | None
    corpus: Vectors | ShardedCorpus
    shape: tuple[int, int]
    validation: tuple[Vectors, Relevance] | None
    held_out: tuple[Vectors, Relevance] | None
    fingerprint: Fingerprint
    data: dict[str, str]
    words: "RecordedSearch | None"
    parents: dict[str, str] | None
    options: dict[str, Any]


def write_inputs(
    folder: Path,
    corpus: Corpus,
    labels: Relevance,
    validation: Relevance | None,
    embedder: Embedder,
    options: Mapping[str, Any],
    words: LexicalSearch | None = None,
    held_out: Relevance | None = None,
    on_invalid: OnInvalid = "raise",
) -> None:
    """Gather everything that a training needs, and write it to files.

    The labels are checked as soon as the documents are known. For a corpus that can be listed, this is before the queries are
    embedded, which may cost money.

    Args:
        folder: The folder to write the files to. It is made if needed.
        corpus: The store's documents.
        labels: The labelled queries.
        validation: Labelled queries to choose by, or None.
        embedder: The embedding model of the store.
        options: The options of the training: see `TrainingInputs`.
        words: A search by words of the caller's own, whose results for the queries are written down.
        held_out: Labelled queries that the training does not have, to compare models on, or None.
        on_invalid: ``"drop"`` leaves out judgements of documents that are not in the corpus: see `Relevance.check`.

    Raises:
        InvalidRelevanceError: A judgement names a document that is not in the corpus, or none names one that is.
        InvalidVectorsError: A vector cannot be used: see `unit_batches`.
        EmbeddingMismatchError: The vectors of the embedding model and of the corpus differ in dimension.
        StoreError: The store cannot be read.
        StorageError: A file cannot be written, or the disk is full.
    """
    embedded: dict[str, Vectors] = {}

    def vectors(some: Relevance, what: str = "queries") -> Vectors:
        """Embed the queries, each text once, before and after labels are dropped."""
        new = [text for text in dict.fromkeys(some.queries) if text not in embedded]
        if new:
            embedded.update(zip(new, embedder.embed_queries(new, progress=f"Embedding {what}"), strict=True))
        return np.stack([embedded[text] for text in some.queries])

    def searched() -> Vectors:
        return np.concatenate([vectors(some) for some in (labels, held_out) if some])

    named = labels.document_ids.union(*(some.document_ids for some in (validation, held_out) if some))
    levelled = CorpusAtLevel(corpus, labels.level)
    ids: Collection[str]
    if (shards := in_shards(corpus) if levelled.parent_of is None else None) is not None:
        ids, dimension = shards.known(named), shards.dimension
        make_private_folder(folder)
        corpus_json = {"kind": shards.kind, "arguments": shards.to_json(), "shape": [len(shards), dimension]}
        try:
            _write_json(folder, "corpus", corpus_json)
        except TypeError as error:
            raise StoreError(
                f"The storage options of {shards!r} cannot be passed to the process that trains ({error}): give keys and texts, "
                "or leave the credentials to the environment of the machine."
            ) from None
    else:
        ids, dimension = _write_corpus(folder, levelled.around(searched, AROUND, named))
    if levelled.parent_of is not None:
        _write_json(folder, "parents", levelled.parent_of)
        ids = list(Parents.of(levelled.parent_of, list(ids)).names)
    labels = labels.check(ids, on_invalid=on_invalid)
    if not len(labels):
        raise InvalidRelevanceError("No judged document is in the store, so there is nothing to learn from.")
    validation, held_out = (some and some.check(ids, on_invalid=on_invalid) for some in (validation, held_out))
    if validation is not None and not len(validation):
        raise InvalidRelevanceError("No document that the validation queries ask for is in the store: leave validation out.")
    fingerprint = embedder.fingerprint()
    if fingerprint.dimension != dimension:
        raise EmbeddingMismatchError(
            f"The embedding model {fingerprint.model or ''} gives {fingerprint.dimension} dimensions where {dimension} "
            "are expected: the store was filled with another model."
        )
    _write_labelled(folder, "queries", labels, unit_rows(vectors(labels), "query vector", dimension=dimension))
    for name, some in (("validation", validation), ("held_out", held_out)):
        if some:
            what = name.replace("_", "-")
            rows = unit_rows(vectors(some, f"{what} queries"), f"{what} query vector", dimension=dimension)
            _write_labelled(folder, name, some, rows)
    if words is not None:
        texts = dict.fromkeys(text for some in (labels, validation, held_out) if some for text in some.queries)
        results = {}
        for text in tqdm(texts, desc="Searching by words", unit="query", delay=1):
            found = search_words(words, text, FOUND)
            results[text] = (found.ids, found.scores.tolist())
        _write_json(folder, "words", {"name": search_name(words), "results": results})
    probes = None if fingerprint.probes is None else fingerprint.probes.tolist()
    # This file comes last: see `are_complete`.
    _write_json(folder, "options", {"model": fingerprint.model, "probes": probes, "options": dict(options)})


def are_complete(folder: Path) -> bool:
    """Tell whether all inputs of a training are there, and may be kept for `DeepMemory.resume`.

    Inputs that are there and cannot be read now count as complete: they may belong to another user, or the disk may be back in a
    moment, and what does not count is deleted.
    """
    try:
        return bool(_read_json(folder, "options")["options"]["resumable"])
    except StorageError as error:
        return not is_missing(error) and not isinstance(error.__cause__, ValueError)  # which says that the file is damaged
    except (LookupError, TypeError):
        return False


def train_on(folder: Path, on: str) -> None:
    """Say on which Ray cluster a training runs whose inputs are written.

    Raises:
        StorageError: The inputs cannot be read or written.
    """
    known = _read_json(folder, "options")
    known["options"]["on"] = on
    _write_json(folder, "options", known)


def read_inputs(folder: Path) -> TrainingInputs:
    """Read the inputs that `write_inputs` wrote.

    Raises:
        StorageError: A file is missing or damaged.
    """
    corpus, options = _read_json(folder, "corpus"), _read_json(folder, "options")
    stays = "kind" in corpus
    stored = None if stays else _read_vectors(folder, "corpus")
    documents, dimension = corpus["shape"] if stored is None else stored.shape
    probes = None if options["probes"] is None else np.array(options["probes"], dtype=np.float32)
    labels, queries = _read_labelled(folder, "queries")
    return TrainingInputs(
        labels=labels,
        queries=queries,
        corpus_ids=corpus.get("ids"),
        corpus=open_shards(corpus["kind"], corpus["arguments"]) if stored is None else stored,
        shape=(documents, dimension),
        validation=_read_labelled(folder, "validation")[::-1] if (folder / "validation.json").exists() else None,
        held_out=_read_labelled(folder, "held_out")[::-1] if (folder / "held_out.json").exists() else None,
        fingerprint=Fingerprint(dimension, options["model"], probes),
        data={"queries": fingerprint_of(labels), **({} if stays else {"corpus": corpus["digest"]})},
        parents=_read_json(folder, "parents") if (folder / "parents.json").exists() else None,
        words=RecordedSearch(**_read_json(folder, "words")) if (folder / "words.json").exists() else None,
        options=options["options"],
    )


def _write_corpus(folder: Path, batches: Iterable[Batch]) -> tuple[list[str], int]:
    """Write ids and vectors, batch by batch, and return the ids and the dimension."""
    ids: list[str] = []
    total = dimension = 0

    def parts() -> Iterator[Vectors]:
        nonlocal total, dimension
        for names, vectors in unit_batches(batches):
            ids.extend(names)
            bar.update(len(names))
            total += digest(names, vectors)
            dimension = vectors.shape[1]
            yield vectors

    with tqdm(desc="Reading documents", unit="document", delay=1) as bar:
        _write_vectors(folder, "corpus", parts())
    _write_json(folder, "corpus", {"ids": ids, "digest": hexadecimal(total)})
    return ids, dimension


def _write_labelled(folder: Path, name: str, labels: Relevance, vectors: Vectors) -> None:
    _write_vectors(folder, name, [vectors])
    columns = {
        "queries": labels.queries,
        "relevance": labels.relevance,
        "query_ids": labels.query_ids,
        "generated": labels.generated,
        "times": [time and time.isoformat() for time in labels.times],
        "judges": labels.judges,
        "shown": labels.shown,
        "level": labels.level,
    }
    _write_json(folder, name, columns)


def _read_labelled(folder: Path, name: str) -> tuple[Relevance, Vectors]:
    columns = _read_json(folder, name)
    labels = Relevance(
        columns["queries"],
        columns["relevance"],
        columns["query_ids"],
        generated=columns["generated"],
        times=columns.get("times"),  # inputs that version 0.1.0 wrote have neither times nor judges
        judges=columns.get("judges"),
        shown=columns.get("shown"),
        level=columns.get("level"),
    )
    return labels, _read_vectors(folder, name)


def _write_vectors(folder: Path, name: str, parts: Iterable[Vectors]) -> None:
    """Write rows as they come. Errors of the file become a StorageError; errors that the parts raise stay as they are."""
    path, rows, dimension = folder / f"{name}.npy", 0, 0
    with _writing(path):
        make_private_folder(folder)
        file = open(path, "wb", opener=private_opener)
    try:
        for vectors in parts:
            with _writing(path):
                if not rows:
                    dimension = vectors.shape[1]
                    _write_header(file, 0, dimension)
                file.write(np.ascontiguousarray(vectors, dtype="<f4").data)
            rows += len(vectors)
        with _writing(path):
            file.seek(0)
            _write_header(file, rows, dimension)
            file.flush()
    finally:
        with contextlib.suppress(OSError):
            file.close()


def _read_vectors(folder: Path, name: str) -> Vectors:
    path = folder / f"{name}.npy"
    try:
        open_regular(path).close()
        vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:  # which advises to unpickle what is no array
        raise StorageError(f"{path} is damaged: start the training again.") from error
    return vectors


def _write_json(folder: Path, name: str, value: Any) -> None:
    write_text(folder / f"{name}.json", json.dumps(value), private=True)


def _read_json(folder: Path, name: str) -> Any:
    return read_json(folder / f"{name}.json", MOST_TEXT)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror or error}.") from error


def _write_header(file: Any, rows: int, columns: int) -> None:
    """Write the ``.npy`` header with room for any number of rows, so that the header can be written again in place."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)})


def fingerprint_of(labels: Relevance) -> str:
    """Return a fingerprint of texts and judgements, the same for the same queries in any order."""
    rows = zip(labels.queries, labels.relevance, strict=True)
    total = sum(_number(json.dumps([query, sorted(judged)]).encode()) for query, judged in rows)
    return hexadecimal(total)


def hexadecimal(digest: int) -> str:
    """Write the sum of the hashes of documents, or of queries, as a fingerprint of 16 digits."""
    return f"{digest % 2**64:016x}"


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8])
