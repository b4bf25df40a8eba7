"""What an evaluation says of real stores: the store's own search beside the exact ranking, tenants, hybrids and other metrics."""

import warnings

import faiss
import numpy as np
import pytest
from langchain_chroma import Chroma
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance
from deepmem_integrations.errors import InvalidRelevanceError, StoreError
from deepmem_integrations.evaluation import WITH, WITHOUT
from deepmem_integrations.langchain import DeepLake, DeepMemoryEmbeddings, DeepMemoryRetriever
from deepmem_integrations.store_sample import sample_store
from tests.langchain.helpers import Lookup, documents_of
from tests.llama_index.helpers import Lookup as NodeLookup

# langchain-chroma reads the configuration of its own collections.
pytestmark = pytest.mark.filterwarnings("ignore:legacy embedding function config:DeprecationWarning")

K = (1, 5)


@pytest.fixture(scope="module")
def adapter(problem):
    turn = 0.4 * np.random.default_rng(1).normal(size=(problem.corpus.shape[1],) * 2).astype(np.float32)
    return QueryAdapter(problem.corpus.shape[1], linear=turn)


def recall(labels, found, k):
    right = [{name for name, _ in documents} for documents in labels.labels]
    return np.mean([len(wanted & set(ids[:k])) / len(wanted) for wanted, ids in zip(right, found, strict=True)])


def in_use(memory, adapter):
    memory.folder.save_model("some", adapter)
    memory.set_model("some")
    return memory


class Long(Lookup):
    """Documents have vectors of unequal lengths."""

    def embed_documents(self, texts):
        return [[(1 + int(text[4:]) % 3) * value for value in self.embed_query(text)] for text in texts]


@pytest.mark.slow
def test_a_store_that_ranks_by_l2(memory, problem, adapter, tmp_path):
    lancedb = pytest.importorskip("langchain_community.vectorstores.lancedb")
    pytest.importorskip("lancedb")
    embeddings = Long(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that are being replaced
        store = lancedb.LanceDB(uri=str(tmp_path / "lance"), embedding=embeddings)
        store.add_texts(problem.ids, [{"name": name} for name in problem.ids], ids=problem.ids)
        plain = store.as_retriever(search_kwargs={"k": 5})
        moved = lancedb.LanceDB(uri=str(tmp_path / "lance"), embedding=DeepMemoryEmbeddings(embeddings, adapter))
        served = moved.as_retriever(search_kwargs={"k": 5})
        test = problem.test.take(range(40))
        result = memory.measure(test, retriever=served, plain=plain, id_key="name", top_k=K)
        for side, retriever in ((WITH, served), (WITHOUT, plain)):
            found = [[document.metadata["name"] for document in retriever.invoke(query)] for query in test.queries]
            assert result.found[side] == found
            for k in K:
                assert result[side][f"recall@{k}"] == pytest.approx(recall(test, found, k))
    exact = in_use(memory, adapter).measure(test, top_k=K)
    assert exact[WITHOUT] != result[WITHOUT], "an exact cosine, by which this store does not rank"


def test_a_tenant(problem, adapter, tmp_path):
    store = Chroma("tenants", Lookup(problem), collection_configuration={"hnsw": {"space": "cosine", "ef_search": 400}})
    store.add_documents(documents_of(problem))
    memory = in_use(DeepMemory.from_langchain(store, tmp_path / "m"), adapter)
    halves = {name: row % 2 for row, name in enumerate(problem.ids)}
    mine = problem.test.take([row for row, documents in enumerate(problem.test.labels) if halves[documents[0][0]] == 1])
    result = memory.measure(mine, filter={"half": 1}, top_k=K)
    served = DeepMemoryRetriever(vectorstore=store, memory=memory, k=5, search_kwargs={"filter": {"half": 1}})
    for side, retriever in ((WITH, served), (WITHOUT, served.without_model())):
        found = [[document.id for document in retriever.invoke(query)] for query in mine.queries]
        assert [ids[:5] for ids in result.found[side]] == found
        for k in K:
            assert result[side][f"recall@{k}"] == pytest.approx(recall(mine, found, k))
    assert result.store_sample.overlap > 0.99, "the store is asked without the filter"
    assert "queries, without a model and the filter)" in str(result.store_sample)
    whole = memory.measure(mine, top_k=K)
    assert whole[WITHOUT]["recall@1"] < result[WITHOUT]["recall@1"]
    for same in ({"half": [1, 7]}, lambda document: document.metadata["half"] == 1):
        assert memory.measure(mine, filter=same, top_k=K) == result
    with pytest.raises(InvalidRelevanceError, match="is not in the corpus"):
        memory.measure(problem.test, filter={"half": 1})
    with pytest.raises(StoreError, match=r"Not one of the 300 documents of the store passes the filter \{'half': 5\}"):
        memory.measure(mine, filter={"half": 5})
    with pytest.raises(TypeError, match="filter is a mapping"):
        memory.measure(mine, filter="half = 1")
    with pytest.raises(TypeError, match="A retriever brings its own filter"):
        memory.measure(mine, filter={"half": 1}, retriever=served)
    found = in_use(DeepMemory.from_langchain(store, tmp_path / "n", scan=False), adapter)
    with pytest.raises(StoreError, match="searched and never read"):
        found.measure(mine, filter={"half": 1})
    store.delete_collection()


def approximate(problem):
    """A FAISS index that searches one of eight cells."""
    dimension = problem.corpus.shape[1]
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimension), dimension, 8)
    index.train(problem.corpus)
    index.make_direct_map()
    return index


