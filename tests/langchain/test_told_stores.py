"""What users tell of a store: its embedding model, names for its documents, its metric, and a filter for one tenant."""

import copy

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from deepmem_integrations import DeepMemory, QueryAdapter, Relevance
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.corpora import read_corpus
from deepmem_integrations.corpora.langchain_tables import SKLearnCorpus
from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain import DeepMemoryEmbeddings, DeepMemoryRetriever
from tests.langchain.helpers import Lookup, documents_of, expected, ids, remembering
from tests.langchain.opening import in_sklearn, in_sqlitevec


def named_documents(problem):
    """Documents whose metadata names them, for stores that give them ids of their own, or none."""
    return [Document(page_content=name, metadata={"page": name, "half": row % 2}) for row, name in enumerate(problem.ids)]


class Hiding(VectorStore):
    """A store of no known kind, over a store that it hides."""

    from_texts = similarity_search = None

    def __init__(self, embeddings, documents) -> None:
        self._embedding = embeddings
        self.hidden = InMemoryVectorStore(embeddings)
        self.hidden.add_documents(documents)

    @property
    def embeddings(self):
        return self._embedding


class Scored(Hiding):
    """A store whose only search by vector returns scores, as Elasticsearch's does."""

    def similarity_search_by_vector_with_relevance_scores(self, embedding, k=4, filter=None, **kwargs):
        return self.hidden.similarity_search_with_score_by_vector(embedding, k, filter=filter)


class ScoredForAsync(Hiding):
    """The same, for async calls alone."""

    async def asimilarity_search_by_vector_with_relevance_scores(self, embedding, k=4, filter=None, **kwargs):
        return self.hidden.similarity_search_with_score_by_vector(embedding, k, filter=filter)


class ByText(Hiding):
    """A store that searches by text alone, as USearch does, and tells no embedding model."""

    embeddings = None

    def similarity_search(self, query, k=4, filter=None, **kwargs):
        self.asked.append(query)
        return self.hidden.similarity_search_by_vector(self._embedding.embed_query(query), k, filter=filter)

    def max_marginal_relevance_search(self, query, k=4, fetch_k=20, **kwargs):
        vector = self._embedding.embed_query(query)
        return self.hidden.max_marginal_relevance_search_by_vector(vector, k, fetch_k, **kwargs)

    def __init__(self, embeddings, documents) -> None:
        super().__init__(embeddings, documents)
        self.asked = []


# ---- a store that tells neither its model nor ids, from training to forgetting ---------------------------------------


@pytest.fixture
def sqlite(problem, tmp_path):
    store = in_sqlitevec(Lookup(problem), tmp_path)
    store.add_documents(named_documents(problem))
    return store


def test_a_store_that_does_not_tell_its_embedding_model_says_what_to_pass(sqlite, problem, adapter, tmp_path):
    with pytest.raises(StoreError, match=r"SQLiteVec has no embedding model, or does not return it.*embeddings="):
        DeepMemory.from_langchain(sqlite, path=tmp_path / "m")
    with pytest.raises(StoreError, match="embeddings="):
        DeepMemoryRetriever(vectorstore=sqlite, memory=adapter).invoke("q")
    retriever = DeepMemoryRetriever(vectorstore=sqlite, memory=adapter, embeddings=Lookup(problem), k=3, id_key="page")
    moved = adapter.transform(problem.test_queries[0])
    assert ids(retriever.invoke(problem.test.queries[0])) == expected(problem, moved, 3)


