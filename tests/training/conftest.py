"""A training of the shared problem."""

import pytest

from deepmem_integrations import train_adapter


@pytest.fixture(scope="session")
def trained(problem):
    return train_adapter(problem.train_queries, problem.train, problem.corpus, problem.ids)
