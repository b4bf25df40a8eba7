"""FAISS folders of LangChain, read without LangChain: the folders are written by the store itself, or by hand as of old."""

import pickle
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from langchain_core.documents import Document

from deepmem_integrations.corpora.faiss import FaissFolder, FaissFolderCorpus
from deepmem_integrations.errors import StoreError
from tests.langchain.helpers import Lookup, documents_of, expected

faiss = pytest.importorskip("faiss")


def saved(problem, folder, **options):
    from langchain_community.vectorstores import FAISS

    store = FAISS.from_documents(documents_of(problem), Lookup(problem), ids=list(problem.ids), **options)
    store.delete([problem.ids[0]])
    store.save_local(str(folder))
    return store


@pytest.mark.parametrize("strategy", ["EUCLIDEAN_DISTANCE", "MAX_INNER_PRODUCT"])
def test_a_folder_gives_what_the_store_has(problem, tmp_path, strategy):
    saved(problem, tmp_path, distance_strategy=strategy)
    folder = FaissFolder(tmp_path)
    corpus = FaissFolderCorpus(folder)
    ((ids, vectors),) = corpus.vectors()
    assert ids == list(problem.ids[1:])
    np.testing.assert_allclose(vectors, problem.corpus[1:], atol=1e-6)
    ((first, *_),) = corpus.documents()
    assert (first.id, first.text, first.metadata) == (problem.ids[1], problem.ids[1], {"half": 1})
    query = problem.test_queries[0]
    found = folder.search(query, 5)
    assert [one.id for one in found] == expected(problem, query, 5, lambda row: row > 0)
    cosines = [problem.corpus[problem.ids.index(one.id)] @ query / np.linalg.norm(query) for one in found]
    np.testing.assert_allclose([one.score for one in found], cosines, atol=1e-5)
    assert {one.score for one in folder.search(query, 5, scored=False)} == {None}
    assert len(folder.search(query, 10_000)) == len(problem.ids) - 1
    assert [one.id for one in folder.get([problem.ids[2], "unknown", problem.ids[0]])] == [problem.ids[2]]


def test_no_langchain_is_imported(problem, tmp_path):
    saved(problem, tmp_path)
    program = (
        "import sys; from deepmem_integrations.corpora.faiss import FaissFolder\n"
        f"folder = FaissFolder({str(tmp_path)!r}); assert folder.get([{problem.ids[1]!r}])\n"
        "assert not [name for name in sys.modules if name.startswith('langchain')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_folders_of_old_versions_are_read(problem, tmp_path, protocol, monkeypatch):
    old = ModuleType("langchain.schema.document")

    class PydanticOne:
        """A document as of pydantic 1, which had no id."""

        def __init__(self, text):
            self.fields = {"page_content": text, "metadata": {"n": 1}}

        def __getstate__(self):
            return {"__dict__": self.fields, "__fields_set__": set(self.fields), "__private_attribute_values__": {}}

    class InMemoryDocstore:
        pass

    PydanticOne.__name__ = PydanticOne.__qualname__ = "Document"
    PydanticOne.__module__ = old.__name__
    old.Document = PydanticOne
    monkeypatch.setitem(sys.modules, old.__name__, old)
    store = ModuleType("langchain.docstore.in_memory")
    InMemoryDocstore.__module__, InMemoryDocstore.__qualname__ = store.__name__, "InMemoryDocstore"
    store.InMemoryDocstore = InMemoryDocstore
    monkeypatch.setitem(sys.modules, store.__name__, store)
    docstore = InMemoryDocstore()
    docstore._dict = {f"id {row}": PydanticOne(f"text {row}") for row in range(3)}
    index = faiss.IndexFlatL2(4)
    index.add(np.eye(4, dtype=np.float32)[:3])
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    rows = dict(enumerate(docstore._dict))
    (tmp_path / "index.pkl").write_bytes(pickle.dumps((docstore, rows), protocol=protocol))
    (found,) = FaissFolder(tmp_path).search([0, 1, 0, 0], 1)
    assert (found.id, found.text, found.metadata, found.score) == ("id 1", "text 1", {"n": 1}, 1)


class Malicious:
    def __init__(self, *call) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        lambda mark: (Malicious(open, (mark, "w")), {}),
        lambda mark: (Malicious(exec, (f"open({mark!r}, 'w')",)), {}),
        lambda mark: (Malicious(getattr, (Document, "construct")), {}),
        lambda mark: ({"a": Malicious(__import__, ("antigravity",))}, {0: "a"}),
    ],
)
def test_no_code_of_a_pickle_is_run(problem, tmp_path, content):
    saved(problem, tmp_path)
    (tmp_path / "index.pkl").write_bytes(pickle.dumps(content(str(tmp_path / "mark"))))
    with pytest.raises(StoreError, match=r"index.pkl holds a .*, and a pickle may run any code"):
        FaissFolder(tmp_path)
    assert not (tmp_path / "mark").exists()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(1), pickle.dumps(({}, {0: "a"})), pickle.dumps((set(), [1]))])
def test_other_pickles_are_refused(problem, tmp_path, content):
    saved(problem, tmp_path)
    (tmp_path / "index.pkl").write_bytes(content)
    with pytest.raises(StoreError, match=r"index.pkl (is damaged|does not hold the documents of a FAISS store)"):
        FaissFolder(tmp_path)


def test_files_that_do_not_belong_together_are_refused(problem, tmp_path):
    with pytest.raises(StoreError, match=r"has no index.faiss and index.pkl"):
        FaissFolder(tmp_path)
    saved(problem, tmp_path)
    faiss.write_index(faiss.IndexFlatL2(32), str(tmp_path / "index.faiss"))
    with pytest.raises(StoreError, match="has 0 vectors and index.pkl .* ids: the files do not belong together"):
        FaissFolder(tmp_path)
