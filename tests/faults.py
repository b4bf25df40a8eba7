"""A proxy between a client and a store's server, which fails as networks and servers do, and what the library makes of it.

``python -m tests.faults chroma HOST:PORT``, the same with ``qdrant``, and ``python -m tests.faults postgres URL`` fill a store,
train, and retrieve through the proxy in every way to fail, and print what happened as JSON. `tests/test_faults.py` starts the
servers.
"""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from langchain_core.embeddings import Embeddings

from deepmem_integrations import DeepMemory
from deepmem_integrations.corpora import stores
from deepmem_integrations.errors import DeepMemoryError
from deepmem_integrations.langchain import DeepMemoryRetriever
from deepmem_integrations.words import WordIndex
from tests.embeddings import LookupEmbeddings
from tests.problems import make_problem, with_uuids

Mode = Literal["pass", "refuse", "cut", "hang", "silence", "garbage"]


class FaultyProxy:
    """Forwards bytes to a server, and fails as it is told.

    Args:
        connect: Opens a connection to the server: a coroutine function that returns a reader and a writer.

    Attributes:
        port: Where it listens on 127.0.0.1.
        answered: How many bytes of answers it has passed on since `fail` was called.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect, self._mode, self._after, self.answered = connect, "pass", 0, 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        started = threading.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await server.serve_forever()

        threading.Thread(target=lambda: self._loop.run_until_complete(serve()), daemon=True).start()
        started.wait(10)

    def fail(self, mode: Mode, after: int = 0) -> None:
        """Fail from now on, and end all connections.

        Args:
            mode: ``"refuse"`` ends each connection at once; ``"cut"`` ends it in the middle of an answer; ``"hang"`` answers
                nothing for a while and then ends it, ``"silence"`` never does; ``"garbage"`` answers with other bytes; ``"pass"``
                does not fail.
            after: After how many bytes of answers the failure begins.
        """

        async def change() -> None:
            self._mode, self._after, self.answered = mode, after, 0
            for writer in self._open:
                writer.close()
            self._open.clear()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "refuse":
            writer.close()
            return
        server_reader, server_writer = await self._connect()
        self._open |= {writer, server_writer}
        asking, answering = self._pipe(reader, server_writer, self._forward), self._pipe(server_reader, writer, self._answer)
        await asyncio.gather(asking, answering, return_exceptions=True)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, through: Callable[..., Any]) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(await through(data))
                await writer.drain()
        except _Half as half:
            writer.write(half.args[0])
            await writer.drain()
        finally:
            writer.close()

    async def _forward(self, data: bytes) -> bytes:
        return data

    async def _answer(self, data: bytes) -> bytes:
        before, self.answered = self.answered, self.answered + len(data)
        if self._mode == "pass" or self.answered < self._after:
            return data
        if self._mode in ("hang", "silence"):
            await asyncio.sleep(0.5 if self._mode == "hang" else 600)
            raise ConnectionError
        if self._mode == "garbage":
            return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 11\r\n\r\nBad gateway" + os.urandom(64)
        raise ConnectionError if before >= self._after else _Half(data[: self._after - before])


class _Half(ConnectionError):
    """The last bytes that still go through."""


# ---- what the library makes of it -----------------------------------------------------------------------------------


def check(proxy: FaultyProxy, store: Any, fill: Callable[[], None], problem: Any, folder: Path) -> dict[str, Any]:
    """Fail in every way, during searches, trainings, refreshes and evaluations.

    Raises:
        AssertionError: Wrong documents came back, a failed training left something, or the store is not served again afterwards.
    """
    fill()
    memory = DeepMemory.from_langchain(store, path=folder)
    memory.train(problem.train)
    model, queries = memory.get_model(), problem.test.queries[:8]
    retriever = DeepMemoryRetriever(vectorstore=store, memory=memory, k=5)
    expected = {query: ids(retriever.invoke(query)) for query in queries}
    proxy.fail("pass")
    retriever_again(retriever, queries[0])
    proxy.fail("pass")
    answers = measured(proxy, lambda: retriever_again(retriever, queries[0]))
    scan = measured(proxy, memory.refresh)
    happened: dict[str, Counter[str]] = {}

    searched = DeepMemory.from_langchain(store, path=folder / "searched", scan=False)

    def attempt(what: str, call: Callable[[], Any], right: Any = None) -> None:
        try:
            value = call()
        except DeepMemoryError as error:
            happened.setdefault(what, Counter())[type(error).__name__] += 1
        except Exception as error:  # the store's own, as its own retriever raises it
            happened.setdefault(what, Counter())[f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}"] += 1
        else:
            assert right in (None, value), (what, value)
            happened.setdefault(what, Counter())["right"] += 1

    for mode in ("refuse", "cut", "hang", "garbage"):
        for share in (0.0,) if mode == "refuse" else (0.0, 0.4, 0.95):
            for query in queries[:3]:
                proxy.fail(mode, int(share * answers))
                attempt(f"{mode}, search", lambda query=query: ids(retriever.invoke(query)), expected[query])
            for name, call in (
                ("train", lambda: memory.train(problem.train, in_use="never")),
                ("train without a scan", lambda: searched.train(problem.train, words=False)),
                ("refresh", memory.refresh),
                ("evaluate", lambda: memory.measure(problem.test)),
            ):
                proxy.fail(mode, int(share * scan))
                attempt(f"{mode}, {name}", call)
                assert memory.get_model() == model, "the model in use stays"
                for jobs in (memory.jobs, searched.jobs):
                    assert not [job for job in jobs.all() if job.running]
                    assert not [path for path in jobs.path.glob("*") if path.is_dir()], "inputs are left behind"
            proxy.fail("pass")
            for query in queries:
                assert ids(retriever_again(retriever, query)) == expected[query], "served again, and rightly"
            memory.refresh()
            assert len(WordIndex(memory.folder.words_path)) == len(problem.ids), "no document was lost from the word index"
    return {name: dict(counts) for name, counts in happened.items()}


def ids(documents: list[Any]) -> list[str]:
    return [document.id for document in documents]


def retriever_again(retriever: DeepMemoryRetriever, query: str) -> Any:
    """Ask again where a pool still holds connections that were cut."""
    for attempt in range(20):
        try:
            return retriever.invoke(query)
        except Exception:
            if attempt == 19:
                raise
    return None


def measured(proxy: FaultyProxy, call: Callable[[], Any]) -> int:
    before = proxy.answered
    call()
    return proxy.answered - before


def main(kind: str, address: str) -> None:
    problem = with_uuids(make_problem(documents=120, train=80, test=20, dimension=16))
    stores.BATCH = 60  # two requests read the whole store
    embeddings = type("Model", (LookupEmbeddings, Embeddings), {})(problem)
    host, _, port = address.partition(":")
    if kind == "qdrant":
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient, models

        proxy = FaultyProxy(lambda: asyncio.open_connection(host, int(port)))
        client: Any = QdrantClient(url=f"http://127.0.0.1:{proxy.port}", timeout=5, check_compatibility=False)
        client.create_collection("docs", models.VectorParams(size=16, distance=models.Distance.COSINE))
        store: Any = QdrantVectorStore(client, "docs", embeddings)
    elif kind == "chroma":
        import chromadb
        from langchain_chroma import Chroma

        proxy = FaultyProxy(lambda: asyncio.open_connection(host, int(port)))
        client = chromadb.HttpClient("127.0.0.1", proxy.port, settings=chromadb.Settings(anonymized_telemetry=False))
        client._server._session.timeout = 5  # or an answer that never ends holds it for ever
        store = Chroma("docs", embeddings, client=client, collection_metadata={"hnsw:space": "cosine"})
    else:
        from langchain_postgres import PGVector

        url = urlsplit(address)
        folder_of_socket = parse_qs(url.query).get("host")

        async def connect() -> Any:
            if folder_of_socket is None:
                return await asyncio.open_connection(url.hostname, url.port)
            return await asyncio.open_unix_connection(Path(folder_of_socket[0], f".s.PGSQL.{url.port or 5432}"))

        proxy = FaultyProxy(connect)
        whom = f"{url.username or 'postgres'}:{url.password or ''}"
        there = f"postgresql+psycopg://{whom}@127.0.0.1:{proxy.port}{url.path}?sslmode=disable"
        store = PGVector(embeddings, connection=there, collection_name="docs", use_jsonb=True, create_extension=False)
    with tempfile.TemporaryDirectory() as folder:
        found = check(proxy, store, lambda: store.add_texts(problem.ids, ids=problem.ids), problem, Path(folder, "models"))
    print(json.dumps(found, indent=1))  # noqa: T201 - to its caller
    sys.stdout.flush()
    os._exit(0)  # clients of servers leave sockets and threads


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:3])
