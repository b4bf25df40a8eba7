import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.embedding import Embedder
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


@pytest.fixture
def adapter(embeddings):
    turn = np.roll(np.eye(32, dtype=np.float32), 1, axis=0)
    return QueryAdapter(32, linear=turn, fingerprint=Embedder(embeddings).fingerprint())


@pytest.fixture
def used(memory, adapter):
    """A Deep Memory whose model in use is the adapter."""
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    return memory


@pytest.mark.parametrize("kind", ["memory", "folder", "path of the folder", "file", "adapter"])
def test_every_kind_of_memory_serves_the_same(used, adapter, problem, tmp_path, kind):
    served = ServedAdapter(
        {
            "memory": used,
            "folder": used.folder,
            "path of the folder": str(used.folder.path),
            "file": adapter.save(tmp_path / "one.safetensors"),
            "adapter": adapter,
        }[kind]
    )
    queries = problem.test_queries[:5]
    np.testing.assert_allclose(served.apply(queries), adapter.transform(queries), atol=1e-6)
    np.testing.assert_allclose(served.apply(queries[0]), adapter.transform(queries[0]), atol=1e-6)
    np.testing.assert_allclose(used.transform(queries), adapter.transform(queries), atol=1e-6)
    assert served.name


def test_a_vector_is_transformed_once(adapter, problem):
    served = ServedAdapter(adapter)
    once = served.transform(problem.test_queries[0])
    assert isinstance(once, TransformedVector)
    assert served.transform(once) is once
    np.testing.assert_allclose(once, adapter.transform(problem.test_queries[0]), atol=1e-6)
    with pytest.raises(InvalidVectorsError, match=r"one query vector at a time, of the shape \(dimension,\); got \(2, 32\)"):
        served.transform(problem.test_queries[:2])


def test_another_model_in_use_serves_the_next_query(used, problem):
    served = ServedAdapter(used)
    before = served.transform(problem.test_queries[0])
    used.folder.save_model("two", QueryAdapter(32))
    used.set_model("two")
    assert served.transform(problem.test_queries[0]) != before
    assert served.name.startswith("two in ")


def test_an_embedding_model_is_checked_once_for_each_adapter(used, embeddings, problem):
    calls = []

    class Counted:
        def embed_query(self, text):
            calls.append(text)
            return embeddings.embed_query(text)

        def embed_documents(self, texts):
            return [self.embed_query(text) for text in texts]

    model, served = Counted(), ServedAdapter(used)
    for _ in range(3):
        served.apply(problem.test_queries[:2], model)
    assert len(calls) == 3, "one for each probe text"
    with pytest.raises(EmbeddingMismatchError, match="different vectors"):
        served.apply(problem.test_queries[:2], lambda texts: np.eye(32)[[len(text) % 32 for text in texts]])


def test_what_is_no_memory_is_an_error(memory, tmp_path):
    (tmp_path / "other").write_text("no adapter")
    with pytest.raises(TypeError, match="memory is a DeepMemory, a QueryAdapter .* got int"):
        ServedAdapter(3)
    with pytest.raises(AdapterFileError, match="other: not a whole safetensors file"):
        ServedAdapter(tmp_path / "other")
    with pytest.raises(StorageError, match="Cannot read the adapter"):
        ServedAdapter(tmp_path / "missing.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="no trained model"):
        ServedAdapter(tmp_path / "empty")
    with pytest.raises(ModelNotFoundError, match="no trained model"):
        ServedAdapter(memory).transform(np.ones(32))


def test_a_deep_memory_is_released_without_the_garbage_collector(problem, embeddings, tmp_path):
    corpus = GivenCorpus(problem.ids, problem.ids, problem.ids, embeddings)
    memory = DeepMemory(corpus, embeddings, tmp_path)
    released = weakref.ref(corpus)
    gc.disable()
    try:
        del corpus, memory
        assert released() is None, "a circle of references would keep the store open"
    finally:
        gc.enable()
