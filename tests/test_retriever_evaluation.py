"""Applications as people build them: what an evaluation says of them is what a loop over the served retriever says."""

import asyncio
import warnings

import faiss
import numpy as np
import pytest
from langchain_classic.retrievers import EnsembleRetriever, ParentDocumentRetriever
from langchain_community.docstore.in_memory import InMemoryDocstore
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.stores import InMemoryStore
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qdrant import QdrantVectorStore
from langchain_text_splitters import CharacterTextSplitter
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import TextNode
from qdrant_client import QdrantClient, models

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance
from deepmem_integrations.corpora import GivenCorpus
from deepmem_integrations.errors import InvalidRelevanceError, StoreError
from deepmem_integrations.evaluation import WITH, WITHOUT
from deepmem_integrations.langchain import DeepMemoryEmbeddings, DeepMemoryRetriever
from deepmem_integrations.llama_index import DeepMemoryRetriever as NodeRetriever
from deepmem_integrations.words import WordIndex
from tests.langchain.helpers import Lookup, documents_of
from tests.llama_index.helpers import Lookup as NodeLookup
from tests.problems import with_uuids

K = (1, 5)


@pytest.fixture(scope="module")
def adapter(problem):
    """A transform with an effect that differs from query to query."""
    turn = 0.4 * np.random.default_rng(1).normal(size=(problem.corpus.shape[1],) * 2).astype(np.float32)
    return QueryAdapter(problem.corpus.shape[1], linear=turn)


@pytest.fixture
def store(problem):
    store = InMemoryVectorStore(Lookup(problem))
    store.add_documents(documents_of(problem))
    return store


def agrees(evaluation, side, labels, ask):
    """Compare one side with a loop over the queries; ``ask`` returns the ids for a query, best first."""
    found = [ask(query) for query in labels.queries]
    assert evaluation.found[side] == found
    assert any(found)
    right = [{name for name, _ in labels} for labels in labels.labels]
    for k in K:
        recall = [len(wanted & set(ids[:k])) / len(wanted) for wanted, ids in zip(right, found, strict=True)]
        assert evaluation[side][f"recall@{k}"] == pytest.approx(np.mean(recall))
        hits = [[name in wanted for name in ids[:k]] for wanted, ids in zip(right, found, strict=True)]
        reciprocal = [1 / (1 + one.index(True)) if any(one) else 0 for one in hits]
        assert evaluation[side][f"mrr@{k}"] == pytest.approx(np.mean(reciprocal))
    return found


def test_a_store_that_ranks_by_l2(memory, problem):
    class Long(Lookup):
        def embed_documents(self, texts):
            return [(np.array(super(Long, self).embed_query(text)) * (1 + row % 3)).tolist() for row, text in enumerate(texts)]

    embeddings = Long(problem)
    store = FAISS(embeddings, faiss.IndexFlatL2(problem.corpus.shape[1]), InMemoryDocstore(), {})
    store.add_documents(documents_of(problem))
    served, least = store.as_retriever(search_kwargs={"k": 5}), store.as_retriever(search_kwargs={"k": 2})
    result = memory.measure(problem.test, retriever=served, plain=least, top_k=K)
    found = agrees(result, WITH, problem.test, lambda query: [document.id for document in served.invoke(query)])
    agrees(result, WITHOUT, problem.test, lambda query: [document.id for document in least.invoke(query)])
    assert result.gains["recall@1"].mean == 0
    assert result.gains["recall@5"].mean > 0, "cut-offs beyond k score what there is"
    memory.folder.save_model("none", QueryAdapter(problem.corpus.shape[1]))
    memory.set_model("none")
    assert memory.measure(problem.test, top_k=K).found[WITHOUT] != found, "an exact cosine, which this store does not rank by"


