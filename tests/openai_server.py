"""A small OpenAI-compatible server for embeddings, on this machine."""

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
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


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], request))
        if self.headers["Authorization"] != "Bearer good-key":
            return self.answer(401, {"error": {"message": "Incorrect API key provided", "type": "invalid_request_error"}})
        data = [{"object": "embedding", "index": i, "embedding": embed(text)} for i, text in enumerate(request["input"])]
        # In reverse: clients must go by the index.
        answer = {
            "object": "list",
            "data": data[::-1],
            "model": request["model"],
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
        return self.answer(200, answer)

    def answer(self, status: int, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def openai_server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
