import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance
from deepmem_integrations.corpora import CorpusAtLevel
from deepmem_integrations.deeplake import DeepLakeStore, StoredDocument
from deepmem_integrations.errors import InvalidRelevanceError, StoreError
from deepmem_integrations.langchain import DeepMemoryRetriever
from tests.langchain.helpers import Lookup, documents_of


class Foreign(VectorStore):
    """A store that nobody has written a reader for; it finds documents in a store that it hides."""

    from_texts = None

    def __init__(self, problem, *, tells_ids=True):
        self._embeddings, self._tells_ids = Lookup(problem), tells_ids
        self._hidden = InMemoryVectorStore(self._embeddings)
        self._hidden.add_documents(documents_of(problem))

    @property
    def embeddings(self):
        return self._embeddings

    def _told(self, documents):
        return documents if self._tells_ids else [document.model_copy(update={"id": None}) for document in documents]

    def similarity_search(self, query, k=4, **kwargs):
        return self._told(self._hidden.similarity_search(query, k))

    def similarity_search_by_vector(self, embedding, k=4, **kwargs):
        return self._told(self._hidden.similarity_search_by_vector(embedding, k))

    def get_by_ids(self, ids, /):
        return self._told(self._hidden.get_by_ids(ids))


@pytest.fixture
def in_memory(problem):
    store = InMemoryVectorStore(Lookup(problem))
    store.add_documents(documents_of(problem))
    return store


@pytest.fixture(params=["DeepLake", "InMemoryVectorStore"])
def any_store(request, db, in_memory):
    return db if request.param == "DeepLake" else in_memory


def first_right(problem, vectors):
    best = np.argmax(vectors @ problem.corpus.T, axis=1)
    return np.mean([problem.ids[row] == labels[0][0] for row, labels in zip(best, problem.test.labels, strict=True)])


# ---- documents -------------------------------------------------------------------------------------------------------


def test_documents_are_the_stores_own_with_their_ids(any_store, problem, tmp_path, monkeypatch):
    monkeypatch.setattr("deepmem_integrations.deeplake.store._BATCH", 70)
    monkeypatch.setattr("deepmem_integrations.corpora.stores.BATCH", 70)
    memory = DeepMemory.from_langchain(any_store, path=tmp_path)
    assert [len(ids) for ids, _ in memory.corpus.vectors()] == [70, 70, 70, 70, 20]
    assert memory.documents() == documents_of(problem)


def test_a_bare_data_set_gives_its_own_documents(problem, embeddings):
    store = DeepLakeStore("mem://documents")
    assert DeepMemory.from_deeplake(store, embeddings, "unused").documents() == []
    store.add(["a", "b"], problem.corpus[:2], ["", "text"], [{"k": [1, None]}, {}])
    right = [StoredDocument("a", "", {"k": [1, None]}), StoredDocument("b", "text", {})]
    assert DeepMemory.from_deeplake(store, embeddings, "unused").documents() == right


def test_given_documents_are_embedded_once_in_place_of_the_stores(problem, tmp_path):
    store = Foreign(problem)
    asked = []
    original = store.embeddings.embed_documents
    store.embeddings.embed_documents = lambda texts: asked.extend(texts) or original(texts)
    memory = DeepMemory.from_langchain(store, path=tmp_path, documents=documents_of(problem))
    memory.train(problem.train)
    memory.evaluate(problem.test, top_k=[1])
    assert [text for text in asked if text in set(problem.ids)] == problem.ids
    assert first_right(problem, memory.transform(problem.test_queries)) > first_right(problem, problem.test_queries) + 0.2
    assert memory.documents() == documents_of(problem)
    with pytest.raises(StoreError, match=r"Document 1 has no id.* vectorstore\.add_documents\(documents\) returns the ids"):
        DeepMemory.from_langchain(
            store, path=tmp_path, documents=[Document(id="a", page_content="a"), Document(page_content="b")]
        )
    with pytest.raises(StoreError, match="not both"):
        DeepMemory.from_langchain(store, path=tmp_path, documents=[], scan=False)


# ---- the search alone ------------------------------------------------------------------------------------------------


def test_the_search_alone_trains_and_evaluates_as_the_whole_store_would(problem, tmp_path):
    store = Foreign(problem)
    memory = DeepMemory.from_langchain(store, path=tmp_path / "found", scan=False)
    memory.train(problem.train)
    moved = memory.transform(problem.test_queries)
    assert first_right(problem, moved) > first_right(problem, problem.test_queries) + 0.2
    whole = DeepMemory.from_langchain(store, path=tmp_path / "found", documents=documents_of(problem))
    assert memory.evaluate(problem.test, top_k=[1, 10]) == whole.evaluate(problem.test, top_k=[1, 10])


def test_the_search_alone_embeds_only_what_it_finds(problem, tmp_path):
    store = Foreign(problem)
    memory = DeepMemory.from_langchain(store, path=tmp_path, scan=False)
    queries = problem.train_queries[:2]
    asked = []
    found = memory.corpus.around(lambda: asked.append(None) or queries, 5, {"doc-7", "unknown"})
    ids = [name for batch, _ in found for name in batch]
    assert not memory.corpus.listed
    assert asked == [None], "the queries are needed, and embedded once"
    nearest = np.argsort(-(queries @ problem.corpus.T), axis=1)[:, :5]
    assert len(ids) == len(set(ids))
    assert set(ids) == {"doc-7", *(problem.ids[row] for row in nearest.ravel())}
    with pytest.raises(InvalidRelevanceError, match="'nope' is not in the corpus"):
        memory.train(["a query"], [[("nope", 1.0)]])
    with pytest.raises(StoreError, match="With scan=False the documents of a .* are searched and never listed"):
        memory.documents()


