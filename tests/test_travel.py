"""Stores, retrievers, embeddings and transforms travel to other processes by pickle, with every form of ``memory``."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import VectorStoreIndex

from deepmem_integrations import DeepMemory, langchain, llama_index
from deepmem_integrations.deeplake import DeepLakeStore
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import StoreError
from deepmem_integrations.models import ModelFolder
from tests.embeddings import LookupEmbeddings
from tests.jobs.helpers import add_model
from tests.langchain.helpers import Lookup, documents_of
from tests.llama_index.helpers import Lookup as IndexLookup

CHILD = """
import pickle, sys
from llama_index.core.utils import get_tokenizer
get_tokenizer()  # an index pickles its tokenizer, whose vocabulary is in LlamaIndex's package
for name, (thing, query, expected) in pickle.load(open(sys.argv[1], "rb")).items():
    from tests.test_travel import used
    assert used(thing, query) == expected, name
print("done")
"""


def used(thing, query):
    """What a user of the thing gets for a query."""
    if isinstance(thing, DeepLakeStore):
        return len(thing)
    if isinstance(thing, DeepMemory):
        return thing.get_model(), len(thing.documents())
    if isinstance(thing, langchain.DeepLake):
        return [found.id for found in thing.similarity_search(query, k=3, deep_memory=True)]
    if isinstance(thing, llama_index.DeepLakeVectorStore):
        return [node.node_id for node in thing.get_nodes()]
    if hasattr(thing, "retrieve"):
        return [(found.node_id, round(found.score, 4)) for found in thing.retrieve(query)]
    if isinstance(thing, llama_index.DeepMemoryQueryTransform):
        return np.round(thing.run(query).embedding, 4).tolist()
    if hasattr(thing, "invoke"):
        found = thing.invoke(query)
        return [getattr(one, "id", None) or round(one, 4) for one in found]
    embed = getattr(thing, "embed_query", None) or thing.get_query_embedding
    return np.round(embed(query), 4).tolist()


@pytest.fixture
def things(problem, tmp_path, monkeypatch):
    """name → (thing, a query for it, what comes of it). Paths are relative, as users write them."""
    monkeypatch.chdir(tmp_path)
    lookup, index_lookup = Lookup(problem), IndexLookup(problem)
    db = langchain.DeepLake("ds", embedding=lookup)
    db.add_documents(documents_of(problem))
    linear = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32) / 10
    add_model(db.deep_memory, linear=linear)
    memory = db.deep_memory
    memory.adapter.save("adapter.safetensors")
    store = llama_index.DeepLakeVectorStore("ds")
    index = VectorStoreIndex.from_vector_store(store, embed_model=index_lookup)
    in_memory = InMemoryVectorStore(lookup)
    in_memory.add_documents(documents_of(problem))
    made = {
        "store of Deep Lake": db.store,
        "LangChain's store": db,
        "LlamaIndex's store": store,
        "Deep Memory": memory,
        "LlamaIndex's Deep Memory": DeepMemory.from_llama_index(index),
        "v3's retriever": db.as_retriever(search_kwargs={"deep_memory": True}),
    }
    memories = (memory, memory.adapter, memory.folder, ModelFolder("ds.deepmemory"), "ds.deepmemory", Path("adapter.safetensors"))
    for number, one in enumerate(memories):
        made |= {
            f"LangChain's retriever {number}": langchain.DeepMemoryRetriever(vectorstore=db, memory=one, k=3),
            f"retriever in memory {number}": langchain.DeepMemoryRetriever(vectorstore=in_memory, memory=one, k=3),
            f"LangChain's embeddings {number}": langchain.DeepMemoryEmbeddings(embeddings=lookup, memory=one),
            f"LangChain's transform {number}": langchain.DeepMemoryQueryTransform(memory=one, embeddings=lookup),
            f"LlamaIndex's retriever {number}": llama_index.DeepMemoryRetriever(index, memory=one, similarity_top_k=3),
            f"LlamaIndex's embeddings {number}": llama_index.DeepMemoryEmbedding(index_lookup, memory=one),
            f"LlamaIndex's transform {number}": llama_index.DeepMemoryQueryTransform(memory=one, embed_model=index_lookup),
        }
    query = problem.test.queries[0]
    return {name: (thing, query, used(thing, query)) for name, thing in made.items()}


def test_copies_do_the_same(things):
    for name, (thing, query, expected) in things.items():
        for way in (copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
            assert used(way(thing), query) == expected, name


@pytest.mark.slow
def test_another_process_in_another_folder_does_the_same(things, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with open("things.pickle", "wb") as file:
        pickle.dump(things, file)
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "things.pickle"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "done\n", done.stderr
    assert os.listdir(tmp_path / "elsewhere") == []


def test_copies_of_a_store_see_each_others_documents(problem, tmp_path):
    db = langchain.DeepLake(tmp_path / "ds", embedding=Lookup(problem))
    other = copy.deepcopy(db)
    other.add_texts(["new"], ids=["new"])
    assert len(db.get_by_ids(["new"])) == 1


def test_a_data_set_in_memory_stays_in_its_process():
    store = DeepLakeStore("mem://travel")
    store.add(["a"], [[1.0, 0.0]])
    data = pickle.dumps(store)
    assert len(pickle.loads(data)) == 1
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=120)
    assert done.returncode == 1
    assert b"StoreError: There is no Deep Lake data set at 'mem://travel' here" in done.stderr
    store.clear()
    with pytest.raises(StoreError, match="stays in the process"):
        pickle.loads(data)


def test_a_pickled_embedder_embeds_no_probes_again(problem):
    class Counting(LookupEmbeddings):
        calls = 0

        def embed_query(self, text):
            type(self).calls += 1
            return super().embed_query(text)

    embedder = Embedder(Counting(problem))
    known = embedder.fingerprint()
    before = Counting.calls
    assert copy.deepcopy(embedder).fingerprint() is not None
    np.testing.assert_array_equal(copy.deepcopy(embedder).fingerprint().probes, known.probes)
    assert Counting.calls == before
