"""The ``deeplake`` package, imported without its crash reporting."""

import os
import sys
import tempfile
import threading
from typing import Any

from deepmem_integrations._extras import require


def import_deeplake() -> Any:
    """Import ``deeplake`` with its crash reporting off, and return the module.

    When Deep Lake's native library is imported, it starts Sentry, which sends a session report to Activeloop and writes into a
    folder below the temporary folder. The library has no option to turn Sentry off, but Sentry does not start if that folder
    cannot be made. So during the import ``TMPDIR`` points to a folder in which a file already has the name that Sentry's folder
    would have. Nothing else is affected. If the application has imported ``deeplake`` before, the module is returned as it is.

    Raises:
        MissingExtraError: ``deeplake`` is not installed.
    """
    with _import_lock:
        if "deeplake" in sys.modules:
            return sys.modules["deeplake"]
        before = os.environ.get("TMPDIR")
        with tempfile.TemporaryDirectory(prefix="deepmem-") as folder:
            with open(os.path.join(folder, "indra"), "wb"):
                pass
            os.environ["TMPDIR"] = folder
            try:
                return require("deeplake", extra="deeplake")
            finally:
                if before is None:
                    del os.environ["TMPDIR"]
                else:
                    os.environ["TMPDIR"] = before


_import_lock = threading.Lock()
