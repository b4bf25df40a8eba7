"""An embedding model whose queries are transformed: Deep Memory inside any store, with every kind of search it has."""

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor

from deepmem_integrations.embedding import untransformed
from deepmem_integrations.serving import MemoryLike, ServedAdapter


class DeepMemoryEmbeddings(Embeddings):
    """Embed documents as before, and queries with Deep Memory.

    Give it to a vector store in place of the model, and all its searches are transformed: also hybrid ones, and thresholds
    where a store cannot search by vector. A model that is put in use meanwhile serves the next query. Training, and
    `DeepMemoryRetriever`, look through it to the model itself.

    Args:
        embeddings: The embedding model; one that is wrapped already is unwrapped.
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
        EmbeddingError: ``embeddings`` holds such a wrapper inside.
    """

    def __init__(self, embeddings: Embeddings, memory: MemoryLike) -> None:
        self._embeddings: Embeddings = untransformed(embeddings)
        self._served = ServedAdapter(memory)

    @property
    def untransformed(self) -> Embeddings:
        """The embedding model itself."""
        return self._embeddings

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents; nothing is transformed."""
        return self._embeddings.embed_documents(texts)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents with the model's own async; nothing is transformed."""
        return await self._embeddings.aembed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query and transform it.

        Returns:
            (d,) of length 1.

        Raises:
            ModelNotFoundError: No model was trained yet.
            EmbeddingMismatchError: The adapter was trained with another embedding model.
        """
        return self._served.transform(self._embeddings.embed_query(text), self._embeddings)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query with the model's own async, and transform it."""
        vector = await self._embeddings.aembed_query(text)
        return await run_in_executor(None, self._served.transform, vector, self._embeddings)

    def __repr__(self) -> str:
        """A line with the model and the adapter."""
        return f"DeepMemoryEmbeddings({self._embeddings!r}, {self._served.name})"
