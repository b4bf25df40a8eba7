"""What LlamaIndex expects of a vector store, sync and async, of `DeepLakeVectorStore`; for filters see test_filters.py."""

import asyncio
import gc
import weakref

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.schema import ImageDocument, ImageNode, IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.deeplake import DeepLakeStore, import_deeplake
from deepmem_integrations.errors import EmbeddingMismatchError, ModelNotFoundError, StoreError
from deepmem_integrations.llama_index import DeepLakeVectorStore, DeepMemoryEmbedding, DeepMemoryRetriever
from tests.embeddings import LookupEmbeddings
from tests.llama_index.helpers import Lookup, expected, ids, nodes_of, remembering

X = (np.eye(6, 8) + 0.3 * np.random.default_rng(0).random((6, 8))).astype(np.float32)
NAMES = list("abcdef")


def node(row, **options):
    """One of six nodes; two each belong to the documents 0, 1 and 2."""
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"document {row // 2}")}
    metadata = {"row": row, "tags": ["even" if row % 2 == 0 else "odd"], "none": None}
    given = {"id_": NAMES[row], "text": f"text {row}", "metadata": metadata, "relationships": source, **options}
    return TextNode(embedding=X[row].tolist(), **given)


@pytest.fixture(params=["sync", "async"])
def call(request):
    """Call a method of a store, or its async twin."""

    async def sync(store, name, *args, **options):
        return getattr(store, name)(*args, **options)

    async def twin(store, name, *args, **options):
        return await getattr(store, {"add": "async_add"}.get(name, f"a{name}"))(*args, **options)

    return sync if request.param == "sync" else twin


@pytest.fixture
def store(tmp_path):
    return DeepLakeVectorStore(tmp_path / "dataset")


@pytest.fixture
def filled(store):
    store.add([node(row) for row in range(6)])
    return store


def query(row, k=10, **options):
    return VectorStoreQuery(query_embedding=X[row].tolist(), similarity_top_k=k, **options)


def row_is(operator, value):
    return MetadataFilters(filters=[MetadataFilter(key="row", operator=operator, value=value)])


async def test_an_empty_store_answers(store, call):
    result = await call(store, "query", query(0))
    assert (result.nodes, result.similarities, result.ids) == ([], [], [])
    assert await call(store, "get_nodes", ["a"]) == []
    assert await call(store, "get_nodes") == []
    assert await call(store, "get_nodes", filters=row_is(FilterOperator.IS_EMPTY, None)) == []
    assert await call(store, "add", []) == []
    await call(store, "delete", "document 0")
    await call(store, "delete_nodes", ["a"])
    await call(store, "clear")
    assert store.client is None
    assert VectorStoreIndex.from_vector_store(store, embed_model=fixed(8)).as_retriever().retrieve("q") == []


def fixed(size):
    from llama_index.core import MockEmbedding

    return MockEmbedding(size)


async def test_nodes_are_added_and_found_best_first(store, call):
    nodes = [node(row) for row in range(6)]
    assert await call(store, "add", nodes) == NAMES
    result = await call(store, "query", query(2, 3))
    cosines = X @ X[2] / np.linalg.norm(X, axis=1) / np.linalg.norm(X[2])
    order = np.argsort(-cosines, kind="stable")[:3]
    assert result.ids == [NAMES[row] for row in order] == ids(result.nodes)
    np.testing.assert_allclose(result.similarities, cosines[order], atol=1e-6)
    assert result.nodes[0].model_copy(update={"embedding": X[2].tolist()}) == nodes[2]


async def test_adding_an_id_again_replaces_the_node(filled, call):
    await call(filled, "add", [node(1, id_="a", text="new"), node(2, id_="g")])
    (found,) = await call(filled, "get_nodes", ["a"])
    assert (found.text, found.metadata["row"]) == ("new", 1)
    assert sorted((await call(filled, "query", query(0))).ids) == [*NAMES, "g"]


