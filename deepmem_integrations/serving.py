"""`ServedAdapter`: the adapter behind a ``memory`` argument, and the one place where an adapter is applied to queries."""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from deepmem_integrations._files import lasting_path
from deepmem_integrations._forks import fork_safe
from deepmem_integrations._store import is_url
from deepmem_integrations._vectors import Vectors
from deepmem_integrations._weak import WeakCache
from deepmem_integrations.adapter import Fingerprint, QueryAdapter
from deepmem_integrations.adapter.cache import shared, state_of
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import (
    AdapterFileError,
    EmbeddingMismatchError,
    InvalidVectorsError,
    ModelNotFoundError,
    NotTrainedError,
    StorageError,
)
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.remote import remote_models
from deepmem_integrations.words import LexicalSearch

_logger = logging.getLogger(__name__)


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

A ``memory`` is a `DeepMemory`, a `QueryAdapter`, a folder of models (a `ModelFolder` or its path), the URL that models were
published to, or the path of an adapter file. A path that does not exist yet is that of a folder, unless it ends in
``.safetensors``.
"""
Untrained = Literal["plain", "error"]
"""What an ``untrained`` parameter says: serve queries as they are where there is no model yet, or raise an error."""
OnBroken = Literal["plain", "error"]
"""What an ``on_broken`` parameter says: serve queries as they are where the model cannot be used, or raise an error."""

_SUFFIX = ".safetensors"
_FOR_RANKING: WeakCache[QueryAdapter] = WeakCache()
"""The transform for searches of each adapter, which may serve retrievers that are made anew for each request."""
_REMEMBERED = 10_000
"""How many messages are known to have been logged."""


class TransformedVector(list[float]):
    """A query vector that has been transformed, marked so that this package does not transform it again."""


class Once:
    """Tells the first time of something from all later times."""

    def __init__(self) -> None:
        self._lock = fork_safe(threading.Lock())
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle nothing: a copy, and another process, tell for themselves."""
        return type(self), ()

    def first(self, *key: Hashable) -> bool:
        """Return whether this is the first time."""
        with self._lock:
            if key in self._seen:
                return False
            self._seen[key] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            return True


_LOGGED = Once()
"""What this process has logged of paths, for which parts may be made anew with each request."""


