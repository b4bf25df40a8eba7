"""`DeepMemory`: train, evaluate and use models for one vector store, with the methods of Deep Lake v3."""

import asyncio
import contextlib
import functools
import heapq
import logging
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from deepmem_integrations._extras import require
from deepmem_integrations._files import printable
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter import Explanation, QueryAdapter, RankedDocument, degrees, id_set
from deepmem_integrations.audit import AuditEntry, user
from deepmem_integrations.corpora import (
    Corpus,
    DeepLakeCorpus,
    Where,
    check_metric,
    id_and_text,
    parents_of,
    passes,
    read_corpus,
    unit_batches,
)
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.drift import Drift, Sketch, drift_of_index, trained_on
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import (
    AdapterFileError,
    InvalidRelevanceError,
    InvalidVectorsError,
    MissingExtraError,
    ModelNotFoundError,
    StorageError,
    StoreError,
)
from deepmem_integrations.evaluation import FETCHED, LISTED, TOP_K, WITH, WITHOUT, Evaluation, cutoffs, evaluate
from deepmem_integrations.evaluation_log import EvaluationLog
from deepmem_integrations.jobs import JobFolder, JobList, JobStatus, trainer
from deepmem_integrations.jobs.inputs import AROUND, write_inputs
from deepmem_integrations.labels import Documents, Labels, OnInvalid, Parents, Relevance, find_texts
from deepmem_integrations.models import ModelFolder, ModelInfo, beside, check_outside
from deepmem_integrations.ranking import RankedQuery, Ranker, Shortlist
from deepmem_integrations.remote import publish
from deepmem_integrations.report import CUTOFFS, ContextLength, CountTokens, EvaluationReport
from deepmem_integrations.retraining import (
    HELD_OUT,
    Due,
    InUse,
    Questions,
    Retraining,
    RetrainPolicy,
    check_in_use,
    labels_sketch,
)
from deepmem_integrations.retriever_evaluation import CONCURRENCY, AskedRetriever, IdKey, RetrieverTest, by_level, sides_of
from deepmem_integrations.serving import ServedAdapter
from deepmem_integrations.store_sample import StoreSample, StoreSearch, sample_store
from deepmem_integrations.words import LexicalSearch, Refreshed, WordIndex

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores import MetadataFilters

_logger = logging.getLogger(__name__)


@runtime_checkable
class HasDeepMemory(Protocol):
    """A vector store that comes with a Deep Memory, as both Deep Lake vector stores do."""

    @property
    def deep_memory(self) -> "DeepMemory":
        """The Deep Memory of the store."""
        ...

    @property
    def deep_memory_path(self) -> str | os.PathLike[str]:
        """The folder of the store's models."""
        ...


