"""`Embedder`: one interface to every embedding model that users bring."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from deepmem_integrations._vectors import Vectors
from deepmem_integrations._weak import WeakCache
from deepmem_integrations.adapter import PROBES, Fingerprint
from deepmem_integrations.errors import EmbeddingError, InvalidVectorsError

_BATCH = 128
"""How many texts are passed to a model at a time."""
_FINGERPRINTS: WeakCache[Fingerprint] = WeakCache()
"""The fingerprint of each embedding model, so that an `Embedder` that is made for one request embeds no probe texts again."""
_SIDES_AGREE: WeakCache[bool] = WeakCache()
"""Whether each embedding model treats queries as documents."""


class Embedder:
    """An embedding model, with a method for queries and one for documents.

    Args:
        model: A LangChain ``Embeddings`` (``embed_query``, ``embed_documents``), a LlamaIndex ``BaseEmbedding``
            (``get_query_embedding``, ``get_text_embedding_batch``), a sentence-transformers model (``encode``), an `Embedder`,
            or a plain callable: list of texts → vectors. A wrapper of this package, which transforms queries, is taken off: see
            `untransformed`.

    Raises:
        TypeError: The model is none of these.
        EmbeddingError: A wrapper of this package lies inside another tool's wrapper.

    Example:
        >>> embedder = Embedder(lambda texts: [[float(len(text)), 1.0] for text in texts])
        >>> embedder.embed_documents(["a", "bcd"]).tolist()
        [[1.0, 1.0], [3.0, 1.0]]
    """

    def __init__(self, model: Any) -> None:
        self.model = model = untransformed(model)
        self._fingerprint: Fingerprint | None = None
        self._query: Callable[[str], ArrayLike]  # the vector as the one row of a matrix
        self._documents: Callable[[list[str]], ArrayLike]
        if hasattr(model, "embed_query") and hasattr(model, "embed_documents"):
            self._query, self._documents = lambda text: [model.embed_query(text)], model.embed_documents
        elif hasattr(model, "get_query_embedding") and hasattr(model, "get_text_embedding_batch"):
            self._query, self._documents = lambda text: [model.get_query_embedding(text)], model.get_text_embedding_batch
        elif hasattr(model, "encode"):
            self._query, self._documents = lambda text: model.encode([text]), model.encode
        elif callable(model):
            self._query, self._documents = lambda text: model([text]), model
        else:
            raise TypeError(
                f"{type(model).__name__} is no embedding model: pass a LangChain Embeddings, a LlamaIndex BaseEmbedding, "
                "a sentence-transformers model, or a function from a list of texts to their vectors."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the model and its fingerprint, because the model's methods may be wrapped by what cannot be pickled."""
        return {"model": self.model, "_fingerprint": self._fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up the model and its fingerprint."""
        self.__init__(state["model"])  # type: ignore[misc]
        self._fingerprint = state["_fingerprint"]

    @classmethod
    def of(cls, model: Any) -> "Embedder":
        """Wrap a model, unless it is an `Embedder` already."""
        return model if isinstance(model, Embedder) else cls(model)

    @property
    def name(self) -> str:
        """The model's own name where it has one, and else the name of its class."""
        for attribute in ("model_name", "model", "model_id", "name"):
            value = getattr(self.model, attribute, None)
            if isinstance(value, str) and value not in ("", "unknown"):
                return value
        return type(self.model).__name__

    def embed_query(self, text: str) -> Vectors:
        """Embed one query as (d,) float32.

        Raises:
            EmbeddingError: The model returned something else than one vector.
            InvalidVectorsError: The vector holds NaN or infinity.
        """
        return np.asarray(self._checked(self._query(text), 1)[0])

    def embed_documents(self, texts: Sequence[str], *, progress: str | None = None) -> Vectors:
        """Embed documents.

        Args:
            texts: The n texts.
            progress: The title of a progress bar, which appears after a second; None shows no bar.

        Returns:
            (n, d) float32.

        Raises:
            EmbeddingError: The model returned something else than one vector for each text, all of one length.
            InvalidVectorsError: A vector holds NaN or infinity.
        """
        return self._in_batches(texts, self._documents, progress)

    def embed_queries(self, texts: Sequence[str], *, progress: str | None = None) -> Vectors:
        """Embed queries, in batches where the model treats queries as documents, and else one by one.

        Args:
            texts: The n texts.
            progress: See `embed_documents`.

        Returns:
            (n, d) float32.

        Raises:
            EmbeddingError: See `embed_documents`.
            InvalidVectorsError: See `embed_documents`.
        """
        if len(texts) > len(PROBES) and _SIDES_AGREE.get(self.model, self._sides_agree):
            return self._in_batches(texts, self._documents, progress)
        return self._in_batches(texts, lambda batch: [self.embed_query(text) for text in batch], progress)

    def fingerprint(self) -> Fingerprint:
        """Return the model's fingerprint, by which an adapter recognises the model.

        The first call for an embedding model embeds a few fixed texts.
        """
        if self._fingerprint is None:
            self._fingerprint = _FINGERPRINTS.get(self.model, self._probe)
        return self._fingerprint

    def _probe(self) -> Fingerprint:
        probes = _unit_or_zero(self._checked([self.embed_query(text) for text in PROBES], len(PROBES)))
        return Fingerprint(probes.shape[1], self.name, probes)

    def _sides_agree(self) -> bool:
        """Tell whether a query and a document of the same text get the same vector. E5 and other models with prefixes differ."""
        probes = self.fingerprint().probes
        as_documents = _unit_or_zero(self._checked(self._documents(list(PROBES)), len(PROBES)))
        if probes is None or as_documents.shape != probes.shape:
            return False
        return float(np.sum(probes * as_documents, axis=1).min()) > 0.9999

    def _in_batches(self, texts: Sequence[str], embed: Callable[[list[str]], ArrayLike], progress: str | None) -> Vectors:
        parts: list[Vectors] = []
        with tqdm(total=len(texts), desc=progress, unit="text", delay=1, disable=progress is None) as bar:
            for start in range(0, len(texts), _BATCH):
                batch = list(texts[start : start + _BATCH])
                parts.append(self._checked(embed(batch), len(batch), parts[0].shape[1] if parts else None))
                bar.update(len(batch))
        return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)

    def _checked(self, vectors: ArrayLike, count: int, dimension: int | None = None) -> Vectors:
        """Return the vectors of a batch, (count, d) float32.

        Raises:
            EmbeddingError: There are not as many vectors as texts, or the vectors differ in length.
            InvalidVectorsError: A vector holds NaN or infinity.
        """
        try:
            found = np.asarray(vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise EmbeddingError(f"The embedding model {self.name} returned no vectors of one length: {error}") from error
        if found.ndim != 2 or len(found) != count or not found.size:
            raise EmbeddingError(
                f"The embedding model {self.name} returned an array of the shape {found.shape} for {count} texts; a text has one "
                "vector."
            )
        if dimension not in (None, found.shape[1]):
            raise EmbeddingError(
                f"The embedding model {self.name} returned vectors of {found.shape[1]} dimensions after others of {dimension}."
            )
        if not np.isfinite(found).all():
            raise InvalidVectorsError(f"The embedding model returned NaN or infinity; the model is {self.name}.")
        return found


def untransformed(model: Any) -> Any:
    """Take this package's own wrapper off an embedding model, so that no query is transformed twice.

    Args:
        model: Any embedding model.

    Returns:
        The model itself.

    Raises:
        EmbeddingError: The wrapper lies inside another tool's wrapper (a cache, say), where it cannot be taken off.
    """
    if hasattr(model, "untransformed"):
        return untransformed(model.untransformed)
    if (wrapper := _wrapper_inside(model, set())) is not None:
        outer, inner = type(model).__name__, type(wrapper).__name__
        raise EmbeddingError(
            f"{outer} holds a {inner}, which transforms queries already, so queries would be transformed twice; and a cache "
            f"would keep the vectors of an earlier model. Put the {inner} outside, {inner}({outer}(…)), or use {outer} around "
            "the embedding model itself."
        )
    return model


def _wrapper_inside(model: Any, seen: set[int]) -> Any:
    """Return a wrapper of this package that lies inside another tool's wrapper, however deep; None where there is none."""
    seen.add(id(model))
    # LlamaIndex's models are pydantic models, which keep private attributes apart.
    for part in [*getattr(model, "__dict__", {}).values(), *(getattr(model, "__pydantic_private__", None) or {}).values()]:
        if hasattr(part, "untransformed"):
            return part
        embeds = hasattr(part, "embed_query") or hasattr(part, "get_query_embedding")
        if embeds and id(part) not in seen and (found := _wrapper_inside(part, seen)) is not None:
            return found
    return None


def _unit_or_zero(vectors: Vectors) -> Vectors:
    """Scale rows to length 1. A row of zeros stays: TF-IDF, for one, gives zeros for a text of unknown words."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)
