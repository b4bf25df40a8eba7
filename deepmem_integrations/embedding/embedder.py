"""Texts in, vectors out: one face for every embedding model that users bring."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import PROBES, Fingerprint
from deepmem_integrations.errors import EmbeddingError, InvalidVectorsError

_BATCH = 128


class Embedder:
    """An embedding model with a query side and a document side.

    Args:
        model: A LangChain ``Embeddings`` (``embed_query``, ``embed_documents``), a LlamaIndex ``BaseEmbedding``
            (``get_query_embedding``, ``get_text_embedding_batch``), a sentence-transformers model (``encode``), an `Embedder`,
            or a plain callable: list of texts → vectors. Our own wrappers around a model are taken off (`untransformed`).

    Raises:
        TypeError: None of these.
        EmbeddingError: Our own wrapper lies inside another one.
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
        """The model itself where it is an `Embedder` already."""
        return model if isinstance(model, Embedder) else cls(model)

    @property
    def name(self) -> str:
        """The model's own name where it tells one, else its class."""
        for attribute in ("model_name", "model", "model_id", "name"):
            value = getattr(self.model, attribute, None)
            if isinstance(value, str) and value not in ("", "unknown"):
                return value
        return type(self.model).__name__

    def embed_query(self, text: str) -> Vectors:
        """One query, (d,) float32."""
        return np.asarray(self._query(text), dtype=np.float32)

    def embed_documents(self, texts: Sequence[str], *, progress: str | None = None) -> Vectors:
        """Documents, (n, d) float32. ``progress`` names a bar that appears when it takes more than a second."""
        return self._in_batches(texts, self._documents, progress)

    def embed_queries(self, texts: Sequence[str], *, progress: str | None = None) -> Vectors:
        """Queries, (n, d) float32: in batches where the model treats queries as documents, else one by one."""
        if len(texts) > len(PROBES) and self._sides_agree():
            return self._in_batches(texts, self._documents, progress)
        return self._in_batches(texts, lambda batch: np.array([self._query(text) for text in batch]), progress)

    def fingerprint(self) -> Fingerprint:
        """Embed a few fixed texts, once, so that an adapter can tell this model from others."""
        if self._fingerprint is None:
            probes = _unit_or_zero([self.embed_query(text) for text in PROBES])
            self._fingerprint = Fingerprint(probes.shape[1], self.name, probes)
        return self._fingerprint

    def _sides_agree(self) -> bool:
        """Whether the document side embeds a query as the query side does (E5 and the like do not)."""
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
    """The embedding model without our own wrapper, which transforms queries: nothing is ever to be transformed twice.

    Raises:
        EmbeddingError: Our wrapper lies inside another tool's (a cache, say), where it cannot be taken off.
    """
    if hasattr(model, "untransformed"):
        return untransformed(model.untransformed)
    # LlamaIndex's models are pydantic's, which keeps private attributes apart.
    for part in [*getattr(model, "__dict__", {}).values(), *(getattr(model, "__pydantic_private__", None) or {}).values()]:
        if hasattr(part, "untransformed"):
            outer, inner = type(model).__name__, type(part).__name__
            raise EmbeddingError(
                f"{outer} holds a {inner}, so its queries are transformed already and would be transformed twice. "
                f"Put it the other way round, {inner}({outer}(…)), or use {outer} over the model itself."
            )
    return model


def _unit_or_zero(vectors: ArrayLike) -> Vectors:
    """Rows of length 1; a model that has nothing to say of a text (TF-IDF, say) may give zeros."""
    matrix = np.asarray(vectors, dtype=np.float32)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise InvalidVectorsError("The embedding model gives NaN, infinity, or something other than one vector a text.")
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12), dtype=np.float32)
