"""The ids and texts of documents, whatever their framework."""

from collections.abc import Iterator
from typing import Any

from deepmem_integrations.corpora.corpus import Corpus
from deepmem_integrations.errors import StoreError


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


def read_texts(corpus: Corpus) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (ids, texts) batches of all documents of a corpus.

    Raises:
        StoreError: The documents cannot be listed, the store cannot be read, or a document has no id or no text.
    """
    for batch in corpus.documents():
        ids, texts = [], []
        for document in batch:
            found = id_and_text(document)
            if found is None or found[0] is None:
                what = "text" if found is None else "id"
                raise StoreError(f"A {type(document).__name__} of the store has no {what}, so its words cannot be indexed.")
            ids.append(str(found[0]))
            texts.append(found[1])
        yield ids, texts
