"""`Embedder`: one interface to every kind of embedding model that users bring."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import PROBES, Fingerprint
from deepmem_integrations.errors import EmbeddingError, InvalidVectorsError

_BATCH = 128
"""How many texts are passed to a model at a time."""


class Embedder:
    """An embedding model with a query side and a document side.

    Args:
        model: A LangChain ``Embeddings`` (``embed_query``, ``embed_documents``), a LlamaIndex ``BaseEmbedding``
            (``get_query_embedding``, ``get_text_embedding_batch``), a sentence-transformers model (``encode``), an `Embedder`,
            or a plain callable: list of texts → vectors. If the model is wrapped to transform queries, the wrapper is taken
            off (`untransformed`).

    Attributes:
        model: The embedding model without such a wrapper.

    Raises:
        TypeError: The model is none of these.
        EmbeddingError: A wrapper that transforms queries lies inside another tool's wrapper.

    Example:
        >>> embedder = Embedder(lambda texts: [[len(text), 1.0] for text in texts])
        >>> embedder.embed_documents(["short", "a longer text"]).tolist()
        [[5.0, 1.0], [13.0, 1.0]]
        >>> embedder.embed_query("short").tolist()
        [5.0, 1.0]
    """

    def __init__(self, model: Any) -> None:
        self.model = model = untransformed(model)
        self._fingerprint: Fingerprint | None = None
        self._query: Callable[[str], ArrayLike]
        self._documents: Callable[[list[str]], ArrayLike]
        if hasattr(model, "embed_query") and hasattr(model, "embed_documents"):
            self._query, self._documents = model.embed_query, model.embed_documents
        elif hasattr(model, "get_query_embedding") and hasattr(model, "get_text_embedding_batch"):
            self._query, self._documents = model.get_query_embedding, model.get_text_embedding_batch
        elif hasattr(model, "encode"):
            self._query, self._documents = lambda text: np.asarray(model.encode([text]))[0], model.encode
        elif callable(model):
            self._query, self._documents = lambda text: np.asarray(model([text]))[0], model
        else:
            raise TypeError(
                f"{type(model).__name__} is no embedding model: pass a LangChain Embeddings, a LlamaIndex BaseEmbedding, "
                "a sentence-transformers model, or a function from a list of texts to their vectors."
            )

    @classmethod
    def of(cls, model: Any) -> "Embedder":
        """Return an `Embedder` of the model, which is the argument itself if it is an `Embedder` already."""
        return model if isinstance(model, Embedder) else cls(model)

    @property
    def name(self) -> str:
        """The name that the model gives itself, or the name of its class if it gives none."""
        for attribute in ("model_name", "model", "model_id", "name"):
            value = getattr(self.model, attribute, None)
            if isinstance(value, str) and value not in ("", "unknown"):
                return value
        return type(self.model).__name__

    def embed_query(self, text: str) -> Vectors:
        """Embed one query. Returns (d,) float32."""
        return np.asarray(self._query(text), dtype=np.float32)

    def embed_documents(self, texts: Sequence[str], *, progress: str | None = None) -> Vectors:
        """Embed documents in batches.

        Args:
            texts: The n texts.
            progress: The name of a progress bar, which appears after one second; None for no bar.

        Returns:
            (n, d) float32; (0, 0) without texts.
        """
        return self._in_batches(texts, self._documents, progress)

    def embed_queries(self, texts: Sequence[str], *, progress: str | None = None) -> Vectors:
        """Embed queries, in batches if the model embeds queries as it embeds documents, otherwise one by one.

        Args:
            texts: The n texts.
            progress: The name of a progress bar, which appears after one second; None for no bar.

        Returns:
            (n, d) float32; (0, 0) without texts.
        """
        if len(texts) > len(PROBES) and self._sides_agree():
            return self._in_batches(texts, self._documents, progress)
        return self._in_batches(texts, lambda batch: np.array([self._query(text) for text in batch]), progress)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint by which an adapter tells this model from others.

        The first call embeds a few fixed texts; later calls return the same fingerprint.

        Raises:
            InvalidVectorsError: The model returns NaN or infinity, or not one vector for each text.
        """
        if self._fingerprint is None:
            probes = _unit_or_zero([self.embed_query(text) for text in PROBES])
            self._fingerprint = Fingerprint(probes.shape[1], self.name, probes)
        return self._fingerprint

    def _sides_agree(self) -> bool:
        """Tell whether the document side embeds a query as the query side does. For E5 models, among others, it does not."""
        probes = self.fingerprint().probes
        as_documents = _unit_or_zero(self._documents(list(PROBES)))
        return probes is not None and float(np.sum(probes * as_documents, axis=1).min()) > 0.9999

    def _in_batches(self, texts: Sequence[str], embed: Callable[[list[str]], ArrayLike], progress: str | None) -> Vectors:
        parts: list[Vectors] = []
        with tqdm(total=len(texts), desc=progress, unit="text", delay=1, disable=progress is None) as bar:
            for start in range(0, len(texts), _BATCH):
                batch = list(texts[start : start + _BATCH])
                parts.append(np.asarray(embed(batch), dtype=np.float32))
                bar.update(len(batch))
        return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def untransformed(model: Any) -> Any:
    """Return the embedding model without the wrappers of this package.

    The wrappers transform queries. Training and retrieval take them off, so that no query is transformed twice.

    Args:
        model: Any embedding model. A model without such a wrapper is returned as it is.

    Raises:
        EmbeddingError: Such a wrapper lies inside another tool's wrapper, for example a cache, and cannot be taken off.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from deepmem_integrations.adapter import QueryAdapter
        >>> from deepmem_integrations.langchain import DeepMemoryEmbeddings
        >>> base = DeterministicFakeEmbedding(size=8)
        >>> untransformed(DeepMemoryEmbeddings(embeddings=base, memory=QueryAdapter(8))) is base
        True
    """
    if hasattr(model, "untransformed"):
        return untransformed(model.untransformed)
    # LlamaIndex's models are pydantic models, which keep their private attributes in a dict of their own.
    for part in [*getattr(model, "__dict__", {}).values(), *(getattr(model, "__pydantic_private__", None) or {}).values()]:
        if hasattr(part, "untransformed"):
            outer, inner = type(model).__name__, type(part).__name__
            raise EmbeddingError(
                f"{outer} holds a {inner}, which transforms queries already, so queries would be transformed twice. "
                f"Put the {inner} outside, {inner}({outer}(…)), or use {outer} around the embedding model itself."
            )
    return model


def _unit_or_zero(vectors: ArrayLike) -> Vectors:
    """Scale rows to length 1. Rows of zeros stay: a model may know no word of a text, as TF-IDF models may."""
    matrix = np.asarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise InvalidVectorsError("The embedding model gives NaN, infinity, or something other than one vector for each text.")
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12), dtype=np.float32)
