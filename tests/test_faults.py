import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MODES = ("refuse", "cut", "hang", "garbage")


def check(*arguments):
    done = subprocess.run([sys.executable, "-m", "tests.faults", *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    for mode in MODES:
        assert set(found[f"{mode}, search"]) - {"right"}, f"{mode} never hit a search: {found}"
        for what in ("train", "train without a scan", "refresh", "evaluate"):
            assert set(found[f"{mode}, {what}"]) <= {"StoreError", "right"}, found
            assert "StoreError" in found[f"{mode}, {what}"], f"{mode} never hit {what}: {found}"


def test_a_chroma_server_that_fails(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [Path(sys.executable).parent / "chroma", "run", "--path", tmp_path / "db", "--port", port],
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
        check("chroma", f"127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait()


def test_a_postgres_server_that_fails(postgres):
    check("postgres", postgres)
