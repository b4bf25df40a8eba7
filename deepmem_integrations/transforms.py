"""What both frameworks' query transforms share: the adapter, the embedding model for texts, and ``fit``."""

from collections.abc import Sequence
from typing import Any, Self

from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import StoreError
from deepmem_integrations.labels import Labels, Relevance
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.serving import MemoryLike, ServedAdapter


class QueryTransform:
    """A query transform that can be trained.

    Args:
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        model: The embedding model for texts; by default that of the `DeepMemory`.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
    """

    def __init__(self, memory: MemoryLike, model: Any = None) -> None:
        """Keep both and read the adapter, if it is a file."""
        self.memory = memory
        self._served = ServedAdapter(memory)
        self._embedder = None if model is None else Embedder(model)
        if model is None and isinstance(memory, DeepMemory):
            self._embedder = memory.embedder

    def fit(self, queries: Sequence[str] | Relevance, relevance: Labels | Relevance | None = None, **options: Any) -> Self:
        """Train on labelled queries: `DeepMemory.train`, whose model is then in use here.

        Args:
            queries: The texts, or a `Relevance`.
            relevance: For each query its documents as (id, weight), weight > 0.
            options: For `DeepMemory.train`: ``seed``, ``max_unseen_loss``, …

        Returns:
            This very object.

        Raises:
            StoreError: ``memory`` is a bare adapter.
        """
        if not isinstance(self.memory, DeepMemory):
            raise StoreError(
                "fit needs the documents that the labels name, and an adapter has none: make it with "
                'DeepMemoryQueryTransform(DeepMemory.from_langchain(vectorstore, path="…")), or with from_llama_index(index, …).'
            )
        self.memory.train(queries, relevance, **options)
        return self

    def _for_texts(self, argument: str) -> Embedder:
        if self._embedder is None:
            raise StoreError(
                f"A text needs an embedding model: pass DeepMemoryQueryTransform(memory, {argument}=…), or its vector."
            )
        return self._embedder
