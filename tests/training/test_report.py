import json

from deepmem_integrations.training.candidates import TRANSFORMS


def test_the_report_tells_what_and_why(trained, problem):
    report = trained.report
    assert report.chosen != "identity"
    assert "best on held-out training queries" in report.reason
    assert (report.queries, report.documents) == (240, 300)
    assert report.labelled_documents == len({d for labels in problem.train.labels for d, _ in labels})
    assert [row["candidate"] for row in report.candidates] == [str(candidate) for candidate in TRANSFORMS]
    assert json.loads(json.dumps(report.to_json()))["seen"]["gains"]["ndcg@10"]["low"] > 0
    assert "seen answers" in str(report)
    assert "unseen answers" in str(report)
    assert json.dumps(trained.adapter.metadata)
