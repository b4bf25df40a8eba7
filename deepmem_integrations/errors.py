"""All errors that this package raises on purpose.

DeepMemoryError
├── MissingExtraError        an optional dependency is not installed (also an ImportError)
├── InvalidRelevanceError    labelled queries cannot be used (also a ValueError)
├── InvalidVectorsError      vectors hold NaN, are all zeros, or have a wrong shape (also a ValueError)
├── EmbeddingMismatchError   an adapter was trained with another embedding model (also a ValueError)
├── AdapterFileError         a file is not a whole, readable adapter (also a ValueError)
├── ModelNotFoundError       there is no trained model, or none with this name (also a ValueError)
├── ModelInUseError          a model that is in use cannot be deleted (also a ValueError)
├── JobNotFoundError         there is no training job with this id (also a ValueError)
├── JobRunningError          a running job cannot be deleted (also a ValueError)
├── JobCancelledError        the training was cancelled, by this process or another (also a RuntimeError)
├── JobFailedError           the training process could not be started (also a RuntimeError)
├── StorageError             a folder or a file cannot be written or read (also an OSError)
├── EmbeddingError           an embedding model is unknown, is not set up, or does not answer (also a RuntimeError)
├── GenerationError          queries cannot be written for these documents or with these options (also a RuntimeError)
└── StoreError               a vector store cannot do what was asked of it (also a ValueError)
"""


class DeepMemoryError(Exception):
    """The base class of all errors that this package raises on purpose.

    Every message says what is wrong, where it is wrong (the row, the id or the path), and what to do about it.

    Example:
        >>> from deepmem_integrations import Relevance
        >>> try:
        ...     Relevance(["how do I undo a commit?"], [[]])
        ... except DeepMemoryError as error:
        ...     print(type(error).__name__)
        InvalidRelevanceError
    """


class MissingExtraError(DeepMemoryError, ImportError):
    """An optional dependency is not installed. The message holds the ``pip install`` line.

    Args:
        package: The import name of the package that was not found.
        extra: The extra of ``deepmem-integrations`` that installs the package.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This part of deepmem-integrations needs the package {package!r}, which is not installed. "
            f'Install it with: pip install "deepmem-integrations[{extra}]"'
        )
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str]]:
        """Pickle the error by its arguments, so that one process can pass it to another."""
        return type(self), (self.package, self.extra)


class InvalidRelevanceError(DeepMemoryError, ValueError):
    """Labelled queries cannot be used. The message names the row."""


class InvalidVectorsError(DeepMemoryError, ValueError):
    """Vectors cannot be used, because they hold NaN, are all zeros, or have a wrong shape. The message names the row."""


class EmbeddingMismatchError(DeepMemoryError, ValueError):
    """The adapter was trained with another embedding model, or for another dimension."""


class EmbeddingError(DeepMemoryError, RuntimeError):
    """An embedding model is unknown, is not set up, or does not answer."""


class AdapterFileError(DeepMemoryError, ValueError):
    """The file is not a whole, readable adapter."""


class ModelNotFoundError(DeepMemoryError, ValueError):
    """There is no trained model, or none with this name."""


class ModelInUseError(DeepMemoryError, ValueError):
    """The model is in use, so it cannot be deleted."""


class JobNotFoundError(DeepMemoryError, ValueError):
    """There is no training job with this id."""


class JobRunningError(DeepMemoryError, ValueError):
    """The job is running, so it cannot be deleted."""


class JobCancelledError(DeepMemoryError, RuntimeError):
    """The training was cancelled, by this process or by another."""


class JobFailedError(DeepMemoryError, RuntimeError):
    """The training process could not be started."""


class StorageError(DeepMemoryError, OSError):
    """A folder or a file cannot be written or read."""


class StoreError(DeepMemoryError, ValueError):
    """The vector store cannot do what was asked of it."""


class GenerationError(DeepMemoryError, RuntimeError):
    """Queries cannot be written for these documents or with these options.

    For example, no language model is given, documents have no ids, or the checkpoint belongs to another run.
    """
