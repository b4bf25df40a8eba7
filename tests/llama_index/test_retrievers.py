import numpy as np
import pytest
from llama_index.core import QueryBundle, SummaryIndex, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from deepmem_integrations import QueryAdapter, train_adapter
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import EmbeddingMismatchError, StoreError
from deepmem_integrations.langchain import DeepLake
from deepmem_integrations.llama_index import DeepMemoryRetriever
from deepmem_integrations.llama_index.retrievers import TransformedQueryBundle
from tests.conftest import LookupEmbeddings


class Lookup(BaseEmbedding):
    """The lookup model as a LlamaIndex embedding model."""

    lookup: object
    shift: int = 0

    def _get_query_embedding(self, query):
        return list(np.roll(self.lookup.embed_query(query), self.shift))

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)

    _get_text_embedding = _get_query_embedding


@pytest.fixture
def embed_model(problem):
    return Lookup(lookup=LookupEmbeddings(problem), model_name="lookup")


@pytest.fixture
def index(problem, embed_model):
    nodes = [TextNode(id_=name, text=name, metadata={"half": row % 2}) for row, name in enumerate(problem.ids)]
    for node, vector in zip(nodes, problem.corpus, strict=True):
        node.embedding = vector.tolist()
    return VectorStoreIndex(nodes, embed_model=embed_model)


@pytest.fixture(scope="module")
def adapter(problem):
    fingerprint = Embedder(LookupEmbeddings(problem)).fingerprint()
    return train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids, fingerprint=fingerprint).adapter


def expected(problem, vector, k, keep=lambda row: True):
    order = np.argsort(-(problem.corpus @ vector), kind="stable")
    return [problem.ids[row] for row in order if keep(row)][:k]


def ids(nodes):
    return [node.node.node_id for node in nodes]


async def test_an_index_a_retriever_and_an_adapter_file_give_exact_search_with_the_transformed_query(
    problem, index, adapter, tmp_path
):
    file = adapter.save(tmp_path / "adapter.safetensors")
    for retriever in (
        DeepMemoryRetriever(index, memory=adapter, similarity_top_k=7),
        DeepMemoryRetriever(index.as_retriever(similarity_top_k=7), memory=file),
    ):
        for row in range(3):
            moved = adapter.transform(problem.test_queries[row])
            query = problem.test.queries[row]
            found = retriever.retrieve(query)
            assert ids(found) == expected(problem, moved, 7)
            assert ids(await retriever.aretrieve(query)) == ids(found)
            rows = [problem.ids.index(name) for name in ids(found)]
            np.testing.assert_allclose([node.score for node in found], problem.corpus[rows] @ moved, atol=1e-4)


def test_filters_stay_and_deep_memory_can_be_switched_off(problem, index, adapter):
    filters = MetadataFilters(filters=[MetadataFilter(key="half", value=1)])
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=5, filters=filters)
    moved = adapter.transform(problem.test_queries[0])
    assert ids(retriever.retrieve(problem.test.queries[0])) == expected(problem, moved, 5, keep=lambda row: row % 2 == 1)
    retriever.deep_memory = False
    plain = expected(problem, problem.test_queries[0], 5, keep=lambda row: row % 2 == 1)
    assert ids(retriever.retrieve(problem.test.queries[0])) == plain


async def test_the_callers_bundle_is_never_changed(problem, index, adapter):
    for deep_memory in (True, False):
        retriever = DeepMemoryRetriever(index, memory=adapter, deep_memory=deep_memory)
        bundle = QueryBundle(problem.test.queries[0])
        retriever.retrieve(bundle)
        await retriever.aretrieve(bundle)
        assert bundle == QueryBundle(problem.test.queries[0])
        assert bundle.embedding is None


def test_an_embedding_is_transformed_exactly_once(problem, index, adapter):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=6)
    vector = problem.test_queries[0]
    moved = adapter.transform(vector)
    right = expected(problem, moved, 6)
    assert ids(retriever.retrieve(QueryBundle("q", embedding=vector.tolist()))) == right
    assert ids(retriever.retrieve(TransformedQueryBundle("q", embedding=moved.tolist()))) == right


async def test_several_embedding_strings_are_transformed_each(problem, index, adapter):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=6)
    texts = list(problem.test.queries[:3])
    bundle = QueryBundle("q", custom_embedding_strs=texts)
    right = expected(problem, adapter.transform(problem.test_queries[:3]).mean(axis=0), 6)
    assert ids(retriever.retrieve(bundle)) == right
    assert ids(await retriever.aretrieve(bundle)) == right


def test_a_query_engine_with_the_one_line_swapped(problem, index, adapter):
    retriever = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=3)
    answer = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query(problem.test.queries[0])
    assert [node.node.node_id for node in answer.source_nodes] == ids(retriever.retrieve(problem.test.queries[0]))


def test_an_adapter_trained_through_langchain_serves_here(problem, index, tmp_path):
    from langchain_core.embeddings import Embeddings

    class Base(LookupEmbeddings, Embeddings):
        """The same model in LangChain."""

    db = DeepLake(tmp_path / "dataset", embedding=Base(problem))
    db.store.add(problem.ids, problem.corpus, problem.ids)
    db.deep_memory.train(problem.train)
    retriever = DeepMemoryRetriever(index, memory=db.deep_memory, similarity_top_k=8)
    query = problem.test.queries[5]
    scored = db.similarity_search_with_score(query, 8, deep_memory=True)
    assert ids(retriever.retrieve(query)) == [document.id for document, _ in scored]
    np.testing.assert_allclose([n.score for n in retriever.retrieve(query)], [score for _, score in scored], atol=1e-5)


def test_what_cannot_work_is_refused(problem, index, embed_model, adapter):
    everything = SummaryIndex([TextNode(text="a")])
    for source in (everything.as_retriever(), everything, object()):
        with pytest.raises(StoreError, match="does not search by query vector"):
            DeepMemoryRetriever(source, memory=adapter)
    with pytest.raises(StoreError, match="brings its own settings: set similarity_top_k"):
        DeepMemoryRetriever(index.as_retriever(), memory=adapter, similarity_top_k=3)
    with pytest.raises(StoreError, match=r"Unknown options: k\. There are: .*similarity_top_k"):
        DeepMemoryRetriever(index, memory=adapter, k=5)
    sparse = DeepMemoryRetriever(index, memory=adapter, vector_store_query_mode="sparse")
    with pytest.raises(StoreError, match="'sparse' of SimpleVectorStore searches without a query vector"):
        sparse.retrieve("q")
    other = Lookup(lookup=embed_model.lookup, shift=1, model_name="other")
    with pytest.raises(EmbeddingMismatchError, match="used with other"):
        DeepMemoryRetriever(index.as_retriever(embed_model=other), memory=adapter).retrieve("q")
    with pytest.raises(EmbeddingMismatchError, match="dimension"):
        DeepMemoryRetriever(index, memory=QueryAdapter(7, linear=np.eye(7, dtype=np.float32))).retrieve("q")
