"""Rate limits: what a real server gets in any window, from threads, tasks, runs and processes."""

import asyncio
import contextlib
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmem_integrations.errors import GenerationError, StorageError
from deepmem_integrations.generation import Answer, FunctionModel, OpenAIModel, QueryGenerator, RateLimit, Usage, rates
from deepmem_integrations.generation.model import Request
from deepmem_integrations.generation.rates import Limited, TurnsHere, TurnsInFile, Window
from deepmem_integrations.judging import RelevanceJudge
from tests.generation.helpers import documents
from tests.openai_server import Reply, honest, queries


@pytest.fixture(autouse=True)
def apart(monkeypatch, request):
    """No test waits for another's turns, and none for the slack of a minute but those who count what a server gets."""
    monkeypatch.setattr(TurnsHere, "_windows", {})
    if "server" not in request.fixturenames:
        monkeypatch.setattr(rates, "SLACK", 0.1)


costs = st.lists(st.tuples(st.integers(1, 120), st.floats(0, 30), st.integers(1, 120)), min_size=1, max_size=60)


@given(costs, st.none() | st.integers(1, 5), st.none() | st.integers(1, 100))
def test_no_window_has_more_than_the_limit(asked, requests, tokens):
    if requests is None and tokens is None:
        return
    limit, window, now, turns = RateLimit(requests, tokens, seconds=60), Window(), 0.0, []
    for expected, pause, _ in asked:
        wait, _ = window.take(limit, expected, now)
        turns.append((now + wait, expected))
        now += pause
    assert all(one[0] <= other[0] + 1e-9 for one, other in pairwise(turns)), "nobody is overtaken"
    for at, _ in turns:
        within = [used for time_of, used in turns if at <= time_of < at + 60]
        assert requests is None or len(within) <= requests
        assert tokens is None or len(within) == 1 or sum(within) <= tokens


def test_nobody_waits_longer_than_the_limit_asks_for():
    window, limit = Window(), RateLimit(requests=3, seconds=10)
    waits = [window.take(limit, 1, 0.0)[0] for _ in range(7)]
    assert waits == pytest.approx([0, 0, 0, 10.1, 10.1, 10.1, 20.2])
    assert window.take(limit, 1, 100.0)[0] == 0


def test_what_the_model_counted_takes_the_place_of_what_was_expected():
    window, limit = Window(), RateLimit(tokens=100, seconds=10)
    _, number = window.take(limit, 90, 0.0)
    window.settle(number, 20)
    assert window.take(limit, 80, 1.0)[0] == 0
    assert window.take(limit, 1, 1.0)[0] > 8
    _, number = window.take(limit, 5_000, 50.0)
    assert window.take(limit, 1, 51.0)[0] > 8, "a request beyond the cap goes alone"


def test_each_run_keeps_its_own_cap_and_counts_the_others():
    window = Window()
    assert [window.take(RateLimit(requests=4, seconds=10), 1, 0.0)[0] for _ in range(3)] == [0, 0, 0]
    assert window.take(RateLimit(requests=2, seconds=20), 1, 5.0)[0] == pytest.approx(15.1)


@pytest.mark.slow
@pytest.mark.parametrize("door", ["generate", "agenerate"])
def test_a_server_never_gets_more_than_the_limit(server, generator, door):
    writer = generator(1, limit=RateLimit(requests=5, seconds=0.3), concurrency=16)
    pairs = documents(14)
    result = writer.generate(pairs) if door == "generate" else asyncio.run(writer.agenerate(pairs))
    assert server.most_within(0.3) == 5
    assert result.relevance == generator(1).generate(pairs).relevance


@pytest.mark.slow
@pytest.mark.parametrize("door", ["generate", "agenerate"])
def test_what_the_client_sends_again_waits_for_a_turn_as_well(server, generator, door):
    server.script = lambda messages, attempt: (
        Reply(status=429, headers={"Retry-After": "0"}) if attempt < 3 else honest(messages, 1)
    )
    writer = generator(1, limit=RateLimit(requests=4, seconds=0.3), concurrency=8)
    result = writer.generate(documents(4)) if door == "generate" else asyncio.run(writer.agenerate(documents(4)))
    assert len(server.times) == 12 and not result.failed
    assert server.most_within(0.3) == 4


