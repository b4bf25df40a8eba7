"""Servers that tests start."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter


@contextmanager
def chroma_server(folder: Path) -> Iterator[str]:
    """Run a server of Chroma over a folder, and yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [Path(sys.executable).parent / "chroma", "run", "--path", folder, "--port", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


@contextmanager
def qdrant_front() -> Iterator[str]:
    """Answer Qdrant's requests by HTTP with the engine that its client has for local collections, and yield the port.

    Qdrant's own server comes as a binary or a container alone, which no package registry has. What is real is the client, its
    requests and its reading of answers, and the engine behind; the way between them is written here.
    """
    from qdrant_client import QdrantClient, models

    client, lock = QdrantClient(":memory:"), threading.Lock()

    def result(method: str, path: list[str], body: Any) -> Any:
        match [method, *path[1:]]:
            case ["PUT", name]:
                return client.create_collection(name, models.CreateCollection(**body).vectors)
            case ["GET", name, "exists"]:
                return {"exists": client.collection_exists(name)}
            case ["GET", name]:
                return client.get_collection(name)
            case ["PUT", name, "points"]:
                return client.upsert(name, models.PointsList(**body).points)
            case ["POST", name, "points"]:
                asked = models.PointRequest(**body)
                return client.retrieve(name, asked.ids, asked.with_payload, asked.with_vector)
            case ["POST", name, "points", "scroll"]:
                page = models.ScrollRequest(**body)
                points, offset = client.scroll(
                    name, page.filter, page.limit, None, page.offset, page.with_payload, page.with_vector or False
                )
                return {"points": points, "next_page_offset": offset}
            case ["POST", name, "points", "query"]:
                query = models.QueryRequest(**body)
                return client.query_points(
                    name,
                    query.query,
                    query.using,
                    query_filter=query.filter,
                    limit=query.limit,
                    with_payload=query.with_payload,
                    with_vectors=query.with_vector or False,
                )
        raise LookupError(f"{method} /{'/'.join(path)}")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status = 200
            try:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
                with lock:
                    found = result(self.command, urlsplit(self.path).path.strip("/").split("/"), body)
                answer = {"result": found, "status": "ok", "time": 0.0}
            except LookupError as error:
                status, answer = 404, {"status": {"error": str(error)}, "time": 0.0}
            text = TypeAdapter(Any).dump_json(answer)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield str(server.server_address[1])
        finally:
            server.shutdown()
            client.close()
