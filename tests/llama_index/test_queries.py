import copy

import numpy as np
import pytest
from llama_index.core import QueryBundle

from deepmem_integrations import QueryAdapter
from deepmem_integrations.errors import EmbeddingMismatchError, InvalidVectorsError
from deepmem_integrations.llama_index.queries import (
    TransformedQueryBundle,
    given,
    is_transformed,
    mean_of_transformed,
    transformed,
)
from deepmem_integrations.serving import ServedAdapter
from tests.llama_index.helpers import Lookup


@pytest.fixture
def served(adapter):
    return ServedAdapter(adapter)


def test_the_mark_stays_with_the_bundle_and_with_its_very_vector(served, problem):
    plain = QueryBundle("q", embedding=problem.test_queries[0].tolist())
    moved = transformed(plain, given(plain), served, None)
    assert isinstance(moved, TransformedQueryBundle)
    assert not is_transformed(plain)
    assert is_transformed(moved)
    assert is_transformed(copy.copy(moved))
    assert is_transformed(QueryBundle("q", embedding=moved.embedding)), "as LlamaIndex makes new bundles on its way"
    assert not is_transformed(QueryBundle("q", embedding=list(moved.embedding)))
    assert not is_transformed(QueryBundle("q"))


def test_everything_but_the_embedding_stays_as_it_is(served, problem, adapter):
    asked = QueryBundle("q", image_path="a.png", custom_embedding_strs=["x", "y"])
    moved = transformed(asked, problem.test_queries[:1], served, None)
    assert (moved.query_str, moved.image_path, moved.custom_embedding_strs) == ("q", "a.png", ["x", "y"])
    assert moved.embedding == adapter.transform(problem.test_queries[0]).tolist()
    assert asked == QueryBundle("q", image_path="a.png", custom_embedding_strs=["x", "y"])
    assert given(asked) is None
    assert given(QueryBundle("q", embedding=[1.0])) == [[1.0]]


def test_each_vector_is_transformed_before_the_mean(served, problem, adapter):
    mean = adapter.transform(problem.test_queries[:3]).mean(axis=0)
    found = mean_of_transformed(problem.test_queries[:3], served, None)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-6)
    assert mean_of_transformed(problem.test_queries[:1], served, None) == adapter.transform(problem.test_queries[0]).tolist()


def test_vectors_that_give_no_query_are_named(served, problem):
    with pytest.raises(InvalidVectorsError, match="neither a text nor an embedding"):
        mean_of_transformed([], served, None)
    with pytest.raises(InvalidVectorsError, match="all zeros"):
        mean_of_transformed([[1.0, 0.0], [-1.0, 0.0]], ServedAdapter(QueryAdapter(2)), None)
    with pytest.raises(EmbeddingMismatchError, match="different vectors"):
        mean_of_transformed(problem.test_queries[:1], served, Lookup(problem, shift=1))
