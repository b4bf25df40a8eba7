"""Searches by text with a query vector, and filters that stores ignore: the stores are real."""

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from deepmem_integrations import QueryAdapter
from deepmem_integrations.errors import StoreError
from deepmem_integrations.langchain import DeepMemoryEmbeddings, DeepMemoryRetriever
from tests.langchain.helpers import Lookup, documents_of, expected

pytestmark = pytest.mark.filterwarnings("ignore:Relevance scores must be between 0 and 1")  # LangChain's, of negative ones

SEARCHES = [("similarity", {}), ("mmr", {}), ("similarity_score_threshold", {"score_threshold": 0.2})]


@pytest.fixture(scope="module", params=["cosine", "l2", "ip"])
def lancedb(request, problem, tmp_path_factory):
    pytest.importorskip("lancedb")
    from langchain_community.vectorstores import LanceDB

    store = LanceDB(uri=str(tmp_path_factory.mktemp("lance")), embedding=Lookup(problem), distance=request.param)
    documents = documents_of(problem)
    sides = [{"side": ["even", "odd"][document.metadata["half"]]} for document in documents]
    store.add_texts(texts_of(documents), sides, ids=list(problem.ids))
    return store


def sklearn(problem):
    from langchain_community.vectorstores import SKLearnVectorStore

    store = SKLearnVectorStore(Lookup(problem), metric="cosine")
    documents = documents_of(problem)
    store.add_texts([one.page_content for one in documents], [one.metadata for one in documents], ids=list(problem.ids))
    return store


def retrievers(store, memory, search_type, **search):
    """The store's own retriever, and the same with Deep Memory."""
    plain = store.as_retriever(search_type=search_type, search_kwargs=search)
    return plain, DeepMemoryRetriever.from_retriever(plain, memory)


def texts_of(documents):
    return [document.page_content for document in documents]


@pytest.mark.slow
@pytest.mark.parametrize(("search_type", "options"), SEARCHES)
@pytest.mark.parametrize("filter", ["metadata.side = 'odd'", {"metadata.side": "odd"}])
async def test_lancedb_keeps_its_filter_in_every_search(lancedb, problem, adapter, search_type, options, filter):
    query = problem.ids[1]  # its text is that of a document, which every threshold lets pass
    plain, identity = retrievers(lancedb, QueryAdapter(32), search_type, k=5, filter=filter, **options)
    _, ours = retrievers(lancedb, adapter, search_type, k=5, filter=filter, **options)
    right = plain.invoke(query)
    if search_type == "similarity_score_threshold" and lancedb.distance == "ip":
        assert problem.ids[1] not in texts_of(right), "the exact match is the first that LangChain's relevance score drops"
        found = identity.invoke(query)
        assert texts_of(found)[0] == problem.ids[1], "the cosine takes its place"
        right = found
    for found in (identity.invoke(query), await identity.ainvoke(query)):
        assert texts_of(found) == texts_of(right)
    for found in (ours.invoke(query), await ours.ainvoke(query)):
        assert found
        assert {document.metadata["side"] for document in found} == {"odd"}


@pytest.mark.slow
def test_lancedb_applies_its_relevance_once(lancedb, problem):
    query = problem.ids[1]
    if lancedb.distance == "ip":
        lancedb.override_relevance_score_fn = lambda distance: 1 - distance
    scores = [score for _, score in lancedb.similarity_search_with_relevance_scores(query, k=20)]
    for place in (0, 3, 9):
        threshold = (scores[place] + scores[place + 1]) / 2
        plain, ours = retrievers(lancedb, QueryAdapter(32), "similarity_score_threshold", k=20, score_threshold=threshold)
        assert texts_of(ours.invoke(query)) == texts_of(plain.invoke(query))
        assert len(ours.invoke(query)) == place + 1


# ---- filters that a store ignores ------------------------------------------------------------------------------------


async def test_a_filter_that_a_store_ignores_is_refused(problem, adapter):
    store = sklearn(problem)  # whose searches take any option and use none
    query = problem.test.queries[0]
    everyone = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=3)
    assert texts_of(everyone.invoke(query)) == expected(problem, adapter.transform(problem.test_queries[0]), 3)
    for name, filter in (
        ("filter", {"half": 1}),
        ("filter", "half = 1"),
        ("filter", lambda document: document.metadata["half"] == 1),
        ("pre_filter", [{"half": 1}]),
        ("tenant", "a"),
        ("filter", Document(page_content="a filter of a store's own")),
    ):
        for search_type, options in SEARCHES:
            own = {"search_type": search_type, "search_kwargs": {**options, name: filter}}
            retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, **own)
            with pytest.raises(StoreError, match=f"has no option {name}|ignores {name}, .* finds documents"):
                retriever.invoke(query)
            with pytest.raises(StoreError, match=f"has no option {name}|ignores {name}"):
                await retriever.ainvoke(query)
    assert len(everyone.invoke(query, filter=None)) == 3


class Remote(VectorStore):
    """A store that reaches another one through a service, and that counts its searches."""

    def __init__(self, inner) -> None:
        self.service = Service(inner)
        self.searches = []

    @property
    def embeddings(self):
        return self.service.embedder.model

    def similarity_search(self, query, k=4, **options):
        self.searches.append(options)
        return self.service.search(query, k, **options)

    def similarity_search_by_vector(self, embedding, k=4, **options):
        raise AssertionError("the search by vector drops the options")

    from_texts = None


