"""Follow a store whose documents change: the word index, and how far the documents are from those of the training."""

import logging
from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm

from deepmem_integrations.drift import Drift, Sketch, drift_of_index, trained_on
from deepmem_integrations.errors import AdapterFileError, MissingExtraError, ModelNotFoundError, StorageError, StoreError
from deepmem_integrations.memory.base import MemoryBase
from deepmem_integrations.words import Refreshed, WordIndex

_logger = logging.getLogger(__name__)


class FreshnessMixin(MemoryBase):
    """The methods of a `DeepMemory` that follow the store."""

    def refresh(self, language: str | None = None) -> Refreshed:
        """Make the word index follow the store: index documents that were added or changed, and drop those that are gone.

        Documents are compared by id and by a hash of the text, so unchanged ones cost little. Retrievers, in other processes
        too, see the new index with their next query. Training calls this method itself. An index that is damaged is built anew,
        with a warning.

        Args:
            language: ISO 639-1 code of the texts, which are then indexed anew. By default the texts tell the language.

        Returns:
            How many documents were added, changed, deleted and left as they were.

        Raises:
            StoreError: The store is searched and never read in full (``scan=False``), or a document has no id.
            StorageError: The folder cannot be written.
            MissingExtraError: The language has a stemmer, and PyStemmer is not installed.
        """
        folder = self.folder.words_path

        def documents() -> Iterator[tuple[list[str], list[str]]]:
            with tqdm(desc="Indexing words", unit="document", delay=1) as bar:
                for ids, texts in self.corpus.texts():
                    yield ids, texts
                    bar.update(len(ids))

        try:
            index = self.folder.lexical_search
            if index is not None:
                index.verify()  # a refresh would carry damage along
        except StorageError as error:
            _logger.warning("The word index is built anew: %s", error)
            index = None
        if index is not None and language in (None, index.language):
            done = index.refresh(documents())
        else:
            done = Refreshed(added=len(WordIndex.build(folder, documents(), language)), changed=0, deleted=0, unchanged=0)
        self._tell_drift()
        return done

    def drift(self) -> Drift | None:
        """Tell how many documents were added, changed or deleted since the model in use was trained, and whether to train again.

        The ids and texts of the store are read, and no vectors.

        Returns:
            The drift; None where the model does not know its documents, because an earlier version trained it, or because the
            store is searched and never read in full.

        Raises:
            ModelNotFoundError: There is no model yet.
            StoreError: The store cannot be read.
        """
        before = trained_on(self.adapter.metadata)
        return before.drift(Sketch.of_texts(self.corpus.texts())) if before and self.corpus.listed else None

    def _sketch(self, indexed: bool) -> dict[str, Any] | None:
        """Return the sketch of the store's documents as JSON values: from the word index, if it has just followed the store."""
        index = self.folder.lexical_search if indexed else None
        if index is not None:
            return Sketch.of(index.documents()).to_json()
        try:
            return Sketch.of_texts(self.corpus.texts()).to_json() if self.corpus.listed else None
        except StoreError:  # the training has its own words for it
            return None

    def _tell_drift(self) -> None:
        """Log once for each model that documents have changed so much that a training is due."""
        try:
            drift = drift_of_index(self.folder)
        except (AdapterFileError, ModelNotFoundError, StorageError):
            return
        if drift is not None and drift.retraining_due and self.served.first("drift", self.folder.in_use_name()):
            _logger.warning("The model in use was %s", drift)

    def _follow(self) -> bool:
        """Refresh the word index for a training, and return whether there is one to train with."""
        if not self.corpus.listed:
            return False
        try:
            self.refresh()
        except (MissingExtraError, StoreError) as error:  # a store that cannot be read fails the training soon after
            _logger.warning("The training goes on without words: %s", error)
            return False
        return True
