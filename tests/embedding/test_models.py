import gc
import json

import numpy as np
import pytest

from deepmem_integrations.embedding import OpenAIEmbedding, load_embedding
from deepmem_integrations.errors import EmbeddingError
from tests.openai_server import Handler, embed, openai_server


@pytest.fixture
def server(monkeypatch):
    with openai_server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "good-key")
        yield server


def test_openai_embeddings_in_the_order_of_the_texts(server):
    model = OpenAIEmbedding("text-embedding-3-small")
    texts = ["one text", "another one", "a third"]
    np.testing.assert_allclose(model.embed_documents(texts), [embed(text) for text in texts])
    assert server.requests == [
        ("/v1/embeddings", "Bearer good-key", {"model": "text-embedding-3-small", "input": texts, "encoding_format": "float"})
    ]


def test_embedding_models_that_cannot_be_used(server, monkeypatch):
    for uri in ("bert", "openai", "openai:", ""):
        with pytest.raises(EmbeddingError, match="names no embedding model: use minilm, or openai:"):
            load_embedding(uri)
    with pytest.raises(EmbeddingError, match="Incorrect API key"):
        OpenAIEmbedding("m", api_key="bad-key").embed_query("x")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EmbeddingError, match="openai:m cannot be used.*OPENAI_API_KEY"):
        load_embedding("openai:m")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"error": {"message": "quota"}}, "answered without vectors"),
        ({"object": "list", "data": [], "model": "m"}, "returned 0 vectors for 1 texts"),
        ("<html>Sign in</html>", "answered without vectors: '<html>Sign in</html>'"),
    ],
    ids=["error", "nothing", "page"],
)
def test_a_server_that_answers_without_vectors_is_told(server, monkeypatch, answer, told):
    def post(self):
        body = answer if isinstance(answer, str) else json.dumps(answer)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    monkeypatch.setattr(Handler, "do_POST", post)
    with pytest.raises(EmbeddingError, match=told):
        OpenAIEmbedding("m").embed_query("x")


def test_connections_are_closed_with_the_model():
    """Also in a reference cycle, whose parts Python ends in any order."""
    with openai_server() as server:
        model = OpenAIEmbedding("m", api_key="good-key", base_url=server.url)
        model.embed_query("x")
        client, model.itself = model._client, model
        assert not client.is_closed()
        del model
        gc.collect()
        assert client.is_closed()
