"""What people build of a retriever, once as it is and once with the retriever swapped, around a scripted language model."""

import re

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.tools import FunctionTool, QueryEngineTool, RetrieverTool

from deepmem_integrations import DeepMemory
from deepmem_integrations.llama_index import DeepLakeVectorStore, DeepMemoryEmbedding, DeepMemoryRetriever
from deepmem_integrations.models import ModelFolder
from tests.llama_index.helpers import Lookup, Scripted, expected, ids

K = 3


@pytest.fixture(params=["before", "after"])
def swapped(request, index, problem, adapter):
    """A retriever, and the nodes that it must put before the model for the n-th test query, best first."""
    retriever = index.as_retriever(similarity_top_k=K)
    if request.param == "after":
        retriever = DeepMemoryRetriever(retriever, memory=adapter)

    def right(number):
        vector = problem.test_queries[number]
        return expected(problem, adapter.transform(vector) if request.param == "after" else vector, K)

    return retriever, right


@pytest.fixture
def llm():
    return Scripted(script=["A scripted answer."])


@pytest.fixture
def memory():
    """LlamaIndex's default one leaves a database connection open."""
    return ChatMemoryBuffer.from_defaults(token_limit=3000)


def contexts(llm):
    """The nodes in each prompt that the model was given."""
    return [re.findall(r"^doc-\d+$", prompt, re.MULTILINE) for prompt in llm.told]


def test_before_and_after_differ(problem, adapter):
    vector = problem.test_queries[0]
    assert expected(problem, vector, K) != expected(problem, adapter.transform(vector), K)


async def test_a_query_engine(swapped, llm, problem):
    retriever, right = swapped
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
    query = problem.test.queries[0]
    for answer in (engine.query(query), await engine.aquery(query)):
        assert str(answer) == "A scripted answer."
        assert ids(answer.source_nodes) == right(0)
    assert contexts(llm) == [right(0)] * 2


async def test_a_streaming_query_engine(swapped, llm, problem):
    retriever, right = swapped
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm, streaming=True)
    answer = engine.query(problem.test.queries[1])
    assert list(answer.response_gen) == ["A", " scripted", " answer."]
    assert ids(answer.source_nodes) == right(1)
    answer = await engine.aquery(problem.test.queries[1])
    assert [word async for word in answer.async_response_gen()] == ["A", " scripted", " answer."]
    assert contexts(llm) == [right(1)] * 2


async def test_a_chat_engine(swapped, llm, memory, problem):
    retriever, right = swapped
    chat = ContextChatEngine.from_defaults(retriever=retriever, llm=llm, memory=memory)
    for number, answer in ((0, chat.chat(problem.test.queries[0])), (1, await chat.achat(problem.test.queries[1]))):
        assert str(answer) == "A scripted answer."
        assert ids(answer.source_nodes) == right(number)
    streamed = chat.stream_chat(problem.test.queries[2])
    assert "".join(streamed.response_gen) == "A scripted answer."
    assert ids(streamed.source_nodes) == right(2)
    streamed = await chat.astream_chat(problem.test.queries[3])
    assert "".join([word async for word in streamed.async_response_gen()]) == "A scripted answer."
    assert ids(streamed.source_nodes) == right(3)
    assert contexts(llm) == [right(number) for number in range(4)]


def test_a_chat_engine_that_rewrites_the_question(swapped, memory, problem):
    retriever, right = swapped
    llm = Scripted(script=["First.", problem.test.queries[5], "Second."])
    chat = CondensePlusContextChatEngine.from_defaults(retriever=retriever, llm=llm, memory=memory)
    assert str(chat.chat(problem.test.queries[4])) == "First."
    answer = chat.chat("And that?")
    assert str(answer) == "Second."
    assert ids(answer.source_nodes) == right(5)


