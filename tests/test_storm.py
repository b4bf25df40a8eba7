import pytest

from tests.storm import storm


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_minute_of_storm_leaves_one_whole_model_and_every_acknowledged_label():
    found = storm(60, 4)
    done = found["done"]
    for name in ("add", "read", "retrieve", "flush", "set", "refresh"):
        assert done.get(name), found
    assert found["acknowledged"], found
    assert found["happened"]["kill -9"], found
