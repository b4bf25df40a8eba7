"""`DeepMemory`: a store, an embedding model and a folder of trained models, with Deep Lake v3's verbs."""

import contextlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from deepmem_integrations._extras import require
from deepmem_integrations._vectors import Vectors, unit_rows
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.corpus import Corpus, SearchedCorpus, read_corpus
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import InvalidRelevanceError, InvalidVectorsError, ModelNotFoundError, StorageError, StoreError
from deepmem_integrations.evaluation import TOP_K, WITH, WITHOUT, Evaluation, evaluate
from deepmem_integrations.examples import Explanation
from deepmem_integrations.jobs import JobStatus, ModelFolder
from deepmem_integrations.relevance import Labels, Relevance
from deepmem_integrations.training import train_adapter

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.vectorstores import VectorStore
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import BaseNode

_logger = logging.getLogger(__name__)

_NEAR = 20
"""How many documents a corpus that can only be searched gives for each training query."""


class DeepMemory:
    """Train, judge and serve query transforms for one store and one embedding model.

    Safe to share between threads. A model that another thread or process puts in use is picked up by the next query.

    Args:
        corpus: The store's documents.
        embedding: The embedding model of the store: whatever `Embedder` takes.
        path: The folder for jobs and models; made when first needed.
    """

    def __init__(self, corpus: Corpus | SearchedCorpus, embedding: Any, path: str | os.PathLike[str]) -> None:
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
    def from_langchain(
        cls,
        vectorstore: "VectorStore",
        path: str | os.PathLike[str] | None = None,
        *,
        documents: "Iterable[Document] | None" = None,
        scan: bool = True,
    ) -> "DeepMemory":
        """Deep Memory for a LangChain vector store.

        Args:
            vectorstore: The store. `DeepLake`, ``InMemoryVectorStore``, ``FAISS``, ``Chroma``, ``QdrantVectorStore``,
                ``PGVector`` and ``PGVectorStore`` are read as they are; any other needs one of the two options below.
            path: The folder for jobs and models; without it, a `DeepLake` store gives its own ``deep_memory``.
            documents: The store's documents, with their ids there, to be embedded again instead of read from the store.
            scan: False never reads the store in full, which suits one of very many documents: the documents that it finds for
                the training queries, and those in the labels, stand for the whole. They are embedded again.

        Raises:
            StoreError: The store cannot be read in full, has no embedding model, ranks vectors of unequal length by anything
                but cosine similarity, a document has no id, or ``path`` is missing.
        """
        from deepmem_integrations.langchain.corpus import read_vectorstore
        from deepmem_integrations.langchain.vectorstores import DeepLake

        corpus, embedding = read_vectorstore(vectorstore, documents, scan=scan)
        if path is None and isinstance(vectorstore, DeepLake) and documents is None and scan:
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
        """Deep Memory for a LlamaIndex vector index.

        Args:
            index: The index, whose embedding model is taken, too. Over a ``SimpleVectorStore``, `DeepLakeVectorStore`,
                ``ChromaVectorStore``, ``QdrantVectorStore``, ``PGVectorStore`` or ``FaissVectorStore`` the vectors are read as
                they are; over any other store the nodes of the index's docstore are embedded again.
            path: The folder for jobs and models; for a `DeepLakeVectorStore` by default its own.
            nodes: The index's nodes, to be embedded again instead of read.

        Raises:
            StoreError: No vector index; its nodes cannot be listed; it ranks vectors of unequal length by anything but cosine
                similarity; or ``path`` is missing.
        """
        from deepmem_integrations.llama_index.corpus import read_index
        from deepmem_integrations.llama_index.vectorstores import DeepLakeVectorStore

        corpus, embed_model = read_index(index, nodes)
        if path is None:
            if not isinstance(index.vector_store, DeepLakeVectorStore):
                raise StoreError('Say where the models live: DeepMemory.from_llama_index(index, path="…").')
            path = index.vector_store.deep_memory_path
        return cls(corpus, embed_model, path)

    def documents(self) -> list[Any]:
        """All documents of the store with their ids: what labels are written for.

        Returns:
            LangChain ``Document`` objects for a LangChain vector store, nodes for a LlamaIndex index,
            `deeplake.StoredDocument` for a bare data set.

        Raises:
            StoreError: The store is only searched (``scan=False``), never read in full.
        """
        if isinstance(self.corpus, SearchedCorpus):
            raise StoreError("With scan=False the store's documents are not listed: bring those to write labels for yourself.")
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
    ) -> str:
        """Train a model on labelled queries and put it in use.

        Where the training chooses the identity, a model that is in use already stays; a warning is logged.

        Args:
            queries: The texts, or a `Relevance`.
            relevance: For each query its documents as (id, weight), weight > 0.
            embedding_function: Embeds the queries in place of the store's embedding model.
            token: Deep Lake v3 trained on its servers; there is no such server any more, and nothing to log in to.
            validation: Labelled queries of your own to choose by, in place of held-out training queries.
            max_unseen_loss: See `train_adapter`.
            seed: Fixes the result.
            keep_texts: Whether the model keeps the texts of the queries, for `explain` to show.

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
            ids, vectors, query_vectors = self._read(
                labels, lambda: embedder.embed_queries(labels.queries, progress="Embedding queries"), _NEAR
            )
            judges = None
            if validation is not None:
                validation.check(ids)
                judges = embedder.embed_queries(validation.queries, progress="Embedding validation queries"), validation
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
                    validation=judges,
                    max_unseen_loss=max_unseen_loss,
                    seed=seed,
                    query_texts=labels.queries if keep_texts else None,
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

    def trainer(self, **options: Any) -> Callable[[Relevance], str]:
        """`train` as the last step of a LangChain chain: ``(generator | memory.trainer()).invoke(memory.documents())``.

        Of a generator that streams its labels piece by piece, all of them are trained on, at once: a `Relevance` adds up.

        Args:
            options: For `train`: ``seed``, ``max_unseen_loss``, …

        Returns:
            A function from a `Relevance` to the job's id.
        """

        def train(labels: Relevance) -> str:
            if not isinstance(labels, Relevance):
                raise InvalidRelevanceError(
                    f"memory.trainer() takes a Relevance; the step before it gave {type(labels).__name__}."
                )
            return self.train(labels, **options)

        return train

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

        def embed() -> Vectors:
            if embedding is not None:
                return unit_rows(embedding, "query vector")
            adapter.check(embedder.fingerprint())
            started = time.monotonic()
            vectors = embedder.embed_queries(labels.queries, progress="Embedding queries")
            print(f"Embedding queries took {time.monotonic() - started:.2f} seconds")  # noqa: T201 - as v3 did
            return vectors

        ids, vectors, query_vectors = self._read(labels, embed, max(top_k), adapter)
        result = evaluate(query_vectors, labels, vectors, ids, adapter=adapter, top_k=top_k)
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

    # ---- growing and explaining --------------------------------------------------------------------------------

    def remember(self, relevance: Relevance) -> str:
        """Add labelled queries to the model in use, without a training, and put the result in use.

        Only the memory part learns: see `QueryAdapter.remember`, and `QueryAdapter.growth` for when to train again.

        Args:
            relevance: Labelled queries with ids that are new to the model.

        Returns:
            The new model's name.

        Raises:
            ModelNotFoundError: There is no model yet.
            InvalidRelevanceError: The model has no memory part, an id is known, or a document is not in the store.
        """
        adapter = self.adapter
        known = set(adapter.examples.document_ids) if adapter.examples else set()
        wanted = {name for query in relevance.documents for name, _ in query} - known
        documents: dict[str, Vectors] = {}
        if wanted:
            nothing = np.empty((0, adapter.dimension), dtype=np.float32)
            searched = isinstance(self.corpus, SearchedCorpus)
            batches = self.corpus.near(nothing, 1, wanted) if isinstance(self.corpus, SearchedCorpus) else self.corpus.vectors()
            for ids, vectors in batches:
                rows = [row for row, name in enumerate(ids) if name in wanted]
                documents |= {ids[row]: np.asarray(vectors, dtype=np.float32)[row] for row in rows}
                if len(documents) == len(wanted) and not searched:
                    break
            relevance.check(known | documents.keys())
        vectors = self.embedder.embed_queries(relevance.queries, progress="Embedding queries")
        return self._grown(adapter.remember(vectors, relevance, documents, query_texts=relevance.queries))

    def forget(self, *, query_ids: Collection[str] = (), document_ids: Collection[str] = ()) -> str:
        """Take labelled queries, or documents, out of the memory of the model in use, and put the result in use.

        The models before it keep what they knew: delete them where that matters. See `QueryAdapter.forget`.

        Returns:
            The new model's name.

        Raises:
            ModelNotFoundError: There is no model yet.
            InvalidRelevanceError: The model has no memory part, or an id is unknown.
        """
        return self._grown(self.adapter.forget(query_ids=query_ids, document_ids=document_ids))

    def _grown(self, adapter: QueryAdapter) -> str:
        job = self.folder.new_job()
        self.folder.save_model(job.id, adapter)
        self.folder.save_job(replace(job, state="completed", progress=1.0, report=adapter.metadata.get("report")))
        self.folder.set_current(job.id)
        if adapter.growth is not None and adapter.growth.retraining_due:
            _logger.warning("%s", adapter.growth)
        return job.id

    def explain(self, query: str, top: int = 5) -> Explanation:
        """Name the training queries that move a query: `QueryAdapter.explain`.

        Raises:
            ModelNotFoundError: There is no model yet.
        """
        adapter = self.adapter
        self._served.check(adapter, self.embedder.model)
        return adapter.explain(self.embedder.embed_queries([query])[0], top)

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

    def _read(
        self, labels: Relevance, embed: Callable[[], Vectors], k: int, adapter: QueryAdapter | None = None
    ) -> tuple[list[str], Vectors, Vectors]:
        """The corpus's ids and vectors, and the query vectors.

        Of a corpus that can only be searched, the k documents nearest to each query, plain and moved by ``adapter``: of an
        exact store that gives the same first k as the whole corpus would.
        """
        if isinstance(self.corpus, SearchedCorpus):
            queries = embed()
            searches = queries if adapter is None else np.concatenate([queries, adapter.transform(queries)])
            wanted = {document for row in labels.documents for document, _ in row}
            ids, vectors = read_corpus(self.corpus.near(searches, k, wanted))
            labels.check(ids)
            return ids, vectors, queries
        ids, vectors = read_corpus(self.corpus.vectors())
        labels.check(ids)  # before the queries are embedded, which may cost money
        return ids, vectors, embed()

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


class TransformedVector(list[float]):
    """A query vector that has been transformed: nothing of ours transforms it again."""


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

    @property
    def name(self) -> str:
        """What traces call it: the model in use, the file, or the adapter's parts."""
        if isinstance(self._memory, DeepMemory):
            return f"{self._memory.folder.current()} in {self._memory.folder.path}"
        return repr(self._memory) if self.memory is self._memory else os.fspath(self.memory)  # type: ignore[arg-type]

    def transform(self, vector: Sequence[float] | Vectors, model: Any = None) -> TransformedVector:
        """Transform one query vector, once: one that this gave before comes back as it is.

        Args:
            vector: (d,), any length but 0.
            model: The embedding model it comes from, to be checked; None where it is not known.

        Raises:
            EmbeddingMismatchError: Another dimension, or another model than that of the training.
            InvalidVectorsError: Not one vector of finite numbers.
        """
        if isinstance(vector, TransformedVector):
            return vector
        given = np.asarray(vector)
        if given.ndim != 1:
            raise InvalidVectorsError(f"One query vector at a time, of the shape (dimension,); got {given.shape}.")
        adapter = self.adapter  # once: the model in use may change between two looks
        if model is not None:
            self.check(adapter, model)
        return TransformedVector(adapter.transform(given).tolist())

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
