import pytest

from tests.cli.helpers import EMBEDDING, deepmem, process


@pytest.mark.slow
def test_the_demo_as_a_user_runs_it(tmp_path):
    done = process("demo", "--path", str(tmp_path))
    assert done.code == 0, done.err
    evaluation = done.out.split("== 3.")[1]
    for metric in ("recall@10", "recall@1 "):
        line = next(line for line in evaluation.splitlines() if line.startswith(metric))
        assert line.endswith("*")
        assert float(line.split("[")[1].split(",")[0]) > 5, "clearly up, in points"
    assert (tmp_path / "dataset.deepmemory" / "current").exists()


@pytest.mark.slow
def test_demo(shop, tmp_path):
    done = deepmem("demo", "--embedding", EMBEDDING, "--path", tmp_path, "--json")
    assert done.code == 0, done.err
    assert done.json["gain"]["recall@10"]["low"] > 0
    assert "== 4." in done.err, "what it tells on the way"
    assert deepmem("models", "--store", f"deeplake:{tmp_path / 'dataset'}", "--json").json[0]["in_use"]
    assert deepmem("demo", "--seed", "x").code == 2
