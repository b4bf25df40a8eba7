"""Every block of the migration page runs: the Python ones top to bottom, in one fresh process."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deepmem_integrations.deeplake import DeepLakeStore

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(EXPORT,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_blocks_of_the_migration_page_run(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with_, without = re.search(r"^(0\.\d+) (0\.\d+)$", done.stdout, re.MULTILINE).groups()
    assert float(with_) > float(without)
    assert (tmp_path / "support.safetensors").stat().st_size > 0


OLD = """
import os, sys
os.environ["BUGGER_OFF"] = "true"
import deeplake, numpy
old = deeplake.empty(sys.argv[1])  # as v3's vector store made it; that asks for its maker's server first
for name, options in {
    "text": {"htype": "text"}, "metadata": {"htype": "json"}, "embedding": {"htype": "embedding", "dtype": "float32"},
    "id": {"htype": "text"},
}.items():
    old.create_tensor(name, **options)
for n in range(30):
    old.append({"text": f"Übung {n}", "metadata": {"n": n}, "embedding": numpy.eye(30, dtype="float32")[n], "id": f"doc-{n}"})
"""


@pytest.mark.slow
def test_data_sets_of_deep_lake_v3_come_along(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    install, export = EXPORT.splitlines()
    subprocess.run(["bash", "-c", install], cwd=tmp_path, check=True)
    subprocess.run([tmp_path / ".venv-v3" / "bin" / "python", "-c", OLD, "old"], cwd=tmp_path, check=True)
    subprocess.run(["bash", "-c", export.replace("OLD_DATA_SET", "old")], cwd=tmp_path, check=True)
    rows = [json.loads(line) for line in (tmp_path / "export.jsonl").read_text(encoding="utf-8").splitlines()]
    store = DeepLakeStore(tmp_path / "new")
    store.add(*([row[name] for row in rows] for name in ("id", "embedding", "text", "metadata")))
    (found,) = store.search([float(i == 7) for i in range(30)], 1)
    assert (found.id, found.text, found.metadata, len(store)) == ("doc-7", "Übung 7", {"n": 7}, 30)


def test_the_page_has_a_figure_of_training_and_one_of_inference():
    assert re.findall(r"\]\(pictures/(\w+)\.svg\)", PAGE) == ["training", "serving"]
    assert set(re.findall(r"```(\w+)", PAGE)) == {"python", "bash"}  # no code that no test runs
    assert len(BLOCKS) == 6