async def test_nodes_of_every_kind_come_back_as_they_were(store, call):
    nodes = [
        node(0, excluded_llm_metadata_keys=["row"], start_char_idx=3, end_char_idx=9, text_template="{content}!"),
        Document(id_="b", text="ä \N{GRINNING FACE}", metadata={"deep": {"er": [1, None]}, "f": 1.5}, embedding=X[1].tolist()),
        IndexNode(id_="c", text="points", index_id="elsewhere", embedding=X[2].tolist()),
        ImageNode(id_="d", text="", image_url="https://example.org/a.png", embedding=X[3].tolist()),
        TextNode(id_="e", text="", embedding=X[4].tolist()),
    ]
    await call(store, "add", nodes)
    found = await call(store, "get_nodes", list("abcde"))
    assert [type(each) for each in found] == [TextNode, TextNode, IndexNode, ImageNode, TextNode]
    for before, after in zip(nodes, found, strict=True):
        assert after.hash == before.hash or isinstance(before, Document)
        assert after.relationships == before.relationships
        # A Document comes back as a TextNode, as from LlamaIndex's other stores.
        fields = before.model_dump().keys() & after.model_dump().keys() - {"embedding", "class_name"}
        assert len(fields) > 8
        kept, got = ({name: each.model_dump()[name] for name in fields} for each in (before, after))
        assert got == kept
    assert (await call(store, "query", query(2, 1))).nodes[0].index_id == "elsewhere"


async def test_getting_by_id_and_by_filter(filled, call):
    assert ids(await call(filled, "get_nodes", ["e", "nope", "b"])) == ["e", "b"]
    assert ids(await call(filled, "get_nodes")) == NAMES
    assert await call(filled, "get_nodes", []) == []
    odd = MetadataFilters(filters=[MetadataFilter(key="tags", operator=FilterOperator.CONTAINS, value="odd")])
    assert ids(await call(filled, "get_nodes", filters=odd)) == ["b", "d", "f"]
    assert ids(await call(filled, "get_nodes", ["a", "b", "d"], odd)) == ["b", "d"]


async def test_deleting_by_document(filled, call):
    await call(filled, "delete", "document 1")
    assert ids(filled.get_nodes()) == ["a", "b", "e", "f"]
    await call(filled, "delete", "no such document")
    await call(filled, "delete", "' OR true --")
    assert ids(filled.get_nodes()) == ["a", "b", "e", "f"]


async def test_deleting_nodes(filled, call):
    await call(filled, "delete_nodes", ["a", "nope"])
    await call(filled, "delete_nodes", filters=row_is(FilterOperator.GTE, 4))
    await call(filled, "delete_nodes", ["b", "c"], row_is(FilterOperator.EQ, 2))
    await call(filled, "delete_nodes", [])
    assert ids(filled.get_nodes()) == ["b", "d"]
    for nothing in ({}, {"filters": MetadataFilters(filters=[])}):
        with pytest.raises(StoreError, match=r"Pass node_ids, or filters that are not empty; clear\(\) deletes all"):
            await call(filled, "delete_nodes", **nothing)


async def test_clearing(filled, call):
    await call(filled, "clear")
    assert await call(filled, "get_nodes") == []
    await call(filled, "add", [TextNode(id_="z", text="z", embedding=[1.0, 0.0])])
    assert ids(await call(filled, "get_nodes")) == ["z"], "another dimension, even"


async def test_queries_take_filters_ids_and_documents_together(filled, call):
    assert (await call(filled, "query", query(0, filters=row_is(FilterOperator.IN, [1, 3])))).ids in (["b", "d"], ["d", "b"])
    assert (await call(filled, "query", query(0, filters=row_is(FilterOperator.GT, 9)))).ids == []
    assert sorted((await call(filled, "query", query(0, node_ids=["b", "f", "nope"]))).ids) == ["b", "f"]
    assert sorted((await call(filled, "query", query(0, doc_ids=["document 0", "document 2"]))).ids) == ["a", "b", "e", "f"]
    both = query(0, doc_ids=["document 0", "document 2"], node_ids=["b", "c"], filters=row_is(FilterOperator.LT, 5))
    assert (await call(filled, "query", both)).ids == ["b"]
    assert (await call(filled, "query", query(0, 2))).ids[0] == "a"


