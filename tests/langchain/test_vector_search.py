import asyncio
import threading

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from deepmem_integrations import QueryAdapter
from deepmem_integrations.adapter import Ranking
from deepmem_integrations.langchain import DeepMemoryRetriever
from deepmem_integrations.langchain.vector_search import RankedSearch, VectorSearch
from deepmem_integrations.models import ModelFolder
from deepmem_integrations.ranking import Ranker
from deepmem_integrations.words import Found, WordIndex
from tests.langchain.helpers import Lookup, documents_of, expected, ids, remembering


class Counting(InMemoryVectorStore):
    """A store that keeps what it was asked for. It is of no known kind, because its search is its own."""

    asked: list

    def similarity_search_with_score_by_vector(self, embedding, k=4, filter=None, **options):
        self.asked.append({"k": k, **options})
        return super().similarity_search_with_score_by_vector(embedding, k, filter, **options)

    def get_by_ids(self, ids, /):
        self.asked.append(list(ids))
        return super().get_by_ids(ids)


@pytest.fixture
def store(problem):
    store = Counting(Lookup(problem))
    store.add_documents(documents_of(problem))
    store.asked = []
    return store


class Words:
    """A search by words that finds what it is told to."""

    def __init__(self, *found) -> None:
        self.found = list(found)
        self.asked = []

    def search(self, text, k, filter=None):
        self.asked.append((text, k))
        return Found(self.found[:k], np.arange(len(self.found), 0, -1, dtype=np.float32)[:k])


def search(
    store, problem, memory, k=3, *, words=True, answers=True, candidates=10, evidence=False, search_type="similarity", **options
):
    query = Ranker(memory, words=words, answers=answers).query("a question", problem.test_queries[0])
    return RankedSearch(store, search_type, query, options, k, None, candidates=candidates, evidence=evidence)


def test_the_order_of_the_search_stands_without_words_and_answers(store, problem):
    memory = QueryAdapter(32, ranking=Ranking(words=1.0, answers=1.0))
    vector = problem.test_queries[0]
    assert ids(search(store, problem, memory, words=False).run()) == expected(problem, vector, 3)
    assert store.asked == [{"k": 3}], "no more than was wanted"
    assert ids(VectorSearch(store, "similarity", "a question", vector.tolist(), {}, 5).run()) == expected(problem, vector, 5)
    assert len(VectorSearch(store, "similarity", "a question", vector.tolist(), {}).run()) == 4, "the store's own number"


def test_words_bring_documents_that_the_vectors_did_not_find(store, problem):
    memory = QueryAdapter(32, ranking=Ranking(words=1.0, search="Words"))
    far = expected(problem, -problem.test_queries[0], 2)
    words = Words(*far)
    found = search(store, problem, memory, words=words, evidence=True).run()
    assert ids(found) == [*far, *expected(problem, problem.test_queries[0], 1)]
    assert words.asked == [("a question", 10)]
    assert store.asked[-1] == far, "looked up by id, and the documents that the search found are not"
    first = found[0].metadata["deepmem"]
    assert first["words"] == {"score": 2.0, "rank": 1}
    assert first["vector"]["rank"] is None
    assert found[2].metadata["deepmem"]["vector"]["rank"] == 1
    assert found[2].metadata["deepmem"]["words"] == {"score": 0.0, "rank": None}
    assert found[0].metadata["half"] == problem.ids.index(far[0]) % 2


def test_documents_that_are_gone_are_looked_up_in_ever_larger_steps(store, problem):
    memory = QueryAdapter(32, ranking=Ranking(words=1.0, search="Words"))
    far = expected(problem, -problem.test_queries[0], 1)
    words = Words(*(f"gone {number}" for number in range(60)), *far)
    found = search(store, problem, memory, words=words, candidates=100).run()
    assert ids(found) == [*far, *expected(problem, problem.test_queries[0], 2)]
    assert [len(asked) for asked in store.asked[1:]] == [3, 12, 46]


def test_answers_bring_documents_and_a_filter_keeps_them_out(store, problem):
    memory_of = {
        half: expected(problem, -problem.test_queries[0], 1, lambda row, half=half: row % 2 == half)[0] for half in (0, 1)
    }
    unit = problem.test_queries[:1] / np.linalg.norm(problem.test_queries[0])
    plain = InMemoryVectorStore(store.embeddings)
    plain.store = store.store
    memory = remembering(unit, [dict.fromkeys(memory_of.values(), 1.0)], Ranking(answers=9.0))
    odd = {"filter": lambda document: document.metadata["half"] == 1}
    for half_of in (store, plain):
        found = search(half_of, problem, memory, **odd).run()
        assert all(document.metadata["half"] == 1 for document in found)
    assert ids(found)[0] == memory_of[1]
    assert set(ids(search(plain, problem, memory).run())[:2]) == set(memory_of.values())
    assert memory_of[0] not in ids(search(plain, problem, memory, answers=False).run())


