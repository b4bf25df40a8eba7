"""A small OpenAI-compatible server for embeddings and chat, on this machine, which can be told to misbehave.

``python -m tests.openai_server LATENCY`` serves from a process of its own and prints its address.
"""

import json
import re
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

DIMENSION = 64


def embed(text: str) -> list[float]:
    """Hashed bag of words and word pieces: similar texts get similar vectors."""
    vector = np.full(DIMENSION, 1e-3)
    for word in text.lower().split():
        for piece in {word, word[:4], word[-4:]}:
            vector += np.random.default_rng(zlib.crc32(piece.encode())).normal(size=DIMENSION)
    return (vector / np.linalg.norm(vector)).tolist()


@dataclass
class Reply:
    """What the chat endpoint does with one request.

    A plain string or JSON value as a reply is the content of a proper answer.
    """

    content: object = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    refusal: str | None = None
    finish_reason: str = "stop"
    truncated: bool = False
    raw: bytes | None = None


def documents_in(messages: list[dict]) -> list[str]:
    """The texts of the documents in a request."""
    return re.findall(r"<document [^>]*>\n(.*?)\n</document", messages[-1]["content"], re.DOTALL)


def count_in(messages: list[dict]) -> int:
    """How many queries a request asks for."""
    found = re.search(r"^Write (\d+) quer", messages[-1]["content"])
    return int(found.group(1)) if found else 0


def honest(messages: list[dict], attempt: int) -> object:
    """Queries about the document's words with digits, then its longest; of documents to be judged, none answers."""
    if "Query:" in messages[-1]["content"]:
        return {"answered_by": []}
    words = re.findall(r"[a-z0-9-]{4,}", " ".join(documents_in(messages)).lower())
    rare = sorted(set(words), key=lambda word: (not re.search(r"\d", word), -len(word), word))
    return queries(*(f"{turn}: what about {rare[turn % len(rare)]}?" for turn in range(count_in(messages))))


def queries(*texts: str) -> dict:
    """A proper answer."""
    return {"queries": [{"kind": "question", "text": text} for text in texts]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, self.headers["Authorization"], request))
            key = zlib.crc32(json.dumps(request.get("messages", "")).encode())
            self.server.attempts[key] += 1
            attempt = self.server.attempts[key]
        if self.headers["Authorization"] != "Bearer good-key":
            return self.answer(401, {"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}})
        if self.path.endswith("/chat/completions"):
            return self.chat(request, attempt)
        data = [
            {"object": "embedding", "index": i, "embedding": embed(text)[: 8 if request["model"] == "narrow" else None]}
            for i, text in enumerate(request["input"])
        ]
        # In reverse: clients must go by the index.
        answer = {
            "object": "list",
            "data": data[::-1],
            "model": request["model"],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
        return self.answer(200, answer)

    def chat(self, request: dict, attempt: int) -> None:
        self.server.times.append(time.monotonic())
        time.sleep(self.server.latency)
        reply = self.server.script(request["messages"], attempt)
        reply = reply if isinstance(reply, Reply) else Reply(reply)
        time.sleep(reply.hang)
        if reply.status != 200:
            return self.answer(reply.status, {"error": {"message": f"scripted {reply.status}"}}, reply.headers)
        content = reply.content if isinstance(reply.content, str) else json.dumps(reply.content)
        message: dict = {"role": "assistant", "content": None if reply.refusal else content, "refusal": reply.refusal}
        if request.get("tools") and not reply.refusal:  # what frameworks send that ask for structure by way of a function
            function = {"name": request["tools"][0]["function"]["name"], "arguments": content}
            message |= {"content": None, "tool_calls": [{"id": "call-1", "type": "function", "function": function}]}
        sizes = len(json.dumps(request["messages"])) // 4, len(content) // 4
        answer = {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason, "logprobs": None}],
            "usage": {"prompt_tokens": sizes[0], "completion_tokens": sizes[1], "total_tokens": sum(sizes)},
        }
        return self.answer(200, answer, truncated=reply.truncated, raw=reply.raw)

    def answer(
        self, status: int, value: dict, headers: dict | None = None, *, truncated: bool = False, raw: bytes | None = None
    ) -> None:
        body = json.dumps(value).encode() if raw is None else raw
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if truncated else body)
        self.close_connection |= truncated

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Server(ThreadingHTTPServer):
    """Keeps every request, and counts how often each was sent.

    Attributes:
        times: When each request for an answer arrived, in seconds of a monotonic clock.
        script: (messages, attempt) → a `Reply`, or the content of one.
        latency: Seconds that the model takes.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, latency: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.requests: list[tuple[str, str, dict]] = []
        self.attempts: Counter[int] = Counter()
        self.times: list[float] = []
        self.script: Callable[[list[dict], int], object] = honest
        self.latency = latency
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: object) -> None:
        """A client that went away is none of the server's business."""

    def most_within(self, seconds: float) -> int:
        """How many requests for an answer arrived within any so many seconds."""
        times = sorted(self.times)
        return max(sum(first <= time < first + seconds for time in times) for first in times)

    @property
    def asked(self) -> Counter[str]:
        """How often each document was sent for queries, by its text."""
        with self.lock:
            sent = [request["messages"] for path, _, request in self.requests if path.endswith("/chat/completions")]
        return Counter("\n".join(documents_in(messages)) for messages in sent if count_in(messages))


@contextmanager
def openai_server(latency: float = 0.0) -> Iterator[Server]:
    server = Server(latency)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with openai_server(float(sys.argv[1])) as running:
        print(running.url, flush=True)  # noqa: T201 - that is how the parent learns it
        sys.stdin.read()
