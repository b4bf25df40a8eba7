import asyncio

import numpy as np
import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from pydantic import PrivateAttr

from deepmem_integrations import DeepMemory, QueryAdapter
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import AdapterFileError, EmbeddingError, EmbeddingMismatchError
from deepmem_integrations.llama_index import DeepMemoryEmbedding, DeepMemoryRetriever
from tests.llama_index.helpers import Lookup, expected, ids, nodes_of


class Outer(BaseEmbedding):
    """Another tool's wrapper, which keeps its model where pydantic hides it."""

    _inner: BaseEmbedding = PrivateAttr()

    def __init__(self, inner):
        super().__init__(model_name="outer")
        self._inner = inner

    def _get_query_embedding(self, query):
        return self._inner.get_query_embedding(query)

    async def _aget_query_embedding(self, query):
        return await self._inner.aget_query_embedding(query)

    def _get_text_embedding(self, text):
        return self._inner.get_text_embedding(text)


async def test_queries_are_transformed_and_texts_pass_through_in_batches(problem, embed_model, adapter, tmp_path):
    query, texts = problem.test.queries[0], problem.ids[:250]
    right = adapter.transform(problem.test_queries[0])
    for memory in (adapter, adapter.save(tmp_path / "adapter.safetensors")):
        wrapped = DeepMemoryEmbedding(embed_model, memory=memory)
        for vector in (
            wrapped.get_query_embedding(query),
            await wrapped.aget_query_embedding(query),
            wrapped._get_query_embedding(query),
            await wrapped._aget_query_embedding(query),
            wrapped.get_agg_embedding_from_queries([query]),
            await wrapped.aget_agg_embedding_from_queries([query]),
        ):
            assert vector == right.tolist()
            assert type(vector[0]) is float
    calls = dict(embed_model.calls)
    plain = [problem.corpus[row].tolist() for row in range(250)]
    assert wrapped.get_text_embedding_batch(texts) == await wrapped.aget_text_embedding_batch(texts) == plain
    assert embed_model.calls["texts"] - calls["texts"] == embed_model.calls["atexts"] - calls["atexts"] == 3
    assert wrapped.get_text_embedding(texts[0]) == await wrapped.aget_text_embedding(texts[0]) == plain[0]
    assert wrapped._get_text_embedding(texts[0]) == await wrapped._aget_text_embedding(texts[0]) == plain[0]
    assert wrapped._get_text_embeddings(texts[:2]) == await wrapped._aget_text_embeddings(texts[:2]) == plain[:2]


async def test_several_texts_of_a_query_are_transformed_each(problem, embed_model, adapter):
    wrapped = DeepMemoryEmbedding(embed_model, memory=adapter)
    queries, moved = list(problem.test.queries[:3]), adapter.transform(problem.test_queries[:3])
    mean = moved.mean(axis=0) / np.linalg.norm(moved.mean(axis=0))
    np.testing.assert_allclose(wrapped.get_agg_embedding_from_queries(queries), mean, atol=1e-6)
    np.testing.assert_allclose(await wrapped.aget_agg_embedding_from_queries(queries), mean, atol=1e-6)

    def first(vectors):
        return vectors[0]

    one = adapter.transform(problem.test_queries[0]).tolist()
    assert wrapped.get_agg_embedding_from_queries(queries, first) == one
    assert await wrapped.aget_agg_embedding_from_queries(queries, first) == one


async def test_it_works_in_settings_and_follows_the_model_in_use(problem, embed_model, adapter, tmp_path):
    memory = DeepMemory(None, embed_model, tmp_path)
    Settings.embed_model = wrapped = DeepMemoryEmbedding(embed_model, memory=memory)
    try:
        nodes = [TextNode(id_=name, text=name) for name in problem.ids]
        index = VectorStoreIndex(nodes)
        assert index._embed_model is wrapped
        assert embed_model.calls["texts"] == 3, "the nodes, 100 at a time"
        assert len(index.as_retriever().retrieve("q")) == 2, "queries are served as they are until a model is there"
        memory.folder.save_model("one", adapter)
        memory.folder.save_model("none", QueryAdapter(32, fingerprint=adapter.fingerprint))
        query, vector = problem.test.queries[0], problem.test_queries[0]
        for model in ("one", "none"):
            memory.set_model(model)
            retriever = index.as_retriever(similarity_top_k=6)
            right = expected(problem, memory.transform(vector), 6)
            assert ids(retriever.retrieve(query)) == ids(await retriever.aretrieve(query)) == right
    finally:
        Settings._embed_model = None


def test_training_and_wrapping_look_through_it(problem, embed_model, adapter, tmp_path):
    wrapped = DeepMemoryEmbedding(DeepMemoryEmbedding(embed_model, memory=QueryAdapter(32)), memory=adapter)
    assert wrapped.untransformed is wrapped.base is embed_model
    assert Embedder(wrapped).model is embed_model
    memory = DeepMemory.from_llama_index(VectorStoreIndex(nodes_of(problem), embed_model=wrapped), path=tmp_path)
    assert memory.embedder.model is embed_model


