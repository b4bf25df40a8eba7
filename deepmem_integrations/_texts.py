"""The id, the text and the parent of a document, whatever its framework."""

import logging
from collections.abc import Iterable
from typing import Any

from deepmem_integrations.errors import StoreError

_logger = logging.getLogger(__name__)

REF_DOC_ID = "ref_doc_id"
"""The level of the sources of LlamaIndex's nodes, which nodes keep beside their metadata."""


def id_and_text(document: Any) -> tuple[str | None, str] | None:
    """Read the id and the text of a document of LangChain, LlamaIndex or Deep Lake, or of an (id, text) pair.

    Returns:
        The id, which is None where the document has none, and the text; None where the object is no document.

    Example:
        >>> from langchain_core.documents import Document
        >>> id_and_text(Document(id="page-1", page_content="How to install"))
        ('page-1', 'How to install')
    """
    match document:
        case (str() as given, str() as said):
            return given, said
    name: Any = getattr(document, "id", None)
    text: Any = getattr(document, "page_content", None)  # LangChain
    if text is None and hasattr(document, "get_content"):  # LlamaIndex; a node with a score forwards both
        text, name = document.get_content(), document.node_id
    if text is None:
        text = getattr(document, "text", None)
    return (name, text) if isinstance(text, str) else None


def parent_of(document: Any, level: str) -> str | None:
    """Return the parent of a document of any framework; None where it has none.

    Args:
        document: The document, or node.
        level: The metadata key that holds the parent.

    Example:
        >>> from langchain_core.documents import Document
        >>> parent_of(Document("Run git revert.", metadata={"doc_uri": "git.md"}), "doc_uri")
        'git.md'
    """
    value = (getattr(document, "metadata", None) or {}).get(level)
    if value is None and level == REF_DOC_ID:
        value = getattr(document, REF_DOC_ID, None)
    return None if value is None else str(value)


def parents_by_id(documents: Iterable[Any], level: str) -> dict[str, str]:
    """Return document id → parent, of all documents that have one.

    Args:
        documents: The documents.
        level: The metadata key that holds the parents.

    Raises:
        StoreError: None of the documents has the key.
    """
    parents: dict[str, str] = {}
    keys: set[str] = set()
    count = 0
    for document in documents:
        found = id_and_text(document)
        parent, count = parent_of(document, level), count + 1
        keys |= set(getattr(document, "metadata", None) or {}) if len(keys) < 20 else set()
        if found is not None and found[0] is not None and parent is not None:
            parents[str(found[0])] = parent
    if not parents:
        raise StoreError(
            f"Not one of the {count} documents has {level!r} in its metadata, which the labels name parents by (level); "
            f"there are the keys {', '.join(map(repr, sorted(keys))) or '(none)'}."
        )
    if len(parents) < count:
        _logger.warning(
            "%d of %d documents have no %r in their metadata: each stands for itself, by its own id.",
            count - len(parents),
            count,
            level,
        )
    return parents
