import os
import subprocess
import sys


def test_deep_lakes_crash_reporting_stays_off(tmp_path):
    script = (
        "import os, tempfile; from deepmem_integrations.deeplake.store import import_deeplake; before = os.environ['TMPDIR'];"
        "deeplake = import_deeplake(); assert os.environ['TMPDIR'] == before;"
        "ds = deeplake.create('data', schema={'a': deeplake.types.Text()}); ds.append({'a': ['x']}); ds.commit(); print(len(ds))"
    )
    for name in ("temporary", "work"):
        (tmp_path / name).mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "work", env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    assert os.listdir(tmp_path / "temporary") == []
    assert os.listdir(tmp_path / "work") == ["data"]
