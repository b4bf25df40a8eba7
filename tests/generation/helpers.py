"""Documents to write queries for, and an embedding model that needs no server."""

import re

import numpy as np

from tests.openai_server import embed

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
