"""Trainings that are stopped, and go on with what their checkpoint kept; tests/jobs/test_resume.py kills real processes."""

import os
import stat

import numpy as np
import pytest

from deepmem_integrations import train_adapter
from deepmem_integrations.corpora import shards
from deepmem_integrations.training import TrainingCheckpoint, checkpoint, corpus_sample, cross_validation
from deepmem_integrations.training.corpus_sample import read_corpus_sample


class Stopped(Exception):
    pass


@pytest.fixture
def at_once(monkeypatch):
    """Let everything be written at once."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)


@pytest.fixture
def large(monkeypatch):
    """Let the problem's 300 documents be a large corpus, an array of 8 shards."""
    monkeypatch.setattr(corpus_sample, "MAX_DOCUMENTS", 60)
    monkeypatch.setattr(corpus_sample, "NEAR", 2)
    monkeypatch.setattr(corpus_sample, "MINED_QUERIES", 20)
    monkeypatch.setattr(shards, "shard_rows", lambda rows, _: [slice(n, min(n + 40, rows)) for n in range(0, rows, 40)])


def test_a_pass_goes_on_behind_the_last_shard_that_was_kept(problem, at_once, large, tmp_path, monkeypatch):
    arguments = (problem.corpus, problem.ids, problem.train_queries, {"doc-3", "doc-170"}, 0)
    whole = read_corpus_sample(*arguments, checkpoint=TrainingCheckpoint(tmp_path, "another basis"))
    read = []

    def stop(documents):
        read.append(documents)
        if len(read) in (2, 5, 6):
            raise Stopped

    for _ in range(3):
        with pytest.raises(Stopped):
            read_corpus_sample(*arguments, stop, checkpoint=TrainingCheckpoint(tmp_path, "basis"))
    found = read_corpus_sample(*arguments, read.append, checkpoint=TrainingCheckpoint(tmp_path, "basis"))
    # The first shard is kept once the corpus is known to be large, with the second one; a shard that is stopped in is read again.
    assert read == [40, 80, 40, 80, 120, 80, 80, 120, 160, 200, 240, 280, 300]
    assert (found.ids, found.total) == (whole.ids, 300)
    np.testing.assert_array_equal(found.vectors, whole.vectors)
    np.testing.assert_array_equal(found.statistics.mean, whole.statistics.mean)
    np.testing.assert_array_equal(found.statistics.covariance, whole.statistics.covariance)
    plain = read_corpus_sample(*arguments)
    assert plain.ids == found.ids


def test_folds_that_ended_are_not_trained_again(problem, at_once, large, tmp_path, monkeypatch):
    scored, steps, score = [], [], cross_validation._score_fold
    monkeypatch.setattr(cross_validation, "_score_fold", lambda *fold: scored.append(1) or score(*fold))

    def train(folder, progress=lambda done, total: None):
        kept = TrainingCheckpoint(folder, "basis")
        return train_adapter(
            problem.train_queries, problem.train, problem.corpus, problem.ids, checkpoint=kept, progress=progress
        )

    def stop(done, total):
        steps.append(done)
        if len(list(tmp_path.glob("fold-*"))) in (2, 3):
            raise Stopped

    (tmp_path / "whole").mkdir()
    whole = train(tmp_path / "whole")
    assert len(scored) == 6
    for _ in range(2):
        with pytest.raises(Stopped):
            train(tmp_path, stop)
    scored.clear()
    steps.clear()
    kept = len(list(tmp_path.glob("fold-*")))
    again = train(tmp_path, lambda done, _: steps.append(done))
    assert (len(scored), kept >= 2) == (6 - kept, True)
    assert steps == sorted(steps) and steps[-1] == 1000
    np.testing.assert_array_equal(again.adapter.transform(problem.test_queries), whole.adapter.transform(problem.test_queries))
    reports = [{k: v for k, v in result.report.to_json().items() if k != "seconds"} for result in (again, whole)]
    assert reports[0] == reports[1]


def test_what_is_kept_is_its_owners_alone_and_one_file_a_part(at_once, tmp_path):
    kept = TrainingCheckpoint(tmp_path, "basis")
    before = os.umask(0)
    try:
        for number in range(3):
            kept.write("part", {"numbers": np.arange(number)})
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["part.safetensors"]
    assert stat.S_IMODE((tmp_path / "part.safetensors").stat().st_mode) == 0o600
    np.testing.assert_array_equal(kept.read("part")["numbers"], [0, 1])


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, None], ids=["empty", "noise", "cut"])
def test_what_cannot_be_used_counts_as_missing(at_once, tmp_path, damage, monkeypatch):
    kept = TrainingCheckpoint(tmp_path, "basis")
    kept.write("part", {"numbers": np.arange(9)}, "words 1")
    assert kept.read("part", "words 1") is not None
    assert kept.read("part", "words 2") is None, "other words, other scores"
    assert TrainingCheckpoint(tmp_path, "another").read("part", "words 1") is None
    monkeypatch.setattr(checkpoint, "__version__", "0.0.1")
    assert TrainingCheckpoint(tmp_path, "basis").read("part", "words 1") is None, "another version may compute otherwise"
    path = tmp_path / "part.safetensors"
    path.write_bytes(path.read_bytes()[:-8] if damage is None else damage)
    assert kept.read("part", "words 1") is None


def test_a_disk_that_cannot_be_written_stops_no_training(at_once, tmp_path, caplog):
    TrainingCheckpoint(tmp_path / "nowhere", "basis").write("part", {"numbers": np.arange(9)})
    assert "The training goes on, and would start anew after a kill" in caplog.text


def test_what_is_too_large_is_not_written(at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST", 100)
    TrainingCheckpoint(tmp_path, "basis").write("part", {"numbers": np.arange(9)})
    assert list(tmp_path.iterdir()) == []


def test_writes_are_far_apart(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    kept = TrainingCheckpoint(tmp_path, "basis")
    assert not kept.due
    now[0] = 10.0
    assert kept.due

    def slow(*arguments):
        now[0] += 3.0
        save(*arguments)

    save = checkpoint.save_file
    monkeypatch.setattr(checkpoint, "save_file", slow)
    kept.write("part", {"numbers": np.arange(9)})
    now[0] = 13.0 + 299.0
    assert not kept.due, "a write that took 3 seconds is paid for in 300"
    now[0] = 13.0 + 300.0
    assert kept.due
