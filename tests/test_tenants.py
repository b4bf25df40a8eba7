import os
from pathlib import Path

import numpy as np
import pytest
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import InMemoryVectorStore

from deepmem_integrations import QueryAdapter, Tenants
from deepmem_integrations.adapter import PROBES
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import ModelNotFoundError
from deepmem_integrations.langchain import DeepMemoryRetriever
from deepmem_integrations.serving import ServedAdapter
from deepmem_integrations.words import WordIndex
from tests.langchain.helpers import Lookup, documents_of, expected, ids


@pytest.mark.parametrize("name", ["", "..", ".", "../acme", "a/b", "a\\b", "/etc", ".hidden", "a\0b", "C:acme", " acme", None, 3])
def test_no_name_leaves_the_folder(tmp_path, name):
    for pattern in ("{tenant}.deepmemory", "models/{tenant}", "{tenant}/deepmemory"):
        tenants = Tenants(tmp_path / pattern)
        for use in (tenants.path, lambda name, tenants=tenants: tenants[name]):
            with pytest.raises(ModelNotFoundError, match="cannot be the name of a tenant"):
                use(name)


def test_a_folder_for_each_tenant(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Tenants("~/{tenant}").path("acme") == tmp_path / "acme"
    with pytest.raises(ValueError, match=r"The pattern holds \{tenant\} once"):
        Tenants("models")
    for pattern in ("one/{tenant}.deepmemory", "two/{tenant}", "three/of-{tenant}/deepmemory"):
        tenants = Tenants(tmp_path / pattern)
        assert list(tenants) == []
        for name in ("acme", "Müller & Söhne", "a.b"):
            tenants.path(name).mkdir(parents=True)
            assert tenants[name].path == tenants.path(name) == Path(str(tmp_path / pattern).replace("{tenant}", name))
        assert list(tenants)[:2] == ["Müller & Söhne", "a.b"]
        assert list(tenants)[2:] == ["acme"]


COUNT = 1000


@pytest.mark.slow
def test_a_thousand_tenants_in_bounded_memory(problem, tmp_path):
    """One retriever for all; the tenant is chosen for each request, as a web service does."""
    base = Lookup(problem)
    fingerprint = Embedder(base).fingerprint()
    store = InMemoryVectorStore(base)
    store.add_documents(documents_of(problem))
    tenants = Tenants(tmp_path / "{tenant}.deepmemory", max_bytes=200_000)
    rng = np.random.default_rng(0)
    shared = tmp_path / "words"
    WordIndex.build(shared, [(problem.ids, problem.ids)])
    adapters = {}
    for row in range(COUNT):
        name = f"tenant-{row}"
        linear = rng.normal(size=(32, 32)).astype(np.float32)
        adapters[name] = QueryAdapter(32, linear=linear, fingerprint=fingerprint)
        adapters[name].save(tenants[name].model_path("one"))
        (tenants.path(name) / "current").write_text("one", encoding="utf-8")
        os.symlink(shared, tenants[name].words_path)
    asked = []
    embed_query = base.embed_query
    base.embed_query = lambda text: asked.append(text) or embed_query(text)
    retriever = DeepMemoryRetriever(vectorstore=store, memory=tenants["nobody"], k=3).configurable_fields(
        memory=ConfigurableField(id="memory")
    )
    query, vector = problem.test.queries[0], problem.test_queries[0]
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(2):
        for name, adapter in adapters.items():
            found = retriever.invoke(query, config={"configurable": {"memory": tenants[name]}})
            assert ids(found) == expected(problem, adapter.transform(vector), 3)
    assert set(asked) == {query}, "the embedding model is known: no probe text is embedded again"
    assert not set(asked) & set(PROBES)
    assert 1 < len(tenants.cache) < COUNT / 5
    assert tenants.cache.bytes <= 200_000
    if files is not None:
        assert len(os.listdir("/proc/self/fd")) < files + 50, "no file stays open"
    plain = retriever.invoke(query, config={"configurable": {"memory": tenants["nobody"]}})
    assert ids(plain) == expected(problem, vector, 3)


def test_an_adapter_that_was_used_last_is_not_read_again(tmp_path, monkeypatch):
    tenants = Tenants(tmp_path / "{tenant}")
    for name in ("a", "b"):
        tenants[name].save_model("one", QueryAdapter(2))
        tenants[name].use("one")
    read, load = [], QueryAdapter.load
    monkeypatch.setattr(QueryAdapter, "load", lambda path: read.append(path) or load(path))
    for _ in range(3):
        for name in ("a", "b"):
            ServedAdapter(tenants[name]).apply([1.0, 0.0])
    assert len(read) == 2
    other = tenants["a"]
    other.save_model("two", QueryAdapter(2, linear=np.eye(2, dtype=np.float32)))
    other.use("two")
    assert ServedAdapter(tenants["a"]).adapter.linear is not None


@pytest.mark.parametrize("size", ["1GB", -1])
def test_a_size_that_is_no_number_of_bytes_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match="max_bytes is a number of bytes"):
        Tenants(tmp_path / "{tenant}.deepmemory", max_bytes=size)
