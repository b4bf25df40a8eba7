"""Follow a store whose documents change: the word index, and how far the documents are from those of the training."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm.auto import tqdm

from deepmem_integrations._workers import Workers
from deepmem_integrations.cluster import RayWorkers, check_address, workers_on
from deepmem_integrations.corpora import in_shards
from deepmem_integrations.drift import Drift, Sketch, drift_of_index, trained_on
from deepmem_integrations.errors import AdapterFileError, MissingExtraError, ModelNotFoundError, StorageError, StoreError
from deepmem_integrations.memory.base import MemoryBase
from deepmem_integrations.words import Documents, Refreshed, TextShard, TextShards, WordIndex

_logger = logging.getLogger(__name__)


class FreshnessMixin(MemoryBase):
    """The methods of a `DeepMemory` that follow the store."""

    def refresh(self, language: str | None = None, *, on: str | None = None) -> Refreshed:
        """Make the word index follow the store: index documents that were added or changed, and drop those that are gone.

        Documents are compared by id and by a hash of the text, so unchanged ones cost little. Retrievers, in other processes
        too, see the new index with their next query. Training calls this method itself. An index that is damaged is built anew,
        with a warning.

        Args:
            language: ISO 639-1 code of the texts, which are then indexed anew. By default the texts tell the language.
            on: The Ray cluster that reads and analyses the texts of a corpus in shards, such as a `ParquetCorpus`, with the same
                result: see `train`. By default this machine.

        Returns:
            How many documents were added, changed, deleted and left as they were.

        Raises:
            StoreError: The store is searched and never read in full (``scan=False``), or a document has no id. ``on`` is given,
                and the corpus is not in shards of texts.
            StorageError: The folder cannot be written.
            MissingExtraError: The language has a stemmer, and PyStemmer is not installed.
            JobFailedError: There is no such Ray cluster, or it lost the same shard again and again.
        """
        if on is None:
            return self._refresh(language)
        check_address(on)
        if not (shards := self._text_shards()):
            raise StoreError(
                "on= reads the texts of a corpus in shards: Parquet files, Lance or Deep Lake data sets. This store is read by "
                "this process: leave on= out."
            )
        with RayWorkers(on) as workers:
            return self._refresh(language, shards, workers)

    def _text_shards(self) -> list[TextShard]:
        """Return the shards of the corpus, if their texts can be read in any process."""
        corpus = in_shards(self.corpus)
        return [] if corpus is None else [shard for shard in corpus.shards() if isinstance(shard, TextShard)]

    def _refresh(
        self,
        language: str | None = None,
        shards: Sequence[TextShard] = (),
        workers: Workers | None = None,
        poll: Callable[[], None] = lambda: None,
    ) -> Refreshed:
        """Refresh the word index as `refresh` does.

        Args:
            language: See `refresh`.
            shards: The shards of the corpus, where workers read them.
            workers: Who reads the shards; by default this process reads the corpus.
            poll: Called for each batch of documents. An error that it raises leaves the index as it was.
        """
        folder = self.folder.words_path

        def texts() -> Iterator[tuple[list[str], list[str]]]:
            for batch in self.corpus.texts():
                poll()
                yield batch
                bar.update(len(batch[0]))

        def documents() -> Documents | TextShards:
            return texts() if workers is None else TextShards(shards, workers, bar.update)

        try:
            index = self.folder.lexical_search
            if index is not None:
                index.verify()  # a refresh would carry damage along
        except StorageError as error:
            _logger.warning("The word index is built anew: %s", error)
            index = None
        with tqdm(desc="Indexing words", unit="document", delay=1) as bar:
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

    def _follow(self, on: str | None, poll: Callable[[], None]) -> bool:
        """Refresh the word index for a training, and return whether there is one to train with.

        Args:
            on: The Ray cluster of the training, which reads the texts of a corpus in shards; None for this process.
            poll: Called again and again. An error that it raises ends the refresh.
        """
        if not self.corpus.listed:
            return False
        try:
            shards = self._text_shards() if on is not None else []
            with workers_on(on if shards else None, poll) as workers:
                self._refresh(None, shards, workers, poll)
        except (MissingExtraError, StoreError) as error:  # a store that cannot be read fails the training soon after
            _logger.warning("The training goes on without words: %s", error)
            return False
        return True
