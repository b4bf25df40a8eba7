"""The id and the text of a document, whatever its framework."""

from typing import Any


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