def test_an_approximate_index_is_told(problem, adapter, tmp_path, caplog):
    store = FAISS(Lookup(problem), approximate(problem), InMemoryDocstore(), {})
    store.add_documents(documents_of(problem))
    memory = in_use(DeepMemory.from_langchain(store, tmp_path / "m"), adapter)
    test = problem.test.take(range(50))
    result = memory.measure(test, top_k=K)
    sample = result.store_sample
    found = [[one.id for one in store.similarity_search_by_vector(list(vector), k=10)] for vector in problem.test_queries[:50]]
    exact = [[problem.ids[row] for row in np.argsort(-(problem.corpus @ vector))[:10]] for vector in problem.test_queries[:50]]
    overlap = np.mean([len(set(ours) & set(theirs)) / 10 for ours, theirs in zip(exact, found, strict=True)])
    assert 0.1 < overlap < 0.9
    assert (sample.queries, sample.unknown) == (50, 0)
    assert sample.overlap == pytest.approx(overlap)
    assert sample.recall == pytest.approx(recall(test, found, 10))
    assert sample.exact_recall == pytest.approx(recall(test, exact, 10))
    assert f"the store's own search finds {100 * overlap:.1f}% of the exact top 10 (50 queries" in caplog.text
    assert "Measure what users get" in caplog.text
    assert str(sample) in result.table()
    assert result.to_json()["store"]["overlap"] == sample.overlap
    caplog.clear()
    store.index.nprobe = 8
    assert memory.measure(test, top_k=K).store_sample.overlap == 1.0
    assert not caplog.records


def test_an_index_of_llama_index(problem, adapter, tmp_path, caplog):
    from llama_index.core import StorageContext
    from llama_index.vector_stores.faiss import FaissVectorStore

    store = FaissVectorStore(approximate(problem))
    nodes = [TextNode(id_=name, text=name) for name in problem.ids]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, embed_model=NodeLookup(problem), storage_context=context)
    memory = in_use(DeepMemory.from_llama_index(index, tmp_path / "m"), adapter)
    assert memory.measure(problem.test, top_k=K).store_sample.overlap < 0.9
    assert "index is approximate" in caplog.text
    caplog.clear()
    store.client.nprobe = 8
    assert memory.measure(problem.test, top_k=K).store_sample.overlap == 1.0
    assert not caplog.records


def test_a_deep_lake_store(problem, adapter, tmp_path, caplog):
    db = DeepLake(str(tmp_path / "ds"), embedding=Lookup(problem))
    db.add_documents(documents_of(problem))
    result = in_use(db.deep_memory, adapter).measure(problem.test.take(range(10)), top_k=K)
    assert (result.store_sample.queries, result.store_sample.overlap) == (10, 1.0)
    assert not caplog.records


