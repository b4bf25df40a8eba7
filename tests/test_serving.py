import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from deepmem_integrations.errors import (
    AdapterFileError,
    EmbeddingMismatchError,
    InvalidVectorsError,
    ModelNotFoundError,
    StorageError,
)
from deepmem_integrations.serving import ServedAdapter, TransformedVector


def test_what_a_memory_may_be(memory, tmp_path):
    with pytest.raises(TypeError, match=r"memory is a DeepMemory, .*result\.adapter.* got NoneType"):
        ServedAdapter(None)
    with pytest.raises(ModelNotFoundError, match="no trained model in .*or on the command line, deepmem train"):
        ServedAdapter(tmp_path)
    with pytest.raises(StorageError, match="Cannot read the adapter"):
        ServedAdapter(tmp_path / "none.safetensors")


def test_a_folder_of_models_serves_the_one_in_use(memory, problem):
    first = memory.train(problem.train.take(range(60)))
    served = ServedAdapter(memory.folder.path)
    assert served.name == f"{first} in {memory.folder.path}"
    assert not served.adapter.is_identity
    np.testing.assert_allclose(served.transform(problem.test_queries[0]), memory.transform(problem.test_queries[0]), atol=1e-6)
    memory.set_model(memory.train(problem.train.take(range(5))))
    assert served.adapter.is_identity, "a newly set model is picked up"


def test_an_adapter_file_serves_where_torch_is_missing(memory, problem, tmp_path):
    path = memory.folder.path / "models" / f"{memory.train(problem.train.take(range(60)))}.safetensors"
    np.save(tmp_path / "x.npy", problem.test_queries)
    script = (
        "import sys\n"
        "blocked = {'torch', 'deeplake', 'openai', 'langchain_core', 'llama_index', 'typer', 'scipy', 'pydantic'}\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in blocked: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import numpy as np\n"
        "from deepmem_integrations import QueryAdapter, Relevance, evaluate\n"
        "from deepmem_integrations.errors import MissingExtraError\n"
        f"adapter = QueryAdapter.load({str(path)!r})\n"
        f"np.save({str(tmp_path / 'y.npy')!r}, adapter.transform(np.load({str(tmp_path / 'x.npy')!r})))\n"
        "from deepmem_integrations import train_adapter\n"
        "try: train_adapter(np.eye(2), [[('a', 1.0)], [('b', 1.0)]], np.eye(2), ['a', 'b'])\n"
        "except MissingExtraError as error: print(error)\n"
        "assert not blocked & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 'pip install "deepmem-integrations[train]"' in done.stdout
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), memory.transform(problem.test_queries), atol=1e-6)
