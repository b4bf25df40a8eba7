import pytest

from tests.fuzz import DOORS, fuzz


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_minute_of_hostile_files_and_paths(capsys):
    counts = dict(fuzz(60))
    assert set(counts) == set(DOORS)
    assert all(fed >= 100 for fed, _ in counts.values()), counts
