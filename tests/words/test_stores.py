import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from llama_index.core.retrievers import BaseRetriever as NodeRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from deepmem_integrations.errors import StoreError
from deepmem_integrations.words import DeepLakeWords, LexicalSearch, RetrieverWords, lexical_search_of
from tests.words.conftest import DOCUMENTS

TEXTS = {name: text for name, text in DOCUMENTS.items() if text.strip()}


class Words:
    """Counts words in common; stands in for rank_bm25.BM25Okapi."""

    def __init__(self, texts):
        self.texts = [set(text.lower().split()) for text in texts]

    def get_scores(self, words):
        return np.array([len(text & set(words)) for text in self.texts], dtype=float)

    def get_top_n(self, words, documents, n):
        scores = self.get_scores(words)
        return [documents[row] for row in np.argsort(-scores, kind="stable")[:n]]


def langchain_bm25(ids=True, k=2):
    from langchain_community.retrievers import BM25Retriever

    documents = [Document(id=name if ids else None, page_content=text, metadata={}) for name, text in TEXTS.items()]
    return BM25Retriever(vectorizer=Words(TEXTS.values()), docs=documents, k=k, preprocess_func=lambda text: text.lower().split())


class Plain(BaseRetriever):
    """A LangChain retriever of some other kind: ranks, and no scores."""

    k: int = 2

    def _get_relevant_documents(self, query, *, run_manager):
        scores = Words(TEXTS.values()).get_scores(query.lower().split())
        found = [name for name, score in sorted(zip(TEXTS, scores, strict=True), key=lambda pair: -pair[1]) if score]
        return [Document(id=name, page_content=TEXTS[name]) for name in found[: self.k]]


class Nodes(NodeRetriever):
    """A LlamaIndex retriever that fails where more is asked for than there is, as bm25s does."""

    def __init__(self, top_k=2, scored=True):
        self.similarity_top_k, self.scored, self.corpus = top_k, scored, list(TEXTS.values())
        super().__init__()

    def _retrieve(self, query_bundle):
        assert self.similarity_top_k <= len(self.corpus)
        scores = Words(self.corpus).get_scores(query_bundle.query_str.lower().split())
        found = sorted(zip(TEXTS, scores, strict=True), key=lambda pair: -pair[1])[: self.similarity_top_k]
        return [
            NodeWithScore(node=TextNode(id_=name, text=TEXTS[name]), score=float(score) if self.scored else None)
            for name, score in found
        ]


@pytest.mark.parametrize("make", [langchain_bm25, Plain, Nodes])
def test_retrievers_search_beyond_their_own_k_and_stay_as_they_are(make):
    retriever = make()
    search = RetrieverWords(retriever)
    assert isinstance(search, LexicalSearch)
    query = "the error and the format of a table in"
    everything = search.search(query, 100)
    assert len(everything.ids) > 2, "more than the retriever's own k"
    assert everything.scores.dtype == np.float32 and (np.diff(everything.scores) <= 0).all() and everything.scores[0] > 0
    assert search.search(query, 1).ids == everything.ids[:1]
    last = everything.ids[-1]
    for filter in ({last}, [last], lambda name: name == last):
        assert search.search(query, 1, filter=filter).ids == [last], "a filter does not shorten what is found"
    assert search.search("xyzzy", 3).ids == []
    assert getattr(retriever, "k", None) == 2 or retriever.similarity_top_k == 2


def test_scores_are_the_retrievers_own_where_there_are_any():
    query = "router until"
    assert RetrieverWords(langchain_bm25()).search(query, 5).scores.tolist() == [2]
    assert RetrieverWords(Nodes()).search(query, 5).scores.tolist() == [2]
    assert RetrieverWords(Plain()).search("the router", 5).scores.tolist() == pytest.approx([1 / rank for rank in (1, 2, 3)])
    unscored = RetrieverWords(Nodes(scored=False)).search(query, 2)
    assert unscored.scores.tolist() == [1, 0.5]


def test_any_object_with_the_method_is_a_retriever():
    class Once:
        def invoke(self, text):
            return [Document(page_content="x", metadata={"key": name}) for name in "aba"]

    search = RetrieverWords(Once(), id_of=lambda document: document.metadata["key"])
    assert search.search("x", 10).ids == ["a", "b"]
    with pytest.raises(StoreError, match=r"has no id: .*Give the documents the ids of the vector store"):
        RetrieverWords(Once()).search("x", 1)
    with pytest.raises(StoreError, match="has no id"):
        RetrieverWords(langchain_bm25(ids=False)).search("router", 1)
    with pytest.raises(StoreError, match=r"invoke\(text\) \(LangChain\) or retrieve\(text\) \(LlamaIndex\); dict has neither"):
        RetrieverWords({})
    with pytest.raises(StoreError, match="k is the number of documents"):
        RetrieverWords(Once()).search("x", 0)