async def test_hybrid_queries_weigh_words_and_vectors(filled, call):
    words = {"query_str": "text 4", "mode": VectorStoreQueryMode.HYBRID}
    with pytest.raises(StoreError, match=r"no text index .* create_text_index\(\)"):
        await call(filled, "query", query(1, 2, **words))
    filled.store.create_text_index()
    assert (await call(filled, "query", query(1, 1, alpha=0.0, **words))).ids == ["e"]
    assert (await call(filled, "query", query(1, 1, alpha=1.0, **words))).ids == ["b"]
    rankings = [(await call(filled, "query", query(1, 6, alpha=alpha, **words))).ids for alpha in (0.0, 1.0)]
    for alpha, weights in ((None, (1, 1)), (0.25, (1.5, 0.5))):
        both = await call(filled, "query", query(1, 6, alpha=alpha, **words))
        ranks = [[ranking.index(name) + 61 for ranking in rankings] for name in both.ids]
        right = [sum(weight / rank for weight, rank in zip(weights, pair, strict=True)) for pair in ranks]
        np.testing.assert_allclose(both.similarities, right)
        assert both.similarities == sorted(both.similarities, reverse=True)
    assert len((await call(filled, "query", query(1, 2, hybrid_top_k=4, sparse_top_k=6, **words))).ids) == 4
    with pytest.raises(StoreError, match="alpha lies between 0"):
        await call(filled, "query", query(1, 2, alpha=2.0, **words))


async def test_mmr_queries_are_near_and_unlike_each_other(store, call):
    twins = [
        TextNode(id_=name, text=name, embedding=vector) for name, vector in (("a", [1, 0.0]), ("b", [1, 0.01]), ("c", [1, 1.0]))
    ]
    store.add(twins)
    asked = VectorStoreQuery(query_embedding=[1.0, 0.0], similarity_top_k=2, mode=VectorStoreQueryMode.MMR)
    assert (await call(store, "query", asked, mmr_threshold=1.0)).ids == ["a", "b"]
    assert (await call(store, "query", asked, mmr_threshold=0.1)).ids == ["a", "c"]
    assert (await call(store, "query", asked, mmr_threshold=0.1, mmr_prefetch_k=2)).ids == ["a", "b"], "c was not fetched"
    assert (await call(store, "query", asked, mmr_threshold=0.1, mmr_prefetch_factor=1)).ids == ["a", "b"]
    asked.mmr_threshold = 1.0
    assert (await call(store, "query", asked)).ids == ["a", "b"]
    with pytest.raises(StoreError, match="set the same number"):
        await call(store, "query", asked, mmr_prefetch_k=2, mmr_prefetch_factor=2)
    asked.mmr_threshold = 7.0
    with pytest.raises(StoreError, match="mmr_threshold lies between"):
        await call(store, "query", asked)


async def test_what_there_is_not_is_refused(filled, call, tmp_path):
    for mode in ("sparse", "text_search", "semantic_hybrid", "svm"):
        with pytest.raises(StoreError, match=f"has the query modes default, hybrid and mmr, not '{mode}'"):
            await call(filled, "query", query(0, mode=VectorStoreQueryMode(mode)))
    with pytest.raises(StoreError, match="leave output_fields and embedding_field out"):
        await call(filled, "query", query(0, output_fields=["text"]))
    with pytest.raises(StoreError, match="A query needs an embedding"):
        await call(filled, "query", VectorStoreQuery(query_str="q"))
    with pytest.raises(TypeError, match="deepmemory"):
        await call(filled, "query", query(0), deepmemory=True)
    with pytest.raises(StoreError, match=r"metadata of node 'a' cannot be stored: under the key '.*' stands nan"):
        await call(filled, "add", [node(0, metadata={"x": [float("nan")]})])
    with pytest.raises(StoreError, match=r"'a' cannot be stored: under the key 'x' the text holds half of a surrogate pair"):
        await call(filled, "add", [node(0, metadata={"x": "\ud83d"})])
    assert len(filled.get_nodes()) == 6
    reader = DeepLakeVectorStore(tmp_path / "dataset", read_only=True)
    assert ids(await call(reader, "get_nodes")) == NAMES
    with pytest.raises(StoreError, match="read-only"):
        await call(reader, "delete", "document 0")


