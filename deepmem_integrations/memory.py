"""`DeepMemory`: a store, an embedding model and a folder of trained models, with Deep Lake v3's verbs."""

import contextlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from deepmem_integrations._extras import require
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.corpus import Corpus, read_corpus
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import InvalidRelevanceError, ModelNotFoundError, StorageError, StoreError
from deepmem_integrations.evaluation import TOP_K, WITH, WITHOUT, Evaluation, evaluate
from deepmem_integrations.jobs import JobStatus, ModelFolder
from deepmem_integrations.relevance import Labels, Relevance
from deepmem_integrations.training import train_adapter

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

_logger = logging.getLogger(__name__)


class DeepMemory:
    """Train, judge and serve query transforms for one store and one embedding model.

    Safe to share between threads. A model that another thread or process puts in use is picked up by the next query.

    Args:
        corpus: The store's ids and vectors.
        embedding: The embedding model of the store: whatever `Embedder` takes.
        path: The folder for jobs and models; made when first needed.
    """

    def __init__(self, corpus: Corpus, embedding: Any, path: str | os.PathLike[str]) -> None:
        """Keep the three parts; nothing is read or written yet."""
        self.corpus = corpus
        self.embedder = Embedder.of(embedding)
        self.folder = ModelFolder(path)
        self._lock = threading.Lock()
        self._loaded: tuple[object, QueryAdapter] | None = None
        self._served = ServedAdapter(self)

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
        """Deep Memory for a Deep Lake v4 data set.

        Args:
            dataset: Its path, or an open `DeepLakeStore`.
            embedding: The embedding model of its vectors.
            path: The folder for jobs and models; for a local data set by default beside it, with ``.deepmemory`` appended.
            token: For an ``al://`` path.
            creds: For a cloud path.

        Raises:
            StoreError: The data set cannot be opened, or it is not local and ``path`` is missing.
        """
        store = dataset if isinstance(dataset, DeepLakeStore) else DeepLakeStore(dataset, token=token, creds=creds)
        return cls(store, embedding, beside(store.path) if path is None else path)

    @classmethod
    def from_langchain(cls, vectorstore: "VectorStore", path: str | os.PathLike[str] | None = None) -> "DeepMemory":
        """Deep Memory for a LangChain vector store.

        Args:
            vectorstore: One of those in `deepmem_integrations.langchain.corpus`.
            path: The folder for jobs and models; without it, a `DeepLake` store gives its own ``deep_memory``.

        Raises:
            StoreError: The store cannot be read in full, has no embedding model, or ``path`` is missing.
        """
        from deepmem_integrations.langchain.corpus import read_vectorstore
        from deepmem_integrations.langchain.vectorstores import DeepLake

        corpus, embedding = read_vectorstore(vectorstore)
        if path is None and isinstance(vectorstore, DeepLake):
            return vectorstore.deep_memory
        if path is None:
            raise StoreError(f'Say where the models live: DeepMemory.from_langchain({type(vectorstore).__name__}, path="…").')
        return cls(corpus, embedding, path)

    # ---- v3's verbs --------------------------------------------------------------------------------------------

    def train(
        self,
        queries: Sequence[str] | Relevance,
        relevance: Labels | Relevance | None = None,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        token: str | None = None,
        *,
        max_unseen_loss: float = 1.0,
        seed: int = 0,
    ) -> str:
        """Train a model on labelled queries and put it in use.

        Where the training chooses the identity, a model that is in use already stays; a warning is logged.

        Args:
            queries: The texts, or a `Relevance`.
            relevance: For each query its documents as (id, weight), weight > 0.
            embedding_function: Embeds the queries in place of the store's embedding model.
            token: Deep Lake v3 trained on its servers; there is no such server any more, and nothing to log in to.
            max_unseen_loss: See `train_adapter`.
            seed: Fixes the result.

        Returns:
            The job's id, which is the model's name too.

        Raises:
            InvalidRelevanceError: The labels cannot be used.
            StorageError: The folder cannot be written; noticed before the training.
            StoreError: The store cannot be read.
        """
        if token is not None:
            warnings.warn("token is ignored: Deep Memory trains on this machine.", UserWarning, stacklevel=2)
        require("torch", extra="train")
        labels = Relevance.of(queries, relevance)
        if not len(labels):
            raise InvalidRelevanceError("There is no labelled query to learn from.")
        job = self.folder.new_job()
        try:
            embedder = self._embedder(embedding_function)
            ids, vectors = read_corpus(self.corpus.vectors())
            labels.check(ids)
            query_vectors = embedder.embed_queries(labels.queries, progress="Embedding queries")
            with tqdm(desc="Training", unit="step", delay=1) as bar:

                def on_progress(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)
                    self.folder.save_job(replace(job, progress=done / total))

                result = train_adapter(
                    query_vectors,
                    labels,
                    vectors,
                    ids,
                    max_unseen_loss=max_unseen_loss,
                    seed=seed,
                    fingerprint=embedder.fingerprint(),
                    progress=on_progress,
                )
            self.folder.save_model(job.id, result.adapter)
            seen = result.report.seen
            self.folder.save_job(
                replace(
                    job,
                    state="completed",
                    progress=1.0,
                    seconds=time.time() - job.started,
                    recall=seen.chosen["recall@10"] if seen else None,
                    recall_gain=seen.gains["recall@10"].mean if seen else None,
                    report=result.report.to_json(),
                )
            )
            in_use = self.folder.current()
            if in_use is None or not result.adapter.is_identity:
                self.folder.set_current(job.id)
            else:
                _logger.warning(
                    "Training chose the identity (%s). The model in use stays %s; set_model(%r) would switch Deep Memory off.",
                    result.report.reason,
                    in_use,
                    job.id,
                )
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            with contextlib.suppress(StorageError):
                self.folder.save_job(replace(job, state="failed", seconds=time.time() - job.started, error=reason))
            raise
        return job.id

    def status(self, job_id: str) -> JobStatus:
        """Print v3's table of a job and return its state. Its recall is measured on held-out training queries.

        Raises:
            JobNotFoundError: No job has this id.
        """
        job = self.folder.job(job_id)
        print(job)  # noqa: T201 - as v3 did
        return job

    def evaluate(
        self,
        relevance: Labels | Relevance | None = None,
        queries: Sequence[str] | Relevance | None = None,
        embedding_function: Callable[[list[str]], ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        top_k: Sequence[int] = TOP_K,
    ) -> Evaluation:
        """Compare retrieval with and without the model in use, over the whole store, and print v3's two blocks.

        Args:
            relevance: For each query its documents as (id, weight), or a `Relevance`.
            queries: The texts.
            embedding_function: Embeds the queries in place of the store's embedding model.
            embedding: (n, d) query vectors, if they are at hand.
            top_k: The cut-offs.

        Returns:
            ``["with model"]["recall@10"]`` and the like, as fractions, with intervals in ``gains`` and a ``table()``.

        Raises:
            ModelNotFoundError: No model was trained yet.
            InvalidRelevanceError: The labels cannot be used.
            EmbeddingMismatchError: The model was trained with another embedding model.
        """
        if isinstance(relevance, Sequence) and relevance and isinstance(relevance[0], str):
            raise InvalidRelevanceError("relevance comes first, as in v3: evaluate(relevance, queries), or name both.")
        labels = Relevance.of(queries, relevance)
        embedder = self._embedder(embedding_function)
        adapter = self.adapter
        ids, vectors = read_corpus(self.corpus.vectors())
        labels.check(ids)
        if embedding is None:
            adapter.check(embedder.fingerprint())
            started = time.monotonic()
            embedding = embedder.embed_queries(labels.queries, progress="Embedding queries")
            print(f"Embedding queries took {time.monotonic() - started:.2f} seconds")  # noqa: T201 - as v3 did
        result = evaluate(embedding, labels, vectors, ids, adapter=adapter, top_k=top_k)
        for title, side in (("without", WITHOUT), ("with", WITH)):
            print(f"---- Evaluating {title} Deep Memory ----")  # noqa: T201 - as v3 did
            for k in top_k:
                print(f"Recall@{k}:\t  {100 * result[side][f'recall@{k}']:.1f}%")  # noqa: T201 - as v3 did
        return result

    def get_model(self) -> str:
        """The name of the model in use.

        Raises:
            ModelNotFoundError: There is none yet.
        """
        name = self.folder.current()
        if name is None:
            raise self._no_model()
        return name

    def set_model(self, name: str) -> None:
        """Put a model in use; queries that are already running finish with the old one.

        Raises:
            ModelNotFoundError: (a ValueError, as in v3) No model has this name.
        """
        self.folder.load_model(name)
        self.folder.set_current(name)

    # ---- serving -----------------------------------------------------------------------------------------------

    @property
    def adapter(self) -> QueryAdapter:
        """The model in use, read again when another one is put in use.

        Raises:
            ModelNotFoundError: There is none yet; the message says how to train one.
            AdapterFileError: Its file is damaged.
        """
        stamp = self.folder.current_stamp()
        if stamp is None:
            raise self._no_model()
        loaded = self._loaded
        if loaded is None or loaded[0] != stamp:
            with self._lock:
                loaded = (stamp, self.folder.load_model(self.get_model()))
                self._loaded = loaded
        return loaded[1]

    def transform(self, vectors: ArrayLike) -> Vectors:
        """Transform query vectors of the store's embedding model with the model in use: `QueryAdapter.transform`.

        Raises:
            ModelNotFoundError: There is none yet.
            EmbeddingMismatchError: It was trained with another embedding model; a few texts are embedded once to find out.
        """
        adapter = self.adapter
        self._served.check(adapter, self.embedder.model)
        return adapter.transform(vectors)

    def _embedder(self, embedding_function: Callable[[list[str]], ArrayLike] | None) -> Embedder:
        return self.embedder if embedding_function is None else Embedder(embedding_function)

    def _no_model(self) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"Deep Memory has no trained model in {self.folder.path}. Train one: deep_memory.train(queries, relevance), where "
            "relevance[i] lists the (document id, 1.0) that answer queries[i]."
        )

    def __repr__(self) -> str:
        """A line with the folder and the model in use."""
        return f"DeepMemory({str(self.folder.path)!r}, model={self.folder.current()!r})"


