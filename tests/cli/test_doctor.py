import re
import shutil

import numpy as np

from deepmem_integrations import QueryAdapter
from deepmem_integrations.deeplake import DeepLakeStore
from tests.cli.helpers import EMBEDDING, deepmem
from tests.openai_server import DIMENSION


def test_doctor(shop, tmp_path, monkeypatch):
    alone = deepmem("doctor")
    assert alone.code == 0
    assert "extra train" in alone.out
    well = deepmem("doctor", *shop.store, "--json")
    assert well.code == 0, well.out
    checks = {check["name"]: check for check in well.json}
    assert checks["store"]["detail"] == f"reachable, {DIMENSION} dimensions"
    assert checks["model and embedding"]["ok"] is True
    assert shop.job["id"] in checks["model in use"]["detail"]
    assert deepmem("doctor", *shop.store[:2]).code == 2

    missing = deepmem("doctor", "--store", f"deeplake:{tmp_path / 'nope'}", "--embedding", EMBEDDING)
    assert missing.code == 1
    assert re.search(r"BAD +store +There is no Deep Lake data set", missing.out)

    DeepLakeStore(tmp_path / "other").add(["a"], np.eye(3)[:1])
    other = deepmem("doctor", "--store", f"deeplake:{tmp_path / 'other'}", "--embedding", EMBEDDING)
    assert other.code == 1
    assert "but the store has 3: it was filled with another model" in other.out

    models = tmp_path / "models"
    shutil.copytree(shop.folder / "ds.deepmemory", models)
    QueryAdapter(DIMENSION + 1).save(models / "models" / "wide.safetensors")
    (models / "current").write_text("wide")
    DeepLakeStore(tmp_path / "elsewhere").add(["a"], np.eye(DIMENSION)[:1], ["made by another model"])
    DeepLakeStore(tmp_path / "textless").add(["a"], np.eye(DIMENSION)[:1])
    for name, code, told in (("elsewhere", 1, "another model made these"), ("textless", 0, "has no texts to compare")):
        done = deepmem("doctor", "--store", f"deeplake:{tmp_path / name}", "--embedding", EMBEDDING)
        assert done.code == code, done.out
        assert told in done.out, done.out
    unfit = deepmem("doctor", *shop.store, "--path", models)
    assert unfit.code == 1
    assert "The adapter was trained for" in unfit.out
    (models / "models" / "wide.safetensors").write_bytes(b"damaged")
    damaged = deepmem("doctor", "--path", models)
    assert damaged.code == 1
    assert "BAD" in damaged.out

    monkeypatch.setenv("OPENAI_API_KEY", "bad-key")
    keyless = deepmem("doctor", *shop.store)
    assert keyless.code == 1
    assert "Incorrect API key" in keyless.out


def test_doctor_names_extras_that_are_missing(monkeypatch):
    import importlib.metadata

    from deepmem_integrations.cli import doctor

    def without_faiss(package):
        if package == "faiss-cpu":
            raise importlib.metadata.PackageNotFoundError(package)
        return importlib.metadata.version(package)

    monkeypatch.setattr(doctor, "version", without_faiss)
    done = deepmem("doctor")
    assert done.code == 0
    assert 'faiss-cpu is not installed; if you need it: pip install "deepmem-integrations[faiss]"' in done.out