def test_inside_another_wrapper_it_is_refused_where_it_would_be_applied_twice(problem, embed_model, adapter, tmp_path):
    outer = Outer(DeepMemoryEmbedding(embed_model, memory=adapter))
    index = VectorStoreIndex(nodes_of(problem), embed_model=outer)
    for use in (
        lambda: DeepMemory.from_llama_index(index, path=tmp_path),
        lambda: DeepMemoryRetriever(index, memory=adapter).retrieve("q"),
        lambda: DeepMemoryEmbedding(outer, memory=adapter),
    ):
        with pytest.raises(EmbeddingError, match=r"Outer holds a DeepMemoryEmbedding.* DeepMemoryEmbedding\(Outer\(…\)\)"):
            use()
    right = DeepMemoryEmbedding(Outer(embed_model), memory=adapter)
    assert right.get_query_embedding(problem.test.queries[0]) == adapter.transform(problem.test_queries[0]).tolist()


def test_an_ingestion_cache_keeps_models_apart_and_memories_together(problem, adapter):
    def cached(base, memory=adapter):
        return get_transformation_hash([TextNode(text="a")], DeepMemoryEmbedding(base, memory=memory))

    one = cached(Lookup(problem))
    assert one == cached(Lookup(problem), QueryAdapter(32))
    assert one != cached(Lookup(problem, model_name="other"))
    assert one != cached(Lookup(problem, shift=1))
    told = DeepMemoryEmbedding(Lookup(problem), memory=adapter).to_dict()
    assert told["class_name"] == "DeepMemoryEmbedding"
    assert told["base"]["class_name"] == "Lookup"


def test_an_embeddings_cache_is_refused_but_for_the_models_own(problem, embed_model, adapter):
    with pytest.raises(EmbeddingError, match="Set embeddings_cache on the embedding model itself"):
        DeepMemoryEmbedding(embed_model, memory=adapter, embeddings_cache=SimpleKVStore())
    wrapped = DeepMemoryEmbedding(embed_model, memory=adapter)
    with pytest.raises(EmbeddingError, match="by its text alone"):
        wrapped.embeddings_cache = SimpleKVStore()
    embed_model.embeddings_cache = SimpleKVStore()
    query = problem.test.queries[0]
    vectors = [wrapped.get_query_embedding(query)]
    calls = embed_model.calls["query"]
    # A model is set anew, the cached vector is not.
    wrapped = DeepMemoryEmbedding(embed_model, memory=QueryAdapter(32, fingerprint=adapter.fingerprint))
    vectors.append(wrapped.get_query_embedding(query))
    assert embed_model.calls["query"] <= calls + 3, "the probes, at most"
    assert vectors[0] == adapter.transform(problem.test_queries[0]).tolist() != vectors[1]


async def test_events_come_once_and_from_the_model(problem, embed_model, adapter):
    wrapped = DeepMemoryEmbedding(embed_model, memory=QueryAdapter(32, linear=adapter.linear))
    heard = LlamaDebugHandler(print_trace_on_end=False)
    wrapped.callback_manager = CallbackManager([heard])
    assert embed_model.callback_manager is wrapped.callback_manager
    wrapped.get_query_embedding("q")
    await wrapped.aget_query_embedding("q")
    wrapped.get_text_embedding_batch(problem.ids[:150])
    assert len(heard.get_event_pairs(CBEventType.EMBEDDING)) == 4
    wrapped.embed_batch_size = 30
    wrapped.get_text_embedding_batch(problem.ids[:150])
    assert len(heard.get_event_pairs(CBEventType.EMBEDDING)) == 4 + 5


async def test_the_event_loop_runs_on_while_the_adapter_works(problem, embed_model, adapter, monkeypatch):
    import threading

    turned = threading.Event()
    transform = QueryAdapter.transform

    def wait_for_the_loop(self, vectors):
        assert turned.wait(60), "the event loop stands still"
        return transform(self, vectors)

    async def turn():
        await asyncio.sleep(0.05)
        turned.set()

    wrapped = DeepMemoryEmbedding(embed_model, memory=adapter)
    index = VectorStoreIndex(nodes_of(problem), embed_model=embed_model)
    retriever = DeepMemoryRetriever(index, memory=adapter)
    monkeypatch.setattr(QueryAdapter, "transform", wait_for_the_loop)
    query = problem.test.queries[0]
    for call in (
        lambda: wrapped.aget_query_embedding(query),
        lambda: wrapped.aget_agg_embedding_from_queries([query]),
        lambda: retriever.aretrieve(query),
    ):
        turned.clear()
        await asyncio.gather(call(), turn())


def test_mistakes_are_told(problem, embed_model, adapter, tmp_path):
    (tmp_path / "bad").write_bytes(b"x")
    with pytest.raises(AdapterFileError):
        DeepMemoryEmbedding(embed_model, memory=tmp_path / "bad")
    with pytest.raises(EmbeddingError, match="wraps a LlamaIndex embedding model; got str"):
        DeepMemoryEmbedding("local", memory=adapter)
    with pytest.raises(EmbeddingMismatchError, match="different vectors"):
        DeepMemoryEmbedding(Lookup(problem, shift=1), memory=adapter).get_query_embedding("q")