async def test_async_calls_leave_the_loop_free(filled, monkeypatch):
    beats = []

    async def beat():
        while True:
            beats.append(None)
            await asyncio.sleep(0.01)

    search = DeepLakeStore.search

    def slow(self, *args, **options):
        import time

        time.sleep(0.3)
        return search(self, *args, **options)

    monkeypatch.setattr(DeepLakeStore, "search", slow)
    heart = asyncio.create_task(beat())
    assert (await filled.aquery(query(0, 1))).ids == ["a"]
    heart.cancel()
    assert len(beats) > 10


# ---- deep_memory=True ------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(deeplake_index, adapter):
    folder = DeepMemory.from_llama_index(deeplake_index).folder
    folder.save_model("before", adapter)
    folder.use("before")
    return deeplake_index


async def test_deep_memory_through_vector_store_kwargs_as_in_v3(trained, problem, adapter):
    asked, moved = problem.test.queries[0], adapter.transform(problem.test_queries[0])
    deep = trained.as_retriever(similarity_top_k=8, vector_store_kwargs={"deep_memory": True})
    assert ids(deep.retrieve(asked)) == ids(await deep.aretrieve(asked)) == expected(problem, moved, 8)
    plain = trained.as_retriever(similarity_top_k=8)
    assert ids(plain.retrieve(asked)) == expected(problem, problem.test_queries[0], 8)
    assert ids(plain.retrieve(asked)) != ids(deep.retrieve(asked))


async def test_deep_memory_is_applied_once(trained, problem, adapter, embed_model):
    asked, right = problem.test.queries[1], expected(problem, adapter.transform(problem.test_queries[1]), 8)
    options = {"similarity_top_k": 8, "vector_store_kwargs": {"deep_memory": True}}
    wrapped = DeepMemoryEmbedding(embed_model, memory=adapter)
    for retriever in (
        DeepMemoryRetriever(trained, memory=adapter, **options),
        trained.as_retriever(embed_model=wrapped, **options),
        DeepMemoryRetriever(trained.as_retriever(embed_model=wrapped, **options), memory=adapter),
    ):
        assert ids(retriever.retrieve(asked)) == ids(await retriever.aretrieve(asked)) == right


def test_training_as_in_v3_and_through_the_index(problem, deeplake_index):
    store, lookup = deeplake_index.vector_store, LookupEmbeddings(problem)
    with pytest.raises(ModelNotFoundError, match=r"deep_memory\.train"):
        store.query(VectorStoreQuery(query_embedding=problem.test_queries[0].tolist()), deep_memory=True)
    with pytest.raises(StoreError, match="does not know its embedding model: pass embedding_function="):
        store.deep_memory.train(problem.train)
    job = store.vectorstore.deep_memory.train(
        queries=list(problem.train.queries), relevance=problem.train.relevance, embedding_function=lookup.embed_documents
    )
    memory = DeepMemory.from_llama_index(deeplake_index)
    assert memory.get_model() == job
    assert memory.folder.path == store.deep_memory.folder.path
    assert memory.documents() == store.deep_memory.documents() == store.get_nodes()
    result = memory.evaluate(problem.test)
    assert result == store.deep_memory.evaluate(problem.test, embedding_function=lookup.embed_documents)
    assert result["with model"]["recall@1"] > result["without model"]["recall@1"] + 0.2


