"""A service over HTTP, as `tests/test_service.py` starts several of: ``python -m tests.service FRAMEWORK COLOUR FOLDER``.

``FRAMEWORK`` is langchain or llama_index, ``COLOUR`` blue or green: the embedding model, and the store that was filled with it.
The port is printed; ``GET /?QUERY`` answers with the ids of the five best documents as JSON.
"""

import asyncio
import json
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from tests.problems import Problem, make_problem


def problem_of(colour: str) -> Problem:
    """The problem as an embedding model sees it. Green turns all vectors, which changes no cosine between them."""
    problem = make_problem()
    if colour == "blue":
        return problem
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(32, 32)))[0].astype(np.float32)
    vectors = {name: getattr(problem, name) @ turn for name in ("corpus", "train_queries", "test_queries")}
    return replace(problem, turn=turn, **vectors)


def langchain(problem: Problem, folder: str) -> Callable[[str], list[str]]:
    from langchain_core.vectorstores import InMemoryVectorStore

    from deepmem_integrations.langchain import DeepMemoryRetriever
    from tests.langchain.helpers import Lookup, documents_of, ids

    store = InMemoryVectorStore(Lookup(problem))
    store.add_documents(documents_of(problem))
    retriever = DeepMemoryRetriever(vectorstore=store, memory=folder, k=5)
    return lambda query: ids(retriever.invoke(query))


def llama_index(problem: Problem, folder: str) -> Callable[[str], list[str]]:
    from llama_index.core import VectorStoreIndex

    from deepmem_integrations.llama_index import DeepMemoryRetriever
    from tests.llama_index.helpers import Lookup, ids, nodes_of

    index = VectorStoreIndex(nodes_of(problem), embed_model=Lookup(problem))
    retriever = DeepMemoryRetriever(index, memory=folder, similarity_top_k=5)
    return lambda query: ids(asyncio.run(retriever.aretrieve(query)))


def main(framework: str, colour: str, folder: str) -> None:
    answer = {"langchain": langchain, "llama_index": llama_index}[framework](problem_of(colour), folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            try:
                status, body = 200, json.dumps(answer(urllib.parse.unquote(self.path[2:])))
            except Exception as error:
                status, body = 500, f"{type(error).__name__}: {error}"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)  # noqa: T201 - for the test that started the service
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
