import numpy as np
import pytest

from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import EmbeddingError, EmbeddingMismatchError, InvalidVectorsError
from tests.embeddings import LookupEmbeddings


def test_every_kind_of_embedding_model_is_taken(problem):
    base = LookupEmbeddings(problem)

    class LlamaIndexLike:
        model_name = "unknown"

        def get_query_embedding(self, text):
            return base.embed_query(text)

        def get_text_embedding_batch(self, texts):
            return base.embed_documents(texts)

    texts = list(problem.test.queries[:5])

    class SentenceTransformerLike:
        def encode(self, texts):
            return np.array(base.embed_documents(texts))

        def __call__(self, features):
            raise AssertionError("a torch module is callable, but not with texts")

    models = (base, LlamaIndexLike(), SentenceTransformerLike(), base.embed_documents)
    for model, name in zip(models, ("lookup", "LlamaIndexLike", "SentenceTransformerLike", "method"), strict=True):
        embedder = Embedder.of(model)
        assert embedder.name == name
        np.testing.assert_allclose(embedder.embed_queries(texts), problem.test_queries[:5], atol=1e-6)
        np.testing.assert_allclose(embedder.embed_documents(texts), problem.test_queries[:5], atol=1e-6)
    assert Embedder.of(embedder) is embedder
    with pytest.raises(TypeError, match="int is no embedding model"):
        Embedder(3)


def test_a_model_without_a_vector_for_a_probe_text_still_has_a_fingerprint(problem):
    class Silent(LookupEmbeddings):
        def embed_query(self, text):
            return [0.0] * 32 if "mitochondrion" in text else super().embed_query(text)

    silent, talkative = Embedder(Silent(problem)).fingerprint(), Embedder(LookupEmbeddings(problem)).fingerprint()
    silent.check(Embedder(Silent(problem)).fingerprint())
    with pytest.raises(EmbeddingMismatchError):
        silent.check(talkative)


def test_queries_are_batched_only_where_both_sides_agree(problem):
    class Counting(LookupEmbeddings):
        calls = 0
        prefix = 0.0

        def embed_documents(self, texts):
            self.calls += 1
            return (np.array(super().embed_documents(texts)) + self.prefix).tolist()

    symmetric, asymmetric = Counting(problem), Counting(problem)
    asymmetric.prefix = 3.0
    texts = list(problem.train.queries)
    for model in (symmetric, asymmetric):
        np.testing.assert_allclose(Embedder(model).embed_queries(texts), problem.train_queries, atol=1e-6)
    assert symmetric.calls == 1 + 2, "the probes, then 240 texts in two batches"
    assert asymmetric.calls == 1, "only the probes"
    for model in (symmetric, asymmetric):
        Embedder(model).embed_queries(texts)
    assert (symmetric.calls, asymmetric.calls) == (1 + 2 + 2, 1), "no probes again"


@pytest.mark.parametrize(
    ("embed", "told"),
    [
        (lambda texts: np.ones((len(texts) - 1, 3)), r"model (.*) returned an array of the shape \(1, 3\) for 2 texts"),
        (lambda texts: [[1.0, 2.0], [1.0]], "returned no vectors of one length"),
        (lambda texts: [1.0] * len(texts), r"of the shape \(2,\) for 2 texts"),
    ],
    ids=["fewer", "ragged", "flat"],
)
def test_a_model_that_returns_other_than_a_vector_for_each_text_is_told(embed, told):
    with pytest.raises(EmbeddingError, match=told):
        Embedder(embed).embed_documents(["a", "b"])


def test_a_model_whose_vectors_change_their_length_is_told(monkeypatch):
    monkeypatch.setattr("deepmem_integrations.embedding.embedder._BATCH", 2)
    lengths = iter([3, 4])
    with pytest.raises(EmbeddingError, match="returned vectors of 4 dimensions after others of 3"):
        Embedder(lambda texts: np.ones((len(texts), next(lengths)))).embed_documents(["a", "b", "c"])


class Model:
    """A model whose every vector is this one."""

    def __init__(self, vector):
        self.vector = vector

    def embed_query(self, text):
        return self.vector

    def embed_documents(self, texts):
        return [self.vector for _ in texts]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Model(None), r"model Model returned an array of the shape \(1,\) for 1 texts"),
        (Model([]), r"of the shape \(1, 0\) for 1 texts"),
        (Model([[1.0, 2.0]]), r"of the shape \(1, 1, 2\) for 1 texts"),
        (Model("vector"), "model Model returned no vectors of one length"),
        (lambda texts: [], r"of the shape \(0,\) for 1 texts"),
    ],
    ids=["nothing", "empty", "nested", "text", "no vectors"],
)
def test_a_model_that_returns_other_than_a_vector_for_a_query_is_told(model, told):
    for embed in (Embedder(model).embed_query, lambda text: Embedder(model).embed_queries([text])):
        with pytest.raises(EmbeddingError, match=told):
            embed("a")
    with pytest.raises(EmbeddingError, match="model"):
        Embedder(model).fingerprint()


@pytest.mark.parametrize("number", [None, float("nan"), float("inf")])
def test_a_model_that_returns_no_finite_number_is_told(number):
    embedder = Embedder(Model([number, 1.0]))
    for embed in (embedder.embed_query, lambda text: embedder.embed_documents([text]), lambda text: embedder.fingerprint()):
        with pytest.raises(InvalidVectorsError, match="returned NaN or infinity; the model is Model"):
            embed("a")


def test_queries_whose_vectors_differ_in_length_are_told():
    lengths = iter([3, 4])
    embedder = Embedder(lambda texts: np.ones((len(texts), next(lengths))))
    with pytest.raises(EmbeddingError, match="returned no vectors of one length"):
        embedder.embed_queries(["a", "b"])
