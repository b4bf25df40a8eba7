"""The documents of a LangChain vector store: read from the store, passed by the caller, or found by the store's own search."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora.corpus import (
    Batch,
    Corpus,
    CorpusView,
    GivenCorpus,
    HasCorpus,
    NamedBy,
    check_lengths_of,
    check_metric,
)
from deepmem_integrations.corpora.deeplake import DeepLakeCorpus
from deepmem_integrations.corpora.langchain_search import VectorCalls
from deepmem_integrations.corpora.langchain_stores import (
    KINDS,
    check_lengths,
    document_id,
    embeddings_of,
    metric_of,
    named,
    store_corpus,
)
from deepmem_integrations.corpora.stores import batches, kind_of, readable
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import StoreError

_logger = logging.getLogger(__name__)


_DEEP = 1_000
"""How many documents around a query are searched for labelled ones, where a store cannot fetch documents by id."""


def given_corpus(
    documents: Iterable[Document],
    embeddings: Embeddings,
    id_key: str | None = None,
    metric: str | None = "cosine",
    store: str = "The store",
) -> GivenCorpus:
    """Make a corpus of documents that the caller passes. Each must have the id that it has in the store.

    Args:
        documents: The documents.
        embeddings: The store's embedding model.
        id_key: The metadata key that names documents; None where their ids do.
        metric: By what the store ranks; None where nobody knows.
        store: The name of the store's class.

    Raises:
        StoreError: A document has no id.
    """
    documents = list(documents)
    for row, document in enumerate(documents):
        if id_key is not None and document.metadata.get(id_key) is None:
            raise StoreError(
                f"Document {row} has no {id_key!r} in its metadata, which names documents (id_key); its keys are: "
                f"{', '.join(map(repr, document.metadata)) or 'none'}."
            )
        if id_key is None and not document.id:
            raise StoreError(
                f"Document {row} has no id, so no label can name it. Give every document the id that it has in the store; "
                "vectorstore.add_documents(documents) returns the ids. Or name documents by a metadata key, id_key=…"
            )
    if id_key is not None:
        documents = [document.model_copy(update={"id": str(document.metadata[id_key])}) for document in documents]
    ids = [str(document.id) for document in documents]
    return GivenCorpus(documents, ids, [document.page_content for document in documents], embeddings, metric, store)


class FoundCorpus:
    """A corpus of the documents that a store's own vector search finds. The documents found are embedded again.

    The whole store is never read, so `vectors` and `documents` raise an error.

    Args:
        vectorstore: A store that searches by vector.
        embeddings: The store's embedding model.
        id_key: The metadata key that names documents; None where the store tells the ids of the documents that it finds.
        metric: By what the store ranks; None where nobody knows.
        filter: The store's own filter, which the documents have to pass; None for all documents.

    Raises:
        StoreError: The store has no filters, or none that its search surely takes.
    """

    listed = False

    def __init__(
        self,
        vectorstore: VectorStore,
        embeddings: Embeddings,
        id_key: str | None = None,
        metric: str | None = "cosine",
        filter: Any = None,
    ) -> None:
        self._store = vectorstore
        self._embedder = Embedder(embeddings)
        self._search = VectorCalls(vectorstore, embeddings)
        self._id_key, self._metric = id_key, metric
        self._options = {} if filter is None else {self._filter_option(filter): filter}

    def vectors(self) -> Iterator[Batch]:
        """Raise an error, since the documents cannot be listed.

        Raises:
            StoreError: The error is raised in every case.
        """
        raise self._not_listed()

    def documents(self) -> Iterator[Sequence[Document]]:
        """Raise an error, since the documents cannot be listed.

        Raises:
            StoreError: The error is raised in every case.
        """
        raise self._not_listed()

    def texts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Raise an error, since the documents cannot be listed.

        Raises:
            StoreError: The error is raised in every case.
        """
        raise self._not_listed()

    def around(
        self,
        queries: Callable[[], Vectors],
        k: int,
        ids: Collection[str],
        *,
        parents: Collection[str] = (),
        named_by: NamedBy | None = None,
    ) -> Iterator[Batch]:
        """Yield the k documents nearest to each query and those with the given ids, each document once.

        Args:
            queries: A function that returns the (n, d) float32 query vectors.
            k: How many documents to find for each query.
            ids: The ids of documents to yield in any case. Unknown ids are ignored.
            parents: See `Corpus.around`.
            named_by: See `Corpus.around`. The documents of k parents are found for each query, as far as 1,000 documents have so
                many.

        Raises:
            StoreError: The store cannot search by vector, does not tell the ids of the documents that it finds, or ranks vectors
                of unequal length otherwise than by cosine similarity.
        """
        return check_lengths_of(self._around(queries, k, ids, parents, named_by), self._metric, type(self._store).__name__)

    def _around(
        self,
        queries: Callable[[], Vectors],
        k: int,
        ids: Collection[str],
        parents: Collection[str],
        named_by: NamedBy | None,
    ) -> Iterator[Batch]:
        seen: set[str] = set()
        asked = queries()  # an embedding model that fails is no fault of the store
        for batch in readable(self._find(asked, k, set(ids), set(parents), named_by), self._store):
            new = {name: document for name, document in batch.items() if name not in seen}
            seen |= new.keys()
            if new:
                yield list(new), self._embedder.embed_documents([document.page_content for document in new.values()])

    def _not_listed(self) -> StoreError:
        return StoreError(
            f"With scan=False the documents of a {type(self._store).__name__} are searched and never listed. To have queries "
            "written for documents, pass the documents yourself."
        )

    def _filter_option(self, filter: Any) -> str:
        kind = kind_of(self._store, KINDS)
        if kind is not None:
            return KINDS[kind](self._store, filter).filter_option
        if "filter" not in self._search.parameters(self._search.name) and not isinstance(self._store, HasCorpus):
            raise StoreError(
                f"The search of a {type(self._store).__name__} has no option named filter, and might ignore it. Pass the "
                "documents that belong, documents=[…]."
            )
        return "filter"

    def _find(
        self, queries: Vectors, k: int, wanted: set[str], parents: set[str], named_by: NamedBy | None
    ) -> Iterator[dict[str, Document]]:
        """Yield documents by their ids: those that are wanted, as far as they can be fetched, and those around each query."""
        missing = set(wanted)
        for ids in batches(sorted(wanted)):
            fetched = self._fetch(ids)
            missing -= fetched.keys()
            yield fetched
        try:
            for documents in self._nearest(queries, k, "Searching", named_by):
                missing -= documents.keys()
                parents -= _by_parent(documents, named_by).keys()
                yield documents
            if self._fetches:
                missing.clear()
            if missing or parents:
                yield from self._deep(queries, missing, parents, named_by)
        except NotImplementedError as error:
            raise StoreError(
                f"{type(self._store).__name__} cannot search by vector ({error!r}). Pass the documents, "
                "from_langchain(…, documents=[…]), instead of scan=False."
            ) from error

    @property
    def _fetches(self) -> bool:
        """Whether documents can be fetched by the ids that name them, under the filter."""
        own = getattr(type(self._store), "get_by_ids", None) is not VectorStore.get_by_ids
        return own and self._id_key is None and not self._options

    def _fetch(self, ids: Sequence[str]) -> dict[str, Document]:
        try:
            return self._by_name(self._store.get_by_ids(ids)) if self._fetches else {}
        except NotImplementedError:
            return {}

    def _deep(
        self, queries: Vectors, missing: set[str], parents: set[str], named_by: NamedBy | None
    ) -> Iterator[dict[str, Document]]:
        """Search farther around the queries for documents that labels name, and for those of parents that labels name."""
        unseen = set(parents)
        for documents in self._nearest(queries, _DEEP, "Searching farther"):
            found = missing & documents.keys()
            for parent, ids in _by_parent(documents, named_by).items():
                found.update(ids if parent in parents else ())
                unseen.discard(parent)
            missing -= found
            yield {name: document for name, document in documents.items() if name in found}
            if not missing and not parents:  # each query may be near to another document of a parent
                return
        if not missing and not unseen:
            return
        _logger.warning(
            "%d labelled %s are not among the %d nearest of any query, and a %s cannot fetch documents by %s (here): %s. "
            "Pass the documents, from_langchain(…, documents=[…]), so that they can be learned from.",
            len(missing or unseen),
            "documents" if missing else "parents",
            _DEEP,
            type(self._store).__name__,
            "id" if missing else "parent",
            ", ".join(map(repr, sorted(missing or unseen)[:5])),
        )

    def _nearest(self, queries: Vectors, k: int, title: str, named_by: NamedBy | None = None) -> Iterator[dict[str, Document]]:
        """Yield, for each query, the k documents nearest to it by their ids, or the documents of the k nearest parents."""
        anything = False
        for query in tqdm(queries, desc=title, unit="query", delay=1):
            documents, depth = self._first(query, k), k
            anything |= bool(documents)
            while named_by is not None and len(documents) >= depth and depth < _DEEP and len(_by_parent(documents, named_by)) < k:
                depth = min(2 * depth, _DEEP)
                documents = self._first(query, depth)
            yield documents
        if not anything and len(queries):
            filtered = ", or does its filter let nothing pass" if self._options else ""
            raise StoreError(
                f"The search of the {type(self._store).__name__} finds no document for any of {len(queries)} queries: is the "
                f"store empty, is its index not loaded, does it look in another collection or namespace{filtered}?"
            )

    def _first(self, query: Vectors, k: int) -> dict[str, Document]:
        found = self._search.find(self._search.name, query.tolist(), k=k, **self._options)
        return self._by_name([one[0] if isinstance(one, tuple) else one for one in found])

    def search_ids(self, vector: Vectors, k: int) -> list[str]:
        """Return the names of the k documents that the store's own search finds for a (d,) query vector, best first."""
        return list(self._first(vector, k))

    def _by_name(self, documents: Iterable[Document]) -> dict[str, Document]:
        return {document_id(document, self._store, self._id_key): document for document in documents}