def test_a_store_that_knows_its_embedding_model_refuses_another_one(trained, problem, adapter):
    asked = VectorStoreQuery(query_embedding=problem.test_queries[0].tolist(), similarity_top_k=5)
    path = trained.vector_store.dataset_path
    store = DeepLakeVectorStore(path, embed_model=Lookup(problem))
    assert store.query(asked, deep_memory=True).ids == expected(problem, adapter.transform(problem.test_queries[0]), 5)
    store.deep_memory.train(problem.train.take(range(5)))
    with pytest.raises(EmbeddingMismatchError, match="different vectors"):
        DeepLakeVectorStore(path, embed_model=Lookup(problem, shift=1)).query(asked, deep_memory=True)
    with pytest.raises(EmbeddingMismatchError, match="2 dimensions"):
        store.query(VectorStoreQuery(query_embedding=[1.0, 2.0]), deep_memory=True)
    with pytest.raises(StoreError, match="embed_model is a LlamaIndex embedding model; got str"):
        DeepLakeVectorStore(path, embed_model="minilm")


def test_where_models_live(problem, tmp_path):
    with pytest.raises(StoreError, match="no local folder"):
        _ = DeepLakeVectorStore("mem://x").deep_memory
    elsewhere = DeepLakeVectorStore("mem://y", deep_memory_path=tmp_path / "models")
    assert elsewhere.deep_memory.folder.path == tmp_path / "models"
    index = VectorStoreIndex.from_vector_store(elsewhere, embed_model=Lookup(problem))
    assert DeepMemory.from_llama_index(index).folder.path == tmp_path / "models"


def test_arguments_of_v3_that_mean_nothing_any_more_warn_once(tmp_path):
    with pytest.warns(
        UserWarning, match="ignored. ingestion_batch_size: .* runtime: Deep Memory trains on this machine"
    ) as caught:
        DeepLakeVectorStore(tmp_path / "a", None, False, 1024, 4, False, "auto", runtime={"tensor_db": True})
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.raises(StoreError, match="al://"):
        DeepLakeVectorStore("hub://org/name")


async def test_options_of_a_search_in_v3_are_ignored_or_have_another_name(filled, call):
    with pytest.warns(UserWarning, match="ignored. exec_option: .*; runtime: ") as caught:
        found = await call(filled, "query", query(0), exec_option="compute_engine", runtime={"tensor_db": True})
    assert len(caught) == 1
    assert found.ids == (await call(filled, "query", query(0))).ids
    for option in ("fetch_k", "maximal_marginal_relevance"):
        with pytest.raises(StoreError, match=f'{option}: .* as_retriever\\(vector_store_query_mode="mmr"'):
            await call(filled, "query", query(0), **{option: 20})


# ---- data sets of others ---------------------------------------------------------------------------------------------


def test_a_data_set_of_llama_indexs_own_package_is_read_searched_and_written(tmp_path, capsys):
    import_deeplake()  # without its crash reports
    from llama_index.vector_stores.deeplake import DeepLakeVectorStore as Theirs

    nodes = [node(row, metadata={"row": row, "name": f"n{row}", "part": row / 2}, text=f"text {row} it's") for row in range(6)]
    Theirs(str(tmp_path / "dataset")).add(nodes)
    store = DeepLakeVectorStore(tmp_path / "dataset")
    found = store.get_nodes()
    assert [each.model_copy(update={"embedding": X[row].tolist()}) for row, each in enumerate(found)] == nodes
    assert store.query(query(3, 1)).ids == ["d"]
    assert sorted(store.query(query(3, filters=row_is(FilterOperator.LTE, 1))).ids) == ["a", "b"]
    assert ids(store.get_nodes(filters=row_is(FilterOperator.IS_EMPTY, None))) == []
    store.add([node(0, metadata={"row": 10}, text="new")])
    store.delete("document 1")
    assert sorted(ids(store.get_nodes())) == ["a", "b", "e", "f"]
    with pytest.raises(StoreError, match="this data set was made by another tool"):
        store.add([node(0, metadata={"none": None})])
    # And theirs still reads it.
    theirs = Theirs(str(tmp_path / "dataset"), read_only=True)
    assert sorted(ids(theirs.get_nodes())) == ["a", "b", "e", "f"]


