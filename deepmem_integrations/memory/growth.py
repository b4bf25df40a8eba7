"""Let the model in use learn and forget single answers, without a training."""

import contextlib
import functools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.corpora import CorpusAtLevel, ShardedCorpus, unit_batches
from deepmem_integrations.errors import InvalidRelevanceError, StorageError
from deepmem_integrations.jobs import trainer
from deepmem_integrations.jobs.inputs import AROUND
from deepmem_integrations.labels import Documents, Labels, Parents, Relevance, find_texts
from deepmem_integrations.labels.checking import id_set
from deepmem_integrations.memory.base import MemoryBase

_logger = logging.getLogger(__name__)


class GrowthMixin(MemoryBase):
    """The methods of a `DeepMemory` that add and take out labelled queries."""

    def remember(
        self,
        queries: Relevance | Sequence[str] | None = None,
        relevance: Labels | Relevance | None = None,
        *,
        by: str | None = None,
    ) -> str:
        """Add labelled queries to the model in use, without a training, and put the new model in use.

        The attention part learns from the queries, and their answers count at once where the model ranks by answers: see
        `QueryAdapter.remember`. Where labels name parents, the answer is the document of the parent that is nearest to the query.
        A warning is logged when it is time to train again, and where the model makes no use of remembered queries yet: see
        `QueryAdapter.growth`.

        Args:
            queries: The texts of the queries, or a `Relevance` with texts and labels. The ids that a `Relevance` was given must
                be new to the model. A row number, which stands where no id was given, becomes ``added 48`` or so if the model
                has it already.
            relevance: For each query, its documents as (id, weight), weight > 0; left out with a `Relevance`.
            by: Who asks, for the audit log; by default the user of the process.

        Returns:
            The name of the new model.

        Raises:
            ModelNotFoundError: There is no model yet.
            InvalidRelevanceError: There is no query; the model remembers no queries, since an earlier version trained it; it has
                a query of the same id; or a document is not in the store.
            EmbeddingMismatchError: The model was trained with another embedding model.
        """
        labels = Relevance.of(queries, relevance)
        if not len(labels):
            raise InvalidRelevanceError("There is no labelled query to remember.")

        documents: dict[str, Vectors] = {}

        @functools.cache
        def embed() -> Vectors:
            return self.embedder.embed_queries(labels.queries, progress="Embedding queries")

        levelled = CorpusAtLevel(self.corpus, labels.level)
        if labels.level is not None:
            self.served.check(self.adapter, self.embedder)
            labels = self._named_documents(labels, levelled, embed)

        def grow(adapter: QueryAdapter) -> QueryAdapter:
            known = set(adapter.remembered_queries.document_ids) if adapter.remembered_queries else set()
            if wanted := labels.document_ids - known - documents.keys():
                documents.update(self._vectors_of(wanted, embed))
                labels.check(known | documents.keys())
            self.served.check(adapter, self.embedder)
            return adapter.remember(embed(), labels, documents, query_texts=labels.queries)

        return self._grown(grow, "remember", by, levelled.parent_of or {})

    def forget(self, *, query_ids: Iterable[str] = (), document_ids: Iterable[str] = (), by: str | None = None) -> str:
        """Take labelled queries or documents out of what the model in use remembers, and put the new model in use.

        A logged warning names the ids that the model does not know; the others are forgotten all the same. Earlier models in
        the folder keep what they hold: delete them where that matters. A training that is running, or was lost and can go on,
        keeps what it was given, and a warning names it: `cancel` it where that matters. See `QueryAdapter.forget`.

        Args:
            query_ids: Queries to forget.
            document_ids: Documents to forget, or parents, where labels named parents. A query that asked for no other document is
                forgotten, too.
            by: Who asks, for the audit log; by default the user of the process.

        Returns:
            The name of the new model; of the model in use, if there is no id at all.

        Raises:
            ModelNotFoundError: No model is in use yet.
            InvalidRelevanceError: The model remembers no queries, or knows none of the ids.
        """
        queries, documents = set(id_set(query_ids, "query_ids")), set(id_set(document_ids, "document_ids"))
        if not queries and not documents:
            _logger.warning("There are no ids to forget: none were given.")
            return self.folder.in_use()[0]
        with contextlib.suppress(StorageError):  # of a job whose file is damaged
            for job in self.jobs.all():
                if job.running or job.resumable_until is not None:
                    how = "is running" if job.running else "was lost and can go on"
                    _logger.warning(
                        "The training %s %s, and its model would remember all queries that it was given. If those to forget are "
                        "among them, end it with cancel(%r) or `deepmem cancel %s`.",
                        *(job.id, how, job.id, job.id),
                    )

        def grow(adapter: QueryAdapter) -> QueryAdapter:
            parts = {name: parent for name, parent in _parents(adapter).items() if parent in documents}
            known = adapter.remembered_queries.document_ids if adapter.remembered_queries else ()
            named = (documents - set(parts.values())) | documents.intersection(known) | parts.keys()
            return adapter.forget(query_ids=queries, document_ids=named)

        return self._grown(grow, "forget", by)

    def relabel(self, old: Documents, *, by: str | None = None) -> str:
        """Let remembered answers move to the documents that have their texts now, as after a re-chunking, without a training.

        The new model is put in use. Answers whose text is gone are forgotten, and a logged line counts them. `Relevance.relabel`
        does the same for labels, which the next training needs.

        Args:
            old: The documents as they were when the model learned them: id → text, or documents with their ids. Remembered
                documents that are not among them stay if the store still has their ids.
            by: Who asks, for the audit log; by default the user of the process.

        Returns:
            The name of the new model.

        Raises:
            ModelNotFoundError: There is no model yet.
            InvalidRelevanceError: The model remembers no queries, or an object is no document.
            StoreError: The store is searched and never read in full (``scan=False``), or cannot be read.
        """
        documents: dict[str, Vectors] = {}

        def grow(adapter: QueryAdapter) -> QueryAdapter:
            names = adapter.remembered_queries.document_ids if adapter.remembered_queries else ()
            now = ((name, text) for ids, texts in self.corpus.texts() for name, text in zip(ids, texts, strict=True))
            targets = find_texts(names, old, now)
            wanted = {new for found in targets.values() for new in found}
            nothing = np.empty((0, adapter.dimension), dtype=np.float32)  # the store is listed
            documents.update(self._vectors_of(wanted - documents.keys(), lambda: nothing))
            moved = sum(found.keys() != {name} for name, found in targets.items() if found)
            gone = sum(not found for found in targets.values())
            _logger.info("Of %d remembered documents, %d moved to others and %d are gone.", len(targets), moved, gone)
            self.served.check(adapter, self.embedder)
            return adapter.relabel(targets, documents)

        levelled = CorpusAtLevel(self.corpus, self.adapter.metadata.get("level"))
        return self._grown(grow, "relabel", by, levelled.parent_of or {})

    def prune(self, *, by: str | None = None) -> str:
        """Forget remembered answers whose documents the store no longer has, and put the new model in use: see `forget`.

        Args:
            by: Who asks, for the audit log; by default the user of the process.

        Returns:
            The name of the new model; of the model in use, if nothing is gone.

        Raises:
            ModelNotFoundError: There is no model yet.
            StoreError: The store is searched and never read in full (``scan=False``), or cannot be read.
        """
        remembered = self.adapter.remembered_queries
        gone = set(remembered.document_ids) if remembered else set()
        if gone and isinstance(self.corpus, ShardedCorpus):  # which may have no texts
            gone -= self.corpus.known(gone)
        for ids, _ in self.corpus.texts() if gone and not isinstance(self.corpus, ShardedCorpus) else ():
            gone.difference_update(ids)
        return self.forget(document_ids=gone, by=by)

    def _grown(
        self,
        grow: Callable[[QueryAdapter], QueryAdapter],
        made_by: str,
        by: str | None,
        parent_of: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Grow the model in use, and put the new model in use.

        Where another thread or process puts a model in use meanwhile, that model grows in its place, so that nothing is lost.

        Args:
            grow: The growth.
            made_by: See `trainer.publish`.
            by: Who asks.
            parent_of: Document id → parent, of documents that the growth may have brought.
        """

        def grown() -> tuple[str, QueryAdapter]:
            parent, adapter = self.folder.in_use()
            new = grow(adapter)
            if parent_of or _parents(adapter):
                new = new.with_metadata(parents=trainer.remembered_parents(new, {**_parents(adapter), **parent_of}))
            return parent, new

        parent, new = grown()
        with self.jobs.new() as running:
            while not trainer.publish(running, new, made_by=made_by, parent=parent, by=by):
                parent, new = grown()
        if new.growth is not None and new.growth.retraining_due:
            _logger.warning("%s", new.growth)
        return running.job.id

    def _named_documents(self, labels: Relevance, levelled: CorpusAtLevel, queries: Callable[[], Vectors]) -> Relevance:
        """Name documents in place of parents in some labels: see `Parents.documents`."""
        names = labels.document_ids
        ids: list[str] = []
        parts: list[Vectors] = []
        for found, vectors in unit_batches(levelled.around(queries, AROUND, names)):
            rows = [row for row, name in enumerate(found) if levelled.name_of(name) in names]
            ids += [found[row] for row in rows]
            parts.append(vectors[rows])
        parents = Parents.of(levelled.parent_of or {}, ids)
        labels.check(parents.number_of)
        return parents.documents(labels, unit_rows(queries(), "query vector"), ids, np.concatenate(parts))

    def _vectors_of(self, wanted: Collection[str], queries: Callable[[], Vectors]) -> dict[str, Vectors]:
        """Return document id → (d,) vector of those documents that the store has.

        Args:
            wanted: The ids of the documents.
            queries: A function that returns the queries that ask for them, for a store that cannot fetch documents by id.
        """
        found: dict[str, Vectors] = {}
        for ids, vectors in self.corpus.around(queries, AROUND, wanted):
            rows = [row for row, name in enumerate(ids) if name in wanted]
            found |= {ids[row]: np.asarray(vectors, dtype=np.float32)[row] for row in rows}
            if len(found) == len(wanted):
                break
        return found


def _parents(adapter: QueryAdapter) -> dict[str, str]:
    """Return document id → parent, of the remembered documents of a model whose labels named parents."""
    return dict(adapter.metadata.get("parents") or {})
