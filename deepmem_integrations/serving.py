"""`ServedAdapter`: the adapter behind a ``memory`` argument, and the one place where an adapter is applied to queries."""

import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from deepmem_integrations._files import user_path
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import InvalidVectorsError, StorageError
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.words import LexicalSearch


@runtime_checkable
class HasModels(Protocol):
    """An object with a folder of models and the embedding model that the models were trained with, such as a `DeepMemory`."""

    @property
    def folder(self) -> ModelFolder:
        """The folder of models."""
        ...

    @property
    def embedder(self) -> Embedder:
        """The embedding model of the store."""
        ...


@runtime_checkable
class HasLexicalSearch(Protocol):
    """An object with a search by words, such as a `DeepMemory`."""

    @property
    def lexical_search(self) -> LexicalSearch | None:
        """The search by words; None where there is none."""
        ...


MemoryLike = HasModels | ModelFolder | QueryAdapter | str | os.PathLike[str]
"""The type of every ``memory`` parameter.

A ``memory`` is a `DeepMemory`, a `QueryAdapter`, a folder of models (a `ModelFolder` or its path), or the path of an adapter
file.
"""


class TransformedVector(list[float]):
    """A query vector that has been transformed, marked so that this package does not transform it again."""


class ServedAdapter:
    """The adapter behind a ``memory``, which is checked against the embedding model whose vectors the adapter transforms.

    Args:
        memory: A `MemoryLike`. An adapter file is read once, at the start. In a folder of models, the model that is in use at
            the moment transforms each query.

    Raises:
        AdapterFileError: The file is damaged or is no adapter.
        StorageError: The file cannot be read.
        ModelNotFoundError: ``memory`` is the path of a folder that has no trained model yet.
        TypeError: ``memory`` is none of these.

    Example:
        >>> ServedAdapter(QueryAdapter(2)).transform([3.0, 4.0])  # the identity only scales the vector to length 1
        [0.6..., 0.8...]
    """

    def __init__(self, memory: MemoryLike) -> None:
        self.memory = memory
        self._source: ModelFolder | QueryAdapter
        if isinstance(memory, HasModels):
            self._source = memory.folder
        elif isinstance(memory, ModelFolder | QueryAdapter):
            self._source = memory
        elif isinstance(memory, str | os.PathLike):
            path = user_path(memory)
            if os.path.isdir(path):
                self._source = ModelFolder(path)
                self._source.in_use()
            elif not os.path.exists(path):
                raise StorageError(
                    f"Cannot read the adapter {os.fspath(memory)}: there is no such file or folder. Pass the folder that a "
                    "DeepMemory trained into, or the path of an adapter's file."
                )
            else:
                self._source = QueryAdapter.load(path)
        else:
            raise TypeError(
                "memory is a DeepMemory, a QueryAdapter (of a TrainingResult: result.adapter), the folder of its models, or the "
                f"path of an adapter file; got {type(memory).__name__}."
            )
        self._passed: tuple[QueryAdapter, Any] | None = None  # the last adapter and embedding model that were found to match
        self._for_ranking: tuple[QueryAdapter, QueryAdapter] | None = None  # the last adapter, and its transform for searches

    @property
    def adapter(self) -> QueryAdapter:
        """The adapter that is in use now."""
        return self._source.in_use()[1] if isinstance(self._source, ModelFolder) else self._source

    @property
    def name(self) -> str:
        """The adapter's name in traces: the model in use and its folder, the path of the adapter file, or the adapter's parts."""
        if isinstance(self._source, ModelFolder):
            return f"{self._source.in_use_name()} in {self._source.path}"
        return repr(self._source) if self.memory is self._source else os.fspath(self.memory)  # type: ignore[arg-type]

    @property
    def lexical_search(self) -> LexicalSearch | None:
        """The search by words that ranks with the adapter: the memory's own, or the word index in the folder of models."""
        if isinstance(self.memory, HasLexicalSearch):
            return self.memory.lexical_search
        return self._source.lexical_search if isinstance(self._source, ModelFolder) else None

    def apply(self, vectors: ArrayLike, model: Any = None) -> Vectors:
        """Transform query vectors with the adapter in use.

        Args:
            vectors: (d,) or (n, d), any real dtype, of any length but 0.
            model: The embedding model that the vectors come from, as `Embedder` takes it. The model is checked once for each
                adapter, for which it embeds a few texts. None skips the check.

        Returns:
            A float32 array in the same shape, rows of length 1.

        Raises:
            ModelNotFoundError: There is no trained model yet.
            EmbeddingMismatchError: The adapter was trained with another embedding model, or for another dimension.
            InvalidVectorsError: A vector holds NaN or infinity, or is all zeros.
        """
        adapter = self.adapter  # read once, because another model may be put in use at any time
        if model is not None:
            self.check(adapter, model)
        return adapter.transform(vectors)

    def transform(self, vector: Sequence[float] | Vectors, model: Any = None) -> TransformedVector:
        """Transform one query vector, unless it has been transformed before.

        Args:
            vector: (d,), of any length but 0. A `TransformedVector` is returned as it is.
            model: The embedding model that the vector comes from, as for `apply`.

        Raises:
            ModelNotFoundError: There is no trained model yet.
            InvalidVectorsError: The argument is not one vector of finite numbers, or is all zeros.
            EmbeddingMismatchError: The adapter was trained with another embedding model, or for another dimension.
        """
        if isinstance(vector, TransformedVector):
            return vector
        given = np.asarray(vector)
        if given.ndim != 1:
            raise InvalidVectorsError(f"Pass one query vector at a time, of the shape (dimension,); got {given.shape}.")
        return TransformedVector(self.apply(given, model).tolist())

    def for_ranking(self, adapter: QueryAdapter) -> QueryAdapter:
        """Return the transform that a retriever searches with: `QueryAdapter.for_ranking`, made once for each adapter."""
        found = self._for_ranking
        if found is None or found[0] is not adapter:
            found = self._for_ranking = adapter, adapter.for_ranking()
        return found[1]

    def check(self, adapter: QueryAdapter, model: Any) -> None:
        """Refuse an embedding model that the adapter was not trained with.

        The first check embeds a few texts. Further checks of the same adapter and embedding model return at once.

        Args:
            adapter: The adapter.
            model: The embedding model, as `Embedder` takes it.

        Raises:
            EmbeddingMismatchError: The adapter was trained with another embedding model.
        """
        if isinstance(self.memory, HasModels) and self.memory.embedder.model is model:
            model = self.memory.embedder  # may have embedded the probe texts already
        bare = model.model if isinstance(model, Embedder) else model
        if self._passed is None or self._passed[0] is not adapter or self._passed[1] is not bare:
            if adapter.fingerprint.probes is not None:
                adapter.check(Embedder.of(model).fingerprint())
            self._passed = (adapter, bare)