@pytest.mark.slow
def test_a_tenant_filter(problem, adapter, tmp_path):
    problem = with_uuids(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a local Qdrant without payload indexes
        client = QdrantClient(":memory:")
    client.create_collection("docs", models.VectorParams(size=problem.corpus.shape[1], distance=models.Distance.COSINE))
    store = QdrantVectorStore(client, "docs", Lookup(problem))
    store.add_documents(documents_of(problem), ids=problem.ids)
    memory = DeepMemory.from_langchain(store, tmp_path / "m")
    mine = models.Filter(must=[models.FieldCondition(key="metadata.half", match=models.MatchValue(value=1))])
    served = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=5, search_kwargs={"filter": mine})
    result = memory.measure(problem.test, retriever=served, top_k=K)
    found = agrees(result, WITH, problem.test, lambda query: [document.metadata["_id"] for document in served.invoke(query)])
    plain = store.as_retriever(search_kwargs={"k": 5, "filter": mine})
    agrees(result, WITHOUT, problem.test, lambda query: [document.metadata["_id"] for document in plain.invoke(query)])
    assert result[WITH] != result[WITHOUT]
    assert {problem.ids.index(name) % 2 for ids in found for name in ids} == {1}, "the filter is the retriever's own"
    assert result["with model"]["recall@5"] <= 0.75, "half of the answers are another tenant's"
    client.close()


@pytest.mark.parametrize("search_type", ["similarity", "mmr", "similarity_score_threshold"])
def test_the_plain_side_keeps_the_search(memory, problem, store, adapter, search_type):
    options = {"score_threshold": 0.3} if search_type == "similarity_score_threshold" else {}
    served = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=5, search_type=search_type, search_kwargs=options)
    result = memory.measure(problem.test, retriever=served, top_k=K)
    agrees(result, WITH, problem.test, lambda query: [document.id for document in served.invoke(query)])
    identity = QueryAdapter(problem.corpus.shape[1])
    same = DeepMemoryRetriever(vectorstore=store, memory=identity, k=5, search_type=search_type, search_kwargs=options)
    agrees(result, WITHOUT, problem.test, lambda query: [document.id for document in same.invoke(query)])


@pytest.mark.parametrize("kind", ["a threshold of inner products", "a selective filter"])
def test_a_model_that_moves_nothing_has_no_gain(kind, problem, tmp_path):
    """Before, the side without the model was LangChain's search by text, which finds other documents there."""
    unit = problem.corpus / np.linalg.norm(problem.corpus, axis=1, keepdims=True)
    threshold, dimension = kind.startswith("a threshold"), unit.shape[1]
    flat = faiss.IndexFlatIP(dimension) if threshold else faiss.IndexFlatL2(dimension)
    rank = {"distance_strategy": "MAX_INNER_PRODUCT"} if threshold else {"normalize_L2": True}
    store = FAISS(Lookup(problem), flat, InMemoryDocstore(), {}, **rank)
    metadata = [{"tenant": row % 40} for row in range(len(unit))]
    store.add_embeddings(list(zip(problem.ids, unit.tolist(), strict=True)), metadata, problem.ids)
    search = {"search_type": "similarity_score_threshold"} if threshold else {}
    options = {"score_threshold": 0.3} if threshold else {"filter": {"tenant": 7}}
    served = DeepMemoryRetriever(vectorstore=store, memory=QueryAdapter(dimension), k=5, search_kwargs=options, **search)
    result = DeepMemory.from_langchain(store, path=tmp_path).measure(problem.test, retriever=served, top_k=K)
    assert any(result.found[WITH])
    assert result.found[WITH] == result.found[WITHOUT]
    assert [len(ids) for ids in result.found[WITH]] == [5] * len(problem.test) or threshold


class Words(BaseRetriever):
    """BM25 over an index of words."""

    index: object
    documents: dict

    def _get_relevant_documents(self, query, *, run_manager):
        return [self.documents[name] for name in self.index.search(query, 5).ids]


def test_a_hybrid(memory, problem, store, adapter, tmp_path):
    # Every third query says the id of its document, as users name parts and errors.
    asked = [
        f"{query} {problem.test.labels[row][0][0]}" if row % 3 == 0 else query for row, query in enumerate(problem.test.queries)
    ]
    test = Relevance(asked, problem.test.labels)
    index = WordIndex.build(tmp_path / "words", [(problem.ids, problem.ids)])
    words = Words(index=index, documents={document.id: document for document in documents_of(problem)})

    def hybrid(vectors):
        return EnsembleRetriever(retrievers=[words, vectors], weights=[0.5, 0.5])

    ours = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=5)
    served, plain = hybrid(ours), hybrid(store.as_retriever(search_kwargs={"k": 5}))
    result = memory.measure(test, retriever=served, plain=plain, top_k=K)
    agrees(result, WITH, test, lambda query: [document.id for document in served.invoke(query)])
    agrees(result, WITHOUT, test, lambda query: [document.id for document in plain.invoke(query)])
    alone = memory.measure(test, retriever=served, top_k=K)
    assert alone == {WITH: result[WITH]}, "a retriever of somebody else's has no plain side"


