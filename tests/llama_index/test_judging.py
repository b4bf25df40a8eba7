"""`RelevanceJudge` over LlamaIndex's own retrievers and postprocessors, and as a workflow."""

import pytest
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.llms.openai import OpenAI

from deepmem_integrations import Relevance
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.llama_index import RelevanceJudge
from tests.judging.test_judge import DOCUMENTS, QUERIES, by_rule, grade
from tests.openai_server import openai_server


class Shelf(BaseRetriever):
    """Finds everything."""

    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(id_=name, text=text), score=0.1) for name, text in DOCUMENTS]


class Reranker(BaseNodePostprocessor):
    """Keeps the best three nodes."""

    scored: bool = True

    def _postprocess_nodes(self, nodes, query_bundle=None):
        scored = [NodeWithScore(node=one.node, score=grade(query_bundle.query_str, one.get_content())) for one in nodes]
        best = sorted(scored, key=lambda one: -one.score)[:3]
        return best if self.scored else nodes


async def test_a_language_model_judges_by_call_and_in_a_workflow():
    with openai_server() as server:
        server.script = lambda messages, attempt: by_rule(messages)
        llm = OpenAI(model="gpt-4o-mini", api_key="good-key", api_base=server.url, max_retries=2)
        client = llm._get_client()  # made lazily, and once for each of the threads that come first
        judge = RelevanceJudge(llm=llm, rankings=[Shelf()], depth=6, progress=False)
        labels = judge(QUERIES[:2])
        assert labels.labels == ((("d0", 1.0),), (("d1", 1.0),))
        assert set(labels.judges) == {"OpenAI:gpt-4o-mini"}
        handler = judge.workflow().run(queries=QUERIES[:2])
        pieces = [event.relevance async for event in handler.stream_events() if hasattr(event, "relevance")]
        assert await handler == labels == sum(pieces, Relevance([], []))
        client.close()
        await llm._get_aclient().close()


def test_a_postprocessor_scores():
    judge = RelevanceJudge(reranker=Reranker(), thresholds=[1, 2], rankings=[Shelf()], depth=12, progress=False)
    labels = judge(QUERIES[1:2])
    assert labels.labels == ((("d1", 1.0), ("d9", 0.5)),)
    assert labels.left_out == {"document: left out by the reranker": 9}
    unscored = RelevanceJudge(reranker=Reranker(scored=False), thresholds=[1], rankings=[Shelf()], progress=False)
    with pytest.raises(GenerationError, match="Reranker gives nodes no scores"):
        unscored(QUERIES)