class ServedAdapter:
    """The adapter behind a ``memory``, which is checked against the embedding model whose vectors the adapter transforms.

    Args:
        memory: A `MemoryLike`. An adapter file is read once, at the start. In a folder of models, the model that is in use at
            the moment transforms each query.
        untrained: ``"plain"`` serves queries as they are until a model is there, and logs a warning once. ``"error"`` raises an
            error. By default, a `DeepMemory` and a folder serve plain queries, also a folder that is not there yet, and the path
            of an adapter file that is missing is an error.
        on_broken: ``"plain"`` serves queries as they are where the model is damaged or was trained with another embedding model,
            and logs an error once for each state of the model's file. ``"error"`` raises the error.

    Raises:
        AdapterFileError: The file is damaged or is no adapter.
        StorageError: The file cannot be read.
        NotTrainedError: ``untrained="error"``, and ``memory`` is the path of a folder that has no model in use yet.
        TypeError: ``memory`` is none of these.
        ValueError: An option has no such value.

    Example:
        >>> ServedAdapter(QueryAdapter(2)).transform([3.0, 4.0])  # the identity only scales the vector to length 1
        [0.6..., 0.8...]
    """

    def __init__(self, memory: MemoryLike, *, untrained: Untrained | None = None, on_broken: OnBroken = "error") -> None:
        for option, value, known in (
            ("untrained", untrained, (None, "plain", "error")),
            ("on_broken", on_broken, ("plain", "error")),
        ):
            if value not in known:
                raise ValueError(f'{option} is "plain" or "error"; got {value!r}.')
        self.memory = memory
        self.options: dict[str, Any] = {"untrained": untrained, "on_broken": on_broken}
        self.on_broken = on_broken
        self._source: ModelFolder | QueryAdapter | Path
        if isinstance(memory, HasModels):
            self._source = memory.folder
        elif isinstance(memory, ModelFolder | QueryAdapter):
            self._source = memory
        elif is_url(memory):
            self._source = remote_models(str(memory))
        elif isinstance(memory, str | os.PathLike):
            path = Path(lasting_path(memory))
            is_file = path.is_file() or (path.suffix == _SUFFIX and not path.is_dir())
            self._source = path if is_file else ModelFolder(path)
        else:
            raise TypeError(
                "memory is a DeepMemory, a QueryAdapter (of a TrainingResult: result.adapter), the folder of its models, or the "
                f"path of an adapter file; got {type(memory).__name__}."
            )
        self.untrained: Untrained = untrained or ("error" if isinstance(self._source, Path) else "plain")
        self._file: QueryAdapter | None = None  # the adapter of the file, once it is read
        self._passed: tuple[QueryAdapter, Any] | None = None  # the last adapter and embedding model that were found to match
        self._logged = Once()
        if isinstance(memory, str | os.PathLike):
            self.serving()  # a path that is wrong is told at once

    @property
    def adapter(self) -> QueryAdapter:
        """The adapter that is in use now.

        Raises:
            NotTrainedError: No model is in use yet.
            ModelNotFoundError: The file of the model in use is gone.
            AdapterFileError, StorageError: The model's file is damaged, or cannot be read.
        """
        if isinstance(self._source, ModelFolder):
            return self._source.in_use()[1]
        if isinstance(self._source, QueryAdapter):
            return self._source
        if self._file is None:
            if not self._source.exists():
                raise StorageError(
                    f"Cannot read the adapter {self._source}: there is no such file or folder. Pass the folder that a "
                    "DeepMemory trained into, or the path of an adapter's file."
                )
            self._file = shared.load(self._source)
        return self._file

    def serving(self, model: Any = None, dimension: int | None = None) -> QueryAdapter | None:
        """Return the adapter that serves now; None where queries are served as they are: see the options of the class.

        Args:
            model: The embedding model that the query vectors come from, as `Embedder` takes it; None skips the check.
            dimension: The length of the query vectors; None where it is not known.

        Raises:
            NotTrainedError, ModelNotFoundError, AdapterFileError, StorageError: There is no model, or it cannot be read.
            EmbeddingMismatchError: The adapter was trained with another embedding model.
        """
        try:
            adapter = self.adapter
            if model is not None:
                self.check(adapter, model)
            if dimension is not None and self.on_broken == "plain":  # an adapter itself refuses vectors of another dimension
                adapter.check(Fingerprint(dimension))
            return adapter
        except NotTrainedError:
            if self.untrained == "error":
                raise
            self._log_untrained()
        except (AdapterFileError, EmbeddingMismatchError, ModelNotFoundError, StorageError) as error:
            if isinstance(self._source, Path) and self.untrained == "plain" and not self._source.exists():
                self._log_untrained()
            elif self.on_broken == "error":
                raise
            elif self.first("broken", str(error), self._state()):
                _logger.error("Queries are served without Deep Memory, because the model cannot be used: %s", error)
        return None

    def _log_untrained(self) -> None:
        if self.first("untrained"):
            _logger.warning(
                "There is no trained model yet in %s: queries are served as they are, without Deep Memory, until a training puts "
                'a model in use there. untrained="error" makes an error of it.',
                self._place,
            )

    def first(self, *what: Hashable) -> bool:
        """Tell whether something is to be logged of this memory for the first time in this process.

        Of an adapter without a path, each `ServedAdapter` logs for itself.
        """
        if isinstance(self._source, QueryAdapter):
            return self._logged.first(*what)
        return _LOGGED.first(self._place if is_url(self._place) else os.path.abspath(self._place), *what)

    @property
    def _place(self) -> str:
        return self._source.place if isinstance(self._source, ModelFolder) else str(self._source)

    def _state(self) -> Hashable:
        """Return what tells a model's file from its successor."""
        if isinstance(self._source, ModelFolder):
            try:
                name = self._source.in_use_name()
            except StorageError:  # which is told already
                return None
            return name and (name, state_of(self._source.model_path(name)))
        return state_of(self._source) if isinstance(self._source, Path) else None

    @property
    def name(self) -> str:
        """The adapter's name in traces: the model in use and its folder, the path of the adapter file, or the adapter's parts."""
        if isinstance(self._source, ModelFolder):
            return f"{self._source.in_use_name() or 'no model'} in {self._place}"
        return self._place

    def name_of(self, adapter: QueryAdapter) -> str:
        """Return the name, as `name` is, of an adapter that has served, also where another one serves since."""
        known = self._source.name_of(adapter) if isinstance(self._source, ModelFolder) else None
        return self.name if known is None else f"{known} in {self._place}"

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
            A float32 array in the same shape, rows of length 1; the vectors as they are where queries are served plain.

        Raises:
            NotTrainedError, ModelNotFoundError, AdapterFileError, StorageError: There is no model, or it cannot be read.
            EmbeddingMismatchError: The adapter was trained with another embedding model, or for another dimension.
            InvalidVectorsError: A vector holds NaN or infinity, or is all zeros.
        """
        # The adapter is read once, because another model may be put in use at any time.
        adapter = self.serving(model, np.shape(vectors)[-1] if np.ndim(vectors) else None)
        return np.asarray(vectors, dtype=np.float32) if adapter is None else adapter.transform(vectors)

    def transform(self, vector: Sequence[float] | Vectors, model: Any = None) -> TransformedVector:
        """Transform one query vector, unless it has been transformed before.

        Args:
            vector: (d,), of any length but 0. A `TransformedVector` is returned as it is.
            model: The embedding model that the vector comes from, as for `apply`.

        Raises:
            NotTrainedError, ModelNotFoundError, AdapterFileError, StorageError: There is no model, or it cannot be read.
            InvalidVectorsError: The argument is not one vector of finite numbers, or is all zeros.
            EmbeddingMismatchError: The adapter was trained with another embedding model, or for another dimension.
        """
        if isinstance(vector, TransformedVector):
            return vector
        given = np.asarray(vector)
        if given.ndim != 1:
            raise InvalidVectorsError(f"Pass one query vector at a time, of the shape (dimension,); got {given.shape}.")
        adapter = self.serving(model, len(given))
        return TransformedVector((given if adapter is None else adapter.transform(given)).tolist())

    def for_ranking(self, adapter: QueryAdapter) -> QueryAdapter:
        """Return the transform that a retriever searches with: `QueryAdapter.for_ranking`, made once for each adapter."""
        return adapter if adapter.ranking is None else _FOR_RANKING.get(adapter, adapter.for_ranking)

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