def test_parents(problem, adapter, tmp_path, caplog):
    """A page has three parts, and labels name pages, which the store of the parts does not know."""
    pages = [
        Document("\n\n".join(problem.ids[row : row + 3]), id=f"page-{row // 3}", metadata={"page": f"p{row // 3}"})
        for row in range(0, len(problem.ids), 3)
    ]
    page_of = {name: row // 3 for row, name in enumerate(problem.ids)}
    embeddings = Lookup(problem)
    store = InMemoryVectorStore(embeddings)
    served = ParentDocumentRetriever(
        vectorstore=store,
        docstore=InMemoryStore(),
        child_splitter=CharacterTextSplitter(separator="\n\n", chunk_size=8, chunk_overlap=0),
        search_kwargs={"k": 12},
    )
    served.add_documents(pages)
    assert len(store.store) == len(problem.ids)
    memory = DeepMemory.from_langchain(store, tmp_path / "m")

    def named(prefix):
        return Relevance(
            problem.test.queries, [[(f"{prefix}{page_of[name]}", 1.0) for name, _ in labels] for labels in problem.test.labels]
        )

    by_id = memory.measure(named("page-"), retriever=served, top_k=K)
    agrees(by_id, WITH, named("page-"), lambda query: [page.id for page in served.invoke(query)][:10])
    by_key = memory.measure(named("p"), retriever=served, id_key="page", top_k=K)
    agrees(by_key, WITH, named("p"), lambda query: [page.metadata["page"] for page in served.invoke(query)][:10])
    assert by_id[WITH] == by_key[WITH]
    numbered = Relevance(["a", "b"], [[("0", 1)], [("9", 1)]])  # pages and parts may both be counted from 0
    corpus = DeepMemory(GivenCorpus(["0", "1"], ["0", "1"], problem.ids[:2], embeddings), embeddings, tmp_path / "n")
    pages = RunnableLambda(lambda _: [Document("a page", id="0", metadata={"page": 9})])
    assert corpus.measure(numbered, retriever=pages, id_key="page", top_k=K)[WITH]["recall@1"] == 0.5
    assert corpus.measure(numbered, retriever=pages, top_k=K)[WITH]["recall@1"] == 0.5
    assert "'9' for example, are not in the store, and were found for no query" in caplog.text
    parts = store.as_retriever(search_kwargs={"k": 12})
    by_parts = memory.measure(named("p"), retriever=parts, id_key=lambda part: part.metadata["page"], top_k=K)
    agrees(by_parts, WITH, named("p"), lambda query: [part.metadata["page"] for part in parts.invoke(query)][:10])
    moved = InMemoryVectorStore(DeepMemoryEmbeddings(embeddings, adapter))
    moved.store = store.store
    ours = served.model_copy(update={"vectorstore": moved})
    both = memory.measure(named("page-"), retriever=ours, plain=served, top_k=K)
    agrees(both, WITH, named("page-"), lambda query: [page.id for page in ours.invoke(query)][:10])
    assert both[WITHOUT] == by_id[WITH] != both[WITH]
    with pytest.raises(StoreError, match=r"not one of them is known.*the labels name 'p0'.*id_key"):
        memory.measure(named("p"), retriever=parts, top_k=K)


async def test_async(memory, problem, store, adapter):
    served = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=5)
    at_once, most = 0, 0

    class Slow(Lookup):
        async def aembed_query(self, text):
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.001)
            at_once -= 1
            return self.embed_query(text)

    store.embedding = embeddings = Slow(problem)
    embeddings.embed_query(problem.test.queries[0])
    found = await memory.ameasure(problem.test, retriever=served, top_k=K, concurrency=3)
    assert most == 3
    same = memory.measure(problem.test, retriever=served, top_k=K)
    assert (found, found.found) == (same, same.found)
    assert found.gains == same.gains
    memory.folder.save_model("some", adapter)
    memory.set_model("some")
    exact = await memory.ameasure(problem.test, top_k=K)
    assert exact == memory.measure(problem.test, top_k=K)


class FirstTwo(BaseNodePostprocessor):
    def _postprocess_nodes(self, nodes, query_bundle=None):
        return nodes[:2]