def test_metadata_names_documents_everywhere(sqlite, problem, tmp_path):
    folder = tmp_path / "m"
    memory = DeepMemory.from_langchain(sqlite, path=folder, embeddings=Lookup(problem), id_key="page")
    assert ids(memory.documents()) == problem.ids
    assert read_corpus(memory.corpus.vectors())[0] == problem.ids
    memory.train(problem.train)
    assert memory.refresh().unchanged == len(problem.ids), "words know documents by their names"
    assert memory.lexical_search.search("doc-7", 3).ids[0] == "doc-7"
    result = memory.evaluate(problem.test, top_k=[1])
    assert result["with model"]["recall@1"] > result["without model"]["recall@1"] + 0.2

    query, vector = problem.test.queries[0], problem.test_queries[0]
    right = expected(problem, memory.transform(vector), 5)
    of_memory = DeepMemoryRetriever(vectorstore=sqlite, memory=memory, k=5, words=False, answers=False)
    assert ids(of_memory.invoke(query)) == right
    assert ids(of_memory.invoke(query, deep_memory=False)) == expected(problem, vector, 5)
    of_folder = DeepMemoryRetriever(
        vectorstore=sqlite, memory=folder, embeddings=Lookup(problem), k=5, words=False, answers=False
    )
    assert ids(of_folder.invoke(query)) == right, "the model's file knows the key"
    assert memory.explain(query, top=1).documents[0].id in problem.ids

    memory.remember(Relevance(["new question"], [[("doc-299", 1.0)]]))
    assert memory.adapter.id_key == "page"
    memory.forget(query_ids=[memory.adapter.remembered_queries.query_ids[-1]])
    assert memory.adapter.id_key == "page"


def test_remembered_answers_and_words_bring_documents_by_name(sqlite, problem):
    far = expected(problem, problem.test_queries[0], 300)[-1]
    unit = problem.test_queries[:1] / np.linalg.norm(problem.test_queries[0])
    adapter = remembering(unit, [{far: 1.0}], Ranking(answers=9.0))
    options = {"vectorstore": sqlite, "embeddings": Lookup(problem), "id_key": "page"}
    found = DeepMemoryRetriever(memory=adapter, k=2, fetch_k=5, **options).invoke(problem.test.queries[0])
    assert (found[0].id, found[0].page_content) == (far, far)
    with pytest.raises(StoreError, match="has no option filter and would ignore it"):
        DeepMemoryRetriever(memory=adapter, **options).invoke("q", filter={"half": 1})


@pytest.mark.parametrize("scan", [True, False])
def test_a_name_that_is_missing_or_not_unique_is_told(problem, tmp_path, scan):
    store = in_sklearn(Lookup(problem), tmp_path)
    store.add_documents(named_documents(problem))

    def read(id_key):
        memory = DeepMemory.from_langchain(store, path=tmp_path, id_key=id_key, scan=scan)
        return read_corpus(memory.corpus.around(lambda: problem.test_queries[:1], 3, []))

    with pytest.raises(StoreError, match=r"has no 'url' in its metadata, which names documents \(id_key\).* keys are: .*'page'"):
        read("url")
    if scan:
        with pytest.raises(StoreError, match=r"2 names stand for several documents .*150 of them.*whose values all differ"):
            read("half")
    with pytest.raises(StoreError, match="Document 0 has no 'url' in its metadata"):
        DeepMemory.from_langchain(store, path=tmp_path, id_key="url", documents=documents_of(problem))


# ---- the metric ------------------------------------------------------------------------------------------------------


class Uneven(Lookup):
    def embed_documents(self, texts):
        return [[(row % 3 + 1) * value for value in vector] for row, vector in enumerate(super().embed_documents(texts))]


@pytest.mark.parametrize("how", ["documents", "scan"])
def test_where_lengths_differ_the_metric_is_asked_for(problem, tmp_path, how):
    store = Scored(Uneven(problem), documents_of(problem))
    given = {"documents": documents_of(problem)} if how == "documents" else {"scan": False}

    def vectors(**options):
        corpus = DeepMemory.from_langchain(store, path=tmp_path, **given, **options).corpus
        return list(corpus.around(lambda: problem.test_queries[:20], 20, []))

    with pytest.raises(StoreError, match=r'Scored does not tell by what it ranks.* lengths of 1 to 3\. Say so: metric="cosine"'):
        vectors()
    with pytest.raises(StoreError, match="Scored ranks by l2, and its vectors have lengths"):
        vectors(metric="l2")
    assert vectors(metric="cosine")
    with pytest.raises(StoreError, match=r"metric says by what the store ranks: 'cosine', 'l2', 'dot'; got 'L2'"):
        vectors(metric="L2")


