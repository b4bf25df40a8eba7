import numpy as np
import pytest

from deepmem_integrations import Relevance, train_adapter
from deepmem_integrations.training.pace import STEPS, Pace


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.3, "a second"),
        (1.6, "2 seconds"),
        (9.4, "9 seconds"),
        (14.0, "10 seconds"),
        (93.0, "90 seconds"),
        (100.0, "2 minutes"),
        (4000.0, "67 minutes"),
    ],
)
def test_the_time_is_told_in_round_numbers(seconds, text):
    assert str(Pace(0.0, seconds, 0.0, 3)) == f"about {text}"


def test_more_of_anything_takes_longer():
    small = Pace.of(500, 2_000, 384)
    for larger in (Pace.of(5_000, 2_000, 384), Pace.of(500, 20_000, 384), Pace.of(500, 2_000, 1_536)):
        assert larger.seconds > 2 * small.seconds > 0
        assert larger.waves == small.waves
    huge, large = Pace.of(500, 1_000_000, 384), Pace.of(500, 100_000, 384)
    assert huge.reading == pytest.approx(10 * large.reading)
    assert huge.choosing == pytest.approx(large.choosing), "a sample is ranked"
    assert Pace.of(500, 2_000, 384, folds=1).waves == 1


def test_between_two_steps_the_share_moves_at_the_pace_and_waits_for_the_next_step():
    pace = Pace(reading=20.0, choosing=60.0, fitting=20.0, waves=2)
    assert pace.share(0.0, 10) == pytest.approx(0.1)
    assert pace.share(0.0, 90) == pytest.approx(0.2)
    assert pace.share(0.2, 10) == pytest.approx(0.3)
    assert pace.share(0.2, 90) == pytest.approx(0.5)
    assert pace.share(0.35, 90) == pytest.approx(0.5), "one of two folds that run side by side"
    assert pace.share(0.8, 90) == pace.share(1.0, 0) == 1.0


@pytest.mark.parametrize("known", [True, False])
def test_progress_counts_the_reading_of_the_corpus(problem, known):
    """There are 12,000 documents, whose reading is a part that can be seen, in batches of 1,000."""
    rng = np.random.default_rng(0)
    corpus = np.concatenate([problem.corpus, rng.normal(size=(11_700, problem.corpus.shape[1]))]).astype(np.float32)
    ids = [*problem.ids, *(f"other-{row}" for row in range(11_700))]
    batches = [(ids[start : start + 1_000], corpus[start : start + 1_000]) for start in range(0, 12_000, 1_000)]
    steps = []

    def progress(done, total):
        assert total == STEPS
        steps.append(done)

    documents = (corpus, ids) if known else (iter(batches), None)
    train_adapter(problem.train_queries[:30], problem.train.take(range(30)), *documents, progress=progress)
    assert (steps[0], steps[-1]) == (0, STEPS)
    assert steps == sorted(set(steps))
    pace = Pace.of(30, 12_000, problem.corpus.shape[1])
    read = round(STEPS * pace.reading / pace.seconds)
    assert read in steps
    assert len([step for step in steps if 0 < step <= read]) == (1 if known else 12)
    folds = [round(STEPS * (pace.reading + pace.choosing * fold / 6) / pace.seconds) for fold in range(1, 7)]
    assert [step for step in steps if step > read] == [*folds, STEPS]


def test_progress_ends_where_nothing_can_be_measured():
    steps = []
    labels = Relevance(["one"], [[("a", 1.0)]])
    train_adapter(np.eye(2)[:1], labels, np.eye(2), ["a", "b"], progress=lambda done, total: steps.append(done))
    assert (steps[0], steps[-1]) == (0, STEPS)
