"""Adapters that remember queries."""

import pytest

from deepmem_integrations import train_adapter
from deepmem_integrations.training.candidates import Candidate
from deepmem_integrations.training.data import TrainingData


@pytest.fixture(scope="session", params=[None, "labelled"], ids=["attention", "linear + attention"])
def grown_from(request, problem):
    """An adapter trained on the first 60 queries, with texts, of one kind."""
    chosen = Candidate(request.param, 4.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingData, "fit", lambda self, _, fit=TrainingData.fit: fit(self, chosen))
        labels = problem.train.take(range(60))
        result = train_adapter(problem.train_queries[:60], labels, problem.corpus, problem.ids, query_texts=labels.queries)
    return result.adapter