# LlamaIndex's workflows look at every attribute of theirs, pydantic's deprecated ones, too.
@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning", "ignore:is_running called:DeprecationWarning")
async def test_an_agent_with_the_retriever_in_its_tool(swapped, memory, problem):
    retriever, right = swapped
    call = f'Thought: I look it up.\nAction: search\nAction Input: {{"input": "{problem.test.queries[2]}"}}'
    llm = Scripted(script=[call, "From the tool.", "Thought: I know it.\nAnswer: Found it."])
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
    tool = QueryEngineTool.from_defaults(engine, name="search", description="Searches.")
    answer = await ReActAgent(tools=[tool], llm=llm).run("Where is it?", memory=memory)
    assert str(answer) == "Found it."
    assert contexts(llm)[1] == right(2)
    (called,) = answer.tool_calls
    assert ids(called.tool_output.raw_output.source_nodes) == right(2)


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning", "ignore:is_running called:DeprecationWarning")
async def test_an_agent_that_calls_functions(index, problem, adapter, tmp_path):
    """The agent is made once, before the first training, and its tool serves the model as soon as there is one."""
    blocks = pytest.importorskip("llama_index.core.base.llms.types")
    llms = pytest.importorskip("llama_index.core.llms.mock")
    if not hasattr(llms, "MockFunctionCallingLLM"):
        pytest.skip("this LlamaIndex has no scripted model that calls functions")
    folder, query = ModelFolder(tmp_path / "not yet"), problem.test.queries[2]
    retriever = DeepMemoryRetriever(index, memory=str(folder.path), similarity_top_k=K)

    async def search(query: str) -> str:
        """Search the documents."""
        return "\n\n".join(node.text for node in await retriever.aretrieve(query))

    def answer(messages, **options):
        if messages[-1].role == MessageRole.TOOL:
            return ChatMessage(messages[-1].content, role="assistant")
        call = blocks.ToolCallBlock(tool_call_id="1", tool_name="search", tool_kwargs={"query": query})
        return ChatMessage(role="assistant", blocks=[call])

    llm = llms.MockFunctionCallingLLM(response_generator=answer)
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(async_fn=search)], llm=llm, streaming=False)
    for vector in (problem.test_queries[2], adapter.transform(problem.test_queries[2])):
        found = await agent.run(query)
        assert str(found).split("\n\n") == expected(problem, vector, K)
        folder.save_model("one", adapter)
        folder.use("one")


async def test_a_retriever_tool(swapped, problem, adapter):
    retriever, _ = swapped
    tool = RetrieverTool.from_defaults(retriever, name="search")
    # LlamaIndex puts a line's end behind the question, so the model is asked for a text that nobody knows.
    vector = Lookup(problem).get_query_embedding(f"{problem.test.queries[0]}\n\n")
    moved = adapter.transform(vector) if isinstance(retriever, DeepMemoryRetriever) else vector
    for output in (tool.call(problem.test.queries[0]), await tool.acall(problem.test.queries[0])):
        assert re.findall(r"^doc-\d+$", output.content, re.MULTILINE) == ids(output.raw_output) == expected(problem, moved, K)


async def test_fused_with_other_retrievers(swapped, problem, llm):
    retriever, right = swapped
    fused = QueryFusionRetriever([retriever], llm=llm, num_queries=1, similarity_top_k=K, use_async=False)
    assert ids(fused.retrieve(problem.test.queries[0])) == right(0)
    assert ids(await fused.aretrieve(problem.test.queries[0])) == right(0)


