import json
import subprocess
import sys

import pytest

SCRIPT = "import json; from tests.soak import flat, live; found = live(0.005); print(json.dumps([flat(found['parts']), found]))"


@pytest.mark.slow
def test_a_small_share_of_a_day_leaves_the_memory_flat():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    (growth, _), found = json.loads(done.stdout.splitlines()[-1])
    assert growth < 20, found
    assert found["queries"] >= 500
    assert found["trainings"] == 2
    assert found["changes"] >= 15
