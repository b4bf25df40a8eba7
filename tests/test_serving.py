import logging
import subprocess
import sys

import numpy as np
import pytest

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.adapter import PROBES
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import (
    AdapterFileError,
    EmbeddingMismatchError,
    InvalidVectorsError,
    ModelNotFoundError,
    NotTrainedError,
    StorageError,
)
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.serving import ServedAdapter, TransformedVector
from tests.embeddings import LookupEmbeddings


def test_what_a_memory_may_be(memory, tmp_path):
    with pytest.raises(TypeError, match=r"memory is a DeepMemory, .*result\.adapter.* got NoneType"):
        ServedAdapter(None)
    with pytest.raises(NotTrainedError, match="no trained model in .*or on the command line, deepmem train"):
        ServedAdapter(tmp_path, untrained="error")
    with pytest.raises(StorageError, match="Cannot read the adapter .*: there is no such file or folder. Pass the folder"):
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


# ---- the one way in which an adapter is applied ----------------------------------------------------------------------


class Other(LookupEmbeddings):
    """Another model with vectors of the same length."""

    model_name = "other"

    def embed_query(self, text):
        return list(np.roll(super().embed_query(text), 1))


class Counting(LookupEmbeddings):
    queries = 0

    def embed_query(self, text):
        self.queries += 1
        return super().embed_query(text)


@pytest.fixture
def adapter(memory):
    linear = 0.3 * np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    return QueryAdapter(32, linear=linear, fingerprint=memory.embedder.fingerprint())


@pytest.fixture(params=["adapter", "file", "path as text", "folder", "models", "deep memory"])
def served(request, memory, adapter, tmp_path):
    """The same adapter behind whatever may be passed as ``memory``, and how traces name it."""
    file = adapter.save(tmp_path / "adapter.safetensors")
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    in_folder = f"one in {memory.folder.path}"
    given, name = {
        "adapter": (adapter, "QueryAdapter(32 dimensions, linear)"),
        "file": (file, str(file)),
        "path as text": (str(file), str(file)),
        "folder": (memory.folder.path, in_folder),
        "models": (memory.folder, in_folder),
        "deep memory": (memory, in_folder),
    }[request.param]
    return ServedAdapter(given), name


def test_whatever_is_passed_as_memory_is_applied_alike(served, adapter, problem, embeddings):
    served, name = served
    assert served.name == name
    x = problem.test_queries[:5]
    expected = adapter.transform(x)
    for model in (None, embeddings, Embedder(embeddings)):
        np.testing.assert_array_equal(served.apply(x, model), expected)
        np.testing.assert_array_equal(served.apply(x[0], model), adapter.transform(x[0]))
        moved = served.transform(x[0], model)
        assert moved == adapter.transform(x[0]).tolist()
        assert isinstance(moved, TransformedVector)


def test_a_transformed_vector_is_not_transformed_again(served, adapter, problem):
    served, _ = served
    moved = served.transform(problem.test_queries[0].tolist())
    assert served.transform(moved) is moved
    again = served.transform(list(moved))
    assert again == adapter.transform(moved).tolist(), "only the mark tells"
    assert again != moved


def test_vectors_that_cannot_be_transformed_are_named(served, problem):
    served, _ = served
    with pytest.raises(InvalidVectorsError, match=r"one query vector at a time, of the shape \(dimension,\); got \(2, 32\)"):
        served.transform(problem.test_queries[:2])
    with pytest.raises(EmbeddingMismatchError, match="3 dimensions where 32"):
        served.transform([1.0, 2.0, 3.0])
    with pytest.raises(InvalidVectorsError, match="all zeros"):
        served.apply(np.zeros(32))


def test_another_embedding_model_is_refused_by_every_way(served, adapter, problem, embeddings):
    served, _ = served
    other = Other(problem)
    for use in (
        lambda: served.check(adapter, other),
        lambda: served.apply(problem.test_queries, other),
        lambda: served.transform(problem.test_queries[0], other),
        lambda: served.check(adapter, Embedder(other)),
    ):
        served.check(served.adapter, embeddings)  # that one model passed says nothing of another
        with pytest.raises(EmbeddingMismatchError, match="trained for lookup .* used with other"):
            use()


def test_the_probe_texts_are_embedded_once_for_each_embedding_model(served, adapter, problem, memory):
    served, _ = served
    model = Counting(problem)
    for _ in range(3):
        served.apply(problem.test_queries, model)
        served.transform(problem.test_queries[0], Embedder(model))
    assert model.queries == len(PROBES)
    served.check(QueryAdapter(32, fingerprint=memory.embedder.fingerprint()), model)
    ServedAdapter(adapter).apply(problem.test_queries, model)
    assert model.queries == len(PROBES), "the vectors of the probe texts are known"
    with pytest.raises(EmbeddingMismatchError):
        served.check(QueryAdapter(32, fingerprint=Embedder(Other(problem)).fingerprint()), model)


def test_an_adapter_of_bare_vectors_embeds_nothing_to_be_checked(problem):
    model = Counting(problem)
    ServedAdapter(QueryAdapter(32)).apply(problem.test_queries, model)
    assert model.queries == 0


def test_a_deep_memory_is_served_without_embedding_its_probes_again(problem, adapter, tmp_path):
    model = Counting(problem)
    memory = DeepMemory(None, model, tmp_path)
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    memory.transform(problem.test_queries)
    ServedAdapter(memory).apply(problem.test_queries, model)
    assert model.queries == len(PROBES)


