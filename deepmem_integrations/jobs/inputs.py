"""What a training needs, in files, so that it can go on in a process of its own and nothing is held in memory twice.

Vectors are ``.npy`` files, which are read memory-mapped; all else is JSON. Nothing is pickled.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepmem_integrations._files import read_text, write_text
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter import Fingerprint
from deepmem_integrations.corpora import Batch, unit_batches
from deepmem_integrations.errors import EmbeddingMismatchError, StorageError
from deepmem_integrations.labels import Relevance


@dataclass(frozen=True)
class Inputs:
    """What `train_adapter` takes, and what the model is to say of it.

    Attributes:
        labels: The labelled queries.
        queries: (n, d) float32, their vectors.
        corpus_ids: N ids.
        corpus: (N, d) float32, memory-mapped.
        validation: Vectors and labels to choose by, or None.
        fingerprint: Of the embedding model.
        data: See `ModelInfo`.
        options: ``max_unseen_loss``, ``seed``, ``keep_texts``.
    """

    labels: Relevance
    queries: Vectors
    corpus_ids: list[str]
    corpus: Vectors
    validation: tuple[Vectors, Relevance] | None
    fingerprint: Fingerprint
    data: dict[str, str]
    options: dict[str, Any]


class Spool:
    """Writes and reads the inputs of a training.

    Args:
        folder: Where; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        """Keep the folder."""
        self.folder = folder
        self._dimension: int | None = None

    def write_corpus(self, batches: Iterable[Batch]) -> list[str]:
        """Write ids and vectors, batch by batch.

        Returns:
            The ids.

        Raises:
            InvalidVectorsError: As `unit_batches` does.
            StorageError: They cannot be written, or the disk is full.
        """
        ids: list[str] = []
        total = 0

        def parts() -> Iterator[Vectors]:
            nonlocal total
            for names, vectors in unit_batches(batches):
                ids.extend(names)
                # A sum, since a store may list the same documents in another order the next time.
                for name, vector in zip(names, vectors, strict=True):
                    total += _number(name.encode("utf-8", "surrogatepass") + vector.tobytes())
                self._dimension = vectors.shape[1]
                yield vectors

        self._write_vectors("corpus", parts())
        self._write_json("corpus", {"ids": ids, "digest": f"{total % 2**64:016x}"})
        return ids

    def write_queries(self, labels: Relevance, vectors: ArrayLike) -> None:
        """Write labelled queries and their (n, d) vectors, after the corpus.

        Raises:
            InvalidVectorsError: A vector that cannot be used.
            EmbeddingMismatchError: Another dimension than the corpus has.
            StorageError: They cannot be written.
        """
        self._write_labelled("queries", labels, vectors)

    def write_validation(self, labels: Relevance, vectors: ArrayLike) -> None:
        """Write labelled queries to choose by; as `write_queries`."""
        self._write_labelled("validation", labels, vectors)

    def write_options(self, fingerprint: Fingerprint, **options: Any) -> None:
        """Write the embedding model's fingerprint and the options, after the corpus.

        Raises:
            EmbeddingMismatchError: Another dimension than the corpus has.
            StorageError: They cannot be written.
        """
        if fingerprint.dimension != self._dimension:
            raise EmbeddingMismatchError(
                f"The embedding model {fingerprint.model or ''} gives {fingerprint.dimension} dimensions where {self._dimension} "
                "are expected: the store was filled with another model."
            )
        probes = None if fingerprint.probes is None else fingerprint.probes.tolist()
        self._write_json("options", {"model": fingerprint.model, "probes": probes, "options": options})

    def read(self) -> Inputs:
        """Read all of it.

        Raises:
            StorageError: A file is missing or damaged.
        """
        corpus, options = self._read_json("corpus"), self._read_json("options")
        vectors = self._read_vectors("corpus")
        probes = None if options["probes"] is None else np.array(options["probes"], dtype=np.float32)
        labels, queries = self._read_labelled("queries")
        return Inputs(
            labels=labels,
            queries=queries,
            corpus_ids=corpus["ids"],
            corpus=vectors,
            validation=self._read_labelled("validation")[::-1] if (self.folder / "validation.json").exists() else None,
            fingerprint=Fingerprint(vectors.shape[1], options["model"], probes),
            data={"queries": _digest(labels), "corpus": corpus["digest"]},
            options=options["options"],
        )

    def _write_labelled(self, name: str, labels: Relevance, vectors: ArrayLike) -> None:
        what = "query vector" if name == "queries" else "validation query vector"
        rows = unit_rows(vectors, what, dimension=self._dimension)
        self._write_vectors(name, [rows])
        self._write_json(name, _as_json(labels))

    def _read_labelled(self, name: str) -> tuple[Relevance, Vectors]:
        value = self._read_json(name)
        labels = Relevance(value["queries"], value["relevance"], value["query_ids"], generated=value["generated"])
        return labels, self._read_vectors(name)

    def _write_vectors(self, name: str, parts: Iterable[Vectors]) -> None:
        """Write the rows as they come; only what goes wrong with the file is told as such."""
        path, rows, dimension = self.folder / f"{name}.npy", 0, 0
        with _writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "wb")
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

    def _write_json(self, name: str, value: Any) -> None:
        write_text(self.folder / f"{name}.json", json.dumps(value))

    def _read_json(self, name: str) -> Any:
        path = self.folder / f"{name}.json"
        try:
            return json.loads(read_text(path))
        except ValueError as error:
            raise StorageError(f"{path} is damaged ({error}).") from error

    def _read_vectors(self, name: str) -> Vectors:
        path = self.folder / f"{name}.npy"
        try:
            vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} cannot be read ({error}).") from error
        return vectors


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror or error}.") from error


def _digest(labels: Relevance) -> str:
    total = sum(_number(json.dumps([query, sorted(documents)]).encode()) for _, query, documents in labels)
    return f"{total % 2**64:016x}"


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8])


def _as_json(labels: Relevance) -> dict[str, Any]:
    return {
        "queries": labels.queries,
        "relevance": labels.documents,
        "query_ids": labels.query_ids,
        "generated": labels.generated,
    }


def _write_header(file: Any, rows: int, columns: int) -> None:
    """A header that leaves room for any number of rows, as NumPy writes it, so that it can be written again in place."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)})
