"""`RelevanceJudge` as a Runnable, over LangChain's own OpenAI model, retrievers and compressors."""

from collections.abc import Sequence

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.langchain import RelevanceJudge
from tests.judging.test_judge import DOCUMENTS, QUERIES, Embedding, by_rule, grade
from tests.openai_server import openai_server


class Shelf(BaseRetriever):
    """Finds everything."""

    def _get_relevant_documents(self, query, *, run_manager) -> list[Document]:
        return [Document(text, id=name) for name, text in DOCUMENTS]


class Compressor(BaseDocumentCompressor):
    """Keeps the best three documents, as copies without ids, as some compressors do."""

    scored: bool = True

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks=None) -> Sequence[Document]:
        scores = [(grade(query, one.page_content), one) for one in documents]
        best = sorted(scores, key=lambda pair: -pair[0])[:3]
        added = {"relevance_score": 0.0} if self.scored else {}
        return [Document(one.page_content, metadata=one.metadata | {name: score for name in added}) for score, one in best]


async def test_a_chat_model_judges_in_every_way_of_a_step():
    with openai_server() as server:
        server.script = lambda messages, attempt: by_rule(messages)
        llm = ChatOpenAI(model="gpt-test", api_key="good-key", base_url=server.url, max_retries=2)
        judge = RelevanceJudge(llm=llm, rankings=[Shelf()], depth=6, progress=False)
        labels = judge.invoke(QUERIES[:2], {"max_concurrency": 2})
        assert labels.labels == ((("d0", 1.0),), (("d1", 1.0),))
        assert set(labels.judges) == {"ChatOpenAI:gpt-test"}
        assert await judge.ainvoke(QUERIES[:2]) == labels
        assert sum(judge.stream(QUERIES[:2]), Relevance([], [])) == labels
        pieces = [piece async for piece in judge.astream(QUERIES[:2])]
        assert sum(pieces, Relevance([], [])) == labels
        in_pieces = sum(judge.transform(iter([QUERIES[:1], QUERIES[1:2]])), Relevance([], []))
        assert in_pieces == labels
        assert judge.judge(QUERIES[:2]).usage.input_tokens > 0


def test_a_chain_trains_on_what_is_judged(tmp_path):
    store = InMemoryVectorStore(Embedding())
    store.add_documents([Document(text, id=name) for name, text in DOCUMENTS])
    memory = DeepMemory.from_langchain(store, path=tmp_path / "m")
    judge = RelevanceJudge(by_rule, memory=memory, rankings=[store.as_retriever()], progress=False)
    job = (judge | memory.trainer()).invoke([f"how is unit-{row} set up?" for row in range(12)])
    assert memory.status(job).state == "completed"


def test_a_compressor_and_a_cross_encoder_score():
    judge = RelevanceJudge(reranker=Compressor(), thresholds=[1, 2], rankings=[Shelf()], depth=12, progress=False)
    labels = judge.invoke(QUERIES[1:2])
    assert labels.labels == ((("d1", 1.0), ("d9", 0.5)),)
    assert labels.left_out == {"document: left out by the reranker": 9}
    assert labels.judges == ("Compressor",)

    class CrossEncoder:
        def score(self, text_pairs):
            return [grade(query, text) for query, text in text_pairs]

    whole = RelevanceJudge(reranker=CrossEncoder(), thresholds=[1, 2], rankings=[Shelf()], depth=12, progress=False)
    assert whole.invoke(QUERIES[1:2]).labels == labels.labels
    unscored = RelevanceJudge(reranker=Compressor(scored=False), thresholds=[1], rankings=[Shelf()], progress=False)
    with pytest.raises(GenerationError, match="Compressor writes no relevance_score"):
        unscored.invoke(QUERIES)