def test_under_a_threshold_nothing_comes_that_the_vectors_did_not_find(store, problem):
    vector = problem.test_queries[0]
    order = expected(problem, vector, 10)
    cosines = [float(problem.corpus[problem.ids.index(name)] @ vector) / np.linalg.norm(vector) for name in order]
    far = expected(problem, -vector, 1)
    memory = QueryAdapter(32, ranking=Ranking(words=1.0, search="Words"))
    found = search(
        store,
        problem,
        memory,
        words=Words(order[2], order[5], *far),
        search_type="similarity_score_threshold",
        score_threshold=(cosines[3] + cosines[4]) / 2,
    ).run()
    assert ids(found) == [order[2], order[0], order[1]], "the fourth of four is cut off, and the sixth is below the threshold"


def test_without_k_as_many_come_as_the_store_returns_by_itself(store, problem):
    memory = QueryAdapter(32, ranking=Ranking(words=1.0, search="Words"))
    assert len(search(store, problem, memory, None, words=Words("doc-1")).run()) == 4


def test_two_documents_of_one_id_both_come(problem):
    class Chunks(InMemoryVectorStore):
        def similarity_search_by_vector(self, embedding, k=4, **kwargs):
            return [Document(id="page", page_content=text) for text in ("first", "second")]

    memory = QueryAdapter(32, ranking=Ranking(words=1.0, search="Words"))
    found = search(Chunks(Lookup(problem)), problem, memory, words=Words("page")).run()
    assert [document.page_content for document in found] == ["first", "second"]


async def test_words_and_vectors_are_searched_side_by_side_off_the_event_loop(store, problem):
    together = threading.Barrier(2, timeout=60)
    turned = threading.Event()

    class Waiting(Words):
        def search(self, text, k, filter=None):
            together.wait()
            assert turned.wait(60), "the event loop stands still"
            return super().search(text, k, filter)

    class WaitingStore(type(store)):
        async def asimilarity_search_by_vector(self, embedding, k=4, **options):
            await asyncio.to_thread(together.wait)
            return self.similarity_search_by_vector(embedding, k, **options)

        def get_by_ids(self, ids):  # defined beside the search, so that look-ups are trusted to know what the search knows
            return super().get_by_ids(ids)

    async def turn():
        await asyncio.sleep(0.05)
        turned.set()

    waiting = WaitingStore(store.embeddings)
    waiting.store, waiting.asked = store.store, []
    far = expected(problem, -problem.test_queries[0], 2)
    memory = QueryAdapter(32, ranking=Ranking(words=9.0, search="Waiting"))
    ranked = search(waiting, problem, memory, words=Waiting(*far))
    found, _ = await asyncio.gather(ranked.arun(), turn())
    assert ids(found)[:2] == far


async def test_a_first_query_opens_model_and_index_off_the_event_loop(problem, store, tmp_path, monkeypatch):
    folder = ModelFolder(tmp_path)
    folder.save_model("one", QueryAdapter(32, ranking=Ranking(words=9.0)))
    folder.use("one")
    WordIndex.build(folder.words_path, [(problem.ids, problem.ids)])
    opened = []
    for kind, method in ((ModelFolder, "_load_in_use"), (WordIndex, "__init__"), (WordIndex, "search"), (WordIndex, "scores")):
        original = getattr(kind, method)

        def noted(self, *args, original=original, **options):
            opened.append(threading.current_thread())
            return original(self, *args, **options)

        monkeypatch.setattr(kind, method, noted)
    retriever = DeepMemoryRetriever(vectorstore=store, memory=tmp_path, k=3)
    opened.clear()  # that there is a model is known from the start
    retriever.ranker.served._source._loaded = None
    await retriever.ainvoke(problem.test.queries[0])
    assert len(opened) == 4
    assert threading.main_thread() not in opened


async def test_the_word_index_beside_the_model_serves(problem, store, tmp_path):
    folder = ModelFolder(tmp_path)
    folder.save_model("one", QueryAdapter(32, ranking=Ranking(words=9.0)))
    folder.use("one")
    retriever = DeepMemoryRetriever(vectorstore=store, memory=tmp_path, k=3)
    query = problem.test.queries[0]
    plain = expected(problem, problem.test_queries[0], 3)
    assert ids(retriever.invoke(query)) == plain, "there is no index yet"
    far = expected(problem, -problem.test_queries[0], 1)
    WordIndex.build(folder.words_path, [(problem.ids, [query if name in far else "other" for name in problem.ids])])
    for found in (retriever.invoke(query), await retriever.ainvoke(query)):
        assert ids(found) == [*far, *plain[:2]]
    store.delete(far)
    for found in (retriever.invoke(query), await retriever.ainvoke(query)):
        assert ids(found) == plain, "the index still has the document"
