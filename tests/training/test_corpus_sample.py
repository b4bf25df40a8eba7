import numpy as np

from deepmem_integrations import train_adapter
from deepmem_integrations._vectors import unit_rows
from deepmem_integrations.corpora import selection
from deepmem_integrations.training import corpus_sample
from deepmem_integrations.training.corpus_sample import read_corpus_sample


def test_of_a_large_corpus_a_part_stands_for_all(problem, monkeypatch):
    monkeypatch.setattr(corpus_sample, "MAX_DOCUMENTS", 400)
    monkeypatch.setattr(corpus_sample, "NEAR", 3)
    rng = np.random.default_rng(9)
    corpus = np.concatenate([rng.normal(size=(2_000, problem.corpus.shape[1])), problem.corpus]).astype(np.float32)
    ids = [*[f"other-{row}" for row in range(2_000)], *problem.ids]
    queries = problem.train_queries[:60]
    labelled = {document for labels in problem.train.labels[:60] for document, _ in labels}
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)  # noqa: E731
    batches = ((ids[start : start + 150], corpus[start : start + 150]) for start in range(0, len(ids), 150))
    kept = corpus_sample.read_corpus_sample(batches, None, unit(queries), labelled, seed=0)
    assert kept.total == 2_300
    assert len(kept.ids) == 400
    assert labelled <= set(kept.ids)
    near = np.argsort(-(unit(queries) @ unit(corpus).T), axis=1)[:, :3]
    assert {ids[row] for row in near.ravel()} <= set(kept.ids), "the nearest to every query are there"
    np.testing.assert_allclose(kept.vectors, unit(corpus)[[ids.index(name) for name in kept.ids]], atol=1e-6)
    np.testing.assert_allclose(kept.statistics.mean, unit(corpus).mean(axis=0), atol=1e-6)
    drawn = [int(name.split("-")[1]) for name in kept.ids if name.startswith("other")]
    assert 700 < np.mean(drawn) < 1_300, "others are drawn from all of it"
    report = train_adapter(queries, problem.train.take(range(60)), corpus, ids).report
    assert (report.documents, report.ranked_documents) == (2_300, 400)
    assert "corpus: a sample of 400 documents: " in str(report)


def test_a_sample_is_what_a_full_sort_gives(monkeypatch):
    monkeypatch.setattr(corpus_sample, "MAX_DOCUMENTS", 300)
    monkeypatch.setattr(corpus_sample, "NEAR", 2)
    monkeypatch.setattr(selection, "_TOGETHER", 7)
    rng = np.random.default_rng(3)
    corpus = unit_rows(rng.normal(size=(6_000, 8)), "document")
    queries = unit_rows(rng.normal(size=(60, 8)), "query")
    ids = [f"{row}" for row in range(6_000)]
    # With 250 labelled documents and some 120 near ones, the sample outgrows its size.
    for labelled in (set(), set(ids[::24])):
        batches = ((ids[start : start + 100], corpus[start : start + 100]) for start in range(0, 6_000, 100))
        kept = read_corpus_sample(batches, None, queries, labelled, 5)
        near = np.argsort(-(queries @ corpus.T), axis=1)[:, :2]
        must = {int(name) for name in labelled} | set(near.ravel().tolist())
        assert len(kept.ids) >= max(300, len(must))
        rows = [int(name) for name in kept.ids]
        assert rows == sorted(set(rows))
        assert must <= set(rows)
        np.testing.assert_array_equal(kept.vectors, corpus[rows])
        if len(must) < 300:
            lots = np.random.default_rng(5)
            lots.permutation(len(queries))  # the draw of the queries comes first
            order = np.argsort(lots.random(6_000))
            others = [row for row in order.tolist() if row not in must][: 300 - len(must)]
            assert sorted(must | set(others)) == rows
