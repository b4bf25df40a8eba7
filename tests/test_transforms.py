import numpy as np
import pytest

from deepmem_integrations import QueryAdapter
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import AdapterFileError, StoreError
from deepmem_integrations.transforms import QueryTransform


def test_fit_trains_the_memory_that_it_serves(memory, problem):
    transform = QueryTransform(memory)
    assert transform.fit(list(problem.train.queries), problem.train.relevance, seed=3) is transform
    (job,) = memory.jobs.all()
    assert job.report["seed"] == 3
    assert not memory.adapter.is_identity
    assert transform.fit(problem.train.take(range(60))) is transform
    assert len(memory.jobs.all()) == 2


def test_without_documents_there_is_nothing_to_fit_with(problem, tmp_path):
    adapter = QueryAdapter(32)
    for memory in (adapter, adapter.save(tmp_path / "adapter.safetensors")):
        with pytest.raises(StoreError, match=r"an adapter or a path has none\. .*from_langchain.* or .*from_llama_index"):
            QueryTransform(memory).fit(problem.train)


def test_texts_are_embedded_by_the_given_model_or_by_that_of_the_memory(memory, problem):
    query, vector = problem.test.queries[0], problem.test_queries[0]

    def of(transform):
        return transform._for_texts("embeddings")

    assert of(QueryTransform(memory)) is memory.embedder
    np.testing.assert_allclose(of(QueryTransform(memory)).embed_query(query), vector, atol=1e-6)
    given = QueryTransform(memory, lambda texts: -np.array(memory.embedder.embed_documents(texts)))
    np.testing.assert_allclose(of(given).embed_query(query), -vector, atol=1e-6)
    assert isinstance(of(given), Embedder)
    with pytest.raises(StoreError, match=r"DeepMemoryQueryTransform\(memory, embeddings=…\), or pass the query's vector"):
        of(QueryTransform(QueryAdapter(32)))


def test_a_damaged_file_is_refused_when_the_transform_is_made(tmp_path):
    (tmp_path / "bad").write_bytes(b"x")
    with pytest.raises(AdapterFileError):
        QueryTransform(tmp_path / "bad")