def _by_parent(documents: Mapping[str, Document], named_by: NamedBy | None) -> dict[str, list[str]]:
    """Return what labels name documents by, where this is not their id, → the ids of its documents."""
    parents: dict[str, list[str]] = {}
    if named_by is None:
        return parents
    for name, document in documents.items():
        parents.setdefault(named_by(name, document), []).append(name)
    return parents


def search_ids(
    vectorstore: VectorStore, embeddings: Embeddings, id_key: str | None, filter: Any, vector: Vectors, k: int
) -> list[str]:
    """Return the names of the k documents that a store's own search by vector finds, best first.

    Args:
        vectorstore: The store.
        embeddings: The store's embedding model.
        id_key: See `FoundCorpus`.
        filter: See `FoundCorpus`.
        vector: (d,) float32, the query vector.
        k: How many documents to find.

    Raises:
        StoreError: The store does not tell the ids of the documents that it finds, or cannot filter.
    """
    return FoundCorpus(vectorstore, embeddings, id_key, filter=filter).search_ids(vector, k)


def read_vectorstore(
    vectorstore: VectorStore,
    documents: Iterable[Document] | None,
    *,
    scan: bool,
    embeddings: Embeddings | None = None,
    id_key: str | None = None,
    metric: str | None = None,
    filter: Any = None,
) -> tuple[Corpus, Embeddings]:
    """Return the corpus and the embedding model of a vector store: see `DeepMemory.from_langchain`.

    Raises:
        StoreError: The argument is no vector store, has no embedding model, or is of a kind that has no reader; the options do
            not go together; or the store has no filters.
    """
    if not isinstance(vectorstore, VectorStore):
        raise StoreError(f"from_langchain takes a LangChain vector store; got {type(vectorstore).__name__}.")
    embeddings = embeddings_of(vectorstore, embeddings)
    check_metric(metric)
    kind = type(vectorstore).__name__
    if documents is not None:
        if not scan:
            raise StoreError("Pass the store's documents, or scan=False to do without them, not both.")
        if filter is not None:
            raise StoreError("A filter is the store's own, and documents= are not read from it: pass the documents that belong.")
        check_lengths(vectorstore, metric)
        return given_corpus(documents, embeddings, id_key, metric or metric_of(vectorstore), kind), embeddings
    if not scan:
        check_lengths(vectorstore, metric)
        return FoundCorpus(vectorstore, embeddings, id_key, metric or metric_of(vectorstore), filter), embeddings
    corpus: Corpus
    if isinstance(vectorstore, HasCorpus):
        corpus = vectorstore.corpus()
        if filter is not None:
            if not isinstance(corpus, DeepLakeCorpus):
                raise StoreError(f"The documents of a {kind} cannot be read under a filter.")
            corpus = corpus.under(filter)
    else:
        corpus = store_corpus(vectorstore, filter, metric)
    if id_key is not None:
        corpus = CorpusView(corpus, lambda document: named(document, vectorstore, id_key))
    return corpus, embeddings