@pytest.fixture
def index(problem):
    nodes = [TextNode(id_=name, text=name) for name in problem.ids]
    return VectorStoreIndex(nodes, embed_model=NodeLookup(problem))


@pytest.mark.slow
async def test_llama_index(memory, problem, index, adapter):
    served = NodeRetriever(index, memory=adapter, similarity_top_k=5)
    result = memory.measure(problem.test, retriever=served, top_k=K)
    agrees(result, WITH, problem.test, lambda query: [node.node_id for node in served.retrieve(query)])
    plain = index.as_retriever(similarity_top_k=5)
    agrees(result, WITHOUT, problem.test, lambda query: [node.node_id for node in plain.retrieve(query)])
    assert served.deep_memory, "the retriever is as it was"
    engine = index.as_query_engine(similarity_top_k=5, llm=MockLLM())
    asked = await memory.ameasure(problem.test, retriever=engine, plain=plain, top_k=K)
    assert asked[WITH] == asked[WITHOUT] == result[WITHOUT]
    few = index.as_query_engine(similarity_top_k=5, llm=MockLLM(), node_postprocessors=[FirstTwo()])
    cut = memory.measure(problem.test, retriever=few, top_k=K)
    agrees(cut, WITH, problem.test, lambda query: [node.node_id for node in few.query(query).source_nodes])
    assert {len(ids) for ids in cut.found[WITH]} == {2}, "postprocessors are a part of what users get"


async def test_printed_blocks(memory, problem, store, adapter, capsys):
    served = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=5)
    result = memory.evaluate(problem.test, retriever=served, top_k=K)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "---- Evaluating without Deep Memory ----",
        *(f"Recall@{k}:\t  {100 * result[WITHOUT][f'recall@{k}']:.1f}%" for k in K),
        "---- Evaluating with Deep Memory ----",
        *(f"Recall@{k}:\t  {100 * result[WITH][f'recall@{k}']:.1f}%" for k in K),
    ]
    assert await memory.aevaluate(problem.test.labels, problem.test.queries, retriever=served, top_k=K) == result
    assert capsys.readouterr().out.splitlines() == lines
    alone = memory.evaluate(problem.test, retriever=store.as_retriever(), top_k=K)
    assert capsys.readouterr().out.splitlines()[0] == "---- Evaluating with Deep Memory ----"
    assert "gain" not in alone.table()
    assert f"{100 * alone[WITH]['recall@5']:.1f}" in alone.table()
    assert alone.to_json()["gain"] == {}
    assert alone.unscored == 0


def test_chains(memory, problem, store):
    retriever = store.as_retriever(search_kwargs={"k": 5})
    answer = {
        "context": retriever,
        "history": lambda _: ["hello"],
        "question": RunnablePassthrough(),
    } | RunnablePassthrough()
    result = memory.measure(problem.test, retriever=answer, plain=retriever, top_k=K)
    assert result[WITH] == result[WITHOUT]
    with pytest.raises(StoreError, match="returned str, and no list of documents") as caught:
        memory.measure(problem.test, retriever=retriever | (lambda documents: documents[0].page_content))
    assert "query id '" in caught.value.__notes__[0]
    two = {"one": retriever, "two": retriever} | RunnablePassthrough()
    with pytest.raises(StoreError, match="with the keys one, two, and no list of documents"):
        memory.measure(problem.test, retriever=two)


def test_what_cannot_be_asked(memory, problem, store, index):
    wrongs = {"Call its as_retriever": store, "VectorStoreIndex": index, "SimpleVectorStore": index.vector_store, "class": Words}
    for told, wrong in wrongs.items():
        with pytest.raises(StoreError, match=told):
            memory.measure(problem.test, retriever=wrong)
    retriever = store.as_retriever()
    for options, told in (({"model": "a"}, "set_model"), ({"qvs_params": {"log_queries": True}}, "not logged")):
        with pytest.raises(TypeError, match=told):
            memory.measure(problem.test, retriever=retriever, **options)
    with pytest.raises(TypeError, match="go with retriever="):
        memory.measure(problem.test, plain=retriever)
    with pytest.raises(ValueError, match="concurrency"):
        memory.measure(problem.test, retriever=retriever, concurrency=0)
    with pytest.raises(ValueError, match="concurrency"):
        memory.measure(problem.test, retriever=retriever, concurrency=True)
    with pytest.raises(InvalidRelevanceError, match="no query with a document that answers it"):
        memory.measure(Relevance(["a"], [[("doc-1", -1)]]), retriever=retriever)