@pytest.mark.parametrize("wrong", [None, 3, np.eye(32), object(), QueryAdapter])
def test_what_is_no_memory_is_refused(wrong):
    with pytest.raises(TypeError, match=f"memory is a DeepMemory, a QueryAdapter .* got {type(wrong).__name__}"):
        ServedAdapter(wrong)


def test_a_damaged_file_is_refused_at_once(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of use")
    with pytest.raises(AdapterFileError, match=r"bad\.safetensors: not a whole"):
        ServedAdapter(tmp_path / "bad.safetensors")


# ---- until a model is there ------------------------------------------------------------------------------------------


@pytest.fixture(params=["deep memory", "models", "folder", "folder that is not there yet", "file that is not there yet"])
def untrained(request, memory, adapter, tmp_path):
    """What is passed as ``memory`` before anything is trained, how it is passed, and a function that puts a model there."""

    def use(name="one"):
        memory.folder.save_model(name, adapter)
        memory.set_model(name)

    folder, options = memory.folder.path, {}
    if request.param == "deep memory":
        given = memory
    elif request.param == "models":
        given = memory.folder
    elif request.param.startswith("folder"):
        given = folder
        if request.param == "folder":
            folder.mkdir()
    else:
        given, options = str(tmp_path / "adapter.safetensors"), {"untrained": "plain"}

        def use():
            adapter.save(given)

    return given, options, use


def test_queries_are_served_as_they_are_until_a_model_is_there(untrained, adapter, problem, embeddings, caplog):
    given, options, use = untrained
    x = problem.test_queries[:3]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # parts may be made anew for each request
            served = ServedAdapter(given, **options)
            np.testing.assert_array_equal(served.apply(2 * x, embeddings), 2 * x)
            plain = served.transform((2 * x[0]).tolist(), embeddings)
            assert plain == (2 * x[0]).tolist()
            assert isinstance(plain, TransformedVector)
    assert caplog.text.count("There is no trained model yet in") == 1
    use()
    np.testing.assert_array_equal(served.apply(x, embeddings), adapter.transform(x))
    np.testing.assert_array_equal(ServedAdapter(given, **options).apply(x, embeddings), adapter.transform(x))


def test_without_a_model_it_is_an_error_for_whoever_wants_one(memory, problem, tmp_path):
    for given in (memory, memory.folder, memory.folder.path):
        with pytest.raises(NotTrainedError, match="Train one"):
            ServedAdapter(given, untrained="error").apply(problem.test_queries)
    with pytest.raises(NotTrainedError, match="Train one"):
        memory.transform(problem.test_queries)
    with pytest.raises(StorageError, match="there is no such file"):
        ServedAdapter(tmp_path / "adapter.safetensors")
    with pytest.raises(ValueError, match='untrained is "plain" or "error"; got True'):
        ServedAdapter(memory, untrained=True)
    with pytest.raises(ValueError, match='on_broken is "plain" or "error"; got None'):
        ServedAdapter(memory, on_broken=None)


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("as_file", [False, True], ids=["folder", "file"])
def test_a_broken_model_is_an_error_or_serves_plain_queries(memory, adapter, problem, as_file, caplog):
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    file = memory.folder.model_path("one")
    given, x = file if as_file else memory.folder.path, problem.test_queries[:3]
    damage(file)
    with pytest.raises(AdapterFileError):
        ServedAdapter(given).apply(x)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            served = ServedAdapter(given, on_broken="plain")
            for _ in range(2):
                np.testing.assert_array_equal(served.apply(x), x)
        assert caplog.text.count("Queries are served without Deep Memory") == 1
        file.write_bytes(b"damaged in another way")
        np.testing.assert_array_equal(served.apply(x), x)
        assert caplog.text.count("Queries are served without Deep Memory") == 2
    adapter.save(file)
    np.testing.assert_array_equal(served.apply(x), adapter.transform(x))
    file.unlink()
    np.testing.assert_array_equal(served.apply(x), adapter.transform(x), "what was read serves on")


def test_a_model_that_is_gone_or_of_another_embedding_model_is_broken(memory, adapter, problem, caplog):
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    x, other = problem.test_queries[:3], Other(problem)
    served = ServedAdapter(memory, on_broken="plain")
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            np.testing.assert_array_equal(served.apply(x, other), x)
            np.testing.assert_array_equal(served.apply(x[:, :5]), x[:, :5])
            assert served.transform(x[0, :5]) == x[0, :5].tolist()
    assert caplog.text.count("trained for lookup") == 2, "once for the embedding model, and once for the dimension"
    np.testing.assert_array_equal(served.apply(x, memory.embedder), adapter.transform(x))
    memory.folder.model_path("one").unlink()
    gone = ModelFolder(memory.folder.path)
    with pytest.raises(ModelNotFoundError, match="Invalid model name"):
        ServedAdapter(gone).apply(x)
    np.testing.assert_array_equal(ServedAdapter(gone, on_broken="plain").apply(x), x)


def test_a_file_is_read_once_for_many_requests(memory, adapter, problem, monkeypatch):
    memory.folder.save_model("one", adapter)
    memory.set_model("one")
    read, load = [], QueryAdapter.load
    monkeypatch.setattr(QueryAdapter, "load", lambda path: read.append(path) or load(path))
    for given in (memory.folder.path, memory.folder.model_path("one")):
        for _ in range(3):
            ServedAdapter(given).apply(problem.test_queries)
    assert len(read) == 1
