"""`SyntheticQueryGenerator` as a Runnable, over LangChain's own OpenAI model and a real server."""

import asyncio
import pickle
import threading

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI
from langchain_text_splitters import CharacterTextSplitter

from deepmem_integrations import DeepMemory, Relevance
from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation import Extractive, OpenAIModel, QueryGenerator
from deepmem_integrations.langchain import SyntheticQueryGenerator
from deepmem_integrations.langchain.generation import LangChainModel
from tests.generation.helpers import documents, embed_texts
from tests.openai_server import Reply, documents_in, honest, openai_server


@pytest.fixture
def server():
    with openai_server() as running:
        yield running


@pytest.fixture
def llm(server):
    return ChatOpenAI(model="gpt-test", api_key="good-key", base_url=server.url, max_retries=2)


@pytest.fixture
def generator(llm):
    return SyntheticQueryGenerator(llm=llm, queries_per_document=3, progress=False)


class Words(Embeddings):
    """Similar texts, similar vectors."""

    def embed_documents(self, texts):
        return embed_texts(texts).tolist()

    def embed_query(self, text):
        return self.embed_documents([text])[0]


def langchain_documents(count):
    return [Document(id=name, page_content=text) for name, text in documents(count)]


async def test_every_way_to_call_gives_the_same(generator):
    given = langchain_documents(6)
    labels = generator.invoke(given)
    assert len(labels) == 18
    assert labels.labels[3] == (("d1", 1.0),)
    assert set(labels.generated) == {True}
    assert await generator.ainvoke(given) == labels
    assert generator.batch([given, given[:2]]) == [labels, labels.take(range(6))]
    assert await generator.abatch([given]) == [labels]
    pieces = list(generator.stream(given))
    assert len(pieces) == 7
    assert sum(pieces, Relevance([], [])) == labels
    assert sum([piece async for piece in generator.astream(given)], Relevance([], [])) == labels
    assert generator.generate(given).relevance == labels == (await generator.agenerate(given)).relevance
    assert generator.generate(given).usage.input_tokens > 6 * 100, "as the server counted them"
    assert generator.estimate(given).usage.requests == 6


def test_split_generate_train(server, generator, llm, tmp_path):
    """The chain of the README: split, write, train; the documents' ids are found by their text."""
    store = InMemoryVectorStore(Words())
    text = "\n\n".join(text for _, text in documents(20))
    splitter = CharacterTextSplitter(chunk_size=200, chunk_overlap=0)
    store.add_documents(splitter.split_documents([Document(text)]))
    memory = DeepMemory.from_langchain(store, tmp_path / "models")
    writer = SyntheticQueryGenerator(llm=llm, queries_per_document=3, memory=memory, progress=False)
    chain = RunnableLambda(splitter.split_documents) | writer | memory.trainer(seed=0)
    job = chain.invoke([Document(text)])
    assert memory.jobs.job(job).state == "completed"
    count = RunnableLambda(splitter.split_documents) | writer | RunnableLambda(len)
    assert list(count.stream([Document(text)])) == [count.invoke([Document(text)])]
    with pytest.raises(GenerationError, match=r"has no id in the store.*memory\.documents\(\)"):
        (RunnableLambda(splitter.split_documents) | generator).invoke([Document(text)])


async def test_calls_of_the_model_belong_to_the_chain(generator):
    class Trace(BaseCallbackHandler):
        def __init__(self):
            self.parents = {}
            self.models = []

        def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, name=None, **kwargs):
            self.parents[run_id] = (parent_run_id, name)

        def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, **kwargs):
            self.models.append(parent_run_id)

    for call in ("invoke", "stream", "ainvoke"):
        trace = Trace()
        config = {"callbacks": [trace]}
        if call == "invoke":
            generator.invoke(langchain_documents(3), config)
        elif call == "stream":
            list(generator.stream(langchain_documents(3), config))
        else:
            await generator.ainvoke(langchain_documents(3), config)
        assert len(trace.models) == 3
        for parent in trace.models:
            names = []
            while parent is not None:
                parent, name = trace.parents[parent]
                names.append(name)
            assert names[-1] == "SyntheticQueryGenerator"


def test_the_concurrency_of_a_call(server, generator):
    together, waiting = threading.Barrier(2), []

    def script(messages, attempt):
        waiting.append(together.wait(timeout=20))
        return honest(messages, attempt)

    server.script = script
    assert len(generator.invoke(langchain_documents(4), {"max_concurrency": 2})) == 12
    together = threading.Barrier(3)
    assert len(generator.invoke(langchain_documents(6), {"max_concurrency": 3})) == 18
    assert len(waiting) == 10


@pytest.mark.parametrize("call", ["generate", "agenerate"])
def test_faults_of_one_document_are_its_own(server, generator, call):
    texts = {text: name for name, text in documents(8)}
    faults = {
        "d1": Reply(content="{broken"),
        "d2": Reply(refusal="No."),
        "d3": Reply(status=400),
        "d4": Reply(content={"queries": []}),
        "d5": Reply(content='{"queries": [{"k', finish_reason="length"),
    }
    server.script = lambda messages, attempt: faults.get(texts[documents_in(messages)[0]]) or honest(messages, attempt)
    result = getattr(generator, call)(langchain_documents(8))
    result = result if call == "generate" else asyncio.run(result)
    assert {query.documents[0][0] for query in result.queries} == {"d0", "d6", "d7"}
    lost = {one.document: one.filter for one in result.rejected}
    assert lost == {"d1": "malformed", "d2": "refusal", "d4": "empty", "d5": "malformed"}
    assert set(result.failed) == {"d3"}


def test_other_models_than_langchains(server):
    given = langchain_documents(2)
    model = OpenAIModel("gpt-test", api_key="good-key", base_url=server.url)
    assert len(SyntheticQueryGenerator(llm=model, queries_per_document=3, progress=False).invoke(given)) == 6
    assert len(SyntheticQueryGenerator(llm=Extractive(), progress=False).invoke(given)) == 4


def test_the_tutorials_shape_is_one_call(generator):
    docs, ids = [text for _, text in documents(20)], [name for name, _ in documents(20)]
    questions, relevances = generator.generate_queries(docs, ids, n=12)
    assert len(questions) == len(relevances) == 12
    assert all(row[0][0] in ids for row in relevances)


@pytest.mark.parametrize("call", ["generate", "agenerate"])
def test_an_answer_in_a_code_fence_is_read(server, generator, call):
    """Servers and models without structured output answer so; ``kind`` is missing as well."""
    reply = Reply(content='Sure!\n```json\n{"queries": [{"text": "where does the pump stand"}]}\n```')
    server.script = lambda messages, attempt: reply
    result = getattr(generator, call)(langchain_documents(1))
    result = result if call == "generate" else asyncio.run(result)
    assert [query.text for query in result.queries] == ["where does the pump stand"]


def test_a_chat_model_travels_with_its_settings(server, llm, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "good-key")
    for model in (llm, ChatOpenAI(model="gpt-test", base_url=server.url, temperature=0.5, timeout=30)):
        with monkeypatch.context() as patch:
            found = pickle.dumps(LangChainModel(model))
            patch.delenv("OPENAI_API_KEY")
            again = pickle.loads(found)
            assert again.name == "ChatOpenAI:gpt-test"
            assert QueryGenerator(again, 1, progress=False)(
                [("d1", "The router is started again with part-17 of the kit.")]
            ).queries
    assert server.requests[-1][2]["temperature"] == 0.5