@pytest.mark.slow
def test_tokens_are_limited(server, generator):
    server.script = lambda messages, attempt: queries(f"what is {messages[-1]['content'][-40:-30]}?")
    pairs = documents(6)
    writer = generator(1)
    expected = Usage.expected(writer.prompt.request((writer._sources(pairs)[0],))).tokens
    generator(1, limit=RateLimit(tokens=int(2.5 * expected), seconds=0.4), concurrency=6).generate(pairs)
    assert server.most_within(0.3) <= 3, "more tokens were expected than the server counts"
    assert max(server.times) - min(server.times) > 0.4


@pytest.mark.slow
def test_runs_of_one_process_share_a_name(server, generator, openai_model):
    limit = RateLimit(requests=3, seconds=0.4, name="mine")
    writer = generator(1, limit=limit)
    judge = RelevanceJudge(openai_model, rankings=[lambda query: documents(3)], limit=limit, progress=False)
    server.script = lambda messages, attempt: {"grade": 2} if "Query:" in messages[-1]["content"] else honest(messages, attempt)

    async def both():
        await asyncio.gather(writer.agenerate(documents(3)), judge.ajudge(["a question"]))

    asyncio.run(both())
    assert len(server.times) == 6
    assert server.most_within(0.4) == 3


def test_processes_share_a_file(tmp_path):
    program = """
        import sys
        from deepmem_integrations.generation import RateLimit, rates

        class Told(rates.Window):
            def take(self, limit, tokens, now):
                wait, number = super().take(limit, tokens, now)
                print(now + wait)
                return wait, number

        rates.SLACK, rates.Window = 0.1, Told
        limit = RateLimit(requests=4, seconds=0.5, file=sys.argv[1])
        turns = rates.TurnsInFile(limit.file)
        for _ in range(6):
            _, number = turns.take(limit, 10)
            turns.settle(number, 5)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "deep" / "limit.db")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}) for _ in range(2)]
    turns = sorted(float(line) for one in running for line in one.communicate(timeout=60)[0].split())
    assert len(turns) == 12
    assert max(sum(first <= turn < first + 0.5 for turn in turns) for first in turns) == 4


def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path, generator):
    path = tmp_path / "notes.json"
    for content in ("[1]", "no database", "no database" * 100):
        path.write_text(content)
        with pytest.raises(StorageError, match=r"notes\.json holds no turns of a rate limit"):
            generator(limit=RateLimit(5, file=path))(documents(2))
        assert path.read_text() == content


@pytest.mark.parametrize("statement", ["CREATE TABLE notes (id)", "CREATE VIEW turns AS SELECT 1 AS id, 2 AS number"])
def test_a_database_of_another_kind_is_refused_and_left_alone(tmp_path, statement):
    path = tmp_path / "notes.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(statement)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"notes\.db holds no turns of a rate limit, or is damaged \(it is another database"):
        TurnsInFile(path)
    assert path.read_bytes() == before


def changed(path, statement):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


def test_an_answer_that_was_paid_is_kept_where_a_limit_can_no_longer_be_kept(tmp_path, generator, server):
    file = tmp_path / "limits" / "limit.db"

    def script(messages, attempt):
        file.write_text("no JSON")
        return honest(messages, attempt)

    server.script = script
    options = {"limit": RateLimit(50, file=file), "concurrency": 1, "checkpoint": tmp_path / "run.jsonl"}
    with pytest.raises(StorageError, match=r"limit\.db"):
        generator(1, **options)(documents(4))
    assert len(server.times) == 1
    assert generator(1, checkpoint=tmp_path / "run.jsonl").generate(documents(4)).recorded == 1


def test_a_request_that_waits_when_the_run_ends_is_never_sent():
    asked = []
    model = FunctionModel(lambda messages, schema: asked.append(1) or ["How do I set up the unit of the guide?"])
    stream = QueryGenerator(model, 1, limit=RateLimit(1, seconds=0.3), progress=False).stream(documents(5))
    next(stream), next(stream)
    stream.close()
    sent = len(asked)
    time.sleep(0.5)
    assert len(asked) == sent


def test_a_model_counts_under_its_own_name():
    limit = RateLimit(1, seconds=5)
    assert Limited(FunctionModel(len, "a"), limit).take(1)[0] == 0
    assert Limited(FunctionModel(len, "b"), limit).take(1)[0] == 0
    assert Limited(FunctionModel(max, "a"), limit).take(1)[0] > 4


@pytest.mark.parametrize("options", [{}, {"requests": 0}, {"tokens": -1}, {"requests": 1, "seconds": 0}])
def test_limits_out_of_range(options):
    with pytest.raises(GenerationError, match="RateLimit needs requests=, tokens=, or both"):
        RateLimit(**options)


def test_an_openai_model_travels_with_its_key(server, openai_model, monkeypatch):
    for model in (openai_model, OpenAIModel("gpt-test", api_key="good-key", base_url=server.url, http_client=httpx.Client())):
        request = QueryGenerator(model).prompt.request(tuple(QueryGenerator(model)._sources(documents(1))))
        if model is openai_model:
            again = pickle.loads(pickle.dumps(model))
            assert again.name == model.name
            model = again
        assert model.ask(request).value["queries"]
        model._client.close()
    monkeypatch.setenv("OPENAI_API_KEY", "good-key")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    found = pickle.dumps(OpenAIModel("gpt-test", max_retries=0))
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert isinstance(pickle.loads(found).ask(request), Answer)


def test_a_long_wait_is_told_once(tmp_path, caplog):
    """As where the clock of another machine was an hour ahead."""
    path, limit = tmp_path / "limit.db", RateLimit(requests=1, file=tmp_path / "limit.db")
    limited = Limited(FunctionModel(len, "gpt"), limit)
    assert limited.take(1)[0] == 0 and not caplog.messages
    changed(path, "DELETE FROM turns")
    TurnsInFile(path).take(limit, 1)
    changed(path, "UPDATE turns SET at = at + 3600")
    limited = Limited(FunctionModel(len, "gpt"), limit)
    assert [round(limited.take(1)[0] / 60) for _ in range(2)] == [61, 62]
    assert caplog.messages == [
        "A request to gpt waits 61 minutes for its turn: others have turns before, or the clock of a machine that shares "
        f"{path} is ahead."
    ]


def test_a_window_counts_as_long_as_a_turn_does_and_gives_no_number_again():
    window, limit = Window(), RateLimit(requests=1, seconds=3600)
    assert not window.counts(0.0)
    _, number = window.take(limit, 900, 0.0)
    assert window.counts(3600.0) and not window.counts(3602.0)
    _, later = Window().take(limit, 10, 0.0)
    assert later != number, "the request of a window that was lost is still under way"


@pytest.mark.parametrize("damage", ["at = 9e999", "at = 'soon'", "tokens = 'many'", "tokens = 1e300"])
def test_a_file_of_turns_that_is_damaged_is_refused(tmp_path, damage):
    TurnsInFile(tmp_path / "limit.db").take(RateLimit(requests=2), 10)
    changed(tmp_path / "limit.db", f"UPDATE turns SET {damage}")
    with pytest.raises(StorageError, match="limit\\.db"):
        TurnsInFile(tmp_path / "limit.db")


def test_a_file_that_nobody_may_write_or_that_is_held_is_told(tmp_path, monkeypatch):
    path, limit = tmp_path / "limit.db", RateLimit(requests=2, seconds=600)
    turns = TurnsInFile(path)
    monkeypatch.setattr(rates, "PATIENCE", 0.1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="limit\\.db: database is locked"):
            turns.take(limit, 1)
    assert [round(turns.take(limit, 1)[0]) for _ in range(3)] == [0, 0, 600], "the turn that was not given does not count"


def test_a_file_of_turns_is_its_owners_and_does_not_grow(tmp_path):
    path, limit = tmp_path / "limit.db", RateLimit(requests=10, seconds=0.01)
    turns, others = TurnsInFile(path), TurnsInFile(path)
    for _ in range(20):
        for one in (turns, others) * 10:
            one.settle(one.take(limit, 10)[1], 5)
        changed(path, "UPDATE turns SET at = at - 1000")
        turns, others = (pickle.loads(pickle.dumps(one)) for one in (turns, others))
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM turns").fetchone()[0] <= 20
    assert path.stat().st_mode & 0o077 == 0


def test_processes_see_what_others_settle_and_give_back(tmp_path):
    limit = RateLimit(tokens=100, seconds=600)
    one, other = TurnsInFile(tmp_path / "limit.db"), TurnsInFile(tmp_path / "limit.db")
    _, first = one.take(limit, 90)
    _, second = other.take(limit, 10)
    assert len({first, second}) == 2
    assert other.take(limit, 50)[0] > 500
    one.settle(first, 20)
    assert other.take(limit, 0)[0] > 500, "turns are given in order"
    fresh = TurnsInFile(tmp_path / "fresh.db")
    _, number = fresh.take(limit, 90)
    mirror = TurnsInFile(tmp_path / "fresh.db")
    fresh.settle(number, None)
    assert mirror.take(limit, 100)[0] == 0
    assert fresh.take(limit, 1)[0] > 500, "and what the other took"


@pytest.mark.parametrize("door", ["ask", "aask"])
def test_a_run_that_ends_gives_the_turns_back_that_it_did_not_use(door, tmp_path):
    limit = RateLimit(requests=2, seconds=600, file=tmp_path / "limit.db")
    run = Limited(FunctionModel(lambda messages, schema: [], "gpt"), limit)
    requests = [Request(key=str(n), task="write", sources=(), kinds=("question",), messages=()) for n in range(6)]
    if door == "ask":
        with ThreadPoolExecutor(6) as pool:
            waiting = [pool.submit(run.ask, request) for request in requests]
            done = set()
            while len(done) < 2:
                done, _ = wait(waiting, timeout=0.05)
            assert len(done) == 2
            run.close()
    else:

        async def cancelled():
            tasks = [asyncio.ensure_future(run.aask(request)) for request in requests]
            done, rest = set(), tasks
            while len(done) < 2:
                done, rest = await asyncio.wait(tasks, timeout=0.05)
            assert len(done) == 2
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run(cancelled())
    assert round(TurnsInFile(limit.file).take(limit, 1)[0] / 600) == 1, "the next window, and not the one after the next two"


def test_turns_in_a_file_are_settled(tmp_path):
    turns, limit = TurnsInFile(tmp_path / "limit.db"), RateLimit(tokens=100, seconds=10)
    _, number = turns.take(limit, 90)
    assert turns.take(limit, 50)[0] > 9
    other = TurnsInFile(tmp_path / "other.json")
    _, number = other.take(limit, 90)
    TurnsInFile(tmp_path / "other.json").settle(number, 10)
    assert other.take(limit, 50)[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"requests": float("nan")},
        {"tokens": float("inf")},
        {"requests": 2.5},
        {"requests": "5"},
        {"requests": 5, "seconds": float("inf")},
        {"requests": 5, "seconds": "60"},
    ],
    ids=str,
)
def test_numbers_that_would_limit_nothing_or_fail_later_are_refused(options):
    with pytest.raises(GenerationError, match="a whole number of 1 or more"):
        RateLimit(**options)


@pytest.mark.parametrize("file", ["s3://bucket/rates", 5])
def test_a_file_that_is_on_no_disk_is_refused(file):
    with pytest.raises(GenerationError, match="lies on a disk"):
        RateLimit(requests=5, file=file)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_forked_while_a_turn_is_taken_takes_turns():
    turns, limit = TurnsHere("forked"), RateLimit(requests=10)
    taking, go = threading.Event(), threading.Event()

    class Slow(Window):
        def take(self, *arguments):
            taking.set()
            go.wait(0.3)
            return super().take(*arguments)

    turns._window = Slow()
    thread = threading.Thread(target=turns.take, args=(limit, 1))
    thread.start()
    taking.wait()
    if (child := os.fork()) == 0:
        signal.alarm(3)  # a child that waits for the lock of a thread that it has not got is killed
        go.set()
        turns.take(limit, 1)
        os._exit(0)
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert pickle.loads(pickle.dumps(turns))._window is TurnsHere("forked")._window


def test_what_is_no_limit_is_refused_before_anything_is_asked():
    told = pytest.raises(GenerationError, match=r"limit is a RateLimit, such as RateLimit\(requests=500\); got 5 \(int\)")
    with told:
        QueryGenerator(lambda messages, schema: "", limit=5)
    with told:
        RelevanceJudge(lambda messages, schema: "", rankings=[lambda query: []], limit=5)
