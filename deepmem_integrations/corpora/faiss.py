"""`FaissFolder`, a FAISS index with its texts as LangChain's ``FAISS.save_local`` writes them, read without LangChain."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepmem_integrations._extras import require
from deepmem_integrations._files import MOST_TEXT, open_regular, read_bytes
from deepmem_integrations._pickles import DOCUMENTS, read_records
from deepmem_integrations.corpora.corpus import Batch
from deepmem_integrations.corpora.stores import StoreCorpus, batches, faiss_metric, faiss_vectors
from deepmem_integrations.deeplake import StoredDocument
from deepmem_integrations.errors import DeepMemoryError, StoreError


class FaissFolder:
    """A FAISS index and the documents of its rows, which are only read.

    Args:
        folder: The folder with ``index.faiss`` and ``index.pkl``. No code of the pickle is run.

    Attributes:
        index: The index.
        ids: The id of the document of each row.

    Raises:
        StoreError: The folder has no such files, or the pickle holds anything but documents with plain metadata.
        MissingExtraError: faiss is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        faiss = require("faiss", distribution="faiss-cpu")
        files = Path(folder, "index.faiss"), Path(folder, "index.pkl")
        if not all(file.is_file() for file in files):
            raise StoreError(f"{str(folder)!r} has no index.faiss and index.pkl, which FAISS.save_local of LangChain writes.")
        self._stored, self.ids = _documents(files[1])
        open_regular(files[0]).close()
        self.index: Any = faiss.read_index(str(files[0]))
        if self.index.ntotal != len(self.ids):
            raise StoreError(
                f"index.faiss of {str(folder)!r} has {self.index.ntotal} vectors and index.pkl {len(self.ids)} ids: the files do "
                "not belong together. Save the store again."
            )

    def get(self, ids: Iterable[str]) -> list[StoredDocument]:
        """Return the documents with these ids; unknown ids are left out."""
        return [StoredDocument(name, *self._stored[name]) for name in ids if name in self._stored]

    def search(self, vector: ArrayLike, k: int, *, scored: bool = True) -> list[StoredDocument]:
        """Return the documents nearest to a vector, best first.

        Args:
            vector: (d,) of any length but 0.
            k: How many documents to find.
            scored: Whether the documents come with their cosine similarities as scores.

        Raises:
            StoreError: Scores are wanted, and the lengths of the vectors change the ranking: see `StoreCorpus.vectors`.
        """
        query = np.asarray(vector, dtype=np.float32)
        found, rows = self.index.search(query[None], k)
        measure = FaissFolderCorpus(self).measure() if scored else None
        cosines = [None] * k if measure is None else measure.cosines(found[0], float(np.linalg.norm(query))).tolist()
        names = [(self.ids[row], cosine) for row, cosine in zip(rows[0], cosines, strict=True) if row >= 0]  # -1 fills up
        return [StoredDocument(name, *self._stored[name], score=cosine) for name, cosine in names]


class FaissFolderCorpus(StoreCorpus):
    """The documents of a `FaissFolder`, whose index must be able to give its vectors back."""

    kind = "deepmem_integrations.FaissFolder"

    @property
    def metric(self) -> str:
        return faiss_metric(self.store.index)

    def read_vectors(self) -> Iterator[Batch]:
        for rows in batches(range(len(self.store.ids))):
            vectors = faiss_vectors(self.store.index, rows[0], len(rows), "write the store with an index that does.")
            yield self.store.ids[rows[0] : rows[-1] + 1], vectors

    def read_documents(self) -> Iterator[Sequence[StoredDocument]]:
        for names in batches(self.store.ids):
            yield self.store.get(names)


def _documents(path: Path) -> tuple[dict[str, tuple[str, dict[str, Any]]], list[str]]:
    """Return id → (text, metadata) of all documents, and the id of each row of the index."""
    try:
        docstore, rows = read_records(read_bytes(path, MOST_TEXT), DOCUMENTS, path.name)
        held = docstore.fields["_dict"]
        documents = [(str(rows[row]), held[rows[row]].fields) for row in range(len(rows))]
        return {name: (one["page_content"], dict(one["metadata"])) for name, one in documents}, [name for name, _ in documents]
    except DeepMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        wrong = f"{type(error).__name__}: {error}"
        raise StoreError(f"{path.name} does not hold the documents of a FAISS store ({wrong}). Save the store again.") from error
