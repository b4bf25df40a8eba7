"""What all methods of a `DeepMemory` build on: a corpus, an embedding model, and a folder of jobs and models."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.corpora import Corpus, DeepLakeCorpus, check_metric
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import StorageError
from deepmem_integrations.jobs import JobFolder
from deepmem_integrations.models import ModelFolder, check_outside
from deepmem_integrations.serving import ServedAdapter
from deepmem_integrations.store_sample import StoreSearch
from deepmem_integrations.words import LexicalSearch


class MemoryBase:
    """Holds the parts of a `DeepMemory`: see there."""

    def __init__(
        self,
        corpus: Corpus,
        embedding: Any,
        path: str | os.PathLike[str],
        *,
        id_key: str | None = None,
        metric: str | None = None,
        store_search: StoreSearch | None = None,
    ) -> None:
        if isinstance(corpus, DeepLakeCorpus):
            check_outside(path, corpus.store.path)
            store_search = store_search or corpus.search_ids
        self.corpus = corpus
        self.id_key = id_key
        self.metric = check_metric(metric)
        self.embedder = Embedder.of(embedding)
        self.folder = ModelFolder(path)
        self.jobs = JobFolder(self.folder)
        with contextlib.suppress(StorageError):  # where nothing can be deleted, the memory serves all the same
            self.jobs.sweep()
        self.served = ServedAdapter(
            self.folder, untrained="error"
        )  # with self in it, a circle of references would keep stores open
        self._lexical_search: LexicalSearch | None = None
        self._store_search = store_search

    @property
    def lexical_search(self) -> LexicalSearch | None:
        """The search by words that retrievers with this memory use: the word index in the folder, or one that was set here.

        Raises:
            StorageError: The word index is damaged.
        """
        return self._lexical_search or self.folder.lexical_search

    @lexical_search.setter
    def lexical_search(self, search: LexicalSearch | None) -> None:
        self._lexical_search = search

    @property
    def adapter(self) -> QueryAdapter:
        """The model in use, which is read again when another model is put in use.

        Raises:
            ModelNotFoundError: There is no model yet; the message says how to train one.
            AdapterFileError: The model's file is damaged.
        """
        return self.served.adapter

    def transform(self, vectors: ArrayLike) -> Vectors:
        """Transform query vectors with the model in use: see `QueryAdapter.transform`.

        Args:
            vectors: (d,) or (n, d), query vectors of the store's embedding model.

        Raises:
            ModelNotFoundError: There is no model yet.
            EmbeddingMismatchError: The model was trained with another embedding model. The first check embeds a few texts.
        """
        return self.served.apply(vectors, self.embedder)

    def _embedder(self, embedding_function: Callable[[list[str]], ArrayLike] | None) -> Embedder:
        return self.embedder if embedding_function is None else Embedder(embedding_function)

    def __repr__(self) -> str:
        """Show the folder and the model in use in one line."""
        return f"DeepMemory({str(self.folder.path)!r}, model={self.folder.in_use_name()!r})"