MemoryLike = DeepMemory | QueryAdapter | str | os.PathLike[str]
"""What is taken wherever a ``memory`` is: the facade, an adapter, or the path of an adapter file."""


class ServedAdapter:
    """The adapter behind a ``memory``, checked against the embedding model that it serves.

    Args:
        memory: A `MemoryLike`. A file is read at once.
    """

    def __init__(self, memory: MemoryLike) -> None:
        """Read the file if it is one."""
        self.memory = memory
        if isinstance(memory, DeepMemory | QueryAdapter):
            self._memory = memory
        elif isinstance(memory, str | os.PathLike):
            if os.path.isdir(memory):
                raise StoreError(f"{os.fspath(memory)!r} is a folder: pass the DeepMemory itself, or a file in its models/.")
            self._memory = QueryAdapter.load(os.fspath(memory))
        else:
            raise TypeError(
                f"memory is a DeepMemory, a QueryAdapter (of a TrainingResult: result.adapter), or the path of an adapter file; "
                f"got {type(memory).__name__}."
            )
        self._checked: tuple[QueryAdapter, Any] | None = None

    @property
    def adapter(self) -> QueryAdapter:
        """The adapter in use now."""
        return self._memory.adapter if isinstance(self._memory, DeepMemory) else self._memory

    def check(self, adapter: QueryAdapter, model: Any) -> None:
        """Refuse an embedding model that the adapter was not trained with; embeds a few texts the first time.

        Raises:
            EmbeddingMismatchError: Another model.
        """
        if self._checked is None or self._checked[0] is not adapter or self._checked[1] is not model:
            if adapter.fingerprint.probes is not None:
                same = isinstance(self._memory, DeepMemory) and self._memory.embedder.model is model
                adapter.check((self._memory.embedder if same else Embedder(model)).fingerprint())  # type: ignore[union-attr]
            self._checked = (adapter, model)


def beside(dataset_path: str) -> str:
    """The default folder for the models of a local data set.

    Raises:
        StoreError: The data set is not a local folder.
    """
    if "://" in dataset_path:
        raise StoreError(
            f"{dataset_path!r} is no local folder, so there is no place beside it for the trained models: "
            "pass the folder as path= (deep_memory_path= for the LangChain vector store)."
        )
    return dataset_path.rstrip("/\\") + ".deepmemory"
