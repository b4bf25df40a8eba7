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
from deepmem_integrations.errors import (
    AdapterFileError,
    ModelNotFoundError,
    StorageError,
)
from deepmem_integrations.jobs import JobFolder
from deepmem_integrations.models import ModelFolder, check_outside
from deepmem_integrations.serving import ServedAdapter
from deepmem_integrations.store_sample import StoreSearch
from deepmem_integrations.words import LexicalSearch, search_name


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
        self.filtered = False  # whether the documents are those of the store that pass a filter
        self.embedder = Embedder.of(embedding)
        self.folder = ModelFolder(path)
        self.jobs = JobFolder(self.folder)
        with contextlib.suppress(StorageError):  # where nothing can be deleted, the memory serves all the same
            self.jobs.sweep()
        self.served = ServedAdapter(
            self.folder, untrained="error"
        )  # with self in it, a circle of references would keep stores open
        self._own_searches: dict[str, LexicalSearch] = {}
        self._store_search = store_search

    @property
    def lexical_search(self) -> LexicalSearch | None:
        """The search by words that retrievers with this memory use.

        Of the searches that were set here or given to `train`, and the word index in the folder, it is the one that the model in
        use was trained with; else the search that was set or given last, or the index.

        Raises:
            StorageError: The word index is damaged.
        """
        if not self._own_searches:
            return self.folder.lexical_search
        try:
            return self._search_for(self.served.adapter)
        except (ModelNotFoundError, AdapterFileError):
            return next(iter(self._own_searches.values()))

    @lexical_search.setter
    def lexical_search(self, search: LexicalSearch | None) -> None:
        self._own_searches = {} if search is None else {search_name(search): search}

    def _add_search(self, search: LexicalSearch) -> None:
        """Take in a search that a training was given. Retrievers use it once a model that was trained with it is in use."""
        self._own_searches = {search_name(search): search} | self._own_searches | {search_name(search): search}

    def _search_for(self, adapter: QueryAdapter) -> LexicalSearch | None:
        """Return the search by words that a model was trained with, or else the one that was set or given last, or the index.

        Raises:
            StorageError: The word index is damaged.
        """
        own, ranking = self._own_searches, adapter.ranking
        wanted = ranking.search if ranking is not None and ranking.words else None
        if wanted in own:
            return own[wanted]
        index = self.folder.lexical_search if wanted or not own else None
        if own and (index is None or search_name(index) != wanted):
            return next(iter(own.values()))
        return index

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
