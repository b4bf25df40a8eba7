"""`SyntheticQueryGenerator` over nodes, with LlamaIndex's own OpenAI LLM and a real server."""

import pytest
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.types import PydanticProgramMode
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step
from llama_index.llms.openai import OpenAI

from deepmem_integrations import Relevance
from deepmem_integrations.llama_index import SyntheticQueryGenerator
from deepmem_integrations.llama_index.generation import LabelsEvent
from tests.generation.helpers import documents
from tests.openai_server import Reply, documents_in, honest, openai_server


@pytest.fixture
def server():
    with openai_server() as running:
        yield running


@pytest.fixture(params=["schema", "function", "text"])
async def llm(server, request):
    """The three ways in which LlamaIndex asks for structure, by what the model can do."""
    model = "gpt-3.5-turbo" if request.param == "function" else "gpt-4o-mini"
    mode = PydanticProgramMode.LLM if request.param == "text" else PydanticProgramMode.DEFAULT
    llm = OpenAI(model, api_key="good-key", api_base=server.url, max_retries=2, pydantic_program_mode=mode)
    client = llm._get_client()  # made lazily, and once for each of the threads that come first
    yield llm
    client.close()
    await llm._get_aclient().close()


@pytest.fixture
def generator(llm):
    return SyntheticQueryGenerator(llm=llm, queries_per_document=3, progress=False)


def nodes(count):
    return [TextNode(id_=name, text=text) for name, text in documents(count)]


async def test_every_way_to_call_gives_the_same(generator):
    labels = generator(nodes(5))
    assert len(labels) == 15
    assert labels.labels[3] == (("d1", 1.0),)
    assert set(labels.generated) == {True}
    assert await generator.acall(nodes(5)) == labels
    assert generator([NodeWithScore(node=node, score=1.0) for node in nodes(5)]) == labels
    assert sum(generator.stream(nodes(5)), Relevance([], [])) == labels
    assert (await generator.agenerate(nodes(5))).queries[0].model.startswith("OpenAI:gpt-")


async def test_as_a_workflow_and_inside_one(generator):
    labels = generator(nodes(5))
    handler = generator.workflow().run(nodes=nodes(5))
    pieces = [event.relevance async for event in handler.stream_events() if isinstance(event, LabelsEvent)]
    assert await handler == labels
    assert len(pieces) == 5
    assert sum(pieces, Relevance([], [])) == labels

    class Pipeline(Workflow):
        @step
        async def write(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=len(await generator.acall(ev.nodes)))

    assert await Pipeline(timeout=30).run(nodes=nodes(2)) == 6


async def test_braces_in_a_document_are_text(server, generator):
    text = 'The config {name} is JSON: {"a": {"b": 1}}, and {{double}} braces or {0} stay as they are in it. {'
    labels = generator([TextNode(id_="d", text=text)])
    assert len(labels) == 3
    assert documents_in(server.requests[-1][2]["messages"]) == [text]


@pytest.mark.parametrize("call", ["generate", "agenerate"])
async def test_faults_of_one_document_are_its_own(server, generator, call):
    texts = {text: name for name, text in documents(8)}
    faults = {
        "d1": Reply(content="{broken"),
        "d2": Reply(refusal="No."),
        "d3": Reply(status=400),
        "d4": Reply(content={"queries": []}),
    }
    server.script = lambda messages, attempt: faults.get(texts[documents_in(messages)[0]]) or honest(messages, attempt)
    result = getattr(generator, call)(nodes(8))
    result = result if call == "generate" else await result
    assert {query.documents[0][0] for query in result.queries} == {"d0", "d5", "d6", "d7"}
    assert {one.document: one.filter for one in result.rejected} == {"d1": "malformed", "d2": "malformed", "d4": "empty"}
    assert set(result.failed) == {"d3"}


async def test_the_tutorials_shape_is_one_call(generator):
    docs, ids = [text for _, text in documents(20)], [name for name, _ in documents(20)]
    questions, relevances = generator.generate_queries(docs, ids, n=12)
    assert len(questions) == len(relevances) == 12
    assert all(row[0][0] in ids for row in relevances)


@pytest.mark.parametrize("call", ["generate", "agenerate"])
async def test_an_answer_in_a_code_fence_is_read(server, generator, call):
    """Models without structured output answer so; ``kind`` is missing as well. Tool calls are LlamaIndex's to read."""
    fenced = generator.model._llm.pydantic_program_mode == PydanticProgramMode.LLM
    fence = ("Sure!\n```json\n", "\n```") if fenced else ("", "")
    reply = Reply(content='{"queries": [{"text": "where does the pump stand"}]}'.join(fence))
    server.script = lambda messages, attempt: reply
    result = getattr(generator, call)(nodes(1))
    result = result if call == "generate" else await result
    assert [query.text for query in result.queries] == ["where does the pump stand"]
