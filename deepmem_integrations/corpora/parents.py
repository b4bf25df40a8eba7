"""The parents of a corpus's documents, which labels may name by a metadata key."""

import logging
from typing import Any

from deepmem_integrations._texts import id_and_text
from deepmem_integrations.corpora.corpus import Corpus
from deepmem_integrations.errors import StoreError

_logger = logging.getLogger(__name__)

REF_DOC_ID = "ref_doc_id"
"""The level of the sources of LlamaIndex's nodes, which nodes keep beside their metadata."""


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


def parents_of(corpus: Corpus, level: str) -> dict[str, str]:
    """Return document id → parent, of all documents that have one.

    Args:
        corpus: The documents.
        level: The metadata key that holds the parents.

    Raises:
        StoreError: The documents cannot be listed, or none of them has the key.
    """
    if not corpus.listed:
        raise StoreError(
            f"Labels that name parents (level={level!r}) need the metadata of all documents, and this store is searched and "
            "never read (scan=False). Pass the documents, from_langchain(…, documents=[…])."
        )
    parents: dict[str, str] = {}
    keys: set[str] = set()
    count = 0
    for batch in corpus.documents():
        for document in batch:
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
