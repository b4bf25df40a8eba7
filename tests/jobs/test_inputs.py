import numpy as np
import pytest

from tests.jobs.helpers import leftovers


def test_what_cannot_be_trained_on_is_told_before_a_process_starts(memory, problem):
    from deepmem_integrations.errors import EmbeddingMismatchError, InvalidRelevanceError

    calls = []
    with pytest.raises(InvalidRelevanceError, match="'nope' is not in the corpus"):
        memory.train(["a"], [[("nope", 1.0)]], calls.append, wait=False)
    assert calls == [], "nothing was embedded"
    with pytest.raises(EmbeddingMismatchError, match="4 dimensions where 32 are expected"):
        memory.train(problem.train, embedding_function=lambda texts: np.ones((len(texts), 4)), wait=False)
    with pytest.raises(ValueError, match="max_unseen_loss is a number of points"):
        memory.train(problem.train, max_unseen_loss=-1, wait=False)
    assert {job.state for job in memory.jobs.all()} == {"failed"}
    assert leftovers(memory) == []
