import re

import pytest

from deepmem_integrations.jobs import JobStatus


def test_the_tables_of_v3(memory, problem, capsys):
    assert memory.list_jobs() == []
    assert capsys.readouterr().out == "No Deep Memory training jobs were found for this dataset\n"
    first, second = memory.train(problem.train), memory.train(problem.train.take(range(5)))
    capsys.readouterr()
    with pytest.warns(UserWarning, match=r"debug is ignored: str\(list_jobs\(\)\) is the table"):
        jobs = memory.list_jobs(debug=True)
    assert [job.id for job in jobs] == [first, second]
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["ID", "STATUS", "RESULTS", "PROGRESS"]
    assert re.fullmatch(rf"{first}  completed  recall@10: \d+\.\d% \(\+\d+\.\d%\) +eta: 0\.0 seconds *", table[1])
    assert re.fullmatch(rf"{second}  completed  nothing could be held out +eta: 0\.0 seconds *", table[2])


def test_the_table_of_a_running_job():
    job = JobStatus(id="6508464cd80cab681bfcfff3", state="training", progress=0.25, seconds=10)
    assert job.eta == pytest.approx(30)
    assert str(job).splitlines()[3:8] == [
        "| status                     | training                      |",
        "-" * 62,
        "| progress                   | eta: 30.0 seconds             |",
        "-" * 62,
        "| results                    | not available yet             |",
    ]
    pending = str(JobStatus(id="6508464cd80cab681bfcfff3", state="pending")).splitlines()
    assert pending[5] == "| progress                   | None                          |", "as v3 wrote it"


def test_the_table_tells_how_retrievers_rank():
    report = {"chosen": "identity", "reason": "best on held-out training queries"}
    old = str(JobStatus(id="6508464cd80cab681bfcfff3", state="completed", report=report))
    assert "retrievers" not in old, "reports of earlier versions say nothing of it"
    for chosen, lines in (
        ("linear(labelled) + attention(β=16) + 0.35 words", ["linear(labelled)", "attention(β=16)"]),
        ("vectors and words fused by rank", ["vectors and words fused by", "rank"]),
    ):
        job = JobStatus(id="6508464cd80cab681bfcfff3", state="completed", report={**report, "ranking": {"chosen": chosen}})
        table = str(job).splitlines()
        assert {len(line) for line in table} == {62}
        row = table.index(f"| {'retrievers rank by':<27}| {lines[0]:<30}|")
        assert table[row + 1] == f"| {'':<27}| {lines[1]:<30}|"
    seen = {"chosen": {"recall@10": 0.8}, "gains": {"recall@10": {"mean": 0.125}}}
    ranking = {"chosen": "linear(labelled)", "seen": seen}
    table = str(JobStatus(id="6508464cd80cab681bfcfff3", state="completed", report={**report, "ranking": ranking})).splitlines()
    row = table.index(f"| {'retrievers rank by':<27}| {'linear(labelled)':<30}|")
    assert table[row + 1] == f"| {'':<27}| {'recall@10: 80.0% (+12.5%)':<30}|"
    none = str(JobStatus(id="6508464cd80cab681bfcfff3", state="completed", report={**report, "ranking": None}))
    assert "retrievers" not in none
    rule = "-" * 62
    assert f"{rule}\n{rule}" not in none, "no empty row"


def test_a_table_says_in_how_many_spellings_questions_came():
    report = {"chosen": "identity", "reason": "chance", "queries": 400, "near_duplicates": 320}
    table = str(JobStatus(id="6508464cd80cab681bfcfff3", state="completed", report=report))
    assert "| labels                     | 80 questions,                 |" in table
    assert "320 more spellings" in table
    assert "labels" not in str(
        JobStatus(id="6508464cd80cab681bfcfff3", state="completed", report={**report, "near_duplicates": 0})
    )