class Service:
    def __init__(self, inner) -> None:
        self.inner, self.embedder, self.myself = inner, Embedder(inner.embeddings), self

    def search(self, query, k, filter=None):
        return self.inner.similarity_search_by_vector(self.embedder.embed(query), k, filter=filter)


class Embedder:
    def __init__(self, model) -> None:
        self.model = model

    def embed(self, text):
        return self.model.embed_documents([text])[0]


@pytest.fixture
def remote(problem):
    inner = InMemoryVectorStore(Lookup(problem))
    inner.add_documents(documents_of(problem))
    return Remote(inner)


async def test_a_store_is_searched_by_text_with_the_transformed_vector(remote, problem, adapter):
    query, moved = problem.test.queries[0], adapter.transform(problem.test_queries[0])
    retriever = DeepMemoryRetriever(vectorstore=remote, memory=adapter, k=5)
    before = vars(remote) | vars(remote.service) | vars(remote.service.embedder)
    for found in (retriever.invoke(query), await retriever.ainvoke(query)):
        assert texts_of(found) == expected(problem, moved, 5)
    assert vars(remote) | vars(remote.service) | vars(remote.service.embedder) == before, "the store itself is not changed"
    assert texts_of(retriever.invoke(query, deep_memory=False)) == expected(problem, problem.test_queries[0], 5)


async def test_each_filter_of_a_store_is_tried_once(remote, problem, adapter):
    def odd(document):
        return document.metadata["half"] == 1

    query, moved = problem.test.queries[0], adapter.transform(problem.test_queries[0])
    right = expected(problem, moved, 5, lambda row: row % 2 == 1)
    retriever = DeepMemoryRetriever(vectorstore=remote, memory=adapter, k=5)
    assert texts_of(retriever.invoke(query, filter=odd)) == right
    assert len(remote.searches) == 2
    assert texts_of(await retriever.ainvoke(query, filter=odd)) == right
    assert remote.searches[2:] == [{"filter": odd}]
    assert retriever.invoke(query, filter=lambda document: False) == []


def test_embeddings_that_are_wrapped_already_transform_once(remote, problem, adapter):
    remote.service.embedder.model = DeepMemoryEmbeddings(remote.embeddings, adapter)
    query, vector = problem.test.queries[0], problem.test_queries[0]
    retriever = DeepMemoryRetriever(vectorstore=remote, memory=adapter, k=5)
    assert texts_of(retriever.invoke(query)) == expected(problem, adapter.transform(vector), 5)
    assert texts_of(retriever.invoke(query, deep_memory=False)) == expected(problem, vector, 5)


async def test_a_search_by_text_that_a_class_overrides_is_kept(problem, adapter):
    class Tenant(InMemoryVectorStore):
        """A store whose own retriever keeps to a half of the documents."""

        def similarity_search(self, query, k=4, **options):
            return super().similarity_search(query, k, filter=lambda document: document.metadata["half"] == 1)

        async def asimilarity_search(self, query, k=4, **options):
            return self.similarity_search(query, k)

    store = Tenant(Lookup(problem))
    store.add_documents(documents_of(problem))
    retriever = DeepMemoryRetriever(vectorstore=store, memory=adapter, k=5)
    query = problem.test.queries[0]
    right = expected(problem, adapter.transform(problem.test_queries[0]), 5, lambda row: row % 2 == 1)
    for found in (retriever.invoke(query), await retriever.ainvoke(query)):
        assert texts_of(found) == right


def test_a_store_that_does_not_ask_its_embedding_model_is_refused(remote, problem, adapter):
    vector = problem.corpus[0].tolist()
    remote.service.search = lambda query, k: remote.service.inner.similarity_search_by_vector(vector, k)
    with pytest.raises(StoreError, match=r"Remote cannot be searched .*did not ask the embedding model .* DeepMemoryEmbeddings"):
        DeepMemoryRetriever(vectorstore=remote, memory=adapter).invoke("a query")


def test_a_store_that_does_something_when_it_is_deleted_is_never_copied(remote, problem, adapter):
    class Closing(Remote):
        closed = False

        def __del__(self):
            type(self).closed = True

    store = Closing(remote.service.inner)
    with pytest.raises(AssertionError, match="drops the options"):  # the search by vector is the one that is left
        DeepMemoryRetriever(vectorstore=store, memory=adapter).invoke("a query")
    assert not Closing.closed


def test_what_else_a_store_asks_of_its_embedding_model_is_answered(problem):
    class Model(Embeddings):
        size = 3

        def embed_query(self, text):
            return [0.0, 1.0, 0.0]

        def embed_documents(self, texts):
            return [self.embed_query(text) for text in texts]

    class Store(InMemoryVectorStore):
        def similarity_search(self, query, k=4, **options):
            size, (other,) = self.embedding.size, self.embedding.embed_documents(["another text"])
            found = super().similarity_search(query, k)
            return [*found, Document(page_content=f"{size} {other}")]

    store = Store(Model())
    store.add_texts(["a text"])
    found = DeepMemoryRetriever(vectorstore=store, memory=QueryAdapter(3)).invoke("a query")
    assert texts_of(found) == ["a text", "3 [0.0, 1.0, 0.0]"]