class DeepMemory:
    """Trains, evaluates and serves models for one vector store and its embedding model.

    A `DeepMemory` is safe to share between threads. A model that another thread or process puts in use serves the next query.
    `from_langchain`, `from_llama_index` and `from_deeplake` make one for a store.

    Args:
        corpus: The store's documents.
        embedding: The embedding model of the store, as `Embedder` takes it.
        path: The folder for jobs, models and the word index, which is made when it is first needed.
        id_key: The metadata key that names documents; None where the store's own ids do.
        metric: By what the store ranks, where it does not tell: ``"cosine"``, ``"l2"`` or ``"dot"``.
        store_search: The store's own search, from a (d,) query vector and a number k to the ids of k documents, with which
            `evaluate` compares its exact ranking. A Deep Lake data set brings its own.

    Raises:
        StoreError: The folder is a Deep Lake data set's own or lies in it, and would be deleted with the data set.

    Example:
        >>> import tempfile
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> texts, ids = [f"Document {i}" for i in range(30)], [f"doc-{i}" for i in range(30)]
        >>> store = InMemoryVectorStore.from_texts(texts, DeterministicFakeEmbedding(size=8), ids=ids)
        >>> labelled = Relevance([f"question {i}" for i in range(30)], [[(name, 1.0)] for name in ids])
        >>> train, test = labelled.split(0.2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     memory = DeepMemory.from_langchain(store, path=folder)
        ...     name = memory.train(train)
        ...     memory.get_model() == name
        ...     evaluation = memory.measure(test, top_k=[1])
        True
        >>> 0 <= evaluation["without model"]["recall@1"] <= evaluation["with model"]["recall@1"]
        True
    """

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

    @classmethod
    def from_deeplake(
        cls,
        dataset: str | os.PathLike[str] | DeepLakeStore,
        embedding: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        token: str | None = None,
        creds: Mapping[str, str] | None = None,
    ) -> "DeepMemory":
        """Make a Deep Memory for a Deep Lake v4 data set.

        Args:
            dataset: The path of the data set, or an open `DeepLakeStore`.
            embedding: The embedding model of the data set's vectors.
            path: The folder for jobs and models. By default it lies beside a local data set, with ``.deepmemory`` appended.
            token: The Activeloop token, for an ``al://`` path.
            creds: The credentials of the cloud storage, for a cloud path.

        Raises:
            StoreError: The data set cannot be opened, or the data set is not local and ``path`` is missing.
        """
        store = dataset if isinstance(dataset, DeepLakeStore) else DeepLakeStore(dataset, token=token, creds=creds)
        return cls(DeepLakeCorpus(store), embedding, beside(store.path) if path is None else path)

    @classmethod
    def from_langchain(
        cls,
        vectorstore: "VectorStore",
        path: str | os.PathLike[str] | None = None,
        *,
        documents: "Iterable[Document] | None" = None,
        scan: bool = True,
        embeddings: "Embeddings | None" = None,
        id_key: str | None = None,
        metric: str | None = None,
        filter: Any = None,
    ) -> "DeepMemory":
        """Make a Deep Memory for a LangChain vector store.

        Args:
            vectorstore: The store. `DeepLake`, ``InMemoryVectorStore``, ``FAISS``, ``Chroma``, ``QdrantVectorStore``,
                ``PGVector``, ``PGVectorStore``, ``Milvus``, ``LanceDB``, ``SQLiteVec``, ``SKLearnVectorStore`` and ``DuckDB`` are
                read as they are; any other store needs ``documents`` or ``scan=False``. docs/stores.md says what works on which.
            path: The folder for jobs and models. Without it, a `DeepLake` store returns its own ``deep_memory``.
            documents: The store's documents, with the ids that they have there. They are embedded again, and the store is not
                read.
            scan: False never reads the store in full, which suits a store with very many documents. The documents that the store
                finds for the training queries, and the labelled ones, then stand for the whole. They are embedded again.
            embeddings: The embedding model of a store that does not tell it, such as ``SQLiteVec``, ``Annoy`` and ``USearch``.
            id_key: A metadata key, such as ``"url"``, whose values name the documents everywhere in place of the store's ids: in
                labels, in `documents`, in the retriever's answers, and for words and remembered answers. The values must differ.
                Use it where a store's search returns no ids, or where other ids name documents elsewhere. The model's file keeps
                the key, so a retriever over the folder knows it.
            metric: By what the store ranks, ``"cosine"``, ``"l2"`` or ``"dot"``, where it does not tell. This matters, and is
                asked for, where the vectors differ in length.
            filter: The store's own filter, as its search takes it (for ``Milvus``, an ``expr``): the documents of one tenant.
                Reading, training, `refresh`, `drift` and `evaluate` keep to the documents that pass. Give a retriever the same
                filter in ``search_kwargs``.

        Raises:
            StoreError: The store cannot be read in full or has no embedding model, does not rank by cosine similarity although
                its vectors differ in length, a document has no id, the store has no filters, or ``path`` is missing or lies in
                the store's data set.
        """
        from deepmem_integrations.corpora.langchain import read_vectorstore, search_ids

        told = {"embeddings": embeddings, "id_key": id_key, "metric": metric, "filter": filter}
        corpus, embedding = read_vectorstore(vectorstore, documents, scan=scan, **told)
        as_it_is = documents is None and scan and all(value is None for value in told.values())
        if path is None and as_it_is and isinstance(vectorstore, HasDeepMemory):
            return vectorstore.deep_memory
        if path is None:
            raise StoreError(f'Say where the models live: DeepMemory.from_langchain({type(vectorstore).__name__}, path="…").')
        _check_outside_of(vectorstore, path)
        search = functools.partial(search_ids, vectorstore, embedding, id_key, filter)
        return cls(corpus, embedding, path, id_key=id_key, metric=metric, store_search=search)

    @classmethod
    def from_llama_index(
        cls,
        index: "VectorStoreIndex",
        path: str | os.PathLike[str] | None = None,
        *,
        nodes: "Iterable[BaseNode] | None" = None,
        embed_model: "BaseEmbedding | None" = None,
        id_key: str | None = None,
        metric: str | None = None,
        filter: "MetadataFilters | None" = None,
    ) -> "DeepMemory":
        """Make a Deep Memory for a LlamaIndex vector index.

        Args:
            index: The index, with its embedding model. Over a ``SimpleVectorStore``, `DeepLakeVectorStore`,
                ``ChromaVectorStore``, ``QdrantVectorStore``, ``PGVectorStore``, ``FaissVectorStore``, ``LanceDBVectorStore`` or
                ``MilvusVectorStore``, and over a store whose ``get_nodes()`` returns all nodes, the vectors are read as they are;
                over any other store the nodes of the index's docstore are embedded again. docs/stores.md says what works on
                which.
            path: The folder for jobs and models. A `DeepLakeVectorStore` has a default folder.
            nodes: The index's nodes. They are embedded again, and the store is not read.
            embed_model: The embedding model of the vectors, if it is not the index's own.
            id_key: A metadata key whose values name the nodes everywhere in place of the node ids: in labels, in `documents`, and
                for words and remembered answers. The values are texts, and must differ. The model's file keeps the key. The
                retriever's nodes keep their node ids, by which other parts of LlamaIndex know them.
            metric: By what the store ranks, ``"cosine"``, ``"l2"`` or ``"dot"``, where it does not tell. This matters, and is
                asked for, where the vectors differ in length.
            filter: Metadata filters, such as those of one tenant. Reading, training, `refresh`, `drift` and `evaluate` keep to
                the nodes that pass. Give a retriever the same ``filters``.

        Raises:
            StoreError: The argument is no vector index, its nodes cannot be listed, its store does not rank by cosine similarity
                although the vectors differ in length, or ``path`` is missing.
        """
        from deepmem_integrations.corpora.llama_index import read_index, search_ids

        told = {"embed_model": embed_model, "id_key": id_key, "metric": metric, "filter": filter}
        corpus, model = read_index(index, nodes, **told)  # type: ignore[arg-type]
        if path is None:
            if not isinstance(index.vector_store, HasDeepMemory):
                raise StoreError('Say where the models live: DeepMemory.from_llama_index(index, path="…").')
            path = index.vector_store.deep_memory_path
        _check_outside_of(index.vector_store, path)
        search = functools.partial(search_ids, index, id_key, filter)
        return cls(corpus, model, path, id_key=id_key, metric=metric, store_search=search)

    def documents(self) -> list[Any]:
        """Return all documents of the store with their ids, which labels name.

        Returns:
            ``Document`` objects for a LangChain vector store, nodes for a LlamaIndex index, and `deeplake.StoredDocument`
            objects for a bare data set.

        Raises:
            StoreError: The store is searched and never read in full (``scan=False``).
        """
        return [document for batch in self.corpus.documents() for document in batch]

    # ---- v3's verbs --------------------------------------------------------------------------------------------

    def train(
        self,
        queries: Sequence[str] | Relevance,
        relevance: Labels | Relevance | None = None,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        token: str | None = None,
        *,
        validation: Relevance | tuple[Sequence[str], Labels] | None = None,
        max_unseen_loss: float | None = None,
        seed: int = 0,
        keep_texts: bool = False,
        wait: bool = True,
        words: bool | LexicalSearch = True,
        change_embedding: bool = False,
        in_use: InUse = "always",
        held_out: float = HELD_OUT,
        on_invalid: OnInvalid = "raise",
        by: str | None = None,
    ) -> str:
        """Train a model on labelled queries, and put it in use.

        Labels may name parents of the store's documents: see `Relevance.level`.

        Where the training chooses the identity, a model that is in use already stays in use, and a warning is logged.

        Args:
            queries: The texts of the queries, or a `Relevance` with texts and labels.
            relevance: For each query, its documents as (id, weight), weight > 0.
            embedding_function: Embeds the queries in place of the store's embedding model.
            token: Ignored, with a warning. Deep Lake v3 trained on a server; this training runs on this machine.
            validation: Labelled queries of your own to choose by, in place of held-out training queries: a `Relevance`, or the
                pair (queries, relevance).
            max_unseen_loss: How many points the model may lose on answers that no training query asks for: see
                `train_adapter`.
            seed: Fixes the result.
            keep_texts: Whether the model keeps the texts of the queries, for `explain` to show.
            wait: Whether to wait until the training is done. A progress bar tells about how long it takes. False returns as soon
                as the vectors are gathered, and trains in a process of its own that outlives this one: see `status`, `list_jobs`
                and `cancel`.
            words: Whether a retriever may rank by the documents' words as well. The texts of a store that can be listed are
                indexed, or the index follows the store: see `refresh`. A `LexicalSearch` takes the place of the index, such as
                the store's own search by words; give the same one to the retriever.
            change_embedding: Whether the model may take the place of a model in use that belongs to another embedding model.
                Services with that embedding model would then fail on every query: train in a folder of its own instead.
            in_use: ``"if better"`` keeps a share of the questions out of this and all later trainings, and puts the model in use
                only if it is better on them than the model in use: see `deepmem_integrations.retraining.contest`. ``"never"``
                trains a model for `set_model`. The audit log has the decision, and `rollback` takes a change back.
            held_out: The share of the questions that ``"if better"`` keeps out: see `hold_out`.
            on_invalid: ``"drop"`` leaves out judgements of documents that are not in the store, with a warning that counts them.
            by: Who asks, for the audit log; by default the user of the process.

        Returns:
            The id of the job, which is also the name of the model.

        Raises:
            MissingExtraError: torch is not installed.
            InvalidRelevanceError: The labels cannot be used.
            EmbeddingMismatchError: The model in use belongs to another embedding model, or the store was filled with another.
            StorageError: The folder cannot be written, which is noticed before the training, or the disk is full. The model in
                use stays in use.
            StoreError: The store cannot be read.
            TypeError: ``words`` is neither true nor false, nor a search by words.
            JobCancelledError: Another process or thread has cancelled the job.
            JobFailedError: The training process cannot be started.
        """
        if token is not None:
            warnings.warn("token is ignored: Deep Memory trains on this machine.", UserWarning, stacklevel=2)
        require("torch", extra="train")
        labels = Relevance.of(queries, relevance)
        if not len(labels):
            raise InvalidRelevanceError("There is no labelled query to learn from.")
        if validation is not None and not isinstance(validation, Relevance):
            if not isinstance(validation, list | tuple) or len(validation) != 2:
                raise InvalidRelevanceError("validation is a Relevance, or the pair (queries, relevance).")
            validation = Relevance.of(*validation)
        if validation is not None:
            labels.check_level(validation)
        if max_unseen_loss is not None and not max_unseen_loss >= 0:
            raise ValueError(f"max_unseen_loss is a number of points, 0 or more; got {max_unseen_loss}.")
        limit = None if max_unseen_loss is None else float(max_unseen_loss)
        options: dict[str, Any] = {"max_unseen_loss": limit, "seed": int(seed), "keep_texts": bool(keep_texts)}
        check_in_use(in_use)
        options |= {"change_embedding": bool(change_embedding), "in_use": in_use, "by": by or user()}
        options["labels"] = labels_sketch(labels)
        if isinstance(words, np.bool_):
            words = bool(words)
        if not isinstance(words, bool | LexicalSearch):
            raise TypeError(f"words is True, False, or a search with search(text, k, filter); got {type(words).__name__}.")
        own = words if isinstance(words, LexicalSearch) else None
        embedder = self._embedder(embedding_function)
        if not change_embedding and self.folder.in_use_name() is not None:
            self.folder.check_embedding(embedder.fingerprint())
        tested: Relevance | None = None
        if in_use == "if better":
            with self.folder.lock():
                labels, tested, validation = self._questions.hold_out(labels, held_out, validation=validation)
            if not len(labels):
                raise InvalidRelevanceError("All of these questions are held out, so there is none to learn from: label more.")
        with self.jobs.new() as running:
            folder = self.jobs.inputs(running.job.id)
            options["index_words"] = own is None and bool(words) and self._follow()
            options["documents"] = self._sketch(options["index_words"])
            options["id_key"] = self.id_key
            write_inputs(folder, self.corpus, labels, validation or None, embedder, options, own, tested or None, on_invalid)
            self._lexical_search = own
            if not wait:
                trainer.start(running)
                return running.job.id
            trainer.train(running, bar=True)
        return running.job.id

    def retrain(
        self,
        labels: Relevance,
        *,
        policy: RetrainPolicy | None = RetrainPolicy(),  # noqa: B008 - it never changes
        in_use: InUse = "if better",
        **options: Any,
    ) -> Retraining:
        """Train again if a retraining is due, and put the new model in use if it is better: what a nightly job calls.

        Args:
            labels: All labelled queries there are, not only the new ones.
            policy: When a retraining is due; None trains in any case.
            in_use: See `train`.
            options: Passed to `train`: ``seed``, ``max_unseen_loss``, ``held_out``, ``by``, … The call waits for the training.

        Returns:
            Whether a retraining was due and why, the new model, the model in use, and the reason for the choice between the two.

        Raises:
            InvalidRelevanceError, EmbeddingMismatchError, StoreError, StorageError: See `train`.
            TypeError: ``wait`` is among the options.
        """
        if "wait" in options:
            raise TypeError("retrain waits for its training: to have it in the background, run `deepmem retrain` there.")
        if not isinstance(labels, Relevance):
            raise InvalidRelevanceError(f"retrain takes one Relevance; got {type(labels).__name__}.")
        due = Due(("asked for",)) if policy is None else self.retraining_due(labels, policy)
        if not due:
            return Retraining(due, in_use=self.folder.in_use_name())
        name = self.train(labels, in_use=in_use, **options)
        entry = next((entry for entry in reversed(self.audit()) if entry.model == name), None)
        reason, figures = (entry.reason, entry.figures) if entry is not None else ("", None)
        return Retraining(due, name, self.folder.in_use_name(), reason, figures)

    def retraining_due(self, labels: Relevance | None = None, policy: RetrainPolicy | None = None) -> Due:
        """Tell whether a retraining is due, and why. While a training is running, none is.

        Args:
            labels: All labelled queries there are; without them, those that `remember` added count.
            policy: When a retraining is due; by default as `RetrainPolicy` says.

        Raises:
            StoreError: The store cannot be read.
        """
        running = [job.id for job in self.jobs.all() if job.running]
        if running:
            return Due((), f"the training {running[0]} is running")
        return (policy or RetrainPolicy()).due(self.folder, self.corpus, labels)

    def hold_out(self, labels: Relevance, share: float = HELD_OUT) -> tuple[Relevance, Relevance]:
        """Split labelled queries as ``train(…, in_use="if better")`` does, into those that may be learned and those that may not.

        A question stays on its side whatever labels come later. Give only the first part to `remember`, and evaluate on the
        second.

        Args:
            labels: The labelled queries.
            share: The share of the questions to hold out. Questions that were drawn before stay on their side.

        Raises:
            ValueError: The share is not between 0 and 1.
            StorageError: The folder cannot be written.
        """
        with self.folder.lock():
            return self._questions.hold_out(labels, share)[:2]

    @property
    def _questions(self) -> Questions:
        return Questions(self.folder.path / "questions.json")

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

    def trainer(self, **options: Any) -> Callable[[Relevance], str]:
        """Make `train` the last step of a LangChain chain: ``(generator | memory.trainer()).invoke(memory.documents())``.

        A generator may stream its labels piece by piece. The pieces add up, and one training uses all of them.

        Args:
            options: Passed to `train`: ``seed``, ``max_unseen_loss``, …

        Returns:
            A function from a `Relevance` to the id of the job.
        """

        def train(labels: Relevance) -> str:
            if not isinstance(labels, Relevance):
                raise InvalidRelevanceError(
                    f"memory.trainer() takes a Relevance; the step before it gave {type(labels).__name__}."
                )
            return self.train(labels, **options)

        return train

    def status(self, job_id: str) -> JobStatus:
        """Print v3's table of a job, and return the state of the job.

        The recall in the table was measured on held-out training queries.

        Raises:
            JobNotFoundError: No job has this id.
            StorageError: The job's file is damaged.
        """
        job = self.jobs.job(job_id)
        print(printable(str(job)))  # noqa: T201 - as v3 did
        return job

    def list_jobs(self, debug: bool | None = None) -> JobList:
        """Print v3's table of all jobs, and return the states of the jobs, oldest first.

        Args:
            debug: Ignored, with a warning. Deep Lake v3 returned its table with ``debug=True``; ``str()`` of the result is the
                table.
        """
        if debug is not None:
            warnings.warn("debug is ignored: str(list_jobs()) is the table.", UserWarning, stacklevel=2)
        jobs = self.jobs.all()
        print(printable(str(jobs)))  # noqa: T201 - as v3 did
        return jobs

    def cancel(self, job_id: str) -> bool:
        """Stop a job that is pending or training: with ``wait=False`` it stops at once, with ``wait=True`` at its next step.

        Returns:
            Whether the job was stopped; False where it had ended already.

        Raises:
            JobNotFoundError: No job has this id.
        """
        return self.jobs.cancel(job_id)

    def delete(self, job_id: str) -> bool:
        """Delete the record of a job that has ended. The model of the job stays: see `delete_model`.

        Returns:
            True.

        Raises:
            JobNotFoundError: No job has this id.
            JobRunningError: The job is running.
        """
        return self.jobs.delete(job_id)

    def evaluate(
        self,
        relevance: Labels | Relevance | None = None,
        queries: Sequence[str] | Relevance | None = None,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        top_k: Sequence[int] = TOP_K,
        qvs_params: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
        filter: Where | None = None,
        retriever: Any = None,
        plain: Any = None,
        id_key: IdKey | None = None,
        concurrency: int = CONCURRENCY,
        on_invalid: OnInvalid = "raise",
    ) -> Evaluation:
        """Compare retrieval with and without a model, and print v3's two blocks.

        By default the whole corpus is searched exactly, by cosine similarity. Where labels name parents (`Relevance.level`),
        parents are ranked by the first of their documents. On up to 50 of the queries the store's own search by vector is asked
        as well, and a warning tells if it finds other documents, because its index is approximate or ranks by another metric: see
        `StoreSample`.

        With a ``retriever``, what users get is measured: the retriever is asked every query, with its own filter, search type
        and number of documents, and what it returns is scored. Cut-offs beyond that number score what there is.

        A warning is logged where queries took part in the training of the model, which then knows their answers.

        Args:
            relevance: For each query, its documents as (id, weight); or a `Relevance` with texts and labels.
            queries: The texts of the queries.
            embedding_function: Embeds the queries in place of the store's embedding model.
            embedding: The (n, d) query vectors, if they are at hand.
            top_k: The cut-offs.
            qvs_params: ``{"log_queries": True}`` adds the queries and the documents that they found to a Deep Lake data set, as
                v3 did: see `EvaluationLog`. ``"branch"`` names a branch of the data set.
            model: The name of a model; by default the model in use. A retriever serves the model of its own.
            filter: Which documents are searched, those of one tenant for example: the metadata that they must have, as in
                ``{"tenant": "acme", "lang": ["en", "de"]}``, where a list holds the values that are allowed; or a function from a
                document to a truth value. A retriever brings its own filter.
            retriever: A retriever, a chain that returns documents, or a query engine, of LangChain or LlamaIndex, ours or not:
                see `AskedRetriever`.
            plain: The retriever to compare with. A `DeepMemoryRetriever` is compared with itself without the model, any other
                retriever with nothing: the evaluation then has the side ``"with model"`` alone.
            id_key: The metadata key that holds the ids which the labels name, or a function from a document to its id. By default
                the level of the labels, where they name parents, the memory's own ``id_key``, or else the documents' ids.
            concurrency: How many queries the retriever is asked at a time, in threads.
            on_invalid: ``"drop"`` leaves out judgements of documents that are not in the store, with a warning that counts them.

        Returns:
            The metrics as fractions, e.g. ``evaluation["with model"]["recall@10"]`` beside ``["without model"]``. ``gains``
            holds the differences with their intervals, and ``table()`` shows everything as text.

        Raises:
            ModelNotFoundError: There is no model yet, or no model has this name.
            InvalidRelevanceError: The labels cannot be used.
            EmbeddingMismatchError: The model was trained with another embedding model.
            StoreError: No document passes the filter, or the documents cannot be listed to apply the filter. The retriever cannot
                be asked, what it returns are no documents, they have no ids, or not one of them is known to the labels or the
                corpus.
            TypeError: An option does not go with a retriever, or goes with a retriever alone.
        """
        result = self.measure(
            _labels_of(relevance, queries),
            embedding_function=embedding_function,
            embedding=embedding,
            top_k=top_k,
            qvs_params=qvs_params,
            model=model,
            filter=filter,
            retriever=retriever,
            plain=plain,
            id_key=id_key,
            concurrency=concurrency,
            on_invalid=on_invalid,
        )
        _print_blocks(result)
        return result

    async def aevaluate(
        self,
        relevance: Labels | Relevance | None = None,
        queries: Sequence[str] | Relevance | None = None,
        **options: Any,
    ) -> Evaluation:
        """Do the same as `evaluate`, without blocking the event loop. A retriever is asked by its async methods.

        Args:
            relevance: See `evaluate`.
            queries: See `evaluate`.
            options: The other options of `evaluate`, by name.
        """
        result = await self.ameasure(_labels_of(relevance, queries), **options)
        _print_blocks(result)
        return result

    def measure(
        self,
        labels: Relevance,
        *,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        top_k: Sequence[int] = TOP_K,
        qvs_params: Mapping[str, Any] | None = None,
        model: str | None = None,
        filter: Where | None = None,
        retriever: Any = None,
        plain: Any = None,
        id_key: IdKey | None = None,
        concurrency: int = CONCURRENCY,
        on_invalid: OnInvalid = "raise",
    ) -> Evaluation:
        """Compare retrieval with and without a model, as `evaluate` does, but print nothing.

        Args:
            labels: Labelled queries that took no part in the training.
            embedding_function: See `evaluate`.
            embedding: See `evaluate`.
            top_k: See `evaluate`.
            qvs_params: See `evaluate`.
            model: See `evaluate`.
            filter: See `evaluate`.
            retriever: See `evaluate`.
            plain: See `evaluate`.
            id_key: See `evaluate`.
            concurrency: See `evaluate`.
            on_invalid: See `evaluate`.

        Returns:
            See `evaluate`.

        Raises:
            ModelNotFoundError: There is no model yet, or no model has this name.
            InvalidRelevanceError: The labels cannot be used.
            EmbeddingMismatchError: The model was trained with another embedding model.
            StoreError: See `evaluate`.
            TypeError: See `evaluate`.
        """
        _check_labels(labels)
        top_k = cutoffs(top_k)
        if retriever is not None:
            if on_invalid == "drop":
                raise TypeError(
                    'on_invalid="drop" looks labels up in the store: for a retriever, drop them with Relevance.prune(ids).'
                )
            test = self._retriever_test(
                labels,
                sides_of(retriever, plain, id_key or by_level(labels.level) or self.id_key),
                top_k,
                concurrency,
                embedding_function=embedding_function,
                embedding=embedding,
                model=model,
                qvs_params=qvs_params,
                filter=filter,
            )
            return test.score(test.ask())
        if plain is not None or id_key is not None:
            raise TypeError("plain= and id_key= go with retriever=, the retriever that is asked: pass it as well.")
        log = EvaluationLog.wanted(qvs_params, self._evaluations_path())
        embedder = self._embedder(embedding_function)
        model, adapter = self.folder.in_use() if model is None else (model, self.folder.load_model(model))
        seconds: float | None = None

        @functools.cache
        def embed() -> Vectors:
            nonlocal seconds
            if embedding is not None:
                return unit_rows(embedding, "query vector")
            adapter.check(embedder.fingerprint())
            started = time.monotonic()
            vectors = embedder.embed_queries(labels.queries, progress="Embedding queries")
            seconds = time.monotonic() - started
            return vectors

        def searches() -> Vectors:
            # The documents nearest to the plain and to the transformed queries are enough: no others can be ranked first.
            return np.concatenate([embed(), adapter.transform(embed()), adapter.for_ranking().transform(embed())])

        remembered = adapter.remembered_queries
        named = labels.document_ids.union(remembered.document_ids if remembered else ())
        parent_of = None if labels.level is None else parents_of(self.corpus, labels.level)
        ids, vectors = read_corpus(self.corpus.around(searches, max(*top_k, LISTED), named))
        kept = range(len(ids)) if filter is None else self._passing(filter, ids)
        given = labels
        # Before the queries of a listed corpus are embedded, which may cost money.
        known = [ids[row] for row in kept]
        known = known if parent_of is None else list(Parents.of(parent_of, known).names)
        labels = labels.check(known, on_invalid=on_invalid)
        query_vectors = embed()
        if len(query_vectors) == len(given) > len(labels):  # they were embedded, or passed, before some were dropped
            query_vectors = query_vectors[np.isin(given.query_ids, labels.query_ids)]
        self._warn_of_known(adapter, model, query_vectors)
        sample = self._sample_store(query_vectors, labels, ids, vectors, parent_of)
        if filter is not None:
            ids, vectors = [ids[row] for row in kept], vectors[kept]
        words = self._usable_words()
        result = evaluate(
            *(query_vectors, labels, vectors, ids), adapter=adapter, top_k=top_k, words=words, corpus_parents=parent_of
        )
        result.embedding_seconds, result.store_sample = seconds, sample
        if log is not None:
            with self.folder.lock():
                log.add(labels, query_vectors, result, model)
        return result

    async def ameasure(
        self,
        labels: Relevance,
        *,
        retriever: Any = None,
        plain: Any = None,
        id_key: IdKey | None = None,
        top_k: Sequence[int] = TOP_K,
        concurrency: int = CONCURRENCY,
        **options: Any,
    ) -> Evaluation:
        """Do the same as `measure`, without blocking the event loop. A retriever is asked by its async methods.

        Args:
            labels: See `measure`.
            retriever: See `evaluate`.
            plain: See `evaluate`.
            id_key: See `evaluate`.
            top_k: See `evaluate`.
            concurrency: How many queries the retriever is asked at a time, as tasks of the event loop.
            options: The other options of `measure`.
        """
        if retriever is None:
            return await asyncio.to_thread(self.measure, labels, plain=plain, id_key=id_key, top_k=top_k, **options)
        _check_labels(labels)
        sides = sides_of(retriever, plain, id_key or by_level(labels.level) or self.id_key)
        test = await asyncio.to_thread(self._retriever_test, labels, sides, cutoffs(top_k), concurrency, **options)
        return await asyncio.to_thread(test.score, await test.aask())

    def _retriever_test(
        self,
        labels: Relevance,
        sides: Mapping[str, AskedRetriever],
        top_k: Sequence[int],
        concurrency: int,
        *,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        model: str | None = None,
        qvs_params: Mapping[str, Any] | None = None,
        filter: Where | None = None,
    ) -> RetrieverTest:
        """Prepare the test of a retriever: check the labels, and warn of queries that took part in a training."""
        _check_labels(labels)
        if filter is not None:
            raise TypeError("A retriever brings its own filter: leave filter= out, and give the filter to the retriever.")
        if model is not None:
            raise TypeError(f"A retriever serves the model of its own: leave model={model!r} out, or call set_model({model!r}).")
        if qvs_params is not None and qvs_params.get("log_queries", True):
            raise TypeError("The answers of a retriever are not logged: leave qvs_params out, or evaluate without retriever=.")
        test = RetrieverTest(labels, sides, top_k, concurrency)  # checks before the store is read and the queries are embedded
        ids: frozenset[str] | None = None
        if any(asked.id_key is not None for asked in sides.values()):
            ids = frozenset()  # the labels name something else than the corpus does
        elif self.corpus.listed:
            try:
                ids = frozenset(name for batch, _ in self.corpus.texts() for name in batch)
            except StoreError as error:  # the retriever is asked, and may read what cannot be read here
                _logger.warning("Whether the store has the labelled documents is not checked: %s", error)
        if embedding is None:
            vectors = self._embedder(embedding_function).embed_queries(labels.queries, progress="Embedding queries")
        else:
            vectors = unit_rows(embedding, "query vector")
        if self.folder.in_use_name() is not None:
            name, adapter = self.folder.in_use()
            self._warn_of_known(adapter, name, vectors)
        return replace(test, corpus_ids=ids, vectors=vectors)

    def _passing(self, filter: Where, ids: Sequence[str]) -> list[int]:
        """Return the rows of those ids whose documents pass a filter."""
        if not self.corpus.listed:
            raise StoreError(
                "filter= reads the metadata of all documents, and this store is searched and never read (scan=False). Ask a "
                "retriever that has the filter in place of that: evaluate(…, retriever=…)."
            )
        passing: set[str] = set()
        for batch in self.corpus.documents():
            named = [(document, id_and_text(document)) for document in batch]
            passing |= {str(name[0]) for document, name in named if name is not None and passes(document, filter)}
        kept = [row for row, name in enumerate(ids) if name in passing]
        if not kept:
            raise StoreError(f"Not one of the {len(ids)} documents of the store passes the filter {filter!r}.")
        return kept

    def _sample_store(
        self,
        queries: Vectors,
        labels: Relevance,
        ids: Sequence[str],
        vectors: Vectors,
        parent_of: Mapping[str, str] | None,
    ) -> StoreSample | None:
        """Compare the store's own search with the exact ranking, and warn where the two differ."""
        if self._store_search is None:
            return None
        try:
            sample = sample_store(self._store_search, queries, labels, ids, vectors, parent_of)
        except Exception as error:  # the store's own errors, of any class
            _logger.warning(
                "The store could not be asked for a comparison, so its own answers may differ from this exact ranking "
                "(%s: %s). Measure what users get with evaluate(…, retriever=…).",
                type(error).__name__,
                error,
            )
            return None
        if sample.differs:
            _logger.warning(
                "The figures below are those of an exact ranking by cosine similarity, and %s. The store's index is approximate, "
                "or ranks by another metric. Measure what users get with evaluate(…, retriever=…).",
                sample,
            )
        return sample

    def _warn_of_known(self, adapter: QueryAdapter, model: str, vectors: Vectors) -> None:
        """Warn of queries, (n, d) unit rows, that the model knows."""
        known = adapter.remembered(vectors)
        if known.any():
            _logger.warning(
                "%d of the %d queries took part in the training of %s or were added by remember, so this evaluation overrates "
                "the model: evaluate on other queries.",
                known.sum(),
                len(vectors),
                model,
            )

    def report(
        self,
        labels: Relevance,
        path: str | os.PathLike[str] | None = None,
        *,
        model: str | None = None,
        texts: bool = True,
        tokens: str | CountTokens | None = None,
        price: float | None = None,
        command: str | None = None,
    ) -> EvaluationReport:
        """Measure a model as `measure` does, and describe what it gains and loses in a page for people.

        The page is one file that loads nothing. A notebook shows it where a cell ends with the report.

        Args:
            labels: Labelled queries that took no part in the training.
            path: Where to write the report: JSON values where the name ends in ``.json``, otherwise the page.
            model: The name of a model; by default the model in use.
            texts: Whether the texts of queries and documents are in the report. Without them it has their ids.
            tokens: How to count the tokens of a context: the name of a tiktoken encoding, such as ``o200k_base``, or of a model
                that tiktoken knows, or a function of a text. tiktoken downloads an encoding when it first uses it. None counts
                characters.
            price: What a million tokens cost, in any currency. It needs ``tokens``.
            command: What made the report, for its last part.

        Raises:
            ValueError: ``price`` is negative or stands without ``tokens``, or tiktoken does not know ``tokens``.
            MissingExtraError: jinja2, or tiktoken where ``tokens`` names an encoding, is not installed.
            StorageError: The file cannot be written.
            ModelNotFoundError, InvalidRelevanceError, EmbeddingMismatchError: See `measure`.
        """
        require("jinja2", extra="train")
        count = ContextLength.of(tokens, price)
        labels = Relevance.of(labels)
        if labels.level is not None:
            raise InvalidRelevanceError(
                f"A report is of documents, and these labels name parents, by {labels.level!r}: evaluate(labels) measures them."
            )
        name = self.get_model() if model is None else model
        adapter = self.folder.load_model(name)
        adapter.check(self.embedder.fingerprint())
        vectors = self.embedder.embed_queries(labels.queries, progress="Embedding queries")
        evaluation = self.measure(labels, embedding=vectors, top_k=CUTOFFS, model=name)
        info = self.folder.info(name)
        report = EvaluationReport.of(evaluation, labels, vectors, adapter, info, self.corpus, count, texts=texts, command=command)
        if path is not None:
            report.save(path)
        return report

    def _usable_words(self) -> LexicalSearch | None:
        """Return the search by words, unless it is the word index and cannot be read."""
        try:
            search = self.lexical_search
            if isinstance(search, WordIndex):
                search.search("words", 1)
        except (StorageError, MissingExtraError) as error:
            _logger.warning("The evaluation goes on without words, as retrievers do: %s", error)
            return None
        return search

    def _evaluations_path(self) -> str:
        """Return a path beside a local Deep Lake data set, as in v3, or a path in the folder of the models for other stores."""
        if isinstance(self.corpus, DeepLakeCorpus) and "://" not in self.corpus.store.path:
            return self.corpus.store.path.rstrip("/\\") + "_eval_queries"
        return str(self.folder.path / "eval_queries")

    def get_model(self) -> str:
        """Return the name of the model in use.

        Raises:
            ModelNotFoundError: There is no model yet.
        """
        name = self.folder.in_use_name()
        if name is None:
            raise self.folder.nothing_trained()
        return name

    def set_model(self, name: str, *, change_embedding: bool = False, by: str | None = None) -> None:
        """Put a model in use. Queries that are already running finish with the old model.

        Args:
            name: The model's name.
            change_embedding: Whether the model may belong to another embedding model than the model in use, with which services
                would then fail on every query.
            by: Who asks, for the audit log; by default the user of the process.

        Raises:
            ModelNotFoundError: No model has this name. The error is a ValueError, as in v3.
            EmbeddingMismatchError: The model in use belongs to another embedding model.
        """
        self.folder.use(name, change_embedding=change_embedding, by=by)

    def rollback(self, *, change_embedding: bool = False, by: str | None = None) -> str:
        """Put the model in use that was in use before the present one. A second call goes one further back.

        Args:
            change_embedding: See `set_model`.
            by: See `set_model`.

        Returns:
            The name of the model that is in use now.

        Raises:
            ModelNotFoundError: No model was in use before, or it was deleted.
            EmbeddingMismatchError: The model before belongs to another embedding model.
        """
        return self.folder.roll_back(change_embedding=change_embedding, by=by)

    def audit(self) -> list[AuditEntry]:
        """Return who put which model in use, when and why, and which models were refused or published, oldest first.

        Raises:
            StorageError: The audit log cannot be read.
        """
        return self.folder.audit.entries()

    def list_models(self) -> list[ModelInfo]:
        """Return what is known of all models, oldest first: their reports, data and parents, and which model is in use."""
        return self.folder.list_models()

    def publish(self, url: str, *, change_embedding: bool = False, by: str | None = None, **options: Any) -> str:
        """Put the model in use and the word index into an object store. Services with ``memory=url`` have both within a minute.

        Args:
            url: Where to publish to, such as ``s3://bucket/support.deepmemory``: whatever fsspec can write.
            change_embedding: Whether the model may replace a published one that belongs to another embedding model.
            by: Who asks, for the audit log; by default the user of the process.
            options: The options of fsspec's file system. By default, the machine's own configuration holds the credentials.

        Returns:
            The name of the model.

        Raises:
            NotTrainedError: There is no model yet.
            EmbeddingMismatchError: The published model belongs to another embedding model.
            StorageError: The store cannot be written.
            MissingExtraError: fsspec, or its package for this kind of URL, is not installed.
        """
        return publish(self.folder, url, change_embedding=change_embedding, by=by, options=options)

    def delete_model(self, name: str) -> None:
        """Delete a model that is not in use. The record of its job stays.

        Raises:
            ModelNotFoundError: No model has this name.
            ModelInUseError: The model is in use: put another model in use first.
        """
        self.folder.delete_model(name)

    # ---- growing and explaining --------------------------------------------------------------------------------

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

        parent_of: dict[str, str] = {}
        if labels.level is not None:
            self.served.check(self.adapter, self.embedder)
            parent_of = parents_of(self.corpus, labels.level)
            labels = self._named_documents(labels, parent_of, embed)

        def grow(adapter: QueryAdapter) -> QueryAdapter:
            known = set(adapter.remembered_queries.document_ids) if adapter.remembered_queries else set()
            if wanted := labels.document_ids - known - documents.keys():
                documents.update(self._vectors_of(wanted, embed))
                labels.check(known | documents.keys())
            self.served.check(adapter, self.embedder)
            return adapter.remember(embed(), labels, documents, query_texts=labels.queries)

        return self._grown(grow, "remember", by, parent_of)

    def _named_documents(self, labels: Relevance, parent_of: Mapping[str, str], queries: Callable[[], Vectors]) -> Relevance:
        """Name documents in place of parents in some labels: see `Parents.documents`."""
        known = Parents.of(parent_of, [name for ids, _ in self.corpus.texts() for name in ids])
        judged = labels.check(known.number_of).document_ids
        wanted = {name for name in judged if name not in parent_of}
        wanted |= {name for name, parent in parent_of.items() if parent in judged}
        found = self._vectors_of(wanted, queries)
        ids, vectors = list(found), unit_rows(np.stack(list(found.values())), "document vector")
        return Parents.of(parent_of, ids).documents(labels, unit_rows(queries(), "query vector"), ids, vectors)

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

    def forget(self, *, query_ids: Iterable[str] = (), document_ids: Iterable[str] = (), by: str | None = None) -> str:
        """Take labelled queries or documents out of what the model in use remembers, and put the new model in use.

        A logged warning names the ids that the model does not know; the others are forgotten all the same. Earlier models in
        the folder keep what they hold: delete them where that matters. See `QueryAdapter.forget`.

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
        queries, documents = id_set(query_ids, "query_ids"), id_set(document_ids, "document_ids")
        if not queries and not documents:
            return self.folder.in_use()[0]

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

        level = self.adapter.metadata.get("level")
        return self._grown(grow, "relabel", by, {} if level is None else parents_of(self.corpus, level))

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
        for ids, _ in self.corpus.texts() if gone else ():
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

    def explain(self, query: str, top: int = 5) -> Explanation:
        """Tell what the model in use does to a query, and what vectors, words and remembered answers bring for it.

        The documents are ranked as a retriever ranks them. A corpus that can be listed is searched exactly, which reads all of
        its vectors; of any other, the documents that the store finds are embedded again. Where the store cannot be read, a
        warning says so, and the explanation names no documents.

        Args:
            query: What a user would ask.
            top: How many documents, training queries and remembered queries to name at most.

        Raises:
            ModelNotFoundError: No model is in use yet.
            EmbeddingMismatchError: The model was trained with another embedding model.
        """
        adapter = self.adapter
        self.served.check(adapter, self.embedder)
        vector = self.embedder.embed_queries([query])[0]
        explanation = adapter.explain(vector, top)
        ranked = Ranker(self).query(query, vector, adapter=adapter)
        try:
            documents = self._ranked_documents(ranked, adapter.answers(vector) if ranked.ranking.answers else (), top)
        except (StoreError, InvalidVectorsError) as error:
            _logger.warning("The explanation names no documents: %s", error)
            documents = ()
        moved = degrees(unit_rows(vector[None], "query vector"), np.array([ranked.vector], dtype=np.float32))
        return replace(explanation, ranking=str(ranked.ranking), ranking_degrees=moved, documents=documents)

    def _ranked_documents(self, query: RankedQuery, answers: Collection[str], top: int) -> tuple[RankedDocument, ...]:
        """Rank the documents of the corpus as a retriever does.

        Args:
            query: The query.
            answers: The ids of the documents that remembered queries ask for.
            top: How many documents to return at most.
        """
        vector, fetched = np.array(query.vector, dtype=np.float32), max(top, FETCHED)
        words = query.words(fetched)
        others = {*(words.ids if words else ()), *answers}
        there: set[str] = set()
        found: list[tuple[float, str]] = []
        for ids, vectors in unit_batches(self.corpus.around(lambda: vector[None], fetched, others)):
            there |= others.intersection(ids)
            found = heapq.nsmallest(fetched, [*found, *zip((-(vectors @ vector)).tolist(), ids, strict=True)])
        names, cosines = [name for _, name in found], [-distance for distance, _ in found]
        shortlist: Shortlist[str] = query.rank(names, cosines, words)
        shortlist.add(list(others), {name: name for name in there})  # the others are gone from the store
        weights = {"vector": 1.0, "words": query.ranking.words, "answers": query.ranking.answers}
        return tuple(
            RankedDocument(
                choice.id,
                choice.score,
                {name: (of.score, of.rank) for name, of in choice.evidence.items() if weights[name]},
            )
            for choice in shortlist.choices(top)
        )

    # ---- serving -----------------------------------------------------------------------------------------------

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


def _labels_of(relevance: Labels | Relevance | None, queries: Sequence[str] | Relevance | None) -> Relevance:
    """Join what v3's ``evaluate`` takes."""
    if isinstance(relevance, Sequence) and relevance and isinstance(relevance[0], str):
        raise InvalidRelevanceError(
            "relevance comes first, as in v3: evaluate(relevance, queries). Swap the two, or pass them by name."
        )
    return Relevance.of(queries, relevance)


