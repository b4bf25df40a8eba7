"""A search by text with a given query vector: a copy of a store whose embedding model returns that vector for the query."""

import asyncio
import copy
from collections.abc import Iterator, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from deepmem_integrations._weak import WeakCache
from deepmem_integrations.embedding import untransformed

_DEEP = 3
"""In how many steps a store leads to its embedding model: a store, its store inside, its embedding service, and the model."""
_PLACES: WeakCache[list[tuple[str, ...]]] = WeakCache()
"""Where each store keeps its embedding model: the names of attributes that lead there."""


class OneQuery(Embeddings):
    """An embedding model that returns a given vector for a query, and is a store's own model in all else."""

    def __init__(self, model: Any, text: str, vector: Sequence[float]) -> None:
        self.model, self.text, self.vector, self.asked = model, text, [float(value) for value in vector], False

    def embed_query(self, text: str) -> list[float]:
        """Return the given vector."""
        self.asked = True
        return list(self.vector)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the given vector."""
        return self.embed_query(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed with the store's own model all but the query."""
        if list(texts) == [self.text]:  # some stores embed a query in this way
            return [self.embed_query(self.text)]
        vectors: list[list[float]] = self.model.embed_documents(texts)
        return vectors

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do the same as `embed_documents` in a thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # of a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self.model, name)


def embedding_places(store: VectorStore, told: Embeddings | None) -> tuple[Any, list[tuple[str, ...]]]:
    """Return a store's embedding model, and the names of attributes that lead to it; nowhere if the store does not hold it.

    Nothing that does something when it is deleted is ever copied, so a model behind such an object is not found.

    Args:
        store: The store.
        told: The embedding model that the user named, for a store that does not tell its own.
    """
    model: Any = store.embeddings
    if model is None:  # of a store that does not tell it
        held = [value for value in vars(store).values() if isinstance(value, Embeddings) and untransformed(value) is told]
        model = held[0] if held else None
    places = _PLACES.get(store, lambda: list(_lead_to(model, store, ())))
    return model, places if all(_at(store, place) is model for place in places) else list(_lead_to(model, store, ()))


def with_embedding(owner: Any, places: Sequence[tuple[str, ...]], embedding: Embeddings) -> Any:
    """Return a shallow copy of a store with another embedding model. What else the store has is shared."""
    new = copy.copy(owner)
    for name in {place[0] for place in places}:
        rest = [place[1:] for place in places if place[0] == name]
        new.__dict__[name] = embedding if () in rest else with_embedding(owner.__dict__[name], rest, embedding)
    return new


def _lead_to(model: Any, owner: Any, owners: tuple[Any, ...]) -> Iterator[tuple[str, ...]]:
    parts = getattr(owner, "__dict__", None)
    if model is None or hasattr(owner, "__del__") or not isinstance(parts, dict):
        return
    for name, value in list(parts.items()):
        if value is model:
            yield (name,)
        elif len(owners) < _DEEP - 1 and not isinstance(value, type | ModuleType | FunctionType | MethodType):
            if all(value is not one for one in (owner, *owners)):
                yield from ((name, *rest) for rest in _lead_to(model, value, (owner, *owners)))


def _at(owner: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        owner = getattr(owner, "__dict__", {}).get(name)
    return owner
