"""The ``deeplake`` package, imported without its crash reporting."""

import os
import sys
import tempfile
import threading
from typing import Any

from deepmem_integrations._extras import require


def import_deeplake() -> Any:
    """Import ``deeplake`` with its crash reporting off.

    Deep Lake's native library starts Sentry as it is imported, which sends a session report to Activeloop and writes below the
    temporary folder. The library has no switch for that, but it gives up where it cannot make its folder there. So during the
    import the temporary folder is one in which a file has that folder's name. Nothing else is affected, and an import that the
    application made earlier is left as it is.

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
