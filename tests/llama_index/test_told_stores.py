"""What users tell of an index: its embedding model, names for its nodes, its metric, and filters for one tenant."""

import numpy as np
import pytest
from llama_index.core import QueryBundle, StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryResult

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.corpora import llama_index_stores, read_corpus
from deepmem_integrations.corpora.llama_index import passes
from deepmem_integrations.errors import StoreError
from deepmem_integrations.llama_index import DeepMemoryRetriever
from tests.llama_index.helpers import Lookup, expected, ids, nodes_of, remembering


def named_nodes(problem):
    """Nodes whose metadata names them, with ids of their own and vectors."""
    return [
        TextNode(
            id_=f"node-{row}",
            text=name,
            metadata={"page": name, "half": row % 2},
            embedding=vector.tolist(),
            excluded_embed_metadata_keys=["page", "half"],
        )
        for row, (name, vector) in enumerate(zip(problem.ids, problem.corpus, strict=True))
    ]


class Listing(BasePydanticVectorStore):
    """A store of no known kind, whose get_nodes() returns all nodes."""

    stores_text: bool = True
    nodes: list = []

    @property
    def client(self):
        return None

    def add(self, nodes, **options):
        self.nodes = [*self.nodes, *nodes]
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id, **options):
        raise NotImplementedError

    def get_nodes(self, node_ids=None, filters=None):
        return [node for node in self.nodes if node_ids is None or node.node_id in node_ids]

    def query(self, query, **options):
        kept = [node for node in self.nodes if query.filters is None or passes(query.filters, node.metadata)]
        found = sorted(kept, key=lambda node: -np.dot(node.embedding, query.query_embedding))[: query.similarity_top_k]
        return VectorStoreQueryResult(nodes=found, similarities=[1.0] * len(found), ids=[node.node_id for node in found])


def index_over(store, nodes, model):
    return VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=model)


# ---- get_nodes() -----------------------------------------------------------------------------------------------------


def test_a_store_whose_get_nodes_returns_all_is_read_as_it_is(problem, tmp_path):
    model, store = Lookup(problem), Listing()
    index = index_over(store, named_nodes(problem), model)
    memory = DeepMemory.from_llama_index(index, path=tmp_path)
    before = dict(model.calls)
    names, vectors = read_corpus(memory.corpus.vectors())
    assert model.calls == before, "nothing is embedded again"
    assert names == ids(memory.documents()) == [f"node-{row}" for row in range(len(problem.ids))]
    np.testing.assert_allclose(vectors, problem.corpus, atol=1e-6)
    index.insert_nodes([TextNode(id_="new", text="new", embedding=problem.corpus[0].tolist())])
    assert "new" in read_corpus(memory.corpus.vectors())[0], "the store is read anew"


def test_nodes_that_come_without_vectors_are_embedded_again(problem, tmp_path):
    class WithoutVectors(Listing):
        def get_nodes(self, node_ids=None, filters=None):
            return [node.model_copy(update={"embedding": None}) for node in super().get_nodes(node_ids)]

    memory = DeepMemory.from_llama_index(index_over(WithoutVectors(), named_nodes(problem), Lookup(problem)), path=tmp_path)
    np.testing.assert_allclose(read_corpus(memory.corpus.vectors())[1], problem.corpus, atol=1e-6)


# ---- the metric and the model ----------------------------------------------------------------------------------------


def test_where_lengths_differ_the_metric_is_asked_for(problem, tmp_path):
    nodes = named_nodes(problem)
    for row, node in enumerate(nodes):
        node.embedding = [(row % 3 + 1) * value for value in node.embedding]
    index = index_over(Listing(), nodes, Lookup(problem))
    with pytest.raises(StoreError, match=r'Listing does not tell by what it ranks.* 1 to 3\. Say so: metric="cosine"'):
        read_corpus(DeepMemory.from_llama_index(index, path=tmp_path).corpus.vectors())
    with pytest.raises(StoreError, match="Listing ranks by dot"):
        read_corpus(DeepMemory.from_llama_index(index, path=tmp_path, metric="dot").corpus.vectors())
    assert read_corpus(DeepMemory.from_llama_index(index, path=tmp_path, metric="cosine").corpus.vectors())
    with pytest.raises(StoreError, match="got 'euclid'"):
        DeepMemory.from_llama_index(index, path=tmp_path, metric="euclid")


def test_another_embedding_model_than_the_indexs_can_be_told(index, problem, tmp_path):
    other = Lookup(problem, shift=1)
    assert DeepMemory.from_llama_index(index, path=tmp_path, embed_model=other).embedder.model is other


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def named_index(problem):
    return VectorStoreIndex(named_nodes(problem), embed_model=Lookup(problem))


def pages(found):
    return [one.node.metadata["page"] for one in found]


def test_metadata_names_nodes_everywhere(named_index, problem, tmp_path):
    memory = DeepMemory.from_llama_index(named_index, path=tmp_path / "m", id_key="page")
    assert ids(memory.documents()) == problem.ids
    memory.train(problem.train)
    assert memory.lexical_search.search("doc-7", 3).ids[0] == "doc-7"
    result = memory.evaluate(problem.test, top_k=[1])
    assert result["with model"]["recall@1"] > result["without model"]["recall@1"] + 0.2
    memory.remember(Relevance(["new question"], [[("doc-299", 1.0)]]))
    retriever = DeepMemoryRetriever(named_index, memory=tmp_path / "m", similarity_top_k=5, words=False, answers=False)
    found = retriever.retrieve(problem.test.queries[0])
    assert pages(found) == expected(problem, memory.transform(problem.test_queries[0]), 5)
    assert all(one.node.node_id == f"node-{one.node.text.removeprefix('doc-')}" for one in found), "LlamaIndex knows nodes by id"
    assert [node.node_id for node in named_index.docstore.docs.values()][:2] == ["node-0", "node-1"], (
        "the nodes are never changed"
    )


