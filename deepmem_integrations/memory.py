"""`DeepMemory`: train, evaluate and use models for one vector store, with the methods of Deep Lake v3."""

import functools
import logging
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from deepmem_integrations._extras import require
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter import Explanation, QueryAdapter
from deepmem_integrations.corpora import Corpus, DeepLakeCorpus, read_corpus
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import InvalidRelevanceError, StoreError
from deepmem_integrations.evaluation import LISTED, TOP_K, WITH, WITHOUT, Evaluation, evaluate
from deepmem_integrations.evaluation_log import EvaluationLog
from deepmem_integrations.jobs import JobFolder, JobList, JobStatus, trainer
from deepmem_integrations.jobs.inputs import write_inputs
from deepmem_integrations.labels import Labels, Relevance
from deepmem_integrations.models import ModelFolder, ModelInfo, beside
from deepmem_integrations.serving import ServedAdapter

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.vectorstores import VectorStore
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import BaseNode

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
    """Train, evaluate and use models for one vector store and its embedding model.

    `train` makes a model from labelled queries, and writes it to a folder. A model transforms query vectors, so that the store
    finds the right documents more often. The store itself is never changed. `evaluate` compares retrieval with and without a
    model. To search with the model in use, pass this object as ``memory=`` to the retrievers and embeddings of
    ``deepmem_integrations.langchain`` and ``deepmem_integrations.llama_index``, or call `transform` on query vectors.

    Make one with `from_langchain`, `from_llama_index` or `from_deeplake`. The object is safe to share between threads. When
    another thread or process puts a model in use, the next query uses that model.

    Args:
        corpus: The documents of the store.
        embedding: The embedding model of the store, in any form that `Embedder` takes.
        path: The folder for jobs and models. It is made when it is first needed.

    Attributes:
        corpus: The documents of the store.
        embedder: The embedding model of the store.
        folder: The models.
        jobs: The training jobs.
        served: The model in use, kept in memory for searching.

    Example:
        Train on 40 labelled queries, and measure on 20 others. The fake embedding model puts each question near the document
        with the same number, but moves all questions in one direction, which a model can learn.

        >>> import tempfile, zlib
        >>> import numpy as np
        >>> from deepmem_integrations import DeepMemory, Relevance
        >>> from deepmem_integrations.corpora import GivenCorpus
        >>> def embed(texts):
        ...     draws = [np.random.default_rng(zlib.crc32(text.split()[-1].encode())).normal(size=8) for text in texts]
        ...     return [draw + 2 * text.startswith("question") for text, draw in zip(texts, draws)]
        >>> ids, texts = [f"doc-{n}" for n in range(60)], [f"document {n}" for n in range(60)]
        >>> labels = Relevance([f"question {n}" for n in range(60)], [[(name, 1.0)] for name in ids])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     memory = DeepMemory(GivenCorpus(texts, ids, texts, embed), embed, path=folder)
        ...     job_id = memory.train(labels.take(range(40)))
        ...     evaluation = memory.measure(labels.take(range(40, 60)))
        ...     memory.get_model() == job_id
        True
        >>> evaluation["with model"]["recall@10"] > evaluation["without model"]["recall@10"]
        True
    """

    def __init__(self, corpus: Corpus, embedding: Any, path: str | os.PathLike[str]) -> None:
        self.corpus = corpus
        self.embedder = Embedder.of(embedding)
        self.folder = ModelFolder(path)
        self.jobs = JobFolder(self.folder)
        self.served = ServedAdapter(
            self.folder
        )  # does not refer to this object: in a reference cycle, stores would be closed late

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
            embedding: The embedding model that made the vectors of the data set, in any form that `Embedder` takes.
            path: The folder for jobs and models. By default the folder of a local data set is the path of the data set with
                ``.deepmemory`` appended.
            token: The token for an ``al://`` path.
            creds: The credentials for a path in a cloud.

        Raises:
            StoreError: The data set cannot be opened, or ``path`` is missing and the data set is not local.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     store = DeepLakeStore(f"{folder}/dataset")
            ...     store.add(["doc-1"], [[0.6, 0.8]], ["How to undo a commit."])
            ...     DeepMemory.from_deeplake(store, lambda texts: [[0.6, 0.8]] * len(texts))
            DeepMemory('.../dataset.deepmemory', model=None)
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
    ) -> "DeepMemory":
        """Make a Deep Memory for a LangChain vector store and its embedding model.

        Args:
            vectorstore: The store. The vectors of `DeepLake`, ``InMemoryVectorStore``, ``FAISS``, ``Chroma``,
                ``QdrantVectorStore``, ``PGVector`` and ``PGVectorStore`` are read from the store. Any other store needs one of
                the options ``documents`` and ``scan=False``.
            path: The folder for jobs and models. A `DeepLake` store needs none: without ``path`` and the options below, its own
                ``deep_memory`` is returned.
            documents: The documents of the store, with the ids that they have there. They are embedded again, and the store is
                not read.
            scan: False never reads the whole store, which suits a store of very many documents. Training and evaluation then
                take the documents that the store finds for the queries and the documents in the labels as a sample of the
                corpus, and embed them again.

        Raises:
            StoreError: The store cannot be read in full, has no embedding model, or ranks vectors of unequal length by anything
                but cosine similarity; a document has no id; or ``path`` is missing.

        Example:
            >>> from langchain_core.embeddings import DeterministicFakeEmbedding
            >>> from langchain_core.vectorstores import InMemoryVectorStore
            >>> store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
            >>> DeepMemory.from_langchain(store, path="support.deepmemory")  # the folder is made by the first training
            DeepMemory('support.deepmemory', model=None)
        """
        from deepmem_integrations.corpora.langchain import read_vectorstore

        corpus, embedding = read_vectorstore(vectorstore, documents, scan=scan)
        if path is None and documents is None and scan and isinstance(vectorstore, HasDeepMemory):
            return vectorstore.deep_memory
        if path is None:
            raise StoreError(f'Say where the models live: DeepMemory.from_langchain({type(vectorstore).__name__}, path="…").')
        return cls(corpus, embedding, path)

    @classmethod
    def from_llama_index(
        cls,
        index: "VectorStoreIndex",
        path: str | os.PathLike[str] | None = None,
        *,
        nodes: "Iterable[BaseNode] | None" = None,
    ) -> "DeepMemory":
        """Make a Deep Memory for a LlamaIndex vector index and its embedding model.

        Args:
            index: The index. If its vector store is a ``SimpleVectorStore``, `DeepLakeVectorStore`, ``ChromaVectorStore``,
                ``QdrantVectorStore``, ``PGVectorStore`` or ``FaissVectorStore``, the vectors are read from the store. For any
                other vector store, the nodes in the docstore of the index are embedded again.
            path: The folder for jobs and models. By default the folder of a `DeepLakeVectorStore`; other vector stores have
                none.
            nodes: The nodes of the index. They are embedded again, and the store is not read.

        Raises:
            StoreError: ``index`` is no vector index, its nodes cannot be listed, it ranks vectors of unequal length by anything
                but cosine similarity, or ``path`` is missing.

        Example:
            >>> from llama_index.core import MockEmbedding, VectorStoreIndex
            >>> from llama_index.core.schema import TextNode
            >>> index = VectorStoreIndex([TextNode(text="How to undo a commit.")], embed_model=MockEmbedding(embed_dim=8))
            >>> DeepMemory.from_llama_index(index, path="support.deepmemory")  # the folder is made by the first training
            DeepMemory('support.deepmemory', model=None)
        """
        from deepmem_integrations.corpora.llama_index import read_index

        corpus, embed_model = read_index(index, nodes)
        if path is None:
            if not isinstance(index.vector_store, HasDeepMemory):
                raise StoreError('Say where the models live: DeepMemory.from_llama_index(index, path="…").')
            path = index.vector_store.deep_memory_path
        return cls(corpus, embed_model, path)

    def documents(self) -> list[Any]:
        """Return all documents of the store, with the ids that labels refer to.

        Returns:
            ``Document`` objects for a LangChain vector store, nodes for a LlamaIndex index, and `deeplake.StoredDocument`
            objects for a bare data set.

        Raises:
            StoreError: The store cannot be read, or is never read in full (``scan=False``).
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
        validation: Relevance | None = None,
        max_unseen_loss: float | None = None,
        seed: int = 0,
        keep_texts: bool = False,
        wait: bool = True,
    ) -> str:
        """Train a model on labelled queries, and put it in use.

        If the training finds nothing better than the untransformed queries, it chooses the identity. A model that is already in
        use then stays in use, and a warning is logged.

        Args:
            queries: The texts of the queries, or a `Relevance` with texts and labels.
            relevance: For each query, its documents as (id, weight), weight > 0.
            embedding_function: Embeds the queries in place of the store's embedding model.
            token: Ignored, with a warning. Deep Lake v3 trained on its servers; this library trains on this machine.
            validation: Labelled queries of your own to choose by, in place of held-out training queries.
            max_unseen_loss: How many points the model may lose on answers that no training query asks for: see
                `train_adapter`.
            seed: Fixes the result.
            keep_texts: Whether the model keeps the texts of the queries, for `explain` to show.
            wait: True trains in this process, with a progress bar, and returns when the training is done. False returns as soon
                as the vectors are gathered, and trains in a separate process, which goes on when this process ends: see `status`,
                `list_jobs` and `cancel`.

        Returns:
            The id of the job, which is also the name of the model.

        Raises:
            MissingExtraError: torch is not installed.
            InvalidRelevanceError: The labels cannot be used.
            EmbeddingMismatchError: The vectors of the queries and of the store differ in dimension.
            ValueError: ``max_unseen_loss`` is below 0.
            StorageError: The folder cannot be written (the error comes before the training), or the disk is full. The model in
                use stays in use.
            StoreError: The store cannot be read.
            JobCancelledError: Another process or thread cancelled the job.
            JobFailedError: With ``wait=False``, the process cannot be started.

        Example:
            >>> import tempfile
            >>> from deepmem_integrations.corpora import GivenCorpus
            >>> def embed(texts):
            ...     return [[len(text), 1.0] for text in texts]
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     memory = DeepMemory(GivenCorpus(["?", "??"], ["doc-1", "doc-2"], ["one", "other"], embed), embed, folder)
            ...     job_id = memory.train(["which one?"], [[("doc-1", 1.0)]])  # one query is too few to learn from
            ...     memory.jobs.job(job_id).report["chosen"]
            'identity'
        """
        if token is not None:
            warnings.warn("token is ignored: Deep Memory trains on this machine.", UserWarning, stacklevel=2)
        require("torch", extra="train")
        labels = Relevance.of(queries, relevance)
        if not len(labels):
            raise InvalidRelevanceError("There is no labelled query to learn from.")
        if max_unseen_loss is not None and not max_unseen_loss >= 0:
            raise ValueError(f"max_unseen_loss is a number of points, 0 or more; got {max_unseen_loss}.")
        limit = None if max_unseen_loss is None else float(max_unseen_loss)
        options = {"max_unseen_loss": limit, "seed": int(seed), "keep_texts": bool(keep_texts)}
        with self.jobs.new() as running:
            embedder = self._embedder(embedding_function)
            write_inputs(self.jobs.inputs(running.job.id), self.corpus, labels, validation, embedder, options)
            if not wait:
                trainer.start(running)
                return running.job.id
            with tqdm(desc="Training", unit="step", delay=1) as bar:

                def show(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                trainer.train(running, show)
        return running.job.id

    def trainer(self, **options: Any) -> Callable[[Relevance], str]:
        """Return `train` as the last step of a LangChain chain.

        In ``(generator | memory.trainer()).invoke(memory.documents())``, the generator writes labelled queries and the last step
        trains on them. If the generator streams its labels piece by piece, LangChain adds the pieces up, and one training takes
        them all.

        Args:
            options: Keyword arguments of `train`: ``seed``, ``max_unseen_loss``, …

        Returns:
            A function that takes a `Relevance` and returns the id of the job.
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
        print(job)  # noqa: T201 - as v3 did
        return job

    def list_jobs(self, debug: bool | None = None) -> JobList:
        """Print v3's table of all jobs, and return the states of the jobs, oldest first.

        Args:
            debug: Ignored, with a warning. Deep Lake v3 returned the table only with ``debug=True``. Here ``str()`` of the
                returned list is the table.
        """
        if debug is not None:
            warnings.warn("debug is ignored: str(list_jobs()) is the table.", UserWarning, stacklevel=2)
        jobs = self.jobs.all()
        print(jobs)  # noqa: T201 - as v3 did
        return jobs

    def cancel(self, job_id: str) -> bool:
        """Stop a job that is pending or training.

        A job that was started with ``wait=False`` stops at once, and a job with ``wait=True`` at its next step.

        Returns:
            True if the job was stopped, and False if the job had ended already.

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
    ) -> Evaluation:
        """Compare retrieval with and without a model over the whole store, and print v3's two blocks.

        Pass queries that the model was not trained on. A warning is logged if the model remembers some of the queries from its
        training, because the model knows their answers.

        Args:
            relevance: For each query, its documents as (id, weight); or a `Relevance` with texts and labels.
            queries: The texts of the queries.
            embedding_function: Embeds the queries in place of the store's embedding model.
            embedding: (n, d), the query vectors. With these, no query is embedded.
            top_k: The cut-offs k of the metrics.
            qvs_params: ``{"log_queries": True}`` adds the queries and the documents that they found to a Deep Lake data set, as
                v3 did: see `EvaluationLog`. ``"branch"`` names a branch of the data set.
            model: The name of the model; by default the model in use.

        Returns:
            The metrics as fractions, e.g. ``evaluation["with model"]["recall@10"]`` beside ``["without model"]``. ``gains``
            holds the differences with their intervals, and ``table()`` shows everything as text.

        Raises:
            ModelNotFoundError: No model is in use yet, or no model has this name.
            InvalidRelevanceError: The labels cannot be used.
            EmbeddingMismatchError: The model was trained with another embedding model.
        """
        result = self.measure(relevance, queries, embedding_function, embedding, top_k, qvs_params, model=model)
        if result.embedding_seconds is not None:
            print(f"Embedding queries took {result.embedding_seconds:.2f} seconds")  # noqa: T201 - as v3 did
        for title, side in (("without", WITHOUT), ("with", WITH)):
            print(f"---- Evaluating {title} Deep Memory ----")  # noqa: T201 - as v3 did
            for k in top_k:
                print(f"Recall@{k}:\t  {100 * result[side][f'recall@{k}']:.1f}%")  # noqa: T201 - as v3 did
        return result

    def measure(
        self,
        relevance: Labels | Relevance | None = None,
        queries: Sequence[str] | Relevance | None = None,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        top_k: Sequence[int] = TOP_K,
        qvs_params: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
    ) -> Evaluation:
        """Compare retrieval with and without a model, as `evaluate` does, but print nothing.

        The arguments, the result and the errors are those of `evaluate`.
        """
        if isinstance(relevance, Sequence) and relevance and isinstance(relevance[0], str):
            raise InvalidRelevanceError(
                "relevance comes first, as in v3: evaluate(relevance, queries). Swap the two, or pass them by name."
            )
        labels = Relevance.of(queries, relevance)
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
            return np.concatenate([embed(), adapter.transform(embed())])

        ids, vectors = read_corpus(self.corpus.around(searches, max(*top_k, LISTED), labels.document_ids))
        labels.check(ids)  # before the queries of a listed corpus are embedded, which may cost money
        query_vectors = embed()
        remembered = adapter.remembered(query_vectors)
        if remembered.any():
            _logger.warning(
                "%d of the %d queries took part in the training of %s, so this evaluation overrates the model: "
                "evaluate on other queries.",
                remembered.sum(),
                len(labels),
                model,
            )
        result = evaluate(query_vectors, labels, vectors, ids, adapter=adapter, top_k=top_k)
        result.embedding_seconds = seconds
        if log is not None:
            with self.folder.lock():
                log.add(labels, query_vectors, result, model)
        return result

    def _evaluations_path(self) -> str:
        """Return a path beside a local Deep Lake data set, as in v3, or a path in the folder of the models for other stores."""
        if isinstance(self.corpus, DeepLakeCorpus) and "://" not in self.corpus.store.path:
            return self.corpus.store.path.rstrip("/\\") + "_eval_queries"
        return str(self.folder.path / "eval_queries")

    def get_model(self) -> str:
        """Return the name of the model in use.

        Raises:
            ModelNotFoundError: No model is in use yet.
        """
        name = self.folder.in_use_name()
        if name is None:
            raise self.folder.nothing_trained()
        return name

    def set_model(self, name: str) -> None:
        """Put a model in use. Queries that are already running finish with the model before.

        Raises:
            ModelNotFoundError: No model has this name. The error is a ValueError, as in v3.
        """
        self.folder.use(name)

    def list_models(self) -> list[ModelInfo]:
        """Return what is known of all models, oldest first: their reports, data and parents, and which model is in use."""
        return self.folder.list_models()

    def delete_model(self, name: str) -> None:
        """Delete a model that is not in use. The record of its job stays.

        Raises:
            ModelNotFoundError: No model has this name.
            ModelInUseError: The model is in use: put another one in use first.
        """
        self.folder.delete_model(name)

    # ---- growing and explaining --------------------------------------------------------------------------------

    def remember(self, relevance: Relevance) -> str:
        """Add labelled queries to a copy of the model in use, without a training, and put the new model in use.

        Only the attention part learns from the queries: see `QueryAdapter.remember`. A warning is logged when it is time to
        train again: see `QueryAdapter.growth`.

        Args:
            relevance: The labelled queries. Their ids must be new to the model.

        Returns:
            The name of the new model.

        Raises:
            ModelNotFoundError: No model is in use yet.
            InvalidRelevanceError: The model has no attention part, it knows an id already, or a document is not in the store.
        """
        parent, adapter = self.folder.in_use()
        known = set(adapter.remembered_queries.document_ids) if adapter.remembered_queries else set()
        wanted = relevance.document_ids - known
        documents: dict[str, Vectors] = {}
        if wanted:
            for ids, vectors in self.corpus.around(lambda: np.empty((0, adapter.dimension), dtype=np.float32), 1, wanted):
                rows = [row for row, name in enumerate(ids) if name in wanted]
                documents |= {ids[row]: np.asarray(vectors, dtype=np.float32)[row] for row in rows}
                if len(documents) == len(wanted):
                    break
            relevance.check(known | documents.keys())
        vectors = self.embedder.embed_queries(relevance.queries, progress="Embedding queries")
        grown = adapter.remember(vectors, relevance, documents, query_texts=relevance.queries)
        return self._grown(grown, "remember", parent)

    def forget(self, *, query_ids: Collection[str] = (), document_ids: Collection[str] = ()) -> str:
        """Remove labelled queries or documents from a copy of the model in use, and put the new model in use.

        They are removed from the attention part: see `QueryAdapter.forget`. The models before still contain them. Delete those
        models with `delete_model` if nothing may be left.

        Args:
            query_ids: The ids of queries to forget.
            document_ids: The ids of documents to forget. A query that asked for no other document is forgotten, too.

        Returns:
            The name of the new model.

        Raises:
            ModelNotFoundError: No model is in use yet.
            InvalidRelevanceError: The model has no attention part, or an id is unknown.
        """
        parent, adapter = self.folder.in_use()
        return self._grown(adapter.forget(query_ids=query_ids, document_ids=document_ids), "forget", parent)

    def _grown(self, adapter: QueryAdapter, made_by: str, parent: str) -> str:
        with self.jobs.new() as running:
            trainer.publish(running, adapter, made_by=made_by, parent=parent)
        if adapter.growth is not None and adapter.growth.retraining_due:
            _logger.warning("%s", adapter.growth)
        return running.job.id

    def explain(self, query: str, top: int = 5) -> Explanation:
        """Name the training queries that move a query: see `QueryAdapter.explain`.

        Args:
            query: The text of the query.
            top: How many training queries to name at most.

        Raises:
            ModelNotFoundError: No model is in use yet.
            EmbeddingMismatchError: The model was trained with another embedding model.
        """
        adapter = self.adapter
        self.served.check(adapter, self.embedder)
        return adapter.explain(self.embedder.embed_queries([query])[0], top)

    # ---- serving -----------------------------------------------------------------------------------------------

    @property
    def adapter(self) -> QueryAdapter:
        """The model in use. It is read again when another model is put in use.

        Raises:
            ModelNotFoundError: No model is in use yet; the message says how to train one.
            AdapterFileError: The model's file is damaged.
        """
        return self.served.adapter

    def transform(self, vectors: ArrayLike) -> Vectors:
        """Transform query vectors of the store's embedding model with the model in use: see `QueryAdapter.transform`.

        Args:
            vectors: (d,) or (n, d), any real dtype.

        Returns:
            A new float32 array in the same shape, rows of length 1.

        Raises:
            ModelNotFoundError: No model is in use yet.
            EmbeddingMismatchError: The model was trained with another embedding model. A few texts are embedded once to find
                out.
        """
        return self.served.apply(vectors, self.embedder)

    def _embedder(self, embedding_function: Callable[[list[str]], ArrayLike] | None) -> Embedder:
        return self.embedder if embedding_function is None else Embedder(embedding_function)

    def __repr__(self) -> str:
        """Show the folder and the name of the model in use."""
        return f"DeepMemory({str(self.folder.path)!r}, model={self.folder.in_use_name()!r})"
