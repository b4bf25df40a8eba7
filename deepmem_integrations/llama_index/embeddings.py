"""An embedding model whose queries are transformed: Deep Memory inside any index, with every kind of search it has."""

import asyncio
from collections.abc import Callable
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import PrivateAttr, SerializeAsAny

from deepmem_integrations.embedding import untransformed
from deepmem_integrations.errors import EmbeddingError
from deepmem_integrations.llama_index.queries import mean_of_transformed
from deepmem_integrations.serving import MemoryLike, ServedAdapter, TransformedVector

_NO_CACHE = (
    "A cache knows a vector by its text alone: here it would keep giving what a former model made of a query. "
    "Set embeddings_cache on the embedding model itself, whose vectors stay as they are."
)


_OF_THE_MODEL = {"callback_manager", "embed_batch_size", "num_workers", "rate_limiter"}
"""What says how the model works, and is to reach it when it is set here."""


class DeepMemoryEmbedding(BaseEmbedding):
    """Embed texts as before, and queries with Deep Memory.

    Give it to an index, a pipeline or ``Settings.embed_model`` in place of the model, and all searches of the index are
    transformed. A model that is put in use meanwhile serves the next query. Everything else is the model's own: its callbacks,
    batches and limits, which are passed on to it when they are set here. Training, and `DeepMemoryRetriever`, look through it
    to the model itself.

    Args:
        base: The embedding model; one that is wrapped already is unwrapped.
        memory: A `DeepMemory`, a `QueryAdapter`, the folder of a `DeepMemory`, or the path of an adapter file.
        embeddings_cache: None; a cache is refused here, and can be set on ``base``.

    Raises:
        AdapterFileError: ``memory`` is the path of a file that is no adapter.
        EmbeddingError: ``base`` is no LlamaIndex embedding model, or holds such a wrapper inside; or an ``embeddings_cache``.
    """

    base: SerializeAsAny[BaseEmbedding]
    _served: ServedAdapter = PrivateAttr()

    def __init__(self, base: BaseEmbedding, memory: MemoryLike, *, embeddings_cache: None = None) -> None:
        base = untransformed(base)
        if not isinstance(base, BaseEmbedding):
            raise EmbeddingError(f"DeepMemoryEmbedding wraps a LlamaIndex embedding model; got {type(base).__name__}.")
        if embeddings_cache is not None:
            raise EmbeddingError(_NO_CACHE)
        kept = {name: getattr(base, name) for name in ("model_name", *_OF_THE_MODEL) if hasattr(base, name)}
        super().__init__(base=base, **kept)  # type: ignore[call-arg]
        self._served = ServedAdapter(memory)

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name of the class."""
        return "DeepMemoryEmbedding"

    @property
    def untransformed(self) -> BaseEmbedding:
        """The embedding model itself."""
        return self.base

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """The model and its options, by which an ``IngestionPipeline`` caches: what texts become depends on nothing else."""
        data: dict[str, Any] = super().to_dict(**kwargs)
        data["base"].pop("api_key", None)  # as LlamaIndex takes it off the model that it reports
        return data

    def __setattr__(self, name: str, value: Any) -> None:
        """Pass on to the model how it is to work; refuse a cache."""
        if name == "embeddings_cache" and value is not None:
            raise EmbeddingError(_NO_CACHE)
        super().__setattr__(name, value)
        if name in _OF_THE_MODEL:
            setattr(self.base, name, value)

    # ---- queries -----------------------------------------------------------------------------------------------

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a query and transform it.

        Returns:
            (d,) of length 1.

        Raises:
            ModelNotFoundError: No model was trained yet.
            EmbeddingMismatchError: The adapter was trained with another embedding model.
        """
        return self._served.transform(self.base.get_query_embedding(query), self.base)

    async def aget_query_embedding(self, query: str) -> Embedding:
        """`get_query_embedding` with the model's own async."""
        vector = await self.base.aget_query_embedding(query)
        return await asyncio.to_thread(self._served.transform, vector, self.base)

    def get_agg_embedding_from_queries(self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None) -> Embedding:
        """Embed and transform several texts of one query.

        Returns:
            (d,): their mean, of length 1; or what ``agg_fn`` makes of the list.
        """
        vectors = [self.base.get_query_embedding(query) for query in queries]
        return self._aggregated(vectors, agg_fn)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """`get_agg_embedding_from_queries` with the model's own async."""
        vectors = await asyncio.gather(*(self.base.aget_query_embedding(query) for query in queries))
        return await asyncio.to_thread(self._aggregated, vectors, agg_fn)

    def _aggregated(self, vectors: list[Embedding], agg_fn: Callable[..., Embedding] | None) -> Embedding:
        if agg_fn is None:
            return mean_of_transformed(vectors, self._served, self.base)
        # Marked whatever it is: its parts are transformed.
        return TransformedVector(agg_fn([self._served.transform(vector, self.base) for vector in vectors]))

    def _get_query_embedding(self, query: str) -> Embedding:
        return self.get_query_embedding(query)

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await self.aget_query_embedding(query)

    # ---- texts: the model's own ----------------------------------------------------------------------------------

    def get_text_embedding(self, text: str) -> Embedding:
        """Embed a text; nothing is transformed."""
        return self.base.get_text_embedding(text)

    async def aget_text_embedding(self, text: str) -> Embedding:
        """Embed a text with the model's own async; nothing is transformed."""
        return await self.base.aget_text_embedding(text)

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> list[Embedding]:
        """Embed texts in the model's own batches; nothing is transformed."""
        return self.base.get_text_embedding_batch(texts, show_progress=show_progress, **kwargs)

    async def aget_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> list[Embedding]:
        """Embed texts in the model's own batches, with its own async; nothing is transformed."""
        return await self.base.aget_text_embedding_batch(texts, show_progress=show_progress, **kwargs)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self.get_text_embedding(text)

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await self.aget_text_embedding(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self.get_text_embedding_batch(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self.aget_text_embedding_batch(texts)