@pytest.mark.parametrize("make", ["simple", "listing", "deeplake"])
async def test_remembered_answers_bring_nodes_by_name_under_the_filters(make, problem, tmp_path, request):
    from deepmem_integrations.llama_index import DeepLakeVectorStore

    nodes, model = named_nodes(problem), Lookup(problem)
    if make == "simple":
        index = VectorStoreIndex(nodes, embed_model=model)
    else:
        index = index_over(Listing() if make == "listing" else DeepLakeVectorStore(tmp_path / "data"), nodes, model)
    vector = problem.test_queries[0] / np.linalg.norm(problem.test_queries[0])
    far = expected(problem, vector, 300)[-20:]
    adapter = remembering(Ranking(1.0, answers=9.0), 32, vector[None], [far])
    bundle = QueryBundle("q", embedding=vector.tolist())
    retriever = DeepMemoryRetriever(index, memory=adapter, id_key="page", similarity_top_k=30, fetch_k=10, words=False)
    assert set(far) <= set(pages(retriever.retrieve(bundle)))
    half = MetadataFilters(filters=[MetadataFilter(key="half", value=1)])
    tenant = DeepMemoryRetriever(index, memory=adapter, id_key="page", similarity_top_k=30, fetch_k=10, words=False, filters=half)
    found = tenant.retrieve(bundle)
    assert {one.node.metadata["half"] for one in found} == {1}
    assert {name for name in far if int(name[4:]) % 2} <= set(pages(found))
    assert pages(await tenant.aretrieve(bundle)) == pages(found)


def test_nodes_of_one_name_all_stay(named_index, problem):
    """Before, those behind the first were left out without a word."""
    vector = problem.test_queries[0] / np.linalg.norm(problem.test_queries[0])
    adapter = remembering(Ranking(1.0, answers=0.1), 32, vector[None], [["doc-3"]])
    for number in range(3):
        metadata = {"page": "doc-7", "half": 1, "copy": number}  # LlamaIndex itself leaves out nodes that are equal
        named_index.insert_nodes([TextNode(id_=f"again-{number}", text="doc-7", metadata=metadata)])
    retriever = DeepMemoryRetriever(named_index, memory=adapter, id_key="page", similarity_top_k=303, words=False)
    found = [one.node.node_id for one in retriever.retrieve(problem.test.queries[0])]
    plain = [one.node.node_id for one in named_index.as_retriever(similarity_top_k=303).retrieve(problem.test.queries[0])]
    assert len(found) == 303
    assert set(found) == set(plain)


def test_a_node_without_the_name_is_told(named_index, tmp_path):
    memory = DeepMemory.from_llama_index(named_index, path=tmp_path, id_key="url")
    with pytest.raises(StoreError, match=r"node 'node-0' has no 'url' in its metadata.*keys are: 'page', 'half'"):
        read_corpus(memory.corpus.vectors())


# ---- a tenant's nodes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True])
def test_reading_keeps_to_a_tenants_nodes(index, problem, tmp_path, given):
    half = MetadataFilters(filters=[MetadataFilter(key="half", value=1)])
    nodes = nodes_of(problem) if given else None
    memory = DeepMemory.from_llama_index(index, path=tmp_path, filter=half, nodes=nodes)
    assert ids(memory.documents()) == read_corpus(memory.corpus.vectors())[0] == problem.ids[1::2]
    with pytest.raises(StoreError, match="A filter of LlamaIndex is a MetadataFilters; got dict"):
        DeepMemory.from_llama_index(index, path=tmp_path, filter={"half": 1})


def test_filters_within_filters():
    def leaf(key, value, operator=FilterOperator.EQ):
        return MetadataFilter(key=key, value=value, operator=operator)

    def group(condition, *parts):
        return MetadataFilters(filters=list(parts), condition=condition)

    metadata = {"colour": "red", "size": 3}
    either = group(FilterCondition.OR, leaf("colour", "blue"), leaf("size", 2, FilterOperator.GT))
    assert passes(either, metadata)
    assert passes(group(FilterCondition.AND, either, leaf("colour", "red")), metadata)
    assert not passes(group(FilterCondition.AND, either, leaf("colour", "blue")), metadata)
    assert not passes(group(FilterCondition.NOT, either), metadata)
    assert passes(MetadataFilters(filters=[]), metadata)
    with pytest.raises(StoreError, match="The filter on 'colour' cannot compare 'red' with 2"):
        passes(group(FilterCondition.AND, leaf("colour", 2, FilterOperator.GT)), metadata)


def test_a_retriever_that_is_made_for_each_request_reads_no_vectors_again(problem, monkeypatch):
    """Before, each one read the first 1,000 vectors of a store that ranks by L2 distance or inner product."""
    index = VectorStoreIndex(nodes_of(problem), embed_model=Lookup(problem))
    reads, read = [], llama_index_stores.SimpleCorpus.read_vectors
    monkeypatch.setattr(llama_index_stores.SimpleCorpus, "read_vectors", lambda corpus: reads.append(corpus) or read(corpus))
    for metric in ("dot", "dot", "l2"):
        assert llama_index_stores.measure(index, metric).metric == metric
    assert len(reads) == 2
