"""The documents of a LangChain vector store: read from the store, passed by the caller, or found by the store's own search."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora.corpus import Batch, Corpus, GivenCorpus, HasCorpus
from deepmem_integrations.corpora.langchain_stores import check_lengths, document_id, embeddings_of, store_corpus
from deepmem_integrations.corpora.stores import batches
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import StoreError


def given_corpus(documents: Iterable[Document], embeddings: Embeddings) -> GivenCorpus:
    """Make a corpus of documents that the caller passes. Each must have the id that it has in the store.

    Raises:
        StoreError: A document has no id.
    """
    documents = list(documents)
    for row, document in enumerate(documents):
        if not document.id:
            raise StoreError(
                f"Document {row} has no id, so no label can name it. Give every document the id that it has in the store; "
                "vectorstore.add_documents(documents) returns the ids."
            )
    ids = [str(document.id) for document in documents]
    return GivenCorpus(documents, ids, [document.page_content for document in documents], embeddings)


class FoundCorpus:
    """A corpus of the documents that a store's own vector search finds. The documents found are embedded again.

    The whole store is never read, so `vectors` and `documents` raise an error.

    Args:
        vectorstore: A store that searches by vector, fetches documents by id, and tells the ids of the documents that it finds.
        embeddings: The store's embedding model.
    """

    listed = False

    def __init__(self, vectorstore: VectorStore, embeddings: Embeddings) -> None:
        self._store = vectorstore
        self._embedder = Embedder(embeddings)

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

    def around(self, queries: Callable[[], Vectors], k: int, ids: Collection[str]) -> Iterator[Batch]:
        """Yield the k documents nearest to each query and those with the given ids, each document once.

        Args:
            queries: A function that returns the (n, d) float32 query vectors.
            k: How many documents to find for each query.
            ids: The ids of documents to yield in any case. Unknown ids are ignored.

        Raises:
            StoreError: The store cannot search by vector or fetch by id, or does not tell the ids of the documents that it finds.
        """
        seen: set[str] = set()
        for batch in batches(self._find(queries, k, sorted(ids))):
            new = {name: document for document in batch if (name := document_id(document, self._store)) not in seen}
            seen |= new.keys()
            if new:
                yield list(new), self._embedder.embed_documents([document.page_content for document in new.values()])

    def _not_listed(self) -> StoreError:
        return StoreError(
            f"With scan=False the documents of a {type(self._store).__name__} are searched and never listed. To have queries "
            "written for documents, pass the documents yourself."
        )

    def _find(self, queries: Callable[[], Vectors], k: int, ids: Sequence[str]) -> Iterator[Document]:
        try:
            for batch in batches(ids):
                yield from self._store.get_by_ids(batch)
            for query in tqdm(queries(), desc="Searching", unit="query", delay=1):
                yield from self._store.similarity_search_by_vector(query.tolist(), k=k)
        except NotImplementedError as error:
            raise StoreError(
                f"{type(self._store).__name__} cannot search by vector and fetch by id ({error}). Pass the documents, "
                "from_langchain(…, documents=[…]), instead of scan=False."
            ) from error


def read_vectorstore(vectorstore: VectorStore, documents: Iterable[Document] | None, *, scan: bool) -> tuple[Corpus, Embeddings]:
    """Return the corpus and the embedding model of a vector store: see `DeepMemory.from_langchain`.

    Raises:
        StoreError: The argument is no vector store, has no embedding model, or is of a kind that has no reader.
    """
    if not isinstance(vectorstore, VectorStore):
        raise StoreError(f"from_langchain takes a LangChain vector store; got {type(vectorstore).__name__}.")
    embeddings = embeddings_of(vectorstore)
    if documents is not None:
        if not scan:
            raise StoreError("Pass the store's documents, or scan=False to do without them, not both.")
        check_lengths(vectorstore)
        return given_corpus(documents, embeddings), embeddings
    if not scan:
        check_lengths(vectorstore)
        return FoundCorpus(vectorstore, embeddings), embeddings
    if isinstance(vectorstore, HasCorpus):
        return vectorstore.corpus(), embeddings
    return store_corpus(vectorstore), embeddings
