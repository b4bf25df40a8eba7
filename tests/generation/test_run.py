"""A run against a real HTTP server that misbehaves: everything is survived, counted, and asked no more than needed."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation import OpenAIModel, QueryGenerator
from tests.generation.helpers import documents, embed_texts
from tests.openai_server import Reply, documents_in, honest

FAULTS = {
    "d1": lambda attempt: Reply(status=429, headers={"Retry-After": "0.05"}) if attempt < 3 else None,
    "d2": lambda attempt: Reply(status=500, headers={"Retry-After-Ms": "20"}) if attempt < 2 else None,
    "d3": lambda attempt: Reply(hang=5) if attempt == 1 else None,
    "d4": lambda attempt: Reply(truncated=True) if attempt == 1 else None,
    "d5": lambda attempt: Reply(content='{"queries": [{"kind": "question", "te'),
    "d6": lambda attempt: Reply(refusal="I cannot write queries about this."),
    "d7": lambda attempt: Reply(content='{"queries": [{"kind": "a', finish_reason="length"),
    "d8": lambda attempt: Reply(status=500, headers={"Retry-After-Ms": "20"}),
    "d9": lambda attempt: Reply(status=400),
    "d10": lambda attempt: Reply(content={"queries": []}),
    "d11": lambda attempt: Reply(content={"nothing": "of the kind"}),
    "d12": lambda attempt: Reply(raw=b"<html>Bad gateway</html>"),
    "d13": lambda attempt: Reply(content="", finish_reason="content_filter"),
}


def misbehave(pairs):
    """A script: the documents above meet their faults, all others are answered."""
    names = {text: name for name, text in pairs}

    def script(messages, attempt):
        fault = FAULTS.get(names[documents_in(messages)[0]])
        reply = fault(attempt) if fault else None
        return honest(messages, attempt) if reply is None else reply

    return script


@pytest.mark.slow
@pytest.mark.parametrize("door", ["generate", "agenerate"])
def test_every_fault_is_survived_and_counted(server, tmp_path, door, caplog):
    pairs = documents(20)
    texts = dict(pairs)
    server.script = misbehave(pairs)
    model = OpenAIModel("gpt-test", api_key="good-key", base_url=server.url, timeout=1.0, max_retries=3)
    writer = QueryGenerator(model, 3, concurrency=8, checkpoint=tmp_path / "run.jsonl", progress=False)

    def run():
        return writer.generate(pairs) if door == "generate" else asyncio.run(writer.agenerate(pairs))

    result = run()
    lost = {"d5", "d6", "d7", "d8", "d9", "d10", "d11", "d12", "d13"}
    assert {query.documents[0][0] for query in result.queries} == {name for name, _ in pairs} - lost
    assert len(result.queries) == 3 * (20 - len(lost))
    assert set(result.failed) == {"d8", "d9"}
    assert "InternalServerError" in result.failed["d8"]
    faults = {one.document: one.filter for one in result.rejected}
    assert faults == dict.fromkeys(["d5", "d7", "d11", "d12"], "malformed") | {"d6": "refusal", "d13": "refusal", "d10": "empty"}
    assert result.relevance.left_out == {
        "query: malformed": 4,
        "query: refusal": 2,
        "query: empty": 1,
        "document: request failed": 2,
    }
    asked = {name: server.asked[texts[name]] for name in texts}
    assert {name: count for name, count in asked.items() if count != 1} == {"d1": 3, "d2": 2, "d3": 2, "d4": 2, "d8": 4}
    assert result.usage.requests == 20
    assert result.stopped == ""

    # A second run asks again where a request failed or an answer could not be read, and asks for nothing else.
    before = len(server.requests)
    server.script = honest
    again = run()
    repeated = {"d5", "d7", "d8", "d9", "d11", "d12"}
    asked_again = [documents_in(request["messages"])[0] for _, _, request in server.requests[before:]]
    assert sorted(asked_again) == sorted(texts[name] for name in repeated)
    assert (again.recorded, again.usage.requests, again.failed) == (14, 6, {})
    assert set(again.queries) - set(result.queries) == {one for one in again.queries if one.documents[0][0] in repeated}
    assert "4 answers of openai:gpt-test" in caplog.text


def test_a_run_that_no_request_of_answers_says_why(server, generator):
    server.script = lambda messages, attempt: Reply(status=400)
    with pytest.raises(GenerationError, match=r"Not one of 3 requests was answered by openai:gpt-test.*'d0', failed with BadReq"):
        generator()(documents(3))
    model = OpenAIModel("gpt-test", api_key="bad-key", base_url=server.url)
    with pytest.raises(GenerationError, match="AuthenticationError"):
        QueryGenerator(model, progress=False)(documents(3))


def test_a_server_that_is_down_stops_the_run_and_a_later_one_goes_on(server, generator, tmp_path, caplog):
    pairs = documents(60)
    turn = itertools.count()

    def script(messages, attempt):
        return honest(messages, attempt) if next(turn) < 15 else Reply(status=400)

    server.script = script
    writer = generator(concurrency=4, checkpoint=tmp_path / "run.jsonl")
    first = writer.generate(pairs)
    assert len(server.requests) <= 15 + 20 + 2 * 4
    assert "20 requests in a row failed" in first.stopped
    assert "The run ended early" in caplog.text
    assert len(first.queries) == 45
    assert len(first.skipped) + len(first.failed) == 45
    assert set(first.skipped.values()) == {"not asked"}
    server.script = honest
    second = writer.generate(pairs)
    assert (second.recorded, second.usage.requests, len(second.queries)) == (15, 45, 180)


KILLED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # see the fixture ctrl_c
from deepmem_integrations.generation import OpenAIModel, QueryGenerator
from tests.generation.helpers import documents, embed_texts
model = OpenAIModel("gpt-test", api_key="good-key", base_url=sys.argv[1])
QueryGenerator(model, 3, concurrency=4, checkpoint=sys.argv[2], progress=False)(documents(60))
"""