def test_short_empty_and_repeated_results(memory, problem, caplog):
    test = Relevance(["one", "two", "three"], [[("doc-1", 1)], [("doc-2", 1)], [("doc-3", 1)]])
    answers = {"one": ["doc-4", "doc-4", "doc-1"], "two": [], "three": ["doc-3"]}
    served = RunnableLambda(lambda text: [Document(name, id=name) for name in answers[text]])
    result = memory.measure(test, retriever=served, top_k=(1, 2, 3), concurrency=np.int64(2))
    assert result.found[WITH] == list(answers.values())
    recalls = [result[WITH][f"recall@{k}"] for k in (1, 2, 3)]
    assert recalls == pytest.approx([1 / 3, 1 / 3, 2 / 3]), "a repeated document takes a place, as it does for users"
    assert result[WITH]["mrr@3"] == pytest.approx((1 / 3 + 0 + 1) / 3)
    nothing = memory.measure(test, retriever=RunnableLambda(lambda text: []), top_k=(1,))
    assert nothing[WITH] == {"recall@1": 0, "ndcg@1": 0, "mrr@1": 0}
    assert "RunnableLambda found no document for any query" in caplog.text


def test_labels_of_another_store(memory, problem, caplog):
    """A router asks two stores, and the memory is that of one of them."""
    test = Relevance(["one", "two"], [[("doc-1", 1)], [("elsewhere", 1)]])
    router = RunnableLambda(lambda text: [Document("text", id="doc-1" if text == "one" else "elsewhere")])
    assert memory.measure(test, retriever=router, top_k=(1,))[WITH]["recall@1"] == 1
    assert not caplog.records
    memory.measure(test, retriever=RunnableLambda(lambda text: [Document("text", id="doc-1")]), top_k=(1,))
    assert "1 of the documents that the labels name, 'elsewhere' for example, are not in the store" in caplog.text


def test_documents_without_ids(memory, problem):
    nameless = RunnableLambda(lambda _: [Document("text", metadata={"source": "doc-1"})])
    with pytest.raises(StoreError, match=r"found a Document with no id; its metadata has the keys 'source'.*id_key"):
        memory.measure(problem.test, retriever=nameless)
    with pytest.raises(StoreError, match="no id by id_key='url'"):
        memory.measure(problem.test, retriever=nameless, id_key="url")
    assert memory.measure(problem.test, retriever=nameless, id_key="source").found[WITH][0] == ["doc-1"]
    strange = RunnableLambda(lambda _: [Document("text", id="chunk-7")])
    with pytest.raises(StoreError, match="not one of them is known: it found 'chunk-7'"):
        memory.measure(problem.test, retriever=strange)


def test_an_error_ends_the_test(memory, problem):
    asked = []

    def fail(text):
        asked.append(text)
        raise ConnectionError("no answer")

    with pytest.raises(ConnectionError, match="no answer") as caught:
        memory.measure(problem.test, retriever=RunnableLambda(fail), concurrency=1)
    assert caught.value.__notes__ == [f"The query is row 0 of the labels, query id {problem.test.query_ids[0]!r}."]
    assert len(asked) == 1


async def test_an_error_ends_an_async_test(memory, problem):
    asked = []

    async def fail(text):
        asked.append(text)
        if len(asked) == 3:
            raise ConnectionError("no answer")
        await asyncio.sleep(60)

    with pytest.raises(ConnectionError, match="no answer") as caught:
        await memory.ameasure(problem.test, retriever=RunnableLambda(str, afunc=fail), concurrency=3)
    assert caught.value.__notes__ == [f"The query is row 2 of the labels, query id {problem.test.query_ids[2]!r}."]
    assert len(asked) < 6, "the others are cancelled"


def test_queries_that_the_model_knows(memory, problem, store, caplog):
    trained = memory.train(problem.train, words=False)
    served = DeepMemoryRetriever(vectorstore=store, memory=memory, k=5)
    caplog.clear()
    memory.measure(problem.test, retriever=served, top_k=K)
    assert "took part" not in caplog.text
    memory.measure(problem.train, retriever=served, top_k=K)
    assert f"{len(problem.train)} of the {len(problem.train)} queries took part in the training of {trained}" in caplog.text