def test_the_search_alone_finds_enough_parents(problem, tmp_path):
    """Documents of k parents for each query, and for labelled parents that are far away the nearest of their documents."""
    store, queries = Foreign(problem), problem.train_queries[:2]
    for row, name in enumerate(problem.ids):
        store._hidden.store[name]["metadata"]["page"] = str(row // 50)
    corpus = CorpusAtLevel(DeepMemory.from_langchain(store, path=tmp_path, scan=False).corpus, "page")
    farthest = str(int(np.argmin(queries[0] @ problem.corpus.T)) // 50)
    ids = [name for batch, _ in corpus.around(lambda: queries, 3, {farthest, "nowhere"}) for name in batch]
    assert len(ids) == len(set(ids)) < len(problem.ids)
    found = {corpus.name_of(name) for name in ids}
    assert farthest in found
    for query in queries:
        ranked = [str(row // 50) for row in np.argsort(-(problem.corpus @ query)).tolist()]
        assert set(list(dict.fromkeys(ranked))[:3]) <= found


def test_a_store_whose_search_is_not_enough_says_what_to_do(problem, tmp_path):
    class TextOnly(VectorStore):
        embeddings = Lookup(problem)
        from_texts = similarity_search = None

    for store, message in (
        (Foreign(problem, tells_ids=False), "does not return the ids"),
        (TextOnly(), "cannot search by vector"),
    ):
        with pytest.raises(StoreError, match=rf"{message}.*documents="):
            DeepMemory.from_langchain(store, path=tmp_path, scan=False).train(problem.train)


# ---- training as a step of a chain -----------------------------------------------------------------------------------


@pytest.fixture
def generator(problem):
    """A step from documents to labelled queries that gives them piece by piece."""

    def generate(documents):
        wanted = {document.id for document in documents}
        for row, labels in enumerate(problem.train.labels):
            assert labels[0][0] in wanted
            yield problem.train.take([row])

    return RunnableLambda(generate)


def test_training_as_a_chain_step_takes_all_labels_however_it_is_run(in_memory, problem, generator, tmp_path):
    memory = DeepMemory.from_langchain(in_memory, path=tmp_path)
    chain = generator | memory.trainer(seed=3)
    (streamed,) = chain.stream(memory.documents())
    jobs = [chain.invoke(memory.documents()), streamed, memory.train(problem.train, seed=3)]
    assert memory.get_model() == jobs[-1]
    for job in jobs:
        assert memory.jobs.job(job).report["queries"] == len(problem.train)
        assert memory.jobs.job(job).report["seed"] == 3
        moved = memory.folder.load_model(job).transform(problem.test_queries)
        np.testing.assert_array_equal(moved, memory.transform(problem.test_queries))


async def test_training_as_an_asynchronous_chain_step(in_memory, problem, tmp_path):
    async def generate(documents):
        for row in range(len(problem.train)):
            yield problem.train.take([row])

    memory = DeepMemory.from_langchain(in_memory, path=tmp_path)
    chain = RunnableLambda(generate) | memory.trainer()
    jobs = [await chain.ainvoke(memory.documents()), *[job async for job in chain.astream(memory.documents())]]
    assert len(jobs) == 2
    for job in jobs:
        assert memory.jobs.job(job).report["queries"] == len(problem.train)


def test_documents_without_the_stores_ids_are_refused_with_the_fix(in_memory, tmp_path):
    memory = DeepMemory.from_langchain(in_memory, path=tmp_path)

    def generate(documents):
        return Relevance([f"what is {d.page_content}?" for d in documents], [[(d.id, 1.0)] for d in documents])

    chain = RunnableLambda(generate) | memory.trainer()
    with pytest.raises(InvalidRelevanceError, match=r"a document has no id: .* memory\.documents\(\)"):
        chain.invoke([Document(page_content="freshly split")])
    with pytest.raises(InvalidRelevanceError, match=r"'other' is not in the corpus .* as memory\.documents\(\) gives them"):
        chain.invoke([Document(id="other", page_content="of another store")])
    with pytest.raises(InvalidRelevanceError, match=r"takes a Relevance; the step before it gave list"):
        (RunnableLambda(lambda documents: documents) | memory.trainer()).invoke(memory.documents())


class Deaf(InMemoryVectorStore):
    """Finds nothing, as a store whose index is not loaded."""

    def similarity_search_by_vector(self, embedding, k=4, **options):
        return []


def test_a_store_that_finds_nothing_is_told(problem, tmp_path):
    """Before, the labelled documents alone stood for the store, and recall was perfect."""
    store = Deaf(Lookup(problem))
    store.add_documents(documents_of(problem))
    memory = DeepMemory.from_langchain(store, path=tmp_path, scan=False)
    with pytest.raises(StoreError, match="The search of the Deaf finds no document for any of"):
        memory.train(problem.train)


def test_a_retriever_without_the_filter_of_its_memory_is_told(problem, tmp_path, caplog):
    store = InMemoryVectorStore(Lookup(problem))
    store.add_documents(documents_of(problem))

    def mine(document):
        return int(document.id[4:]) % 2 == 0

    memory = DeepMemory.from_langchain(store, path=tmp_path, filter=mine)
    memory.folder.save_model("a", QueryAdapter(problem.corpus.shape[1]))
    memory.folder.use("a")
    query = problem.test.queries[0]
    DeepMemoryRetriever(vectorstore=store, memory=memory, search_kwargs={"filter": mine}).invoke(query)
    assert "same filter" not in caplog.text
    for _ in range(2):
        DeepMemoryRetriever(vectorstore=store, memory=memory, k=3, search_kwargs={"fetch_k": 9}).invoke(query)
    assert caplog.text.count("give it the same filter") == 1
