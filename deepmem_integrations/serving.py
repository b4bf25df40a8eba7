"""The adapter behind whatever is passed as ``memory``, applied to a query once."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import QueryAdapter
from deepmem_integrations.embedding import AdapterCheck
from deepmem_integrations.errors import InvalidVectorsError
from deepmem_integrations.memory import DeepMemory
from deepmem_integrations.models import ModelFolder


class TransformedVector(list[float]):
    """A query vector that has been transformed: nothing of ours transforms it again."""


MemoryLike = DeepMemory | QueryAdapter | str | os.PathLike[str]
"""What is taken wherever a ``memory`` is: the facade, an adapter, a folder of models, or the path of an adapter file."""


class ServedAdapter:
    """The adapter behind a ``memory``, checked against the embedding model that it serves.

    Args:
        memory: A `MemoryLike`. A file is read at once; of a folder the model in use serves, always the latest.

    Raises:
        AdapterFileError: The file is damaged, or there is none.
        ModelNotFoundError: No model was trained yet in the folder.
    """

    def __init__(self, memory: MemoryLike) -> None:
        """Read the file if it is one."""
        self.memory = memory
        self._source: ModelFolder | QueryAdapter
        if isinstance(memory, DeepMemory):
            self._source = memory.folder
        elif isinstance(memory, QueryAdapter):
            self._source = memory
        elif isinstance(memory, str | os.PathLike):
            if os.path.isdir(memory):
                self._source = ModelFolder(memory)
                self._source.in_use()
            else:
                self._source = QueryAdapter.load(os.fspath(memory))
        else:
            raise TypeError(
                "memory is a DeepMemory, a QueryAdapter (of a TrainingResult: result.adapter), the folder of its models, or the "
                f"path of an adapter file; got {type(memory).__name__}."
            )
        self._check = AdapterCheck()

    @property
    def adapter(self) -> QueryAdapter:
        """The adapter in use now."""
        return self._source.in_use()[1] if isinstance(self._source, ModelFolder) else self._source

    @property
    def name(self) -> str:
        """What traces call it: the model in use, the file, or the adapter's parts."""
        if isinstance(self._source, ModelFolder):
            return f"{self._source.current()} in {self._source.path}"
        return repr(self._source) if self.memory is self._source else os.fspath(self.memory)  # type: ignore[arg-type]

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
        same = isinstance(self.memory, DeepMemory) and self.memory.embedder.model is model
        self._check(adapter, self.memory.embedder if same else model)  # type: ignore[union-attr]
