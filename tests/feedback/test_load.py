"""Eight processes with a thousand queries each, which are killed at random: nothing that was acknowledged is lost."""

import random
import subprocess
import sys
import time

import pytest

from deepmem_integrations.feedback import FeedbackLog

WORKERS, QUERIES, KILLS = 8, 1_000, 16


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_no_query_fails(place, tmp_path):
    folder = tmp_path / "acknowledged"
    folder.mkdir()

    def acknowledged(name):
        path = folder / f"{name}.acknowledged"
        return [line for line in path.read_text().split("\n") if len(line) == 32] if path.exists() else []

    def start(name):
        left = QUERIES - len(acknowledged(name))
        return (
            subprocess.Popen([sys.executable, "-m", "tests.feedback.worker", place, folder, name, str(left)])
            if left > 0
            else None
        )

    rng = random.Random(0)
    workers = {f"worker-{row}": start(f"worker-{row}") for row in range(WORKERS)}
    kills = 0
    while any(workers.values()):
        time.sleep(rng.uniform(0.1, 0.6))
        for name, process in workers.items():
            if process is not None and process.poll() is not None:
                assert process.returncode in (0, -9), (folder / f"{name}.failed").read_text()
                workers[name] = start(name)
        busy = [process for name, process in workers.items() if process and acknowledged(name)]
        if busy and kills < KILLS:
            rng.choice(busy).kill()
            kills += 1
    assert kills == KILLS
    assert list(folder.glob("*.failed")) == []

    with FeedbackLog(place) as log:
        found = {query.query_id: query for query in log.queries()}
    promised = [query_id for name in workers for query_id in acknowledged(name)]
    assert len(promised) == len(set(promised)) == WORKERS * QUERIES
    assert [query_id for query_id in promised if query_id not in found] == []
    for query_id in promised:
        query = found[query_id]
        assert len(query.shown) == 3
        assert [(event.kind, event.document_id) for event in query.events] == [
            ("thumb", query.document_ids[0]),
            ("click", query.document_ids[1]),
        ]
