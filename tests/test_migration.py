"""Every Python block of the migration page runs, top to bottom, in one fresh process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "migration.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_blocks_of_the_migration_page_run(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with_, without = re.search(r"^(0\.\d+) (0\.\d+)$", done.stdout, re.MULTILINE).groups()
    assert float(with_) > float(without)
    assert (tmp_path / "support.safetensors").stat().st_size > 0


def test_the_page_has_a_figure_of_training_and_one_of_inference():
    assert len(re.findall(r"```mermaid\n", PAGE)) == 2
    assert set(re.findall(r"```(\w+)", PAGE)) == {"python", "mermaid"}  # no code that no test runs
    assert len(BLOCKS) == 6