def both_frameworks(problem, path):
    from langchain_core.embeddings import Embeddings

    from deepmem_integrations.langchain import DeepLake

    class Base(LookupEmbeddings, Embeddings):
        """The same model in LangChain."""

    db = DeepLake(path, embedding=Base(problem))
    store = DeepLakeVectorStore(path)
    return db, store, lambda: VectorStoreIndex.from_vector_store(store, embed_model=Lookup(problem))


def check_identical(problem, db, index, memory):
    """Ids and scores through either framework, to the last bit, by every way in that gives scores."""
    ours = DeepMemoryRetriever(index, memory=memory, similarity_top_k=8)
    kwargs = index.as_retriever(similarity_top_k=8, vector_store_kwargs={"deep_memory": True})
    for number in range(10):
        asked = problem.test.queries[number]
        right = [(document.id, score) for document, score in db.similarity_search_with_score(asked, 8, deep_memory=True)]
        moved = memory.transform(problem.test_queries[number])
        assert [name for name, _ in right] == expected(problem, moved, 8)
        for retriever in (ours, kwargs):
            assert [(found.node_id, found.score) for found in retriever.retrieve(asked)] == right
    result = memory.evaluate(problem.test)
    assert result["with model"]["recall@1"] > result["without model"]["recall@1"] + 0.2


def test_trained_through_langchain_it_serves_llama_index_on_the_same_data_set(problem, tmp_path):
    db, _, open_index = both_frameworks(problem, tmp_path / "dataset")
    db.add_texts(problem.ids, [{"half": row % 2} for row in range(len(problem.ids))], ids=problem.ids)
    job = db.deep_memory.train(problem.train)
    index = open_index()
    memory = DeepMemory.from_llama_index(index)
    assert memory.get_model() == job
    check_identical(problem, db, index, memory)
    (found,) = index.vector_store.get_nodes(["doc-3"])
    assert found == TextNode(id_="doc-3", text="doc-3", metadata={"half": 1})


def test_trained_through_llama_index_it_serves_langchain_on_the_same_data_set(problem, tmp_path):
    db, store, open_index = both_frameworks(problem, tmp_path / "dataset")
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex(nodes_of(problem), storage_context=context, embed_model=Lookup(problem))
    index = open_index()
    memory = DeepMemory.from_llama_index(index)
    job = memory.train(problem.train)
    assert db.deep_memory.get_model() == job
    check_identical(problem, db, index, memory)
    (found,) = db.get_by_ids(["doc-3"])
    assert (found.page_content, found.metadata["half"]) == ("doc-3", 1)


def test_a_store_with_a_deep_memory_is_let_go_at_once(trained, problem):
    """By reference counting: a store in a circle would keep its files until the garbage is collected."""
    vector_store = DeepLakeVectorStore(trained.vector_store.store.path)
    query = VectorStoreQuery(query_embedding=problem.test_queries[0].tolist(), similarity_top_k=4)
    assert len(vector_store.query(query, deep_memory=True).ids) == 4
    let_go = weakref.ref(vector_store.store), weakref.ref(vector_store.deep_memory)
    gc.disable()
    try:
        del vector_store
        assert [reference() for reference in let_go] == [None] * 2
    finally:
        gc.enable()


def test_nodes_and_ids_may_be_iterators(problem, tmp_path):
    store = DeepLakeVectorStore(tmp_path / "ds")
    store.add(iter(nodes_of(problem)[:9]))
    half = MetadataFilters(filters=[MetadataFilter(key="half", value=1)])
    names = problem.ids[:6]
    assert ids(store.get_nodes(iter(names))) == names
    assert ids(store.get_nodes(iter(names), half)) == names[1::2]
    store.delete_nodes(iter(names), half)
    store.delete_nodes(iter(names[:1]))
    assert ids(store.get_nodes()) == [*names[2::2], *problem.ids[6:9]]


def found_by(index, **options):
    return {node.node_id for node in index.as_retriever(similarity_top_k=500, **options).retrieve("anything")}