def test_a_store_that_holds_other_documents_or_cannot_be_asked(problem, adapter, tmp_path, caplog):
    store = InMemoryVectorStore(Lookup(problem))
    store.add_documents(documents_of(problem))
    half = documents_of(problem)[: len(problem.ids) // 2]
    memory = in_use(DeepMemory.from_langchain(store, tmp_path / "m", documents=half), adapter)
    sample = memory.measure(problem.test, top_k=K).store_sample
    assert sample.unknown > 0
    assert f"{sample.unknown} found documents are not among those evaluated" in caplog.text

    class Closed(InMemoryVectorStore):
        def similarity_search_by_vector(self, embedding, k=4, **options):
            raise ConnectionError("no route to the store")

    caplog.clear()
    closed = Closed(Lookup(problem))
    memory = in_use(DeepMemory.from_langchain(closed, tmp_path / "n", documents=documents_of(problem)), adapter)
    result = memory.measure(problem.test, top_k=K)
    assert result.store_sample is None
    assert "store" not in result.to_json()
    assert "The store could not be asked for a comparison" in caplog.text
    assert "ConnectionError: no route to the store" in caplog.text


def test_documents_with_equal_vectors_stand_for_each_other():
    corpus = np.repeat(np.eye(2, dtype=np.float32), 20, axis=0)
    ids = [str(row) for row in range(40)]
    labels = Relevance(["q"], [[("0", 1.0)]])
    query = np.array([[3.0, 0.1]], dtype=np.float32)
    assert sample_store(lambda vector, k: ids[10 : 10 + k], query, labels, ids, corpus).overlap == 1.0
    assert sample_store(lambda vector, k: ids[20 : 20 + k], query, labels, ids, corpus).overlap == 0.0
    assert sample_store(lambda vector, k: ids[:4] * 2, query, labels, ids, corpus).overlap == pytest.approx(0.4)
    assert sample_store(lambda vector, k: [], query, labels, ids, corpus).recall == 0.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is an ORM-style PyMilvus API")  # which langchain-milvus 0.3 uses
@pytest.mark.filterwarnings("ignore:The 'ranker_type'")  # likewise, in its own hybrid search
def test_a_hybrid_store(memory, problem, adapter, tmp_path):
    from langchain_milvus import BM25BuiltInFunction, Milvus

    def hybrid(embeddings):
        return Milvus(
            embeddings,
            connection_args={"uri": str(tmp_path / "milvus.db")},
            builtin_function=BM25BuiltInFunction(),
            vector_field=["dense", "sparse"],
            auto_id=False,
            index_params=[
                {"metric_type": "L2", "index_type": "FLAT"},
                {"metric_type": "BM25", "index_type": "SPARSE_INVERTED_INDEX"},
            ],
        )

    asked = [f"{query} {documents[0][0]}" for query, documents in zip(problem.test.queries, problem.test.labels, strict=True)]
    test = Relevance(asked, problem.test.labels).take(range(30))
    embeddings = Lookup(problem)
    store = hybrid(embeddings)
    store.add_documents([Document(name, metadata={"name": name}) for name in problem.ids], ids=problem.ids)
    search = {"k": 5, "param": [{"metric_type": "L2"}, {"metric_type": "BM25"}]}
    plain = store.as_retriever(search_kwargs=search)
    served = hybrid(DeepMemoryEmbeddings(embeddings, adapter)).as_retriever(search_kwargs=search)
    result = memory.measure(test, retriever=served, plain=plain, id_key="name", top_k=K, concurrency=1)
    for side, retriever in ((WITH, served), (WITHOUT, plain)):
        found = [[document.metadata["name"] for document in retriever.invoke(query)] for query in test.queries]
        for k in K:
            assert result[side][f"recall@{k}"] == pytest.approx(recall(test, found, k))
    assert result[WITHOUT]["recall@5"] > 0.9, "the words of the query name the document"
