"""Measure how much of a server's possible throughput the generator reaches.

The server is the one of the tests, in a separate process. A request takes the server ``--latency`` seconds, however many
requests it has at once. Its possible throughput is measured with bare connections that send the same request again and again. The
generator is also compared with concurrency / latency, which no server reaches.

    python -m benchmarks.throughput [--documents 960] [--concurrency 32] [--latency 0.5 1.0]

The script writes ``benchmarks/results/throughput.json`` and prints a line for the sync and the async generator each.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.results import FOLDER
from deepmem_integrations.generation import Generation, OpenAIModel, QueryGenerator


def documents(count: int) -> list[tuple[str, str]]:
    """Return pairs of id and text. The texts are as long as usual chunks."""
    filler = "It is explained with care, and with all that one has to know about it beforehand. " * 8
    return [(f"d{row}", f"Document {row} is about subject-{row} and unit-{row}. {filler}") for row in range(count)]


def allowed(url: str, count: int, concurrency: int) -> float:
    """Return how many requests a second ``concurrency`` bare connections get answered."""
    messages = [{"role": "user", "content": "Write 4 queries\n\n<document 1>\n" + documents(1)[0][1] + "\n</document 1>"}]
    body = json.dumps({"model": "gpt-test", "messages": messages})
    headers = {"Authorization": "Bearer good-key", "Content-Type": "application/json"}
    address = urlsplit(url)

    def work(requests: int) -> None:
        with contextlib.closing(http.client.HTTPConnection(address.hostname or "", address.port)) as connection:
            for _ in range(requests):
                connection.request("POST", f"{address.path}/chat/completions", body, headers)
                connection.getresponse().read()

    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(work, [count // concurrency] * concurrency))
    return count // concurrency * concurrency / (time.perf_counter() - started)


def main() -> None:
    """Measure the sync and the async generator at each latency."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=960)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.5, 1.0])
    options = parser.parse_args()
    rows = []
    for latency in options.latency:
        with subprocess.Popen(
            [sys.executable, "-m", "tests.openai_server", str(latency)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            ceiling = allowed(url, options.documents, options.concurrency)
            model = OpenAIModel("gpt-test", api_key="good-key", base_url=url)
            for door in ("sync", "async"):

                def run(count: int, folder: Path, door: str = door, model: OpenAIModel = model) -> Generation:
                    checkpoint = folder / f"{count}.jsonl"
                    generator = QueryGenerator(model, 4, concurrency=options.concurrency, checkpoint=checkpoint, progress=False)
                    call: Callable[[list[tuple[str, str]]], Generation] = generator.generate
                    return call(documents(count)) if door == "sync" else asyncio.run(generator.agenerate(documents(count)))

                with tempfile.TemporaryDirectory() as folder:
                    run(2, Path(folder))  # so that imports are not timed
                    started, cpu = time.perf_counter(), time.process_time()
                    result = run(options.documents, Path(folder))
                    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
                assert result.usage.requests == options.documents
                rate = options.documents / seconds
                row = {
                    "door": door,
                    "latency": latency,
                    "concurrency": options.concurrency,
                    "requests": options.documents,
                    "seconds": round(seconds, 2),
                    "cpu_seconds": round(cpu, 2),
                    "requests_a_second": round(rate, 1),
                    "allowed": round(ceiling, 1),
                    "share_of_allowed": round(rate / ceiling, 3),
                    "share_of_concurrency_over_latency": round(rate * latency / options.concurrency, 3),
                }
                rows.append(row)
                print(f"{door:5}  latency {latency}  {rate:6.1f} of {ceiling:5.1f} requests a second: {rate / ceiling:.1%}")
            server.terminate()
    (FOLDER / "throughput.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
