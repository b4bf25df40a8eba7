"""An embedding model whose queries are transformed: Deep Memory inside any vector store, with every search of the store."""

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor

from deepmem_integrations.embedding import untransformed
from deepmem_integrations.serving import MemoryLike, OnBroken, ServedAdapter, Untrained


class DeepMemoryEmbeddings(Embeddings):
    """Embed queries with Deep Memory, and documents as before.

    Give this object to a vector store in place of the embedding model. All searches of the store then use transformed queries,
    also hybrid searches, and searches with a score threshold where the store cannot search by vector. A model that is put in
    use later serves the next query. Training and `DeepMemoryRetriever` use the embedding model inside, so that no query is
    transformed twice.

    Args:
        embeddings: The embedding model. A model that is wrapped already is unwrapped first.
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        untrained: What to do where there is no model yet. By default, a `DeepMemory` and a folder, also one that is not there
            yet, serve queries as they are (``"plain"``), and a missing adapter file is an error (``"error"``).
        on_broken: What to do where the model is damaged or belongs to another embedding model: ``"error"``, or ``"plain"``, which
            serves queries as they are and logs an error once for each state of the model's file.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
        EmbeddingError: ``embeddings`` is another wrapper that holds a `DeepMemoryEmbeddings` inside.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from deepmem_integrations import QueryAdapter
        >>> embeddings = DeepMemoryEmbeddings(DeterministicFakeEmbedding(size=8), memory=QueryAdapter(8))
        >>> store = InMemoryVectorStore.from_texts(["Run git revert."], embeddings, ids=["doc-1"])
        >>> [document.id for document in store.similarity_search("undo a commit")]
        ['doc-1']
    """

    def __init__(
        self,
        embeddings: Embeddings,
        memory: MemoryLike,
        *,
        untrained: Untrained | None = None,
        on_broken: OnBroken = "error",
    ) -> None:
        self._embeddings: Embeddings = untransformed(embeddings)
        self._served = ServedAdapter(memory, untrained=untrained, on_broken=on_broken)

    @property
    def untransformed(self) -> Embeddings:
        """The embedding model inside, whose queries are not transformed."""
        return self._embeddings

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents. Nothing is transformed."""
        return self._embeddings.embed_documents(texts)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do the same as `embed_documents` with the embedding model's async methods."""
        return await self._embeddings.aembed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query and transform its vector.

        Returns:
            (d,) of length 1; the embedding model's own vector where queries are served plain.

        Raises:
            NotTrainedError: There is no model yet, and ``untrained="error"``.
            EmbeddingMismatchError: The adapter was trained with another embedding model.
        """
        return self._served.transform(self._embeddings.embed_query(text), self._embeddings)

    async def aembed_query(self, text: str) -> list[float]:
        """Do the same as `embed_query` with the embedding model's async methods."""
        vector = await self._embeddings.aembed_query(text)
        return await run_in_executor(None, self._served.transform, vector, self._embeddings)

    def __repr__(self) -> str:
        """Show the embedding model and the adapter in one line."""
        return f"DeepMemoryEmbeddings({self._embeddings!r}, {self._served.name})"