def test_a_metric_that_is_told_is_checked_once(problem, tmp_path, monkeypatch):
    store = in_sklearn(Lookup(problem), tmp_path)
    store.add_documents(named_documents(problem))
    memory = DeepMemory.from_langchain(store, path=tmp_path, metric="dot")
    memory.folder.save_model("identity", QueryAdapter(32))
    memory.set_model("identity")
    retriever = DeepMemoryRetriever(vectorstore=store, memory=memory, k=3)
    assert len(retriever.invoke("q")) == 3
    monkeypatch.delattr(SKLearnCorpus, "read_vectors")
    assert len(retriever.invoke("q")) == 3


def test_vectors_of_one_length_need_no_metric(problem, tmp_path):
    store = Scored(Lookup(problem), documents_of(problem))
    assert list(DeepMemory.from_langchain(store, path=tmp_path, documents=documents_of(problem)).corpus.vectors())


# ---- searches under other names --------------------------------------------------------------------------------------


async def test_a_store_whose_search_always_returns_scores_is_searched(problem, adapter):
    moved = adapter.transform(problem.test_queries[0])
    query, right = problem.test.queries[0], expected(problem, moved, 4)
    retriever = DeepMemoryRetriever(vectorstore=Scored(Lookup(problem), documents_of(problem)), memory=adapter, k=4)
    assert ids(retriever.invoke(query)) == ids(await retriever.ainvoke(query)) == right
    half = expected(problem, moved, 4, keep=lambda row: row % 2 == 1)
    assert ids(retriever.invoke(query, filter=lambda document: document.metadata["half"] == 1)) == half
    for_async = DeepMemoryRetriever(vectorstore=ScoredForAsync(Lookup(problem), documents_of(problem)), memory=adapter, k=4)
    assert ids(await for_async.ainvoke(query)) == right
    with pytest.raises(StoreError, match="has only asimilarity_search_by_vector_with_relevance_scores"):
        for_async.invoke(query)


async def test_a_store_that_searches_by_text_alone_is_searched_with_the_transformed_vector(problem, adapter):
    base = Lookup(problem)
    moved, query = adapter.transform(problem.test_queries[0]), problem.test.queries[0]
    for held in (base, DeepMemoryEmbeddings(base, adapter)):
        store = ByText(base, documents_of(problem))
        store._embedding = held
        before = copy.copy(vars(store))
        retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, embeddings=base, k=4)
        assert ids(retriever.invoke(query)) == ids(await retriever.ainvoke(query)) == expected(problem, moved, 4)
        half = expected(problem, moved, 4, keep=lambda row: row % 2 == 1)
        assert ids(retriever.invoke(query, filter=lambda document: document.metadata["half"] == 1)) == half
        assert set(store.asked) == {query}, "a store that searches by words as well needs the text"
        by_mmr = DeepMemoryRetriever(
            vectorstore=store, memory=adapter, embeddings=base, k=4, search_type="mmr", search_kwargs={"lambda_mult": 1.0}
        )
        assert ids(by_mmr.invoke(query)) == expected(problem, moved, 4)
        assert vars(store) == before, "the store is never changed"


def test_a_store_that_searches_by_text_and_might_ignore_a_filter_gets_none(problem, adapter):
    class Ignoring(ByText):
        def similarity_search(self, query, k=4, **kwargs):
            return super().similarity_search(query, k)

    base = Lookup(problem)
    store = Ignoring(base, documents_of(problem))
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, embeddings=base, k=3)
    assert len(retriever.invoke("q")) == 3
    with pytest.raises(StoreError, match="Ignoring ignores filter, .* finds documents all the same"):
        retriever.invoke("q", filter={"half": 1})


