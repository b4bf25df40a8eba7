"""`QueryTransform`: the common base of the query transforms for LangChain and LlamaIndex."""

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import StoreError
from deepmem_integrations.labels import Labels, Relevance
from deepmem_integrations.serving import HasModels, MemoryLike, OnBroken, ServedAdapter, Untrained


@runtime_checkable
class Trainable(Protocol):
    """A ``memory`` that can train the model that it serves, such as a `DeepMemory`."""

    def train(self, queries: Sequence[str] | Relevance, relevance: Labels | Relevance | None = None, **options: Any) -> str:
        """Train a model on labelled queries and put it in use: see `DeepMemory.train`."""
        ...


class QueryTransform:
    """The base of a query transform that can be trained. It holds the adapter, the embedding model for texts, and `fit`.

    Args:
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        model: The embedding model for texts; by default the embedding model of the `DeepMemory`.
        untrained: What to do where there is no model yet: see `ServedAdapter`.
        on_broken: What to do where the model cannot be used: see `ServedAdapter`.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
        StorageError: ``memory`` is the path of a file that cannot be read.
        NotTrainedError: ``memory`` is the path of a folder that has no model yet, and ``untrained="error"``.
        TypeError: ``memory`` is none of these.
    """

    def __init__(
        self, memory: MemoryLike, model: Any = None, *, untrained: Untrained | None = None, on_broken: OnBroken = "error"
    ) -> None:
        self.memory = memory
        self._served = ServedAdapter(memory, untrained=untrained, on_broken=on_broken)
        self._embedder = None if model is None else Embedder(model)
        if model is None and isinstance(memory, HasModels):
            self._embedder = memory.embedder

    def fit(self, queries: Sequence[str] | Relevance, relevance: Labels | Relevance | None = None, **options: Any) -> Self:
        """Train on labelled queries with `DeepMemory.train`; the transform then uses the new model.

        Args:
            queries: The texts of the queries, or a `Relevance`.
            relevance: For each query its documents as (id, weight), weight > 0; left out with a `Relevance`.
            options: Further options of `DeepMemory.train`, such as ``seed`` and ``max_unseen_loss``.

        Returns:
            The transform itself.

        Raises:
            StoreError: ``memory`` is an adapter or a path, so there are no documents to train with.
        """
        if not isinstance(self.memory, Trainable):
            raise StoreError(
                "fit needs the documents that the labels name, and an adapter or a path has none. Make the transform with "
                'DeepMemoryQueryTransform(DeepMemory.from_langchain(vectorstore, path="…")), or with from_llama_index(index, …).'
            )
        self.memory.train(queries, relevance, **options)
        return self

    def _for_texts(self, argument: str) -> Embedder:
        """Return the embedding model for texts.

        Args:
            argument: The name of the argument that sets the embedding model, for the error message.

        Raises:
            StoreError: There is no embedding model.
        """
        if self._embedder is None:
            raise StoreError(
                f"A text needs an embedding model: make the transform with DeepMemoryQueryTransform(memory, {argument}=…), "
                "or pass the query's vector."
            )
        return self._embedder
