"""Serve an adapter file with what `pip install deepmem-integrations` alone brings: run with a fixture's path, without its suffix.

python tests/serve_file.py tests/fixtures/adapter-v2
"""

import platform
import sys
import time

began = time.perf_counter()
import numpy as np  # noqa: E402 - the import of the package is timed

from deepmem_integrations import QueryAdapter, __version__  # noqa: E402
from deepmem_integrations.errors import MissingExtraError  # noqa: E402

adapter = QueryAdapter.load(f"{sys.argv[1]}.safetensors")
queries, expected, _ = np.load(f"{sys.argv[1]}.npy")
served = adapter.transform(queries)
took = time.perf_counter() - began
np.testing.assert_allclose(served, expected, atol=1e-5)

heavy = {"torch", "langchain_core", "llama_index", "deeplake", "openai", "sqlalchemy", "pydantic"} & set(sys.modules)
assert not heavy, f"serving loads {heavy}"
for module, extra in {
    "langchain": "langchain",
    "llama_index": "llama-index",
    "feedback.database": "feedback",
    "cli.app": "cli",
}.items():
    try:
        __import__(f"deepmem_integrations.{module}")
    except MissingExtraError as error:
        assert f'pip install "deepmem-integrations[{extra}]"' in str(error), error
    else:
        raise AssertionError(f"{module} was imported without its extra")
print(f"deepmem-integrations {__version__} serves a file on Python {platform.python_version()}, {took:.2f} s after its start.")
