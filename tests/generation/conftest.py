"""Documents, a server that behaves as it is told, and an embedding model that needs no server."""

import re

import numpy as np
import pytest

from deepmem_integrations.generation import OpenAIModel, QueryGenerator
from tests.openai_server import embed, openai_server

TOPICS = ["battery", "invoice", "password", "shipment", "holiday", "printer", "insurance", "mortgage"]


def documents(count):
    """(id, text) pairs; each text has words of its own."""
    return [
        (
            f"d{row}",
            f"The {TOPICS[row % len(TOPICS)]} guide of part-{row} explains how unit-{row} is set up. "
            f"Its owner has to register serial-{row} before the first use, and to renew it once a year.",
        )
        for row in range(count)
    ]


def embed_texts(texts):
    """An embedding model: similar texts, similar vectors; punctuation aside."""
    return np.array([embed(" ".join(re.findall(r"[\w-]+", text))) for text in texts])


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
