"""Imports of optional dependencies, with an error that says how to install a missing one."""

import importlib
from types import ModuleType

from deepmem_integrations.errors import MissingExtraError


def require(package: str, extra: str) -> ModuleType:
    """Import an optional dependency and return its module.

    Args:
        package: The import name of the package, for example ``"torch"``.
        extra: The extra of ``deepmem-integrations`` that installs the package, for example ``"train"``.

    Raises:
        MissingExtraError: The package is not installed.
        ModuleNotFoundError: The package is installed, but a module that it imports itself is missing.

    Example:
        >>> require("no_such_package", extra="train")
        Traceback (most recent call last):
        deepmem_integrations.errors.MissingExtraError: This part of deepmem-integrations needs the package 'no_such_package', ...
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise
        raise MissingExtraError(package, extra) from error
