import json
import subprocess
import sys

import pytest

from tests.servers import chroma_server, qdrant_front

pytestmark = pytest.mark.slow

MODES = ("refuse", "cut", "hang", "garbage")


def check(*arguments):
    done = subprocess.run([sys.executable, "-m", "tests.faults", *arguments], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    for mode in MODES:
        assert set(found[f"{mode}, search"]) - {"right"}, f"{mode} never hit a search: {found}"
        for what in ("train", "train without a scan", "refresh", "evaluate"):
            assert set(found[f"{mode}, {what}"]) <= {"StoreError", "right"}, found
            assert "StoreError" in found[f"{mode}, {what}"], f"{mode} never hit {what}: {found}"


def test_a_chroma_server_that_fails(tmp_path):
    with chroma_server(tmp_path / "db") as port:
        check("chroma", f"127.0.0.1:{port}")


def test_a_qdrant_server_that_fails():
    with qdrant_front() as port:
        check("qdrant", f"127.0.0.1:{port}")


def test_a_postgres_server_that_fails(postgres):
    check("postgres", postgres)
