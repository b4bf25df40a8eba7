"""`Resolver`: which document of the store a document of a trace is. Nothing is guessed: what is not found is counted."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from deepmem_integrations._texts import id_and_text
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.carrying import Documents, plain_text
from deepmem_integrations.labels.traces.entries import Found, text_of

How = Literal["id", "key", "text", "ambiguous", "unmatched"]
"""How a document was found: by its id, by a metadata key or by its text; or that several documents or none came into question."""


class Resolver:
    """Finds documents by id, then by the value of a metadata key, then by text without case, spaces and punctuation.

    Where several documents have the value of the key, as the chunks of a page have, the text chooses among them.

    Args:
        documents: The documents of the store. None believes ids and values of the key, and finds nothing by text.
        id_key: The metadata key that names documents.

    Raises:
        InvalidRelevanceError: An object is no document, or has no id.

    Example:
        >>> resolver = Resolver({"doc-1": "Run git revert.", "doc-2": "Run git stash."})
        >>> resolver.resolve(Found("doc-2")), resolver.resolve(Found(text="run  git REVERT")), resolver.resolve(Found("doc-9"))
        (('doc-2', 'id'), ('doc-1', 'text'), (None, 'unmatched'))
    """

    def __init__(self, documents: Documents | None, id_key: str | None = None) -> None:
        self._key = id_key
        self._ids: set[str] | None = None if documents is None else set()
        self._by_key: dict[str, list[str]] = {}
        self._by_text: dict[bytes, list[str]] = {}
        for document in _pairs(documents):
            found = id_and_text(document)
            if self._ids is None or found is None or found[0] is None:
                what = f"a {type(document).__name__} is no document" if found is None else "a document has no id"
                raise InvalidRelevanceError(f"{what}: pass id → text, or documents as memory.documents() gives them.")
            name, text = str(found[0]), found[1]
            self._ids.add(name)
            if (value := self._value(getattr(document, "metadata", None))) is not None:
                self._by_key.setdefault(value, []).append(name)
            if (digest := _digest(text)) is not None:
                self._by_text.setdefault(digest, []).append(name)

    def resolve(self, found: Found) -> tuple[str | None, How]:
        """Return the id of a document, or None, and how it was found."""
        value = self._value(found.metadata)
        if self._ids is None:
            name = found.id if self._key is None else value
            return name, "unmatched" if name is None else "id" if self._key is None else "key"
        if found.id in self._ids:
            return found.id, "id"
        if value in self._ids:
            return value, "key"
        named = self._by_key.get(value or "", [])
        if len(named) == 1:
            return named[0], "key"
        said = self._by_text.get(_digest(found.text or "") or b"", [])
        both = [name for name in said if name in named] if named else said
        if len(both) == 1:
            return both[0], "text"
        return None, "ambiguous" if both or named else "unmatched"

    def _value(self, metadata: Any) -> str | None:
        return text_of(metadata.get(self._key)) if self._key is not None and isinstance(metadata, Mapping) else None


def _pairs(documents: Documents | None) -> Iterable[Any]:
    return () if documents is None else documents.items() if isinstance(documents, Mapping) else documents


def _digest(text: str) -> bytes | None:
    plain = plain_text(text)
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest() if plain else None
