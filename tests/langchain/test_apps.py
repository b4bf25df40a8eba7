"""What people build of a retriever, once as it is and once with the retriever swapped, around a scripted chat model."""

import asyncio
import threading
from itertools import repeat
from typing import TypedDict

import pytest
from langchain.agents import create_agent
from langchain_classic.chains import RetrievalQA
from langchain_classic.retrievers import EnsembleRetriever, MultiQueryRetriever
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langgraph.graph import END, START, StateGraph
from pydantic import Field

from deepmem_integrations import QueryAdapter
from deepmem_integrations.langchain import DeepMemoryEmbeddings, DeepMemoryQueryTransform, DeepMemoryRetriever
from deepmem_integrations.models import ModelFolder
from tests.langchain.helpers import expected

K = 3


class Scripted(GenericFakeChatModel):
    """Answers from a script, word by word where it is streamed, and keeps what it was told."""

    told: list = Field(default_factory=list)

    def _generate(self, messages, *args, **kwargs):
        self.told.append(messages)
        return super()._generate(messages, *args, **kwargs)

    def bind_tools(self, tools, **kwargs):
        return self


@pytest.fixture(params=["before", "after"])
def swapped(request, db, problem, adapter):
    """A retriever, and the documents that it must put before the model for the n-th test query, best first."""
    retriever = db.as_retriever(search_kwargs={"k": K})
    if request.param == "after":
        retriever = DeepMemoryRetriever.from_retriever(retriever, adapter)

    def right(number):
        vector = problem.test_queries[number]
        return expected(problem, adapter.transform(vector) if request.param == "after" else vector, K)

    return retriever, right


@pytest.fixture
def model():
    return Scripted(messages=repeat("A scripted answer."))


def joined(documents):
    return "\n\n".join(document.page_content for document in documents)


@pytest.fixture
def chain(swapped, model):
    prompt = ChatPromptTemplate.from_template("Context:\n{context}\n\nQuestion: {question}")
    context = {"context": swapped[0] | joined, "question": RunnablePassthrough()}
    return context | prompt | model | StrOutputParser()


def contexts(model):
    """The documents in each prompt that the model was given."""
    return [messages[-1].content.partition("\n\nQuestion: ")[0].split("\n")[1::2] for messages in model.told]


def test_before_and_after_differ(problem, adapter):
    vector = problem.test_queries[0]
    assert expected(problem, vector, K) != expected(problem, adapter.transform(vector), K)


async def test_an_lcel_chain(chain, model, swapped, problem):
    query, right = problem.test.queries[0], swapped[1](0)
    assert chain.invoke(query) == await chain.ainvoke(query) == "A scripted answer."
    assert contexts(model) == [right, right]


async def test_streams(chain, model, swapped, problem):
    query = problem.test.queries[0]
    words = ["A", " ", "scripted", " ", "answer.", ""]
    assert [word for word in chain.stream(query) if word] == words[:-1]
    assert [word async for word in chain.astream(query) if word] == words[:-1]
    assert contexts(model) == [swapped[1](0)] * 2


async def test_batches(chain, model, swapped, problem):
    queries = list(problem.test.queries[:6])
    right = [swapped[1](number) for number in range(6)]
    retriever = swapped[0]
    for found in (retriever.batch(queries), await retriever.abatch(queries)):
        assert [[document.id for document in documents] for documents in found] == right
    assert chain.batch(queries) == await chain.abatch(queries) == ["A scripted answer."] * 6
    assert sorted(contexts(model)) == sorted(right * 2)


async def test_sources_beside_the_answer(swapped, model, problem):
    answer = RunnablePassthrough.assign(answer=(lambda state: joined(state["context"])) | model | StrOutputParser())
    chain = RunnableParallel({"context": swapped[0], "question": RunnablePassthrough()}) | answer
    chunks = [chunk async for chunk in chain.astream(problem.test.queries[1])]
    (documents,) = [chunk["context"] for chunk in chunks if "context" in chunk]
    assert [document.id for document in documents] == swapped[1](1)
    assert "".join(chunk.get("answer", "") for chunk in chunks) == "A scripted answer."


async def test_an_agent_with_the_retriever_as_its_tool(swapped, problem):
    retriever, right = swapped
    query = problem.test.queries[2]
    call = {"name": "search", "args": {"query": query}, "id": "1", "type": "tool_call"}
    tool = create_retriever_tool(retriever, "search", "Search the documents.")
    for run in ("invoke", "ainvoke"):
        model = Scripted(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("Found it.")]))
        agent = create_agent(model, [tool])
        state = {"messages": [("user", query)]}
        result = agent.invoke(state) if run == "invoke" else await agent.ainvoke(state)
        (answer,) = [message for message in result["messages"] if isinstance(message, ToolMessage)]
        assert answer.content.split("\n\n") == right(2)
        assert result["messages"][-1].content == "Found it."