@pytest.mark.parametrize("other", [ImageNode, ImageDocument, IndexNode])
def test_nodes_that_are_no_texts_hide_no_text(problem, tmp_path, other):
    """An index over a store that keeps texts passes the ids of such nodes, and of no others, to its retriever."""
    store, model = DeepLakeVectorStore(tmp_path / "ds"), Lookup(problem)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes_of(problem), storage_context=context, embed_model=model)
    before = index.as_retriever(similarity_top_k=500)
    options = {"index_id": "x"} if other is IndexNode else {}
    # Texts of their own, because retrievers return one of nodes that are alike.
    first, second = (other(id_=name, text=problem.ids[row], **options) for row, name in enumerate(("first", "second")))
    index.insert_nodes([first])
    early = index.as_retriever(similarity_top_k=500)
    index.insert_nodes([second])
    everything = {*problem.ids, "first", "second"}
    assert found_by(index) == everything
    for retriever in (before, early):
        assert {node.node_id for node in retriever.retrieve("anything")} == everything
    assert {node.node_id for node in asyncio.run(early.aretrieve("anything"))} == everything

    again = VectorStoreIndex.from_vector_store(DeepLakeVectorStore(tmp_path / "ds"), embed_model=model)
    again.insert_nodes([other(id_="third", text=problem.ids[2], **options)])
    assert found_by(again) == {*everything, "third"}

    store.store.refresh()
    index.delete_nodes(["first", "second", "third"])
    assert found_by(index) == {*problem.ids}, "the index still passes the ids of deleted nodes"


def test_ids_still_restrict_a_search(problem, tmp_path):
    store, model = DeepLakeVectorStore(tmp_path / "ds"), Lookup(problem)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes_of(problem), storage_context=context, embed_model=model)
    index.insert_nodes([ImageNode(id_="picture", text=problem.ids[0])])

    def found(*node_ids):
        query = VectorStoreQuery(query_embedding=problem.corpus[0].tolist(), node_ids=list(node_ids), similarity_top_k=500)
        return store.query(query).ids

    assert found("doc-3") == ["doc-3"]
    assert sorted(found("doc-3", "picture")) == ["doc-3", "picture"]
    assert found("gone") == []
    retriever = DeepMemoryRetriever(index, memory=QueryAdapter(32), node_ids=["picture"])
    assert ids(retriever.retrieve("anything")) == ["picture"], "which says that the ids are a restriction"


def test_a_ranking_finds_texts_beside_images(problem, tmp_path):
    store, model = DeepLakeVectorStore(tmp_path / "ds"), Lookup(problem)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes_of(problem), storage_context=context, embed_model=model)
    index.insert_nodes([ImageNode(id_="picture", text=problem.ids[0])])
    memory = remembering(Ranking(answers=1.0), 32, problem.test_queries[:1], [["picture", problem.ids[5]]])
    for retriever in (
        DeepMemoryRetriever(index, memory=memory, similarity_top_k=500),
        DeepMemoryRetriever(index.as_retriever(similarity_top_k=500), memory=memory),
        DeepMemoryRetriever(index, memory=memory, similarity_top_k=500, deep_memory=False),
    ):
        assert {*ids(retriever.retrieve("anything"))} == {*problem.ids, "picture"}
    few = DeepMemoryRetriever(index, memory=memory, similarity_top_k=2, fetch_k=2).retrieve(problem.test.queries[0])
    assert {*ids(few)} == {"picture", problem.ids[5]}, "answers are looked up by id, the image too"


def test_numbers_of_numpy_are_stored(tmp_path):
    store = DeepLakeVectorStore(tmp_path / "ds")
    given = TextNode(id_="a", text="t", metadata={"n": np.int64(3), "x": np.float32(0.5), "big": 2**70}, embedding=[1.0, 0.0])
    store.add([given])
    assert store.get_nodes()[0].metadata == {"n": 3, "x": 0.5, "big": 2**70}
    assert type(given.metadata["n"]) is np.int64, "the caller's node is left alone"
