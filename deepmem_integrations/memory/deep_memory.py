"""`DeepMemory`: train, evaluate and use models for one vector store, with the methods of Deep Lake v3."""

import functools
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from deepmem_integrations.corpora import DeepLakeCorpus
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.errors import StoreError
from deepmem_integrations.memory.evaluation import EvaluationMixin
from deepmem_integrations.memory.explanation import ExplanationMixin
from deepmem_integrations.memory.growth import GrowthMixin
from deepmem_integrations.memory.models import ModelsMixin
from deepmem_integrations.memory.training import TrainingMixin
from deepmem_integrations.models import beside, check_outside

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
    from llama_index.core import VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores import MetadataFilters


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


class DeepMemory(TrainingMixin, EvaluationMixin, ModelsMixin, GrowthMixin, ExplanationMixin):
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
        >>> from deepmem_integrations import Relevance
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
        memory = cls(corpus, embedding, path, id_key=id_key, metric=metric, store_search=search)
        memory.filtered = filter is not None
        return memory

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
        memory = cls(corpus, model, path, id_key=id_key, metric=metric, store_search=search)
        memory.filtered = filter is not None
        return memory

    def documents(self) -> list[Any]:
        """Return all documents of the store with their ids, which labels name.

        Returns:
            ``Document`` objects for a LangChain vector store, nodes for a LlamaIndex index, and `deeplake.StoredDocument`
            objects for a bare data set.

        Raises:
            StoreError: The store is searched and never read in full (``scan=False``).
        """
        return [document for batch in self.corpus.documents() for document in batch]


def _check_outside_of(store: Any, path: str | os.PathLike[str]) -> None:
    """Check the folder of the models against the data set of a store, ours or another package's, even if it is never read."""
    own = getattr(store, "store", None)
    data_set = own.path if isinstance(own, DeepLakeStore) else getattr(store, "dataset_path", None)
    if isinstance(data_set, str | os.PathLike):
        check_outside(path, data_set)