def _parents(adapter: QueryAdapter) -> dict[str, str]:
    """Return document id → parent, of the remembered documents of a model whose labels named parents."""
    return dict(adapter.metadata.get("parents") or {})


def _check_labels(labels: Any) -> None:
    if not isinstance(labels, Relevance):
        raise InvalidRelevanceError(
            f"measure takes one Relevance; got {type(labels).__name__}. Pass Relevance(queries, relevance), or call "
            "evaluate(relevance, queries)."
        )


def _print_blocks(result: Evaluation) -> None:
    """Print v3's block for each side."""
    if result.embedding_seconds is not None:
        print(f"Embedding queries took {result.embedding_seconds:.2f} seconds")  # noqa: T201 - as v3 did
    for title, side in (("without", WITHOUT), ("with", WITH)):
        if side in result:
            print(f"---- Evaluating {title} Deep Memory ----")  # noqa: T201 - as v3 did
            for k in result.top_k:
                print(f"Recall@{k}:\t  {100 * result[side][f'recall@{k}']:.1f}%")  # noqa: T201 - as v3 did


def _check_outside_of(store: Any, path: str | os.PathLike[str]) -> None:
    """Check the folder of the models against the data set of a store, ours or another package's, even if it is never read."""
    own = getattr(store, "store", None)
    data_set = own.path if isinstance(own, DeepLakeStore) else getattr(store, "dataset_path", None)
    if isinstance(data_set, str | os.PathLike):
        check_outside(path, data_set)
