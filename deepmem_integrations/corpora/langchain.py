"""The documents of a LangChain vector store, for training: read from the store, passed by the caller, or found by its search."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.corpora.corpus import Batch, Corpus, GivenCorpus, SearchedCorpus
from deepmem_integrations.corpora.langchain_stores import check_lengths, document_id, embeddings_of, store_corpus
from deepmem_integrations.corpora.stores import batches
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain.vectorstores import DeepLake


def given_corpus(documents: Iterable[Document], embeddings: Embeddings) -> GivenCorpus:
    """Documents that the caller passes, with the ids they have in the store.

    Raises:
        StoreError: A document has no id.
    """
    documents = list(documents)
    for row, document in enumerate(documents):
        if not document.id:
            raise StoreError(
                f"Document {row} has no id, so no label can name it: give each the id it has in the store "
                "(ids = vectorstore.add_documents(documents) returns them)."
            )
    ids = [str(document.id) for document in documents]
    return GivenCorpus(documents, ids, [document.page_content for document in documents], embeddings)


class FoundCorpus:
    """What a store's own vector search finds, embedded again.

    Args:
        vectorstore: Any store that searches by vector, fetches by id and tells the ids of what it finds.
        embeddings: Its embedding model.
    """

    def __init__(self, vectorstore: VectorStore, embeddings: Embeddings) -> None:
        """Keep both; nothing is searched yet."""
        self._store = vectorstore
        self._embedder = Embedder(embeddings)

    def near(self, queries: Vectors, k: int, ids: Collection[str]) -> Iterator[Batch]:
        """Yield the k documents nearest to each query and those with the given ids, each once.

        Raises:
            StoreError: The store cannot search by vector, cannot fetch by id, or does not tell ids.
        """
        seen: set[str] = set()
        for batch in batches(self._find(queries, k, sorted(ids))):
            new = {name: document for document in batch if (name := document_id(document, self._store)) not in seen}
            seen |= new.keys()
            if new:
                yield list(new), self._embedder.embed_documents([document.page_content for document in new.values()])

    def _find(self, queries: Vectors, k: int, ids: Sequence[str]) -> Iterator[Document]:
        try:
            for batch in batches(ids):
                yield from self._store.get_by_ids(batch)
            for query in tqdm(queries, desc="Searching", unit="query", delay=1):
                yield from self._store.similarity_search_by_vector(query.tolist(), k=k)
        except NotImplementedError as error:
            raise StoreError(
                f"{type(self._store).__name__} cannot search by vector and fetch by id ({error}): pass "
                "from_langchain(…, documents=[…]) instead of scan=False."
            ) from error


def read_vectorstore(
    vectorstore: VectorStore, documents: Iterable[Document] | None, *, scan: bool
) -> tuple[Corpus | SearchedCorpus, Embeddings]:
    """The corpus and the embedding model of a vector store; see `DeepMemory.from_langchain`.

    Raises:
        StoreError: No vector store, one without an embedding model, or of a kind that is not read as it is.
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
    if isinstance(vectorstore, DeepLake):
        return vectorstore.corpus(), embeddings
    return store_corpus(vectorstore), embeddings
