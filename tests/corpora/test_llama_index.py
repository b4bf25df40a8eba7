import numpy as np
import pytest
from llama_index.core import StorageContext, SummaryIndex, VectorStoreIndex, load_index_from_storage
from llama_index.core.schema import TextNode

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.errors import InvalidRelevanceError, StoreError
from deepmem_integrations.llama_index import DeepMemoryRetriever
from tests.llama_index.helpers import expected, ids, nodes_of


@pytest.fixture(params=["index", "deeplake_index"])
def any_index(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def unknown(monkeypatch):
    """As if SimpleVectorStore were a kind that is not read as it is."""
    from deepmem_integrations.corpora import llama_index_stores as stores

    monkeypatch.delitem(stores.KINDS, "llama_index.SimpleVectorStore")


def first_right(problem, vectors):
    best = np.argmax(vectors @ problem.corpus.T, axis=1)
    return np.mean([problem.ids[row] == labels[0][0] for row, labels in zip(best, problem.test.labels, strict=True)])


def check_trains(problem, memory):
    memory.train(problem.train)
    assert first_right(problem, memory.transform(problem.test_queries)) > first_right(problem, problem.test_queries) + 0.2
    result = memory.evaluate(problem.test, top_k=[1])
    assert result["with model"]["recall@1"] > result["without model"]["recall@1"] + 0.2


def test_an_index_is_trained_from_and_its_documents_are_its_nodes(any_index, problem, tmp_path, monkeypatch):
    monkeypatch.setattr("deepmem_integrations.deeplake.store._BATCH", 70)
    monkeypatch.setattr("deepmem_integrations.corpora.stores.BATCH", 70)
    memory = DeepMemory.from_llama_index(any_index, path=tmp_path)
    assert [len(names) for names, _ in memory.corpus.vectors()] == [70, 70, 70, 70, 20]
    found = memory.documents()
    assert ids(found) == problem.ids
    assert [(node.text, node.metadata) for node in found] == [(node.text, node.metadata) for node in nodes_of(problem)]
    check_trains(problem, memory)
    retriever = DeepMemoryRetriever(any_index, memory=memory, similarity_top_k=5)
    right = expected(problem, memory.transform(problem.test_queries[0]), 5)
    assert ids(retriever.retrieve(problem.test.queries[0])) == right


def test_of_an_unknown_store_the_docstores_nodes_are_embedded_again(index, problem, embed_model, tmp_path, unknown):
    memory = DeepMemory.from_llama_index(index, path=tmp_path)
    embed_model.calls.clear()
    embed_model.calls.update(query=0, texts=0, aquery=0, atexts=0)
    ((names, vectors),) = memory.corpus.vectors()
    assert names == ids(memory.documents()) == problem.ids
    np.testing.assert_allclose(vectors, problem.corpus, atol=1e-6)
    list(memory.corpus.vectors())
    assert embed_model.calls["texts"] == 5, "once, of 128 at a time, of which the model makes 100 and 28"
    check_trains(problem, memory)


def test_given_nodes_are_embedded_as_llama_index_embeds_them(index, problem, embed_model, tmp_path):
    nodes = [TextNode(id_="a", text="text", metadata={"k": "v"}, excluded_embed_metadata_keys=["half"])]
    memory = DeepMemory.from_llama_index(index, path=tmp_path, nodes=iter(nodes))
    ((names, vectors),) = memory.corpus.vectors()
    assert names == ["a"]
    np.testing.assert_allclose(vectors[0], embed_model.get_text_embedding("k: v\n\ntext"), atol=1e-6)
    assert memory.documents() == nodes


def test_an_index_that_was_stored_and_loaded(index, problem, embed_model, tmp_path):
    index.storage_context.persist(str(tmp_path / "storage"))
    context = StorageContext.from_defaults(persist_dir=str(tmp_path / "storage"))
    memory = DeepMemory.from_llama_index(load_index_from_storage(context, embed_model=embed_model), path=tmp_path)
    assert ids(memory.documents()) == problem.ids


def test_nodes_that_were_deleted_are_gone(any_index, problem, tmp_path):
    any_index.delete_nodes(["doc-0", "doc-7"], delete_from_docstore=True)
    memory = DeepMemory.from_llama_index(any_index, path=tmp_path)
    assert ids(memory.documents()) == [name for name in problem.ids if name not in ("doc-0", "doc-7")]


def test_rows_that_faiss_keeps_of_deleted_nodes_are_left_out(problem, embed_model, tmp_path):
    import faiss
    from llama_index.vector_stores.faiss import FaissMapVectorStore

    context = StorageContext.from_defaults(vector_store=FaissMapVectorStore(faiss.IndexIDMap2(faiss.IndexFlatIP(32))))
    index = VectorStoreIndex(nodes_of(problem), storage_context=context, embed_model=embed_model)
    index.delete_nodes(["doc-3"], delete_from_docstore=True)
    memory = DeepMemory.from_llama_index(index, path=tmp_path)
    kept = [row for row, name in enumerate(problem.ids) if name != "doc-3"]
    ((names, vectors),) = memory.corpus.vectors()
    assert names == [problem.ids[row] for row in kept]
    np.testing.assert_allclose(vectors, problem.corpus[kept], atol=1e-6)


def test_a_faiss_index_that_does_not_give_its_vectors_back_says_so(problem, embed_model, tmp_path):
    import faiss
    from llama_index.vector_stores.faiss import FaissVectorStore

    shards = faiss.IndexShards(32)
    shards.add_shard(part := faiss.IndexFlatIP(32))
    context = StorageContext.from_defaults(vector_store=FaissVectorStore(shards))
    index = VectorStoreIndex(nodes_of(problem)[:1], storage_context=context, embed_model=embed_model)
    with pytest.raises(StoreError, match=r"make_direct_map.* pass from_llama_index\(…, nodes=\[…\]\)"):
        list(DeepMemory.from_llama_index(index, path=tmp_path).corpus.vectors())
    assert part.ntotal == 1


def test_what_cannot_be_read_says_what_can(index, problem, embed_model, tmp_path, unknown):
    with pytest.raises(StoreError, match=r"takes a VectorStoreIndex; got SummaryIndex.*from_vector_store"):
        DeepMemory.from_llama_index(SummaryIndex([TextNode(text="a")]), path=tmp_path)
    with pytest.raises(StoreError, match=r'Say where the models live: DeepMemory\.from_llama_index\(index, path="…"\)'):
        DeepMemory.from_llama_index(index)
    empty = VectorStoreIndex([], embed_model=embed_model)
    with pytest.raises(StoreError, match=r"nodes of a SimpleVectorStore cannot be listed here.* nodes=\[…\]"):
        DeepMemory.from_llama_index(empty, path=tmp_path)
    with pytest.raises(InvalidRelevanceError, match="'nope' is not in the corpus"):
        DeepMemory.from_llama_index(index, path=tmp_path).train(Relevance(["q"], [[("nope", 1.0)]]))
