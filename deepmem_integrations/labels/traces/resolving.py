"""`Resolver`: the document of the store, or its parent, that a document of a trace is. Nothing is guessed; misses are counted."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from deepmem_integrations._texts import id_and_text, parent_of, parents_by_id
from deepmem_integrations.errors import InvalidRelevanceError
from deepmem_integrations.labels.carrying import Documents, plain_text
from deepmem_integrations.labels.traces.entries import Found, text_of

How = Literal["id", "key", "text", "ambiguous", "unmatched"]
"""How a document was found: by its id, by a metadata key or by its text; or that several documents or none came into question."""


class Resolver:
    """Finds documents by id, then by the value of a metadata key, then by text without case, spaces and punctuation.

    Where several documents have the value of the key, as the chunks of a page have, the text chooses among them.

    At a level, parents take the place of documents. The metadata of a document in a trace may name its parent; otherwise the
    parent of the document that is found counts, and several documents that come into question may have the same.

    Args:
        documents: The documents of the store. None believes ids and values of the key, and finds nothing by text.
        id_key: The metadata key that names documents.
        level: The metadata key that holds the parents; None finds documents.

    Raises:
        InvalidRelevanceError: An object is no document, or has no id.
        StoreError: None of the documents has a parent.

    Example:
        >>> resolver = Resolver({"doc-1": "Run git revert.", "doc-2": "Run git stash."})
        >>> resolver.resolve(Found("doc-2")), resolver.resolve(Found(text="run  git REVERT")), resolver.resolve(Found("doc-9"))
        (('doc-2', 'id'), ('doc-1', 'text'), (None, 'unmatched'))
    """

    def __init__(self, documents: Documents | None, id_key: str | None = None, level: str | None = None) -> None:
        self._key, self._level = id_key, level
        self._names: dict[str, str] | None = None if documents is None else {}
        self._by_key: dict[str, dict[str, None]] = {}
        self._by_text: dict[bytes, dict[str, None]] = {}
        given = list(_pairs(documents))
        for document in given:
            found = id_and_text(document)
            if self._names is None or found is None or found[0] is None:
                what = f"a {type(document).__name__} is no document" if found is None else "a document has no id"
                raise InvalidRelevanceError(f"{what}: pass id → text, or documents as memory.documents() gives them.")
            name = str(found[0])
            self._names[name] = name = (None if level is None else parent_of(document, level)) or name
            if (value := _value(getattr(document, "metadata", None), id_key)) is not None:
                self._by_key.setdefault(value, {})[name] = None
            if (digest := _digest(found[1])) is not None:
                self._by_text.setdefault(digest, {})[name] = None
        if self._names is not None and level is not None:
            for parent in parents_by_id(given, level).values():
                self._names.setdefault(parent, parent)  # a retriever may return parents in place of their documents

    def resolve(self, found: Found) -> tuple[str | None, How]:
        """Return the id of a document, or its parent at a level, or None; and how it was found."""
        parent, value = _value(found.metadata, self._level), _value(found.metadata, self._key)
        if self._names is None:
            named, key = (value, self._key) if self._level is None else (parent, self._level)
            name = found.id if key is None else named
            return name, "unmatched" if name is None else "id" if key is None else "key"
        if parent is not None and self._names.get(parent) == parent:
            return parent, "key"
        if found.id in self._names:
            return self._names[found.id], "id"
        if value in self._names:
            return self._names[value], "key"
        by_key = self._by_key.get(value or "", {})
        if len(by_key) == 1:
            return next(iter(by_key)), "key"
        said = self._by_text.get(_digest(found.text or "") or b"", {})
        both = [name for name in said if name in by_key] if by_key else list(said)
        if len(both) == 1:
            return both[0], "text"
        return None, "ambiguous" if both or by_key else "unmatched"


def _value(metadata: Any, key: str | None) -> str | None:
    return text_of(metadata.get(key)) if key is not None and isinstance(metadata, Mapping) else None


def _pairs(documents: Documents | None) -> Iterable[Any]:
    return () if documents is None else documents.items() if isinstance(documents, Mapping) else documents


def _digest(text: str) -> bytes | None:
    plain = plain_text(text)
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest() if plain else None
