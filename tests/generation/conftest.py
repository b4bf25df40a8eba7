"""Documents, a server that behaves as it is told, and an embedding model that needs no server."""

import pytest

from deepmem_integrations.generation import OpenAIModel, QueryGenerator
from tests.openai_server import openai_server


@pytest.fixture
def server():
    with openai_server() as running:
        yield running


@pytest.fixture
def openai_model(server):
    return OpenAIModel("gpt-test", api_key="good-key", base_url=server.url, timeout=60)


@pytest.fixture
def generator(openai_model):
    """A generator over the server, with options."""

    def make(queries_per_document=3, **options):
        return QueryGenerator(openai_model, queries_per_document, **{"progress": False, **options})

    return make
