"""What LlamaIndex's own ``EmbeddingAdapterFinetuneEngine`` makes, by the classes that it trains, saves and reads data with.

The engine itself is in llama-index-finetuning, which imports only beside an old mistralai.
"""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from llama_index.core import VectorStoreIndex
from llama_index.embeddings.adapter import AdapterEmbeddingModel, LinearLayer
from llama_index.embeddings.adapter.utils import TwoLayerNN

from deepmem_integrations import QueryAdapter, Relevance
from deepmem_integrations.errors import AdapterFileError, EmbeddingMismatchError, InvalidRelevanceError, StorageError
from deepmem_integrations.llama_index import DeepMemoryRetriever, import_linear_adapter
from tests.llama_index.helpers import Lookup, expected, ids, nodes_of


@pytest.fixture
def layer():
    layer = LinearLayer(32, 32)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.eye(32) + 0.2 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))
    return layer


def theirs(layer, vectors):
    with torch.no_grad():
        moved = layer(torch.tensor(vectors)).numpy()
    return moved / np.linalg.norm(moved, axis=-1, keepdims=True)


def test_from_the_object_the_folder_and_the_file_it_ranks_alike(problem, layer, tmp_path):
    layer.save(str(tmp_path / "model_output"))
    right = theirs(layer, problem.test_queries)
    for source in (layer, tmp_path / "model_output", str(tmp_path / "model_output" / "pytorch_model.bin")):
        adapter = import_linear_adapter(source)
        np.testing.assert_allclose(adapter.transform(problem.test_queries), right, atol=1e-6)
        assert adapter.metadata["origin"].startswith("LlamaIndex")
    file = adapter.save(tmp_path / "moved.safetensors")
    index = VectorStoreIndex(nodes_of(problem), embed_model=Lookup(problem))
    retriever = DeepMemoryRetriever(index, memory=file, similarity_top_k=8)
    for row in range(5):
        assert ids(retriever.retrieve(problem.test.queries[row])) == expected(problem, right[row], 8)


def test_a_user_of_theirs_moves_over_and_finds_the_same(problem, layer, tmp_path):
    layer.save(str(tmp_path))
    model = Lookup(problem)
    finetuned = AdapterEmbeddingModel(model, str(tmp_path), device="cpu")
    before = VectorStoreIndex(nodes_of(problem), embed_model=finetuned).as_retriever(similarity_top_k=8)
    after = DeepMemoryRetriever(
        VectorStoreIndex(nodes_of(problem), embed_model=model), memory=import_linear_adapter(finetuned), similarity_top_k=8
    )
    for query in problem.test.queries[:20]:
        found = after.retrieve(query)
        assert ids(found) == ids(before.retrieve(query))
        np.testing.assert_allclose([n.score for n in found], [n.score for n in before.retrieve(query)], atol=1e-5)


def test_the_embedding_model_is_remembered_where_it_is_known(problem, layer, tmp_path):
    layer.save(str(tmp_path))
    model = Lookup(problem)
    finetuned = AdapterEmbeddingModel(model, str(tmp_path), device="cpu")
    for adapter in (import_linear_adapter(layer, embed_model=model), import_linear_adapter(finetuned)):
        assert adapter.fingerprint.model == "lookup"
        index = VectorStoreIndex(nodes_of(problem), embed_model=Lookup(problem, shift=1))
        with pytest.raises(EmbeddingMismatchError, match="different vectors"):
            DeepMemoryRetriever(index, memory=adapter).retrieve("q")
    with pytest.raises(EmbeddingMismatchError, match="7 dimensions"):
        import_linear_adapter(LinearLayer(7, 7), embed_model=model)


def test_a_bias_of_zeros_is_none(layer, tmp_path):
    biased = LinearLayer(32, 32, bias=True)
    with torch.no_grad():
        biased.linear.weight.copy_(layer.linear.weight)
        biased.linear.bias.zero_()
    np.testing.assert_array_equal(import_linear_adapter(biased).linear, import_linear_adapter(layer).linear)
    with torch.no_grad():
        biased.linear.bias[3] = 0.1
    biased.save(str(tmp_path))
    for source in (biased, tmp_path):
        with pytest.raises(AdapterFileError, match=r"has a bias.* Train it with bias=False"):
            import_linear_adapter(source)


class Evil:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_what_is_no_linear_layer_is_refused_and_nothing_in_a_file_runs(tmp_path):
    with pytest.raises(AdapterFileError, match=r"TwoLayerNN is no LinearLayer.* linear1\.weight.*Train one here"):
        import_linear_adapter(TwoLayerNN(32, 8, 32))
    with pytest.raises(AdapterFileError, match=r"the shape \(8, 32\)"):
        import_linear_adapter(torch.nn.ModuleDict({"linear": torch.nn.Linear(32, 8, bias=False)}))
    with pytest.raises(AdapterFileError, match="got QueryAdapter"):
        import_linear_adapter(QueryAdapter(3))
    with pytest.raises(StorageError, match="Cannot read the adapter .*No such file"):
        import_linear_adapter(tmp_path / "nowhere.bin")
    (tmp_path / "text.bin").write_text("no weights")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps({"linear.weight": Evil(str(tmp_path / "made"))}, protocol=2))
    torch.save({"linear.weight": Evil(str(tmp_path / "made"))}, tmp_path / "evil2.bin")
    for name in ("text.bin", "evil.bin", "evil2.bin"):
        with pytest.raises(AdapterFileError, match="not a file of weights"):
            import_linear_adapter(tmp_path / name)
    assert not (tmp_path / "made").exists()
    torch.save([1], tmp_path / "list.bin")
    with pytest.raises(AdapterFileError, match="holds a list"):
        import_linear_adapter(tmp_path / "list.bin")


# ---- EmbeddingQAFinetuneDataset --------------------------------------------------------------------------------------


class EmbeddingQAFinetuneDataset:
    """Its fields."""

    def __init__(self, queries, corpus, relevant_docs, mode="text"):
        self.queries, self.corpus, self.relevant_docs, self.mode = queries, corpus, relevant_docs, mode


def test_a_finetuning_data_set_is_read_from_its_object_and_its_file_and_written(problem, tmp_path):
    labels = problem.train.take(range(20))
    labels.to_llama_index(tmp_path / "data.json", corpus={name: name for name in problem.ids})
    written = EmbeddingQAFinetuneDataset(**json.loads((tmp_path / "data.json").read_text()))
    assert Relevance.from_llama_index(written) == Relevance.from_llama_index(tmp_path / "data.json") == labels
    with pytest.raises(InvalidRelevanceError, match="is not an EmbeddingQAFinetuneDataset"):
        Relevance.from_llama_index(problem)
