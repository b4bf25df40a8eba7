"""Optional dependencies, which are imported where they are used; a missing one leads to an error that says how to install it."""

import importlib
from types import ModuleType

from deepmem_integrations.errors import MissingExtraError


def require(package: str, extra: str | None = None, *, distribution: str | None = None) -> ModuleType:
    """Import an optional dependency and return its module.

    Args:
        package: The import name of the package, for example ``"torch"``.
        extra: The extra of ``deepmem-integrations`` that installs the package, for example ``"train"``.
        distribution: What to install where no extra does, for example ``"langchain-chroma"``, the package of a store.

    Raises:
        MissingExtraError: The package is not installed. An import error *inside* an installed package is passed on as it is.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise
        raise MissingExtraError(package, extra, distribution) from error
