"""The BM25 search of Milvus Lite, which keeps a real Milvus's data in a file."""

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from deepmem_integrations.errors import StoreError
from deepmem_integrations.words import MilvusWords, lexical_search_of
from tests.words.searches import TEXTS, check_search_by_words

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is an ORM-style PyMilvus API"),  # which langchain-milvus 0.3 uses
]

EMBEDDING = DeterministicFakeEmbedding(size=4)
INDEXES = [
    {"metric_type": "COSINE", "index_type": "FLAT"},
    {"metric_type": "BM25", "index_type": "SPARSE_INVERTED_INDEX"},  # Milvus Lite knows no AUTOINDEX for BM25
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    pytest.importorskip("langchain_milvus")
    return str(tmp_path_factory.mktemp("milvus") / "milvus.db")


def opened(uri, name, **options):
    from langchain_milvus import BM25BuiltInFunction, Milvus

    settings = {"builtin_function": BM25BuiltInFunction(), "vector_field": ["dense", "sparse"], "index_params": INDEXES}
    return Milvus(EMBEDDING, collection_name=name, connection_args={"uri": uri}, **{**settings, **options})


@pytest.mark.parametrize("numbers", [False, True])
def test_langchains_store_searches_words(uri, numbers):
    store = opened(uri, f"numbers_{numbers}", auto_id=numbers, primary_field="the_key")
    assert lexical_search_of(store) is None, "the collection is made with the first documents"
    ids = None if numbers else [f'it\'s "{number}" \\ ü' for number in range(len(TEXTS))]
    ids = [str(name) for name in store.add_texts(TEXTS, [{"half": number % 2} for number in range(len(TEXTS))], ids=ids)]
    search = lexical_search_of(store)
    assert isinstance(search, MilvusWords)
    check_search_by_words(search, ids)
    odd = MilvusWords(store, metadata="half == 1 or half == 7")
    assert set(odd.search("router table error documents", 10).ids) == {ids[1], ids[5]}
    assert odd.search("router table error documents", 10, filter={ids[0], ids[5]}).ids == [ids[5]]


def test_stores_that_cannot_search_words_are_refused(uri):
    store = opened(uri, "dense", builtin_function=None, vector_field="dense", index_params=INDEXES[0], auto_id=True)
    store.add_texts(TEXTS)
    assert lexical_search_of(store) is None
    with pytest.raises(StoreError, match=r"'dense' has no BM25 function.* builtin_function=BM25BuiltInFunction\(\)"):
        MilvusWords(store).search("router", 1)
    with pytest.raises(StoreError, match=r"needs a store among langchain_milvus\.Milvus, .*; got int\. .*WordIndex"):
        MilvusWords(1)