def test_a_store_whose_embedding_model_cannot_be_found_in_it_says_what_to_do(problem, adapter):
    store = ByText(Lookup(problem), documents_of(problem))
    retriever = DeepMemoryRetriever(vectorstore=store, memory=QueryAdapter(32), embeddings=Lookup(problem))  # another object
    with pytest.raises(StoreError, match=r"cannot be searched by vector in this way.*DeepMemoryEmbeddings\(embeddings, memory\)"):
        retriever.invoke("q")


@pytest.mark.parametrize("kind", [Scored, ByText])
def test_the_search_alone_trains_without_a_look_up_by_ids(problem, tmp_path, kind, caplog):
    base = Lookup(problem)
    store = kind(base, documents_of(problem))
    memory = DeepMemory.from_langchain(store, path=tmp_path, scan=False, embeddings=base)
    memory.train(problem.train)
    result = memory.evaluate(problem.test, top_k=[1])
    assert result["with model"]["recall@1"] > result["without model"]["recall@1"] + 0.2
    memory.remember(Relevance(["new question"], [[("doc-299", 1.0)]]))
    assert memory.adapter.remembered_queries.document_ids[-1] == "doc-299"
    assert not caplog.records


def test_a_labelled_document_that_no_search_finds_is_told(problem, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("deepmem_integrations.corpora.langchain._DEEP", 5)
    corpus = DeepMemory.from_langchain(Scored(Lookup(problem), documents_of(problem)), path=tmp_path, scan=False).corpus
    found = {name for names, _ in corpus.around(lambda: problem.test_queries[:1], 2, ["gone"]) for name in names}
    assert found == set(expected(problem, problem.test_queries[0], 2))
    assert "1 labelled documents are not among the 5 nearest of any query" in caplog.text
    assert "'gone'" in caplog.text


# ---- a tenant's documents --------------------------------------------------------------------------------------------


def test_a_filter_that_might_be_ignored_is_refused(problem, tmp_path):
    class Ignoring(Scored):
        def similarity_search_by_vector_with_relevance_scores(self, embedding, k=4, **kwargs):
            return self.hidden.similarity_search_with_score_by_vector(embedding, k)

    def read(kind, **options):
        store = kind(Lookup(problem), documents_of(problem))
        return DeepMemory.from_langchain(store, path=tmp_path, filter=lambda document: document.metadata["half"] == 1, **options)

    with pytest.raises(StoreError, match="has no option named filter, and might ignore it"):
        read(Ignoring, scan=False)
    with pytest.raises(StoreError, match="documents= are not read from it: pass the documents that belong"):
        read(Scored, documents=documents_of(problem))
    corpus = read(Scored, scan=False).corpus
    found = {name for names, _ in corpus.around(lambda: problem.test_queries[:2], 9, []) for name in names}
    assert found
    assert found <= set(problem.ids[1::2])


def test_training_and_evaluation_keep_to_a_tenants_documents(db, problem, tmp_path):
    memory = DeepMemory.from_langchain(db, path=tmp_path / "m", filter={"half": 1})
    odd = set(problem.ids[1::2])
    assert set(read_corpus(memory.corpus.vectors())[0]) == set(ids(memory.documents())) == odd

    def own(labels):
        rows = [row for row, judged in enumerate(labels.labels) if judged[0][0] in odd]
        return Relevance([labels.queries[row] for row in rows], [labels.labels[row] for row in rows])

    memory.train(own(problem.train))
    assert len(memory.lexical_search) == len(odd)
    labels = own(problem.test)
    result = memory.evaluate(labels, top_k=[1])
    rows = [problem.test.queries.index(query) for query in labels.queries]
    kept = np.array([row % 2 == 1 for row in range(len(problem.ids))])
    scores = np.where(kept, problem.test_queries[rows] @ problem.corpus.T, -np.inf)
    right = [problem.ids[best] == judged[0][0] for best, judged in zip(scores.argmax(axis=1), labels.labels, strict=True)]
    assert result["without model"]["recall@1"] == pytest.approx(np.mean(right))