def answer_then_hang(server, count):
    """Answer so many requests, in a moment each, and keep the others waiting: what is stopped then has not ended by itself."""
    turn = itertools.count()
    server.latency = 0.02
    server.script = lambda messages, attempt: honest(messages, attempt) if next(turn) < count else Reply(hang=30)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_loses_at_most_the_requests_in_flight(server, generator, tmp_path, how):
    path = tmp_path / "run.jsonl"
    answer_then_hang(server, 24)
    command = [sys.executable, "-c", KILLED, server.url, str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not path.exists() or path.read_bytes().count(b"\n") < 20:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        started = time.monotonic()
        process.send_signal(how)
        said = process.communicate(timeout=15)[1]
    assert time.monotonic() - started < 10
    assert process.returncode != 0
    assert ("KeyboardInterrupt" in said) == (how == signal.SIGINT)
    server.script = honest
    before = len(server.requests)
    recorded = path.read_bytes().count(b"\n") - 1
    result = generator(concurrency=4, checkpoint=path).generate(documents(60))
    assert before - recorded <= 4, "answers that were there are lost"
    assert result.recorded == recorded >= 19
    assert len(server.requests) - before == 60 - recorded
    assert max(server.asked.values()) <= 2
    assert sum(count == 2 for count in server.asked.values()) <= 4
    assert result.queries == generator().generate(documents(60)).queries, "a resumed run gives what an unbroken one gives"


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises, whatever a shell has set for what runs in the background."""
    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, was)


def test_ctrl_c_in_the_middle_keeps_what_was_answered(ctrl_c, server, generator, tmp_path):
    path = tmp_path / "run.jsonl"
    answer_then_hang(server, 12)

    def interrupt():
        while not path.exists() or path.read_bytes().count(b"\n") < 8:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        generator(concurrency=3, checkpoint=path)(documents(60))
    server.script = honest
    recorded = path.read_bytes().count(b"\n") - 1
    assert recorded >= 7
    assert generator(checkpoint=path).generate(documents(60)).recorded == recorded


async def test_a_cancelled_run_keeps_what_was_answered(server, generator, tmp_path):
    path = tmp_path / "run.jsonl"
    answer_then_hang(server, 12)
    task = asyncio.create_task(generator(concurrency=3, checkpoint=path).agenerate(documents(60)))
    while not path.exists() or path.read_bytes().count(b"\n") < 8:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.script = honest
    recorded = path.read_bytes().count(b"\n") - 1
    result = await generator(checkpoint=path).agenerate(documents(60))
    assert result.recorded == recorded >= 7


async def test_what_takes_time_runs_off_the_event_loop(generator):
    threads = set()

    def embed(texts):
        threads.add(threading.get_ident())
        return embed_texts(texts)

    assert len(await generator(embedding=embed).acall(documents(8))) > 12
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("door", ["generate", "agenerate"])
async def test_concurrency_is_used_and_bounded(server, generator, door):
    together = threading.Barrier(5)
    running = most = 0
    lock = threading.Lock()

    def script(messages, attempt):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(timeout=20)  # nobody is answered before five have asked
        with lock:
            running -= 1
        return honest(messages, attempt)

    server.script = script
    result = getattr(generator(concurrency=5), door)(documents(20))
    result = result if door == "generate" else await result
    assert len(result.queries) == 60
    assert most == 5


def test_answers_in_any_order_give_the_same_result(server, generator):
    def script(messages, attempt):
        time.sleep(int(documents_in(messages)[0].split("part-")[1].split()[0]) % 7 * 0.01)
        return honest(messages, attempt)

    calm = generator(concurrency=1).generate(documents(14))
    server.script = script
    assert generator(concurrency=10).generate(documents(14)).queries == calm.queries
    assert asyncio.run(generator(concurrency=10).agenerate(documents(14))).queries == calm.queries


def test_a_model_runs_on_one_loop_after_another(server, generator):
    writer = generator()
    for _ in range(2):
        assert len(asyncio.run(writer.acall(documents(5)))) == 15


def test_a_checkpoint_is_json_that_a_person_can_read(generator, tmp_path):
    path = tmp_path / "run.jsonl"
    generator(checkpoint=path)(documents(2))
    head, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert head["model"] == "openai:gpt-test max_completion_tokens=4096"
    assert sorted(json.loads(line["key"])[1][0] for line in lines) == ["d0", "d1"]
    assert textwrap.shorten(lines[0]["answer"]["value"]["queries"][0]["text"], 80).startswith("0: what about")


@pytest.mark.parametrize("json_object", [False, True])
def test_an_answer_in_a_code_fence_is_read(server, json_object):
    reply = Reply(content='Sure!\n```json\n{"queries": [{"text": "where does the pump stand"}]}\n```')
    server.script = lambda messages, attempt: reply
    model = OpenAIModel("gpt-test", api_key="good-key", base_url=server.url, json_object=json_object)
    for labels in (writer := QueryGenerator(model, 1, progress=False))(documents(1)), asyncio.run(writer.acall(documents(1))):
        assert labels.queries == ("where does the pump stand",)