def test_search_kwargs_of_a_vector_stores_retriever_are_raised():
    class Store(BaseRetriever):
        search_kwargs: dict = {"k": 1, "filter": {"a": 1}}

        def _get_relevant_documents(self, query, *, run_manager):
            assert self.search_kwargs["filter"] == {"a": 1}
            return [Document(id=str(number), page_content="") for number in range(self.search_kwargs["k"])]

    retriever = Store()
    assert len(RetrieverWords(retriever).search("x", 5).ids) == 5
    assert retriever.search_kwargs["k"] == 1


def test_langchains_own_bm25_retriever():
    pytest.importorskip("rank_bm25")
    from langchain_community.retrievers import BM25Retriever

    documents = [Document(id=name, page_content=text) for name, text in TEXTS.items()]
    search = RetrieverWords(BM25Retriever.from_documents(documents, k=1))
    assert search.search("routers answer. router", 3).ids == ["router"]
    assert len(search.search("the error and the format", 10).ids) > 1


def test_a_class_of_ones_own_below_the_bm25_retriever_is_asked_itself():
    plain = langchain_bm25()

    class Own(type(plain)):
        def _get_relevant_documents(self, query, *, run_manager):
            return self.docs[-1:]

    own = Own(**{name: getattr(plain, name) for name in ("vectorizer", "docs", "k", "preprocess_func")})
    assert RetrieverWords(own).search("anything", 5).ids == [plain.docs[-1].id]


def test_llama_indexs_own_bm25_retriever():
    bm25 = pytest.importorskip("llama_index.retrievers.bm25")
    nodes = [TextNode(id_=name, text=text) for name, text in TEXTS.items()]
    search = RetrieverWords(bm25.BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=1))
    assert search.search("restarting routers", 100).ids == ["router"]
    assert set(search.search("routers and an error", 100).ids) == {"router", "oracle"}
    assert search.search("routers and an error", 1, filter={"oracle"}).ids == ["oracle"]


# ---- Deep Lake -------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    pytest.importorskip("deeplake")
    from deepmem_integrations.deeplake import DeepLakeStore

    store = DeepLakeStore(tmp_path / "store")
    vectors = np.random.default_rng(0).normal(size=(len(TEXTS), 4))
    store.add(list(TEXTS), vectors, list(TEXTS.values()), [{"odd": number % 2} for number in range(len(TEXTS))])
    return store


def test_deep_lake_searches_its_own_text_index(store):
    search = DeepLakeWords(store)
    assert isinstance(search, LexicalSearch)
    with pytest.raises(StoreError, match="has no text index to search words with"):
        search.search("router", 3)
    store.create_text_index()
    found = search.search("router", 10)
    assert found.ids == ["router"] and found.scores.dtype == np.float32 and found.scores.tolist() == [1]
    several = search.search("the error", 10)
    assert several.ids[0] == "oracle" and (np.diff(several.scores) <= 0).all()
    last = several.ids[-1]
    assert search.search("the error", 1, filter={last}).ids == [last]
    assert search.search("the error", 10, filter=lambda name: name != last).ids == several.ids[:-1]
    assert search.search("quotes ' and \" and \\", 3).ids == search.search("quotes and and", 3).ids
    store.add(["new"], np.ones((1, 4)), ["A brand new router, router, router."])
    assert "new" in search.search("router", 10).ids, "documents that are added later are found"
    with pytest.raises(StoreError, match="k is the number of documents"):
        search.search("router", 0)


def test_deep_lake_checks_metadata_itself(store):
    store.create_text_index()
    everything = DeepLakeWords(store).search("the error router dollars", 10).ids
    odd = {name for number, name in enumerate(TEXTS) if number % 2}
    assert DeepLakeWords(store, metadata={"odd": 1}).search("the error router dollars", 10).ids == [
        n for n in everything if n in odd
    ]


def test_the_frameworks_deep_lake_stores_are_taken(store):
    class VectorStore:
        pass

    wrapper = VectorStore()
    wrapper.store = store
    assert DeepLakeWords(wrapper).store is store
    for other in (VectorStore(), "path", None):
        with pytest.raises(StoreError, match=r"needs a Deep Lake store of deepmem_integrations; got .*WordIndex\.build"):
            DeepLakeWords(other)


def test_lexical_search_of_finds_the_search_of_a_store_where_there_is_one(store, tmp_path):
    from deepmem_integrations.deeplake import DeepLakeStore

    class Wrapper:
        pass

    wrapper = Wrapper()
    wrapper.store = store
    assert lexical_search_of(store) is lexical_search_of(wrapper) is None, "there is no text index"
    assert lexical_search_of(DeepLakeStore(tmp_path / "nothing")) is None
    store.create_text_index()
    for one in (store, wrapper):
        assert lexical_search_of(one).search("router", 10).ids == ["router"]
    for other in (langchain_bm25(), None, "text", Wrapper):
        assert lexical_search_of(other) is None