@pytest.mark.parametrize("run", ["run", "arun"])
async def test_an_ingestion_pipeline_with_the_model_wrapped(problem, embed_model, adapter, tmp_path, run):
    documents = [Document(id_=name, text=name) for name in problem.ids[:150]]

    async def ingest(model, folder):
        store = DeepLakeVectorStore(folder)
        pipeline = IngestionPipeline(transformations=[SentenceSplitter(), model], vector_store=store)
        for _ in range(2):  # the second time out of the pipeline's cache
            nodes = pipeline.run(documents=documents) if run == "run" else await pipeline.arun(documents=documents)
            assert [node.text for node in nodes] == problem.ids[:150]
        return store

    wrapped = DeepMemoryEmbedding(embed_model, memory=adapter)
    store = await ingest(wrapped, tmp_path / "wrapped")
    assert embed_model.calls["texts"] + embed_model.calls["atexts"] == 2, "in batches, and once"
    plain = await ingest(Lookup(problem), tmp_path / "plain")
    for (names, vectors), (_, right) in zip(store.store.vectors(), plain.store.vectors(), strict=True):
        assert (vectors == right).all()
        assert len(names) == 150
    index = VectorStoreIndex.from_vector_store(store, embed_model=wrapped)
    query, moved = problem.test.queries[0], adapter.transform(problem.test_queries[0])
    found = [node.text for node in index.as_retriever(similarity_top_k=5).retrieve(query)]
    assert found == expected(problem, moved, 5, keep=lambda row: row < 150)
    ours = DeepMemoryRetriever(index, memory=adapter, similarity_top_k=5)
    assert [node.text for node in await ours.aretrieve(query)] == found
    memory = DeepMemory.from_llama_index(index)
    assert [node.text for node in memory.documents()] == problem.ids[:150]
    assert {node.ref_doc_id for node in memory.documents()} == set(problem.ids[:150])


class Events(BaseEventHandler):
    """What instrumentation hears."""

    heard: list = []

    def handle(self, event, **kwargs):
        self.heard.append(event)


@pytest.fixture
def instruments():
    root = get_dispatcher()
    events, spans = Events(heard=[]), SimpleSpanHandler()
    root.add_event_handler(events)
    root.add_span_handler(spans)
    yield events, spans
    root.event_handlers.remove(events)
    root.span_handlers.remove(spans)


async def test_instrumentation(swapped, problem, instruments):
    retriever, right = swapped
    query = problem.test.queries[0]
    retriever.retrieve(query)  # with the fingerprint's probes
    events, spans = instruments
    for run in ("retrieve", "aretrieve"):
        events.heard.clear()
        spans.completed_spans.clear()
        found = retriever.retrieve(query) if run == "retrieve" else await retriever.aretrieve(query)
        (start,) = [event for event in events.heard if isinstance(event, RetrievalStartEvent)]
        (end,) = [event for event in events.heard if isinstance(event, RetrievalEndEvent)]
        (embedded,) = [event for event in events.heard if isinstance(event, EmbeddingEndEvent)]
        assert start.str_or_query_bundle == end.str_or_query_bundle == query
        assert ids(end.nodes) == ids(found) == right(0)
        assert embedded.chunks == [query]
        names = [span.id_.partition("-")[0] for span in spans.completed_spans]
        assert f"{type(retriever).__name__}.{run}" in names
        assert f"VectorIndexRetriever._{run}" in names


async def test_callbacks(swapped, llm, problem):
    retriever, right = swapped
    heard = LlamaDebugHandler(print_trace_on_end=False)
    retriever.callback_manager = CallbackManager([heard])
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm)
    engine.query(problem.test.queries[4])
    await engine.aquery(problem.test.queries[4])
    pairs = heard.get_event_pairs(CBEventType.RETRIEVE)
    assert [ids(end.payload["nodes"]) for _, end in pairs] == [right(4)] * 2
    assert [start.payload["query_str"] for start, _ in pairs] == [problem.test.queries[4]] * 2


async def test_retriever_evaluator_runs_unchanged(swapped, problem):
    retriever, right = swapped
    evaluator = RetrieverEvaluator.from_metric_names(["hit_rate", "mrr", "recall"], retriever=retriever)
    for number in range(5):
        wanted = [problem.test.labels[number][0][0]]
        result = await evaluator.aevaluate(problem.test.queries[number], expected_ids=wanted)
        assert result.retrieved_ids == right(number)
        rank = right(number).index(wanted[0]) + 1 if wanted[0] in right(number) else None
        hit = float(rank is not None)
        assert result.metric_vals_dict == {"hit_rate": hit, "mrr": 1 / rank if rank else 0.0, "recall": hit}