async def test_several_queries_find_a_document_once_with_evidence_too(db, problem, adapter):
    plain = DeepMemoryRetriever(vectorstore=db, memory=adapter, k=40)
    retriever = plain.model_copy(update={"evidence": True})
    written = RunnableLambda(lambda _: list(problem.test.queries[:3]))
    answers = []
    for one in (plain, retriever):
        several = MultiQueryRetriever(retriever=one, llm_chain=written)
        fused = EnsembleRetriever(retrievers=[one, one.model_copy(update={"k": 30})])
        answers.append([several.invoke("?"), await several.ainvoke("?"), fused.invoke(problem.test.queries[0])])
        for found in answers[-1]:
            assert len({document.id for document in found}) == len(found)
    assert answers[0] == answers[1]
    assert all("deepmem" in document.metadata for found in answers[1] for document in found)


async def test_a_node_of_a_graph(swapped, model, problem):
    retriever, right = swapped

    class State(TypedDict, total=False):
        question: str
        documents: list[Document]
        answer: str

    async def answer(state):
        told = await model.ainvoke(joined(state["documents"]))
        return {"answer": told.content}

    async def retrieve(state):
        return {"documents": await retriever.ainvoke(state["question"])}

    graph = StateGraph(State)
    graph.add_node("retrieve", retrieve)
    graph.add_node("answer", answer)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "answer")
    graph.add_edge("answer", END)
    states = await graph.compile().abatch([{"question": problem.test.queries[number]} for number in range(4)])
    for number, state in enumerate(states):
        assert [document.id for document in state["documents"]] == right(number)
        assert state["answer"] == "A scripted answer."


async def test_an_agent_from_before_the_first_training(db, problem, adapter, tmp_path):
    """The agent is made once, and its tool serves the model as soon as there is one."""
    folder, query = ModelFolder(tmp_path / "not yet"), problem.test.queries[2]
    retriever = DeepMemoryRetriever(vectorstore=db, memory=str(folder.path), k=K)
    call = {"name": "search", "args": {"query": query}, "id": "1", "type": "tool_call"}
    model = Scripted(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("Found it.")] * 2))
    agent = create_agent(model, [create_retriever_tool(retriever, "search", "Search the documents.")])
    for vector in (problem.test_queries[2], adapter.transform(problem.test_queries[2])):
        result = await agent.ainvoke({"messages": [("user", query)]})
        (answer,) = [message for message in result["messages"] if isinstance(message, ToolMessage)]
        assert answer.content.split("\n\n") == expected(problem, vector, K)
        folder.save_model("one", adapter)
        folder.use("one")


async def test_retrieval_qa(swapped, model, problem):
    retriever, right = swapped
    qa = RetrievalQA.from_chain_type(model, retriever=retriever, return_source_documents=True)
    query = problem.test.queries[3]
    for result in (qa.invoke({"query": query}), await qa.ainvoke({"query": query})):
        assert result["result"] == "A scripted answer."
        assert [document.id for document in result["source_documents"]] == right(3)


class Recorder(BaseCallbackHandler):
    """What callbacks hear of retrieval."""

    def __init__(self):
        self.heard = []

    def on_retriever_start(self, serialized, query, **kwargs):
        self.heard.append(query)

    def on_retriever_end(self, documents, **kwargs):
        self.heard.append([document.id for document in documents])


async def test_callbacks(chain, swapped, problem):
    recorder = Recorder()
    query, right = problem.test.queries[4], swapped[1](4)
    chain.invoke(query, config={"callbacks": [recorder]})
    await chain.ainvoke(query, config={"callbacks": [recorder]})
    assert recorder.heard == [query, right] * 2
    events = [event async for event in chain.astream_events(query, version="v2")]
    (end,) = [event for event in events if event["event"] == "on_retriever_end"]
    assert [document.id for document in end["data"]["output"]] == right


@pytest.mark.parametrize("part", ["retriever", "embeddings", "transform"])
async def test_the_event_loop_runs_on_while_the_adapter_works(db, problem, adapter, monkeypatch, part):
    turned = threading.Event()
    transform = QueryAdapter.transform

    def wait_for_the_loop(self, vectors):
        assert turned.wait(60), "the event loop stands still"
        return transform(self, vectors)

    async def turn():
        await asyncio.sleep(0.05)
        turned.set()

    calls = {
        "retriever": DeepMemoryRetriever(vectorstore=db, memory=adapter).ainvoke,
        "embeddings": DeepMemoryEmbeddings(db.embeddings, adapter).aembed_query,
        "transform": DeepMemoryQueryTransform(adapter, db.embeddings).ainvoke,
    }
    monkeypatch.setattr(QueryAdapter, "transform", wait_for_the_loop)
    await asyncio.gather(calls[part](problem.test.queries[0]), turn())
