"""`Tenants`: a folder of models for each tenant of a service, within bounded memory."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from deepmem_integrations._files import lasting_path
from deepmem_integrations.adapter.cache import MAX_BYTES, AdapterCache
from deepmem_integrations.errors import ModelNotFoundError, StorageError
from deepmem_integrations.models import ModelFolder

_PLACE = "{tenant}"
_NAME = re.compile(r"[^\s./\\:*?\"<>|\x00-\x1f][^/\\:*?\"<>|\x00-\x1f]*")
"""A tenant's name stays one part of a path on every system, and does not start with a dot."""


class Tenants:
    """The models of many tenants, each in a folder of its own.

    A tenant's folder is passed as ``memory=``, and nothing of it is read before the first query. The models that were used last
    stay in memory, so a retriever may be made anew for each request. A tenant without a model gets plain results.

    Args:
        pattern: The path of a tenant's folder, with ``{tenant}`` in the place of the tenant's name.
        max_bytes: How many bytes of model files to keep in memory for all tenants together. The model that was used last is
            always kept.

    Raises:
        StorageError: The pattern is a URL.
        ValueError: The pattern does not hold ``{tenant}`` exactly once.

    Example:
        >>> tenants = Tenants("models/{tenant}.deepmemory")
        >>> tenants["acme"].path.name
        'acme.deepmemory'
        >>> from deepmem_integrations.errors import DeepMemoryError
        >>> try:
        ...     tenants["../acme"]
        ... except DeepMemoryError as error:
        ...     print(error)
        '../acme' cannot be the name of a tenant: ...
    """

    def __init__(self, pattern: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> None:
        self.pattern = lasting_path(pattern)
        if self.pattern.count(_PLACE) != 1:
            raise ValueError(f"The pattern holds {_PLACE} once, as in models/{_PLACE}.deepmemory; got {self.pattern!r}.")
        if "://" in self.pattern:
            raise StorageError(f"Tenants' folders are on this machine; got {self.pattern!r}.")
        if not isinstance(max_bytes, int | float) or max_bytes < 0:
            raise ValueError(f"max_bytes is a number of bytes; got {max_bytes!r}.")
        self.cache = AdapterCache(max_bytes)

    def __getitem__(self, tenant: str) -> ModelFolder:
        """Return a tenant's folder of models, whether it is there or not.

        Raises:
            ModelNotFoundError: No tenant can have this name: it is empty, starts with a dot, or would leave its folder.
        """
        return ModelFolder(self.path(tenant), self.cache)

    def path(self, tenant: str) -> Path:
        """Return the path of a tenant's folder, to train into: ``DeepMemory.from_langchain(store, path=tenants.path("acme"))``.

        Raises:
            ModelNotFoundError: No tenant can have this name.
        """
        if not isinstance(tenant, str) or not _NAME.fullmatch(tenant):
            raise ModelNotFoundError(
                f"{tenant!r} cannot be the name of a tenant: a name is one part of a path, so it holds none of "
                '/ \\ : * ? " < > |, and starts neither with a dot nor with a space.'
            )
        return Path(self.pattern.replace(_PLACE, tenant))

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the tenants that have a folder, sorted."""
        before, after = self.pattern.split(_PLACE)
        folder, _, prefix = before.replace(os.sep, "/").rpartition("/")
        suffix, _, rest = after.replace(os.sep, "/").partition("/")
        root = Path(folder or ("/" if before.startswith("/") else "."))
        for entry in sorted(os.listdir(root) if root.is_dir() else ()):
            tenant = entry[len(prefix) : len(entry) - len(suffix)]
            if entry == f"{prefix}{tenant}{suffix}" and _NAME.fullmatch(tenant) and (root / entry / rest).is_dir():
                yield tenant
