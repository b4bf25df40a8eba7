"""The errors that this package raises on purpose.

DeepMemoryError
├── MissingExtraError        an optional dependency is not installed (also an ImportError)
├── InvalidRelevanceError    labelled queries that cannot be used (also a ValueError)
├── InvalidVectorsError      vectors that cannot be used: NaN, all zeros, a wrong shape (also a ValueError)
├── EmbeddingMismatchError   an adapter and an embedding model that do not belong together (also a ValueError)
├── AdapterFileError         a file that is not a whole adapter (also a ValueError)
├── ModelNotFoundError       no trained model, or none of that name (also a ValueError)
│   └── NotTrainedError      no model is in use yet (also a ValueError)
├── ModelInUseError          a model that cannot be deleted, since it is in use (also a ValueError)
├── JobNotFoundError         no training job of that id (also a ValueError)
├── JobRunningError          a job that cannot be deleted, since it is running (also a ValueError)
├── JobCancelledError        the training was cancelled, from here or from another process (also a RuntimeError)
├── JobFailedError           a training process that could not be started, or cannot go on (also a RuntimeError)
├── StorageError             a folder or file that cannot be written or read (also an OSError)
├── EmbeddingError           an embedding model that is not known, not set up, or does not answer (also a RuntimeError)
├── FeedbackError            feedback that cannot be recorded or turned into labels (also a ValueError)
├── GenerationError          queries cannot be written: no model, no ids, another run's checkpoint (also a RuntimeError)
└── StoreError               a data set or a search that the vector store cannot serve (also a ValueError)
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
        extra: The extra of ``deepmem-integrations`` that installs the package, or None where no extra does.
        distribution: What to install where no extra does, such as ``"langchain-chroma"``: the package of a store.
    """

    def __init__(self, package: str, extra: str | None = None, distribution: str | None = None) -> None:
        install = f'"deepmem-integrations[{extra}]"' if extra else distribution or package
        super().__init__(
            f"This part of deepmem-integrations needs the package {package!r}, which is not installed. "
            f"Install it with: pip install {install}"
        )
        self.package = package
        self.extra = extra
        self.distribution = distribution

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str, str | None, str | None]]:
        """Pickle the arguments, so that the error can be passed between processes."""
        return type(self), (self.package, self.extra, self.distribution)


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


class NotTrainedError(ModelNotFoundError):
    """No model is in use yet: nothing was trained."""


class ModelInUseError(DeepMemoryError, ValueError):
    """The model is in use, so it cannot be deleted."""


class JobNotFoundError(DeepMemoryError, ValueError):
    """There is no training job with this id."""


class JobRunningError(DeepMemoryError, ValueError):
    """The job is running, so it cannot be deleted."""


class JobCancelledError(DeepMemoryError, RuntimeError):
    """The training was cancelled, by this process or by another."""


class JobFailedError(DeepMemoryError, RuntimeError):
    """The training process could not be started, or cannot go on."""


class StorageError(DeepMemoryError, OSError):
    """A folder or a file cannot be written or read."""


class StoreError(DeepMemoryError, ValueError):
    """The vector store cannot do what was asked of it."""


class GenerationError(DeepMemoryError, RuntimeError):
    """Queries cannot be written for these documents or with these options.

    For example, no language model is given, documents have no ids, or the checkpoint belongs to another run.
    """


class FeedbackError(DeepMemoryError, ValueError):
    """Feedback cannot be recorded or turned into labels. The message names the argument, the line or the database at fault."""
